//! `cargo xtask mount cycles`: mounts, uses and unmounts many times, and then looks for what stayed: processes, sockets,
//! mounts, files in the directories for temporary ones, and descriptors of the server.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::value_parser;

use super::client::Client;
use super::place::{Places, Servers};
use crate::bench::load::Tools;
use crate::bench::progress;
use crate::report::Counts;

/// Mounts before the first look: servers keep what the first clients made them start.
const FIRST: u32 = 3;
/// How long what ends by itself may take: servers notice closed connections in time of their own.
const SETTLE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);
/// One use of a mount that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// State of a TCP socket in /proc/net/tcp that the kernel keeps for a while after its end: include/net/tcp_states.h.
const TIME_WAIT: &str = "06";

/// How often, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    places: Places,
    /// Cycles with each client on each server
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..))]
    count: u32,
}

impl Options {
    /// What `cargo xtask test` runs.
    pub(super) fn suite() -> Self {
        Self { places: Places::ours(), count: 10 }
    }
}

/// Runs the cycles with each client on each server.
pub(super) fn run(options: &Options) -> anyhow::Result<Counts> {
    let tools = Tools::built()?;
    let clients = options.places.clients(&tools)?;
    let servers = Servers::start(&options.places.servers, &tools)?;
    let mut counts = Counts::default();
    for client in &clients {
        for (n, server) in servers.names().iter().enumerate() {
            progress(&format!("{} cycles with {} on {server}", options.count, client.name));
            let began = Instant::now();
            let stayed = cycles(&servers, n, client, options.count)?;
            counts += Counts::of(stayed.is_empty());
            let each = began.elapsed().as_secs_f64() * 1e3 / f64::from(options.count + FIRST);
            let verdict = if stayed.is_empty() { "nothing stayed" } else { "FAILED" };
            println!("{} on {server}: {} cycles, {each:.0} ms each: {verdict}", client.name, options.count);
            stayed.iter().for_each(|what| println!("  stayed: {what}"));
        }
    }
    Ok(counts)
}

/// Returns what is there after `count` cycles that was not there after the first few.
fn cycles(servers: &Servers, server: usize, client: &Client, count: u32) -> anyhow::Result<Vec<String>> {
    (0..FIRST).try_for_each(|n| cycle(servers, server, client, n))?;
    settle()?;
    let before = Look::take(servers)?;
    (FIRST..FIRST + count).try_for_each(|n| cycle(servers, server, client, n))?;
    let began = Instant::now();
    loop {
        let stayed = Look::take(servers)?.beyond(&before);
        if stayed.is_empty() || began.elapsed() > SETTLE {
            return Ok(stayed);
        }
        sleep(PAUSE);
    }
}

/// Waits until no connection is left of those first cycles, as long as that may take.
fn settle() -> anyhow::Result<()> {
    let began = Instant::now();
    while established()? > 0 && began.elapsed() < SETTLE {
        sleep(PAUSE);
    }
    Ok(())
}

fn cycle(servers: &Servers, server: usize, client: &Client, n: u32) -> anyhow::Result<()> {
    let mounted = servers.mount(server, client).with_context(|| format!("cycle {n}"))?;
    mounted.guarded(PATIENCE, || touch(&mounted.dir, n)).with_context(|| format!("cycle {n}"))?;
    mounted.unmount().with_context(|| format!("cycle {n}"))
}

fn touch(dir: &Path, n: u32) -> anyhow::Result<()> {
    let file = dir.join("touched");
    fs::write(&file, n.to_string())?;
    let told = fs::read_to_string(&file)?;
    ensure!(told == n.to_string(), "{} holds {told:?}, not {n}", file.display());
    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
}

/// What there is, one line each.
#[derive(Debug, Default)]
struct Look {
    /// What has a name.
    named: BTreeSet<String>,
    sockets: usize,
    descriptors: usize,
}

