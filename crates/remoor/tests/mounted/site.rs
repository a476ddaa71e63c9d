//! A server and its mounts.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// No test waits longer than this; it is far above what any needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(10);
const REMOOR: &str = env!("CARGO_BIN_EXE_remoor");

static NEXT_PORT: AtomicU16 = AtomicU16::new(20490);

/// An exported directory and its server.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    native: PathBuf,
    pub(crate) port: u16,
    keeper: Keeper,
    server: Option<Pid>,
}

impl Site {
    /// Exports an empty directory that everyone may write to, with these options beside `rw,insecure`.
    pub(crate) fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let srv = dir.path().join("srv");
        fs::create_dir(&srv).unwrap();
        Self::of(dir, srv, options)
    }

    /// As [`Site::new`] without squashing, of a file system of `size` bytes.
    pub(crate) fn small(size: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let srv = dir.path().join("srv");
        fs::create_dir(&srv).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(&srv).status();
        assert!(mounted.unwrap().success());
        Self::of(dir, srv, "no_root_squash")
    }

    fn of(dir: TempDir, native: PathBuf, options: &str) -> Self {
        fs::set_permissions(&native, fs::Permissions::from_mode(0o1777)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let keeper = Keeper::new(&dir, &native, options, port);
        let mut site = Self { dir, native, port, keeper, server: None };
        site.start();
        site
    }

    /// As [`Site::new`] without squashing.
    pub(crate) fn plain() -> Self {
        Self::new("no_root_squash")
    }

    /// The exported directory itself.
    pub(crate) fn native(&self) -> PathBuf {
        self.native.clone()
    }

    /// Starts the server again.
    pub(crate) fn start(&mut self) {
        self.server = Some(self.keeper.start());
        eventually("the server listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            kill_process(server, Signal::KILL).unwrap();
            eventually("the server is gone", || TcpStream::connect(("127.0.0.1", self.port)).is_err());
        }
    }

    /// Stops the server: its kernel acknowledges, nobody answers.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Undoes [`Site::stop`].
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.server.expect("a server"), signal).unwrap();
    }

    /// The command that mounts the export at `dir`.
    pub(crate) fn mounting(&self, options: &str, dir: &Path) -> Command {
        let ports = format!("noresvport,port={0},mountport={0}", self.port);
        let options =
            [ports.as_str(), options].into_iter().filter(|o| !o.is_empty()).collect::<Vec<_>>().join(",");
        let mut command = Command::new(REMOOR);
        command.args(["mount", "-o", &options, &format!("127.0.0.1:{}", self.native().display())]).arg(dir);
        command
    }

    /// A mount of the export.
    pub(crate) fn mount(&self, options: &str) -> Mount {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let output = self.mounting(options, &dir).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "mount with {options:?}: {}", said(&output));
        Mount { dir }
    }
}

/// A shell that starts servers. A process of the test could not: it may have a file of a mount open, which closes in
/// the child before the server runs, and a close waits for the server.
struct Keeper {
    shell: Child,
    pids: BufReader<ChildStdout>,
}

impl Keeper {
    fn new(dir: &TempDir, native: &Path, options: &str, port: u16) -> Self {
        let export = format!("{}:rw,insecure,{options}", native.display());
        let log = fs::File::options().create(true).append(true).open(dir.path().join("server.log")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "while read line; do \"$0\" \"$@\" </dev/null & echo $!; done", REMOOR]);
        command.args([
            "serve",
            "--export",
            export.trim_end_matches(','),
            "--listen",
            &format!("127.0.0.1:{port}"),
        ]);
        command.args(["--control", "none", "--state"]).arg(dir.path().join("state"));
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let pids = BufReader::new(shell.stdout.take().unwrap());
        Self { shell, pids }
    }

    fn start(&mut self) -> Pid {
        writeln!(self.shell.stdin.as_mut().unwrap()).unwrap();
        let mut line = String::new();
        self.pids.read_line(&mut line).unwrap();
        Pid::from_raw(line.trim().parse().unwrap()).unwrap()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
        // Only what `small` mounted; the message that nothing is mounted there is not for people.
        let _ = Command::new("umount").arg("-l").arg(&self.native).stderr(Stdio::null()).status();
    }
}

/// A mounted directory. Dropping unmounts it, whatever its server does.
pub(crate) struct Mount {
    pub(crate) dir: PathBuf,
}

impl Mount {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `umount` with these arguments; tells whether it went well, and what it said.
    pub(crate) fn unmount(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("umount").args(arguments).arg(&self.dir).output().unwrap();
        (output.status.success(), said(&output))
    }

    /// Whether it is mounted, without touching it.
    pub(crate) fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().any(|line| line.split(' ').nth(4) == self.dir.to_str())
    }

    /// What `remoor status --json` tells of it.
    pub(crate) fn status(&self) -> serde_json::Value {
        let output = Command::new(REMOOR).args(["status", "--json"]).arg(&self.dir).output().unwrap();
        assert!(output.status.success(), "status: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The process that serves it.
    pub(crate) fn daemon(&self) -> Pid {
        Pid::from_raw(self.status()["pid"].as_i64().expect("a pid") as i32).unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = self.unmount(&["-l"]);
        }
    }
}

pub(crate) fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// Waits until `holds`.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(POLL);
    }
}

/// Names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
