//! Kernel clients mount with resvport and with noresvport, on secure and insecure exports, and do what applications do.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;

use super::kernel::{KERNELS, Kernel};
use super::machine::{Guest, Model, Plan};
use super::sandbox::Link;
use super::service::{Server, Serving};
use super::{MORE_OPTIONS, Programs};
use crate::report::Counts;

/// How long a guest may take for everything.
const LIMIT: Duration = Duration::from_secs(1800);
/// The form of an entry of fstab(5) that users have; the server answers as a portmapper, so that no port is in it.
const FSTAB: &str = "defaults,vers=3,RANGE,_netdev";

/// What to exercise.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The client's kernel; all of them by default.
    #[arg(long, value_parser = KERNELS.map(|kernel| kernel.release))]
    kernel: Option<String>,
    /// Only mounts with this option.
    #[arg(long, value_parser = ["resvport", "noresvport"])]
    options: Option<String>,
    /// What follows `defaults,vers=3,noresvport,_netdev` in fstab(5).
    #[arg(long, default_value = MORE_OPTIONS)]
    more_options: String,
    /// Run this script of the shell in the mounted directory instead of the exercise.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Size of the file that is copied.
    #[arg(long, default_value_t = 1024)]
    copy_mib: u64,
    /// Entries of the large directory.
    #[arg(long, default_value_t = 20_000)]
    entries: usize,
}

impl Options {
    /// Sized for `cargo xtask test`.
    fn suite() -> Self {
        Self {
            kernel: None,
            options: None,
            more_options: MORE_OPTIONS.into(),
            script: None,
            copy_mib: 128,
            entries: 5_000,
        }
    }
}

/// A mount: the range of its source port, the export, and whether that is refused.
#[derive(Debug, Clone, Copy)]
struct Case {
    range: &'static str,
    export: &'static str,
    refused: bool,
    /// Whether the large file and the large directory are large, which takes longest and differs least.
    full: bool,
}

const CASES: [Case; 4] = [
    Case { range: "noresvport", export: "secure", refused: true, full: false },
    Case { range: "resvport", export: "insecure", refused: false, full: false },
    Case { range: "resvport", export: "secure", refused: false, full: false },
    Case { range: "noresvport", export: "insecure", refused: false, full: true },
];

impl Case {
    fn name(&self) -> String {
        format!("{}@{}", self.range, self.export)
    }
}

pub(super) fn suite() -> anyhow::Result<Counts> {
    run(&Options::suite())
}

/// Every kernel at the same time; what they tell is printed kernel by kernel.
pub(super) fn run(options: &Options) -> anyhow::Result<Counts> {
    let chosen =
        KERNELS.iter().filter(|kernel| options.kernel.as_ref().is_none_or(|name| name == kernel.release));
    let sites: Vec<_> =
        chosen.zip(0..).map(|(kernel, n)| Site::prepare(kernel, n, options)).collect::<Result<_, _>>()?;
    let live = sites.len() == 1;
    let results: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = sites.iter().map(|site| scope.spawn(move || site.run(live))).collect();
        started.into_iter().map(|thread| thread.join()).collect()
    });
    let mut counts = Counts::default();
    for (site, result) in sites.iter().zip(results) {
        let told = result.ok().context("a scenario panicked")?;
        let Told { lines, counts: of_site } =
            told.with_context(|| format!("kernel {}", site.kernel.release))?;
        if !live {
            lines.iter().for_each(|line| println!("{line}"));
        }
        counts += of_site;
    }
    Ok(counts)
}

/// A guest and the server it mounts.
struct Site<'a> {
    kernel: &'static Kernel,
    options: &'a Options,
    dir: PathBuf,
    link: Link,
    model: Model,
    programs: Programs,
}

/// What a guest told, and how many checks that were.
#[derive(Default)]
struct Told {
    lines: Vec<String>,
    counts: Counts,
}

