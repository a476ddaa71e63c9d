//! The clients: how each mounts, which processes are its own, what they cost, and how it ends.
//!
//! A client's processes are known by a variable of their environment, because some of them leave the process that
//! started them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::load::Tools;
use crate::bench::server::{Role, rss_in};
use crate::bench::{bound_to_this, system};
use crate::packages::has_program;

/// Marks the processes of one mount; its value is the mounted directory and a number.
const MARK: &str = "REMOOR_MOUNTED";
/// This project's client.
const SUBJECT: &str = "remoor";
/// Descriptors that the passthrough may open: more than there are files in any row. Without CAP_SYS_RESOURCE it has to
/// do with less.
const PASSTHROUGH_FILES: u32 = 500_000;
/// How long a mount may take until it is there.
const START: Duration = Duration::from_secs(20);
/// How long its processes may stay after it is gone.
const END: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// A way to mount, which sh runs; in the foreground or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) role: Role,
    command: String,
}

/// Every client known here, the subject first.
pub(crate) fn known(tools: &Tools) -> Vec<Client> {
    let client = |name: &str, role, command: String| Client { name: name.into(), role, command };
    let (remoor, fuse_nfs) = (tools.remoor(), tools.fuse_nfs());
    let passthrough = tools.passthrough();
    vec![
        client(
            SUBJECT,
            Role::Subject,
            format!(
                "exec {} mount -o port={{port}},mountport={{mountport}},allow_other,default_permissions \
                 {{server}}:{{export}} {{dir}}",
                remoor.display()
            ),
        ),
        client(
            "fuse-nfs",
            Role::Peer,
            format!(
                "exec {} -a -n 'nfs://{{server}}{{export}}?nfsport={{port}}&mountport={{mountport}}' -m {{dir}}",
                fuse_nfs.display()
            ),
        ),
        client(
            "passthrough",
            Role::Ceiling,
            // It holds a descriptor of every file that the kernel knows.
            format!(
                "ulimit -n {PASSTHROUGH_FILES} 2>/dev/null || ulimit -n $(ulimit -H -n); exec {} -f -o source={{source}},cache=always,allow_other,default_permissions {{dir}}",
                passthrough.display()
            ),
        ),
    ]
}

/// Reads NAME=COMMAND.
pub(crate) fn parse(text: &str) -> Result<Client, String> {
    let wrong = || {
        format!(
            "{text:?} is not NAME=MOUNT-COMMAND with {{dir}}, such as 'x=exec x {{server}}:{{export}} {{dir}}'"
        )
    };
    let (name, command) = text.split_once('=').ok_or_else(wrong)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_name) || !command.contains("{dir}") {
        return Err(wrong());
    }
    Ok(Client { name: name.into(), role: Role::Peer, command: command.into() })
}

/// What a client mounts.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) export: PathBuf,
    pub(crate) port: u16,
    pub(crate) mount_port: u16,
    /// The exported directory itself.
    pub(crate) source: PathBuf,
}

impl Target {
    fn fill(&self, command: &str, dir: &Path) -> String {
        let path = |path: &Path| path.display().to_string();
        let text = command.replace("{server}", "127.0.0.1").replace("{export}", &path(&self.export));
        let text = text.replace("{port}", &self.port.to_string()).replace("{dir}", &path(dir));
        text.replace("{mountport}", &self.mount_port.to_string()).replace("{source}", &path(&self.source))
    }
}

/// What the processes of a mount hold, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Vitals {
    pub(crate) rss_kib: u64,
    pub(crate) fds: u64,
    pub(crate) threads: u64,
}

/// A mounted directory. Dropping it unmounts and ends its processes, whatever they do.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) dir: PathBuf,
    mark: String,
    log: PathBuf,
    child: Child,
}

impl Mounted {
    /// Mounts at `dir`, which is made, and waits until it is there. `number` is unlike that of any other mount of this
    /// process.
    pub(crate) fn mount(client: &Client, target: &Target, dir: &Path, number: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let log = dir.with_extension("log");
        let output = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mark = format!("{}#{number}", dir.display());
        let mut command = bound_to_this("sh");
        command.args(["-c", &target.fill(&client.command, dir)]).env(MARK, &mark);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("cannot run setpriv of util-linux")?;
        let mut mounted = Self { dir: dir.into(), mark, log, child };
        mounted.wait().with_context(|| format!("{} said: {}", client.name, mounted.last_words()))?;
        Ok(mounted)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !is_mounted(&self.dir)? {
            let ended = self.child.try_wait()?.is_some_and(|status| !status.success());
            ensure!(!ended, "its mount command failed");
            ensure!(began.elapsed() < START, "it did not mount within {START:?}");
            sleep(PAUSE);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().rev().take(2).collect::<Vec<_>>().join(" / ")
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        marked(&self.mark)
    }

    /// CPU time of its processes.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.pids().into_iter().filter_map(|pid| ticks(&read(pid, "stat")?)).sum::<u64>() as f64
            / rustix::param::clock_ticks_per_second() as f64
    }

    /// What its processes hold now.
    pub(crate) fn vitals(&self) -> anyhow::Result<Vitals> {
        let all: Vec<Vitals> = self.pids().into_iter().filter_map(vitals_of).collect();
        ensure!(!all.is_empty(), "no process of {} is left: {}", self.dir.display(), self.last_words());
        Ok(all.into_iter().fold(Vitals::default(), |sum, one| Vitals {
            rss_kib: sum.rss_kib + one.rss_kib,
            fds: sum.fds + one.fds,
            threads: sum.threads + one.threads,
        }))
    }

