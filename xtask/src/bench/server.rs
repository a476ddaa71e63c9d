//! The servers: how each is started, what it promises about stable storage, what it costs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::idle;
use super::load::{self, ENTRIES, QUICK_ENTRIES, Tools};
use super::rows::Client;
use super::site::Site;
use super::{Arguments, bound_to_this};
use crate::packages::has_program;

/// Ports from here on, one for each server; the bench has a network namespace of its own.
const FIRST_PORT: u16 = 20_049;
/// The MOUNT port of a server that needs another for it, after its NFS port.
const TO_MOUNT_PORT: u16 = 1_000;
/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

/// How a server takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// What is judged.
    Subject,
    /// The same in another mode: shown, not compared with.
    Variant,
    /// What it is compared with.
    Peer,
    /// What no server can exceed.
    Ceiling,
}

/// A server that may take part.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// What is on stable storage when a reply comes.
    pub(crate) durability: &'static str,
    /// The path clients mount; `None` is the directory's own.
    export: Option<PathBuf>,
    /// Whether it can serve a second export, on the slow disk.
    pub(crate) slow: bool,
    /// Whether it serves MOUNT on a port of its own.
    mount_port: bool,
    launch: Launch,
}

#[derive(Debug, Clone)]
enum Launch {
    /// A program with its arguments, which may hold what [`Place::fill`] fills in.
    Program(PathBuf, Vec<&'static str>),
    /// For sh, with the same placeholders.
    Shell(String),
    Ganesha,
}

const REMOOR: &[&str] = &[
    "serve",
    "--listen",
    "127.0.0.1:{port}",
    "--state",
    "{work}",
    "--export",
    "{dir}:rw,insecure,no_root_squash,sync,fsid=1",
    "--export",
    "{slow}:rw,insecure,no_root_squash,sync,fsid=2",
];
const REMOOR_ASYNC: &[&str] = &[
    "serve",
    "--listen",
    "127.0.0.1:{port}",
    "--state",
    "{work}",
    "--export",
    "{dir}:rw,insecure,no_root_squash,async,fsid=1",
    "--export",
    "{slow}:rw,insecure,no_root_squash,async,fsid=2",
];
const NFS3_SERVER: &[&str] = &[
    "--path",
    "{dir}",
    "--export-name",
    "{dir}",
    "--bind-ip",
    "127.0.0.1",
    "--bind-port",
    "{port}",
    "--log-level",
    "error",
];
const CEILING: &[&str] = &["{port}", "{dir}/ceiling"];

/// Every server known here, the subject first. `volatile`: the directory is in memory, where `sync` and `async` are one.
pub(crate) fn known(tools: &Tools, volatile: bool) -> Vec<Peer> {
    let program = |path, arguments: &[&'static str]| Launch::Program(path, arguments.to_vec());
    let peer = |name: &str, role, slow, durability, launch| Peer {
        name: name.into(),
        role,
        durability,
        export: None,
        slow,
        mount_port: matches!(launch, Launch::Ganesha),
        launch,
    };
    let sync = "FILE_SYNC writes, COMMIT and metadata are stable before the reply";
    let early = "nothing: `async`";
    let ganesha = "FILE_SYNC writes and COMMIT are; metadata is left to the file system";
    let claims = "nothing: calls every write FILE_SYNC and syncs none";
    let mut all = vec![
        peer("remoor", Role::Subject, true, sync, program(tools.remoor(), REMOOR)),
        peer("remoor-async", Role::Variant, true, early, program(tools.remoor(), REMOOR_ASYNC)),
        peer("ganesha", Role::Peer, true, ganesha, Launch::Ganesha),
        peer("nfs3_server", Role::Peer, false, claims, program(tools.nfs3_server(), NFS3_SERVER)),
        peer("ceiling", Role::Ceiling, false, "nothing", program(tools.ceiling(), CEILING)),
    ];
    all.retain(|peer| peer.role != Role::Variant || !volatile);
    all
}

/// Reads NAME=COMMAND or NAME:PATH=COMMAND.
pub(crate) fn parse_peer(text: &str) -> Result<Peer, String> {
    let wrong =
        || format!("{text:?} is not NAME=COMMAND, such as 'unfs3=exec unfsd -d -s -n {{port}} -m {{port}}'");
    let (name, command) = text.split_once('=').ok_or_else(wrong)?;
    let (name, export) = name.split_once(':').map_or((name, None), |(name, path)| (name, Some(path.into())));
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_name) || !command.contains("{port}") {
        return Err(wrong());
    }
    Ok(Peer {
        name: name.into(),
        role: Role::Peer,
        durability: "as its command says",
        export,
        slow: command.contains("{slow}"),
        mount_port: command.contains("{mountport}"),
        launch: Launch::Shell(command.into()),
    })
}

/// A server at work. Dropping it ends it.
pub(crate) struct Running {
    pub(crate) peer: Peer,
    pub(crate) port: u16,
    pub(crate) export: PathBuf,
    child: Child,
}

impl Running {
    /// Starts the `n`th server, and returns once it has answered a load generator.
    pub(crate) fn start(
        peer: Peer,
        n: usize,
        site: &Site,
        tools: &Tools,
        arguments: &Arguments,
    ) -> anyhow::Result<Self> {
        let place = Place::make(&peer.name, n, site)?;
        let entries = if arguments.quick { QUICK_ENTRIES } else { ENTRIES };
        load::make_entries(&place.dir.join(&peer.name).join("entries"), entries)?;
        open_to_all(&place.dir.join(&peer.name))?;
        let mut running = Self::spawn(peer, &place)?;
        let loaded = |this: &Self| tools.run(Client::Libnfs, this, arguments, &["--secs", "0.01"], "null:1");
        running.wait_until(|this| loaded(this).map(drop)).with_context(|| place.last_words())?;
        Ok(running)
    }