impl<'a> Site<'a> {
    fn prepare(kernel: &'static Kernel, n: u8, options: &'a Options) -> anyhow::Result<Self> {
        let programs = Programs::built();
        let dir = super::fresh(&format!("exercise-{}", kernel.release))?;
        let model = Model::new(kernel.provide()?, &[&programs.guest], &dir)?;
        Ok(Self { kernel, options, dir, link: Link::make(n)?, model, programs })
    }

    fn cases(&self) -> impl Iterator<Item = &'static Case> {
        let only = self.options.options.clone();
        CASES.iter().filter(move |case| only.as_ref().is_none_or(|range| range == case.range))
    }

    fn serving(&self) -> anyhow::Result<Serving> {
        let mut exports = String::new();
        for name in ["secure", "insecure"] {
            fs::create_dir(self.dir.join(name))?;
            exports.push_str(&self.export_line(name));
        }
        let listen = (self.link.here, 2049).into();
        let program = self.programs.remoor.clone();
        Ok(Serving { program, listen, exports, dir: self.dir.join("server") })
    }

    /// As an administrator would write it; root in the guest is to be root there, for its chown and mknod.
    fn export_line(&self, name: &str) -> String {
        format!("{} *(rw,sync,no_subtree_check,no_root_squash,{name})\n", self.dir.join(name).display())
    }

    fn run(&self, live: bool) -> anyhow::Result<Told> {
        let server = self.serving()?.start()?;
        let share = self.dir.join("share");
        fs::create_dir_all(&share)?;
        fs::copy(&self.programs.guest, share.join("remoor-guest"))?;
        if let Some(script) = &self.options.script {
            fs::copy(script, share.join("script.sh"))
                .with_context(|| format!("cannot read {}", script.display()))?;
        }
        let began = Instant::now();
        let job = self.job();
        let plan = Plan { link: &self.link, share: &share, disk: None, job: &job, interactive: false };
        let mut guest = Guest::boot(&self.model, &plan)?;
        let mut told = Told::default();
        let mut case = String::new();
        let status = guest.finish(LIMIT, |line| match line.strip_prefix("case ") {
            Some(name) => case = format!("{} {name}", self.kernel.release),
            None => told.line(&case, line, live),
        })?;
        self.judge_refusal(&server, &mut told, live)?;
        let what = format!(
            "booted in {:.1} s, all in {:.1} s",
            guest.boot.as_secs_f64(),
            began.elapsed().as_secs_f64()
        );
        told.line(self.kernel.release, &format!("guest {what}"), live);
        ensure!(status == 0, "the guest's job ended with status {status}: see {}", share.display());
        Ok(told)
    }

    /// The server tells an administrator why it refused.
    fn judge_refusal(&self, server: &Server, told: &mut Told, live: bool) -> anyhow::Result<()> {
        if self.cases().all(|case| !case.refused) {
            return Ok(());
        }
        let log = server.logged()?;
        let client = self.link.guest.to_string();
        let reason = log.lines().find(|line| line.contains("the export is secure") && line.contains(&client));
        let line = match reason {
            Some(_) => "ok the server logs why it refused".to_owned(),
            None => format!(
                "FAIL the server's log does not say why it refused {client}: see {}",
                server.log.display()
            ),
        };
        told.line(&format!("{} noresvport@secure", self.kernel.release), &line, live);
        Ok(())
    }

    fn job(&self) -> String {
        let mut job = String::new();
        for case in self.cases() {
            let target = format!("/mnt/{}", case.name());
            let what = match (case.refused, &self.options.script) {
                (true, _) => REFUSED.to_owned(),
                (false, Some(_)) => SCRIPT.to_owned(),
                (false, None) => exercise(self.options, case.full),
            };
            let source = format!("{}:{}", self.link.here, self.dir.join(case.export).display());
            let entry = format!("{source} {target} nfs {} 0 0", self.fstab(case.range));
            job.push_str(&format!(
                "echo case {}\nmkdir -p {target}\necho '{entry}' >/etc/fstab\n",
                case.name()
            ));
            job.push_str(&format!("target={target}\n{MOUNT}{what}"));
        }
        job
    }

    fn fstab(&self, range: &str) -> String {
        let options = FSTAB.replace("RANGE", range);
        [&options, &self.options.more_options]
            .into_iter()
            .filter(|part| !part.is_empty())
            .fold(String::new(), join)
    }
}