    /// Does something on the mount, whose processes are killed if it takes longer than that; then every call on it fails.
    pub(crate) fn guarded<T>(
        &self,
        patience: Duration,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (done, is_done) = mpsc::channel::<()>();
        let mark = self.mark.clone();
        let guard = thread::spawn(move || {
            let late = is_done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
            late.then(|| kill(&mark, Signal::KILL)).is_some()
        });
        let result = work();
        drop(done);
        if guard.join().unwrap_or_default() {
            bail!("it was not done within {patience:?}, so its client was killed");
        }
        result
    }

    /// Unmounts with umount(8), and waits until no process of it is left.
    pub(crate) fn unmount(mut self) -> anyhow::Result<()> {
        system("umount", &[&self.dir.to_string_lossy()])?;
        let began = Instant::now();
        loop {
            self.child.try_wait()?;
            let left = self.pids();
            if left.is_empty() && self.child.try_wait()?.is_some() {
                return Ok(());
            }
            ensure!(began.elapsed() < END, "after umount, processes {left:?} stayed for {END:?}");
            sleep(PAUSE);
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Each of these fails where an earlier one, or unmount, was enough.
        if is_mounted(&self.dir).unwrap_or(true) {
            let _ = Command::new("umount").arg("-l").arg(&self.dir).stderr(Stdio::null()).status();
        }
        kill(&self.mark, Signal::KILL);
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn kill(mark: &str, signal: Signal) {
    for pid in marked(mark).into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Processes with this mark, of all that this process sees: in a sandbox, few.
fn marked(mark: &str) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| has_mark(*pid, mark)).collect()
}

/// Zombies have no environment, so they have none.
fn has_mark(pid: u32, mark: &str) -> bool {
    let entry = format!("{MARK}={mark}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())
}

/// Whether a file system is mounted at this very directory: proc_pid_mountinfo(5).
pub(crate) fn is_mounted(dir: &Path) -> anyhow::Result<bool> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(has_mount(&text, dir))
}

fn has_mount(mountinfo: &str, dir: &Path) -> bool {
    mountinfo.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == dir))
}

fn read(pid: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

/// utime and stime: proc_pid_stat(5). The command's name may hold blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn vitals_of(pid: u32) -> Option<Vitals> {
    let status = read(pid, "status")?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()?;
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Vitals { rss_kib: rss_in(&status)?, fds, threads })
}

/// The clients of these names, or all; with `more`, which are always taken.
pub(crate) fn choose(tools: &Tools, names: &[String], more: &[Client]) -> anyhow::Result<Vec<Client>> {
    let mut all = known(tools);
    all.extend(more.iter().cloned());
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|client| client.name == **name)) {
        let known: Vec<&str> = all.iter().map(|client| client.name.as_str()).collect();
        bail!("there is no client {unknown}: choose from {}", known.join(", "));
    }
    all.retain(|client| names.is_empty() || names.contains(&client.name) || more.contains(client));
    Ok(all)
}

/// The clients of these names, or this project's; with `more`.
pub(crate) fn choose_or_ours(
    tools: &Tools,
    names: &[String],
    more: &[Client],
) -> anyhow::Result<Vec<Client>> {
    let ours = [SUBJECT.to_owned()];
    choose(tools, if names.is_empty() { &ours } else { names }, more)
}

/// What makes all clients possible here.
pub(crate) fn provide() -> anyhow::Result<()> {
    ensure!(Path::new("/dev/fuse").exists(), "/dev/fuse is missing (modprobe fuse): nothing can be mounted");
    ensure!(has_program("umount"), "umount is missing (apt-get install mount)");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_peer_is_a_name_and_a_command_with_a_directory() {
        let peer = parse("x=exec x -p {port} {server}:{export} {dir}").unwrap();
        assert_eq!((peer.name.as_str(), peer.role), ("x", Role::Peer));
        for wrong in ["x", "=x {dir}", "a b=x {dir}", "x=x"] {
            assert!(parse(wrong).unwrap_err().contains("is not NAME=MOUNT-COMMAND"), "{wrong}");
        }
    }

    #[test]
    fn a_command_is_filled_in() {
        let target = Target { export: "/e".into(), port: 7, mount_port: 8, source: "/s".into() };
        let told = target.fill("{server}:{export} {port} {mountport} {source} {dir}", Path::new("/d"));
        assert_eq!(told, "127.0.0.1:/e 7 8 /s /d");
    }

    #[test]
    fn a_mount_point_is_found_by_its_whole_path() {
        let text = "36 35 98:0 / /run/mnt/a rw - fuse.x x rw\n";
        assert!(has_mount(text, Path::new("/run/mnt/a")));
        assert!(!has_mount(text, Path::new("/run/mnt")) && !has_mount(text, Path::new("/run/mnt/ab")));
    }

    // Only of the child, because reading of another process may wait for whatever that waits for.
    #[test]
    fn a_process_is_known_by_its_mark_and_its_cost_is_read() {
        let mut child = Command::new("cat")
            .env(MARK, "test#1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Once it answers, its program is loaded and its environment is its own.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert!(has_mark(child.id(), "test#1") && !has_mark(child.id(), "test"));
        assert!(!has_mark(std::process::id(), "test#1"));
        let vitals = vitals_of(child.id()).unwrap();
        assert!(vitals.rss_kib > 0 && vitals.fds >= 3 && vitals.threads == 1, "{vitals:?}");
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!has_mark(child.id(), "test#1"));
    }

    #[test]
    fn cpu_time_is_read_past_a_strange_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 50 6 8 9 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(56));
    }
}
