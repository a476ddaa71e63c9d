//! A guest: a kernel that runs as a process.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::kernel::Unpacked;
use super::sandbox::Link;
use super::{cache, image};

/// How long a guest may take to boot.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// What the guest says when it has booted, with the seconds that took and its release.
const READY: &str = "guest: ready ";
/// What the guest says at its end.
const STATUS: &str = "guest: status ";
/// Where the C library is that a kernel's program may not run with.
const HOST_LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// What guests of one kernel have in common.
#[derive(Debug, Clone)]
pub(super) struct Model {
    kernel: Unpacked,
    image: PathBuf,
    shim: PathBuf,
}

impl Model {
    /// Prepares guests of a kernel in which `programs` will be run; their root is kept in `dir`.
    pub(super) fn new(kernel: Unpacked, programs: &[&Path], dir: &Path) -> anyhow::Result<Self> {
        let image = dir.join("root.cpio");
        image::build(&kernel, programs, &image)?;
        Ok(Self { kernel, image, shim: shim()? })
    }
}

/// Compiles what User-mode Linux needs on hosts with AMX.
fn shim() -> anyhow::Result<PathBuf> {
    let (source, object) = (cache().join("xstate.c"), cache().join("xstate.so"));
    if fs::read(&source).is_ok_and(|text| text == include_bytes!("xstate.c")) && object.exists() {
        return Ok(object);
    }
    fs::write(&source, include_bytes!("xstate.c"))?;
    let mut command = Command::new("cc");
    command.args(["-O2", "-shared", "-fPIC", "-o"]).args([&object, &source]);
    ensure!(command.status().context("cannot run cc")?.success(), "cannot compile {}", source.display());
    Ok(object)
}

/// What one guest is to do.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Its wire.
    pub(super) link: &'a Link,
    /// A directory that is `/host` in it; its log is left there.
    pub(super) share: &'a Path,
    /// A file that is its disk.
    pub(super) disk: Option<&'a Path>,
    /// A script of the shell.
    pub(super) job: &'a str,
    /// Whether its console is this terminal.
    pub(super) interactive: bool,
}

/// A running guest. It is killed when dropped.
#[derive(Debug)]
pub(super) struct Guest {
    child: Child,
    console: Receiver<String>,
    log: PathBuf,
    /// How long it took to boot, as the host saw it.
    pub(super) boot: Duration,
}

impl Guest {
    /// Starts a guest and waits until it has booted.
    pub(super) fn boot(model: &Model, plan: &Plan<'_>) -> anyhow::Result<Self> {
        fs::create_dir_all(plan.share)?;
        fs::write(plan.share.join("job.sh"), plan.job)?;
        let began = Instant::now();
        let mut command = command(model, plan).context("cannot open the terminal")?;
        // A group of its own: a kernel is several processes, and all of them lose power at once.
        command.process_group(0).stdout(Stdio::piped());
        command.stderr(File::create(plan.share.join("start.log"))?);
        let mut child = command.spawn().context("cannot start User-mode Linux")?;
        let log = plan.share.join("console.log");
        let console = listen(&mut child, &log, plan.interactive)?;
        let mut guest = Self { child, console, log, boot: Duration::ZERO };
        let ready = guest.line(READY, BOOT_LIMIT)?;
        guest.boot = began.elapsed();
        ensure!(ready.starts_with(READY), "the guest did not boot: see {}", guest.log.display());
        Ok(guest)
    }

    /// The next line that begins with `prefix`.
    pub(super) fn line(&mut self, prefix: &str, limit: Duration) -> anyhow::Result<String> {
        let until = Instant::now() + limit;
        loop {
            let line = self.next(until)?;
            if line.starts_with(prefix) {
                return Ok(line);
            }
            if line.starts_with(STATUS) {
                bail!("the guest ended with {line} before it said `{prefix}`: see {}", self.log.display());
            }
        }
    }

    fn next(&self, until: Instant) -> anyhow::Result<String> {
        let left = until.saturating_duration_since(Instant::now());
        self.console
            .recv_timeout(left)
            .with_context(|| format!("the guest says nothing more: see {}", self.log.display()))
    }

    /// Passes every line to `told` until the job has ended; returns the job's exit status.
    pub(super) fn finish(&mut self, limit: Duration, mut told: impl FnMut(&str)) -> anyhow::Result<i32> {
        let until = Instant::now() + limit;
        loop {
            let line = self.next(until)?;
            if let Some(status) = line.strip_prefix(STATUS) {
                return status.trim().parse().with_context(|| format!("`{line}` has no status"));
            }
            told(&line);
        }
    }

    /// Cuts the power: nothing is written any more, what the guest's memory held is lost.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process_group(id, Signal::KILL).context("cannot kill the guest")?;
        self.child.wait().context("cannot wait for the guest")?;
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // What is left ends with the sandbox.
            let _ = self.kill();
        }
    }
}

fn command(model: &Model, plan: &Plan<'_>) -> io::Result<Command> {
    let program = &model.kernel.program;
    let mut command = match &model.kernel.libraries {
        None => Command::new(program),
        Some(libraries) => {
            // All libraries change at once, and only for this process: the loader and the C library must match.
            let script = format!("mount --bind \"$0\" {HOST_LIBRARIES} && exec \"$@\"");
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &script]).arg(libraries).arg(program);
            command
        }
    };
    command.env("LD_PRELOAD", &model.shim).env("TMPDIR", "/dev/shm");
    command.args(arguments(model, plan));
    command.stdin(if plan.interactive { File::open("/dev/tty")?.into() } else { Stdio::null() });
    Ok(command)
}

/// The kernel's command line.
fn arguments(model: &Model, plan: &Plan<'_>) -> Vec<String> {
    let Link { tap, here, guest, mac } = plan.link;
    let input = if plan.interactive { "fd:0" } else { "null" };
    let share = plan.share.display();
    let mut arguments = vec![
        // With 256M, a copy of 1 GiB was seen to leave the network driver of 6.12 looping over a receive error.
        "mem=512M".into(),
        format!("initrd={}", model.image.display()),
        // The TAP device passes on segments larger than its MTU, which the driver takes with gro only.
        format!("vec0:transport=tap,ifname={tap},mac={mac},depth=128,gro=1"),
        format!("con0={input},fd:1"),
        "con=null".into(),
        "ssl=null".into(),
        format!("umid={tap}"),
        format!("uml_dir={share}/uml"),
        // The console shows nothing but emergencies between what the job says.
        "loglevel=1".into(),
        "panic=1".into(),
        format!("guest_address={guest}"),
        format!("guest_gateway={here}"),
        format!("guest_host={share}"),
        "guest_modules=nfsv3".into(),
    ];
    arguments.extend(plan.disk.map(|disk| format!("ubd0={}", disk.display())));
    arguments
}

/// Keeps a log of the console and passes its lines on.
fn listen(child: &mut Child, log: &Path, show: bool) -> anyhow::Result<Receiver<String>> {
    let output = child.stdout.take().context("no standard output")?;
    let mut log = File::options().create(true).append(true).open(log)?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            // A log that cannot be written is no reason to stop listening.
            let _ = log.write_all(&line);
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if show {
                println!("{text}");
            }
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    Ok(lines)
}
