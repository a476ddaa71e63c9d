//! `cargo xtask mount restart`: the server is killed with SIGKILL under writers on the mount, and started again. Every
//! change that was acknowledged is there, on disk and through the mount, open files stay good, and no call fails.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::value_parser;

use super::client::{self, Mounted};
use super::place::{Servers, Which};
use crate::bench::load::Tools;
use crate::guest::Programs;
use crate::guest::crew::{Crew, Moments, dialled_control};
use crate::guest::service::{Control, Place};
use crate::report::Counts;

/// Restarts in `cargo xtask test`.
const SUITE_ROUNDS: u32 = 4;
/// Threads that write.
const WRITERS: &str = "8";

/// How often, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    servers: Which,
    /// How often the server is killed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seed of the moments at which it is [default: from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Options {
    /// What `cargo xtask test` runs.
    pub(super) fn suite() -> Self {
        Self { servers: Which::ours(), rounds: SUITE_ROUNDS, seed: None }
    }
}

/// Kills each server so often under writers on a mount of it.
pub(super) fn run(options: &Options) -> anyhow::Result<Counts> {
    let tools = Tools::built()?;
    let clients = client::choose_or_ours(&tools, &[], &[])?;
    let client = clients.first().context("this project's client is not known")?;
    let mut servers = Servers::start(&options.servers, &tools)?;
    let mut counts = Counts::default();
    for n in 0..servers.names().len() {
        let mounted = servers.mount(n, client)?;
        counts += rounds(&mut servers, n, &mounted, options)?;
        mounted.unmount()?;
    }
    Ok(counts)
}

fn rounds(servers: &mut Servers, n: usize, mounted: &Mounted, options: &Options) -> anyhow::Result<Counts> {
    let (began, programs, server) = (Instant::now(), Programs::built(), servers.names()[n].clone());
    let writers = Writers::start(&programs, mounted)?;
    let mut crew = Crew::new(vec![Control::connect("the mount", dialled_control())?], "FAIL")?;
    let mut moments = Moments::new(options.seed);
    let mut counts = Counts::default();
    let native = servers.native().to_owned();
    for round in 1..=options.rounds {
        thread::sleep(moments.next());
        servers.restart(n)?;
        let places = [Place::Directory(&native), Place::Directory(&mounted.dir)];
        counts += crew.round(&format!("{server} killed, round {round}"), &programs, &places, false)?;
    }
    println!("restart of {server}, {} rounds: {}", options.rounds, crew.summary(began)?);
    writers.end()?;
    Ok(counts)
}

/// The writing process. It is one of its own because this one starts servers: what has a file of a mount open and forks
/// waits for that mount's server in the child's close.
struct Writers(Child);

impl Writers {
    fn start(programs: &Programs, mounted: &Mounted) -> anyhow::Result<Self> {
        let mut command = Command::new(&programs.guest);
        command.arg("write").arg("--dir").arg(&mounted.dir).args(["--writers", WRITERS, "--prefix", "w"]);
        command.args(["--control", &dialled_control().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn().context("cannot start writers")?))
    }

    /// Ends them while the mount answers, so that it can be unmounted.
    fn end(mut self) -> anyhow::Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "the writers ended early");
        self.0.kill().context("cannot end the writers")?;
        self.0.wait().context("cannot wait for the writers")?;
        Ok(())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        // Not waited for: on a mount that does not answer it ends when the mount does. It may have ended by itself.
        let _ = self.0.kill();
    }
}