    /// Starts the `n`th server without files for loads, and returns once both its ports answer.
    pub(crate) fn serve(peer: Peer, n: usize, site: &Site) -> anyhow::Result<Self> {
        let place = Place::make(&peer.name, n, site)?;
        let mut running = Self::spawn(peer, &place)?;
        let answers = |this: &Self| [this.port, this.mount_port()].into_iter().try_for_each(idle::answers);
        running.wait_until(answers).with_context(|| place.last_words())?;
        Ok(running)
    }

    fn spawn(peer: Peer, place: &Place) -> anyhow::Result<Self> {
        let child = place.spawn(&peer.launch)?;
        let export = peer.export.clone().unwrap_or_else(|| place.dir.clone());
        Ok(Self { peer, port: place.port, export, child })
    }

    fn wait_until(&mut self, serves: impl Fn(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let Err(why) = serves(self) else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            ensure!(began.elapsed() < START, "it did not serve within {START:?}: {why:#}");
            sleep(PAUSE);
        }
    }

    /// SIGKILL, as a crash ends it.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("cannot kill the server")?;
        self.child.wait().context("cannot wait for the server")?;
        Ok(())
    }

    /// Where it serves MOUNT.
    pub(crate) fn mount_port(&self) -> u16 {
        if self.peer.mount_port { self.port + TO_MOUNT_PORT } else { self.port }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory now, in KiB.
    pub(crate) fn rss_kib(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        rss_in(&text).with_context(|| format!("{path} tells no VmRSS"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a process that this one started: asks, waits, and insists.
pub(crate) fn end(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended already.
        let _ = kill_process(pid, Signal::TERM);
    }
    let began = Instant::now();
    while began.elapsed() < END {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        sleep(PAUSE);
    }
    let _ = child.kill().and_then(|()| child.wait());
}

pub(crate) fn rss_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Any uid of the load may use it.
fn open_to_all(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::Permissions::from_mode(0o777);
    fs::set_permissions(dir, mode).with_context(|| format!("cannot open {} to all", dir.display()))
}

/// What a command line is filled in with.
struct Place {
    dir: PathBuf,
    slow: PathBuf,
    work: PathBuf,
    port: u16,
}

impl Place {
    fn make(name: &str, n: usize, site: &Site) -> anyhow::Result<Self> {
        let work = site.work.join(name);
        fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        let port = FIRST_PORT + u16::try_from(n)?;
        Ok(Self { dir: site.dir.clone(), slow: site.slow.clone(), work, port })
    }

    fn fill(&self, text: &str) -> String {
        let path = |path: &Path| path.display().to_string();
        let text = text.replace("{dir}", &path(&self.dir)).replace("{slow}", &path(&self.slow));
        let text = text.replace("{work}", &path(&self.work)).replace("{port}", &self.port.to_string());
        text.replace("{mountport}", &(self.port + TO_MOUNT_PORT).to_string())
    }

    fn log(&self) -> PathBuf {
        self.work.join("log")
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let from = log.lines().count().saturating_sub(3);
        log.lines().skip(from).collect::<Vec<_>>().join("\n")
    }

    fn spawn(&self, launch: &Launch) -> anyhow::Result<Child> {
        let mut command = self.command(launch)?;
        let log = File::options().create(true).append(true).open(self.log()).context("cannot make a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().context("cannot run setpriv of util-linux")
    }

    fn command(&self, launch: &Launch) -> anyhow::Result<Command> {
        match launch {
            Launch::Program(path, arguments) => {
                ensure!(path.exists(), "{} is not there", path.display());
                let mut command = bound_to_this(path);
                command.args(arguments.iter().map(|argument| self.fill(argument)));
                Ok(command)
            }
            Launch::Shell(text) => {
                let mut command = bound_to_this("sh");
                command.args(["-c", &self.fill(text)]);
                Ok(command)
            }
            Launch::Ganesha => self.ganesha(),
        }
    }

    fn ganesha(&self) -> anyhow::Result<Command> {
        ensure!(has_program("ganesha.nfsd"), "install Debian's nfs-ganesha and nfs-ganesha-vfs");
        let config = self.work.join("ganesha.conf");
        fs::write(&config, self.fill(GANESHA)).context("cannot write ganesha's configuration")?;
        let mut command = bound_to_this("ganesha.nfsd");
        command.args(["-F", "-N", "NIV_EVENT", "-f"]).arg(config);
        command.arg("-L").arg(self.log()).arg("-p").arg(self.work.join("pid"));
        Ok(command)
    }
}

/// As Debian ships it but for NFSv3 alone, one port, and room for the idle connections.
const GANESHA: &str = "\
NFS_CORE_PARAM {
  NFS_Port = {port}; MNT_Port = {mountport}; Protocols = 3;
  Enable_NLM = false; Enable_RQUOTA = false; RPC_Max_Connections = 10000;
}
EXPORT {
  Export_Id = 1; Filesystem_Id = 1.1; Path = {dir}; Pseudo = {dir}; Protocols = 3; Transports = TCP;
  Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL { Name = VFS; }
}
EXPORT {
  Export_Id = 2; Filesystem_Id = 2.2; Path = {slow}; Pseudo = {slow}; Protocols = 3; Transports = TCP;
  Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL { Name = VFS; }
}
LOG { Default_Log_Level = EVENT; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_and_a_command_with_a_port() {
        let peer = parse_peer("unfs3=exec unfsd -n {port} -e {work}/exports").unwrap();
        assert_eq!((peer.name.as_str(), peer.slow, peer.export), ("unfs3", false, None));
        let peer = parse_peer("x:/=exec x {port} {dir} {slow} --a=b").unwrap();
        assert_eq!((peer.name.as_str(), peer.slow, peer.export), ("x", true, Some("/".into())));
        for wrong in ["unfs3", "=exec x {port}", "a b=x {port}", "x=exec x"] {
            assert!(parse_peer(wrong).unwrap_err().contains("is not NAME=COMMAND"), "{wrong}");
        }
    }

    #[test]
    fn a_command_line_is_filled_in() {
        let place = Place { dir: "/d".into(), slow: "/s".into(), work: "/w".into(), port: 7 };
        assert_eq!(place.fill("{dir}:rw {slow} {work}/x {port} {mountport}"), "/d:rw /s /w/x 7 1007");
        assert!(!place.fill(GANESHA).contains("{port}"));
    }

    #[test]
    fn resident_memory_is_read() {
        assert_eq!(rss_in("Name:\tx\nVmPeak:\t 9 kB\nVmRSS:\t   10240 kB\n"), Some(10240));
        assert_eq!(rss_in("Name:\tx\n"), None);
    }
}
