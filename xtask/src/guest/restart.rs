//! The server is killed with SIGKILL at random moments under load and started again. A kernel client and our own client
//! write; every change that was acknowledged is there, handles stay good, and both go on.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use clap::Args;

use super::crew::{CONTROL_PORT, Crew, Moments, dialled_control};
use super::machine::{Guest, Model, Plan};
use super::sandbox::Link;
use super::service::{Control, Dialled, Place, Server, Serving};
use super::{Programs, Which, mounting_job};
use crate::report::Counts;

/// How often, and from which kernel.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    /// How often the server is killed.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Seed of the moments at which it is [default: from the clock].
    #[arg(long)]
    seed: Option<u64>,
}

impl Options {
    /// Sized for `cargo xtask test`.
    pub(super) fn suite() -> Self {
        Self { which: Which { kernel: "6.12".into() }, rounds: 5, seed: None }
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Counts> {
    let began = Instant::now();
    let mut scene = Scene::start(options)?;
    let mut moments = Moments::new(options.seed);
    let mut counts = Counts::default();
    for round in 1..=options.rounds {
        thread::sleep(moments.next());
        counts += scene.round(&format!("server killed, round {round}"))?;
    }
    println!("restart, {} rounds: {}", options.rounds, scene.crew.summary(began)?);
    Ok(counts)
}

struct Scene {
    programs: Programs,
    serving: Serving,
    server: Server,
    exported: PathBuf,
    crew: Crew,
    // Kept, because they are killed when dropped.
    _guest: Guest,
    _dialled: Dialled,
    _link: Link,
}

impl Scene {
    fn start(options: &Options) -> anyhow::Result<Self> {
        let programs = Programs::built();
        let dir = super::fresh("restart")?;
        let (exported, share) = (dir.join("exported"), dir.join("share"));
        fs::create_dir(&exported)?;
        fs::create_dir(&share)?;
        fs::copy(&programs.guest, share.join("remoor-guest"))?;
        let link = Link::make(0)?;
        let serving = Serving {
            program: programs.remoor.clone(),
            listen: (link.here, 2049).into(),
            exports: format!("{} *(rw,sync,insecure,no_root_squash)\n", exported.display()),
            dir: dir.join("server"),
        };
        let server = serving.start()?;
        let model = Model::new(options.which.kernel()?.provide()?, &[&programs.guest], &dir)?;
        let export = exported.to_string_lossy().into_owned();
        let job = mounting_job(link.here, &export, link.guest, "");
        let plan = Plan { link: &link, share: &share, disk: None, job: &job, interactive: false };
        let guest = Guest::boot(&model, &plan)?;
        let dialled = Dialled::start(&programs, serving.listen, &export, dialled_control())?;
        let controls = vec![
            Control::connect("kernel client", (link.guest, CONTROL_PORT).into())?,
            Control::connect("our client", dialled_control())?,
        ];
        let crew = Crew::new(controls, "FAIL")?;
        Ok(Self { programs, serving, server, exported, crew, _guest: guest, _dialled: dialled, _link: link })
    }

    fn round(&mut self, name: &str) -> anyhow::Result<Counts> {
        self.server.kill()?;
        self.server = self.serving.start()?;
        let export = self.exported.to_string_lossy();
        let places = [Place::Directory(&self.exported), Place::Export(self.serving.listen, &export)];
        self.crew.round(name, &self.programs, &places, false)
    }
}