impl Look {
    /// Everything in this sandbox, and what names this project in directories that it shares.
    fn take(servers: &Servers) -> anyhow::Result<Self> {
        let mut named = BTreeSet::new();
        processes(&mut named)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        named.extend(mounts.lines().map(|line| format!("mount {}", line.split(' ').nth(4).unwrap_or(line))));
        for dir in ["/run", "/run/lock", "/tmp", "/var/tmp", "/dev/shm", "/var/lib", "/etc"] {
            entries(Path::new(dir), dir == "/run", &mut named);
        }
        entries(servers.work(), true, &mut named);
        Ok(Self { named, sockets: sockets()?, descriptors: servers.descriptors() })
    }

    fn beyond(&self, before: &Self) -> Vec<String> {
        let mut more: Vec<String> = self.named.difference(&before.named).cloned().collect();
        if self.sockets > before.sockets {
            more.push(format!("{} sockets, {} before", self.sockets, before.sockets));
        }
        if self.descriptors > before.descriptors {
            more.push(format!("{} descriptors of servers, {} before", self.descriptors, before.descriptors));
        }
        more
    }
}

/// Every process of this sandbox. What has ended and waits for its parent is not counted: where a client leaves the
/// process that started it, that parent is the sandbox's first process, which waits for its own children only.
fn processes(named: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir("/proc").context("cannot list /proc")?.flatten() {
        let pid = entry.file_name();
        let is_process = pid.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if is_process && !has_ended(&stat) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            named.insert(format!("process {} {}", pid.display(), name.trim()));
        }
    }
    Ok(())
}

/// The state after the command's name, which may hold blanks and brackets: proc_pid_stat(5).
fn has_ended(stat: &str) -> bool {
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Entries of a directory: all, or those that name this project; other programs of this host come and go there.
fn entries(dir: &Path, all: bool, named: &mut BTreeSet<String>) {
    let Ok(list) = fs::read_dir(dir) else { return };
    let names = list.flatten().map(|entry| entry.path().display().to_string());
    let wanted = |name: &String| all || name.contains("remoor") || name.contains("fuse");
    named.extend(names.filter(wanted).map(|name| format!("file {name}")));
}

/// Sockets of this sandbox, but for those that only the kernel still has.
fn sockets() -> anyhow::Result<usize> {
    let unix = fs::read_to_string("/proc/net/unix").context("cannot read /proc/net/unix")?;
    Ok(tcp()?.iter().filter(|state| *state != TIME_WAIT).count() + unix.lines().skip(1).count())
}

fn established() -> anyhow::Result<usize> {
    const ESTABLISHED: &str = "01";
    Ok(tcp()?.iter().filter(|state| *state == ESTABLISHED).count())
}

/// The states of all TCP sockets.
fn tcp() -> anyhow::Result<Vec<String>> {
    let mut states = Vec::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        states.extend(text.lines().skip(1).filter_map(state_of));
    }
    Ok(states)
}

/// The fourth column: proc_net_tcp in Documentation/networking of the kernel.
fn state_of(line: &str) -> Option<String> {
    line.split_whitespace().nth(3).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(named: &[&str], sockets: usize) -> Look {
        Look { named: named.iter().map(|name| (*name).into()).collect(), sockets, descriptors: 5 }
    }

    #[test]
    fn what_stayed_is_told_and_what_went_is_not() {
        let before = look(&["process 1 a", "process 2 b"], 3);
        assert_eq!(look(&["process 1 a"], 2).beyond(&before), Vec::<String>::new());
        let told = look(&["process 1 a", "mount /x"], 4).beyond(&before);
        assert_eq!(told, ["mount /x", "4 sockets, 3 before"]);
    }

    #[test]
    fn the_state_of_a_socket_is_read() {
        let line = "   0: 0100007F:4E51 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1";
        assert_eq!(state_of(line).as_deref(), Some("0A"));
    }

    #[test]
    fn what_has_ended_is_no_process() {
        assert!(has_ended("7 (a) S) Z 1 7") && has_ended(""));
        assert!(!has_ended("7 (a) Z) S 1 7"));
    }

    #[test]
    fn this_process_is_among_those_seen() {
        let mut named = BTreeSet::new();
        processes(&mut named).unwrap();
        let own = format!("process {} ", std::process::id());
        assert!(named.iter().any(|name| name.starts_with(&own)));
        assert!(tcp().is_ok() && sockets().is_ok());
    }
}