fn join(all: String, part: &String) -> String {
    if all.is_empty() { part.clone() } else { format!("{all},{part}") }
}

const MOUNT: &str = "said=$(/bin/mount $target 2>&1); status=$?\n";

const REFUSED: &str = "\
case $status:$said in
    0:*) echo FAIL it was mounted ; /bin/umount $target ;;
    *'access denied'*) echo ok mount refused: $said ;;
    *) echo FAIL refused otherwise: $said ;;
esac
";

const SCRIPT: &str = "\
if [ $status = 0 ]; then
    (cd $target && sh /host/script.sh) && echo ok script || echo FAIL script
    /bin/umount $target || echo FAIL umount
else
    echo FAIL mount: $said
fi
";

fn exercise(options: &Options, full: bool) -> String {
    let (entries, copy_mib) = if full { (options.entries, options.copy_mib) } else { (200, 1) };
    let run = format!("/host/remoor-guest exercise $target --entries {entries} --copy-mib {copy_mib}");
    format!(
        "if [ $status = 0 ]; then\n    echo ok mount\n    {run}\n    /bin/umount $target || echo FAIL umount\n\
         else\n    echo FAIL mount: $said\nfi\n"
    )
}

impl Told {
    /// Counts a line and keeps it.
    fn line(&mut self, case: &str, line: &str, live: bool) {
        match line.split(' ').next() {
            Some("ok") => self.counts += Counts::PASSED,
            Some("FAIL") => self.counts += Counts::FAILED,
            Some("skip") => self.counts += Counts::SKIPPED,
            _ => {}
        }
        let line = format!("[{case}] {line}");
        if live {
            println!("{line}");
        }
        self.lines.push(line);
    }
}

/// Boots a guest with an export mounted on `/mnt` and gives its console to this terminal.
pub(super) fn shell(kernel: &'static Kernel) -> anyhow::Result<Counts> {
    let options = Options { kernel: Some(kernel.release.into()), ..Options::suite() };
    let site = Site::prepare(kernel, 0, &options)?;
    let _server = site.serving()?.start()?;
    let share = site.dir.join("share");
    let source = format!("{}:{}", site.link.here, site.dir.join("insecure").display());
    let options = site.fstab("noresvport");
    let job =
        format!("/bin/mount -t nfs -o {options} {source} /mnt\ncd /mnt\necho 'exit ends the guest'\nsh -i\n");
    let plan = Plan { link: &site.link, share: Path::new(&share), disk: None, job: &job, interactive: true };
    let mut guest = Guest::boot(&site.model, &plan)?;
    guest.finish(Duration::from_secs(86_400), |_| ())?;
    Ok(Counts::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_range_and_export_is_a_case_and_one_is_refused() {
        let mut names: Vec<_> = CASES.iter().map(Case::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 4);
        let refused: Vec<_> = CASES.iter().filter(|case| case.refused).map(Case::name).collect();
        assert_eq!(refused, ["noresvport@secure"]);
    }

    #[test]
    fn lines_of_checks_are_counted_and_others_are_not() {
        let mut told = Told::default();
        for line in ["ok a (0.1 s)", "FAIL b (0.1 s): no", "skip c: because d", "exercise: 3 passed", "okay"]
        {
            told.line("6.1 x", line, false);
        }
        assert_eq!(told.counts, Counts { passed: 1, failed: 1, skipped: 1 });
        assert_eq!(told.lines[0], "[6.1 x] ok a (0.1 s)");
    }
}
