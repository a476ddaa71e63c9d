//! Hosts of the drill: each is a network namespace of its own, reached by threads and processes that enter it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

/// Why a namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The kernel or the container runtime forbids what the drill is built on.
    #[error("cannot make a private network ({attempted}: {source}); {remedy}")]
    Unavailable {
        /// The step that was refused.
        attempted: &'static str,
        /// What to change on this machine.
        remedy: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A step on one host failed although namespaces work here.
    #[error(
        "host {host}: cannot {attempted}: {source}; check the limits of this user (ulimit -n, -u) and try again"
    )]
    Host {
        /// The host's name.
        host: String,
        /// What was attempted.
        attempted: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// How the private network came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// The process had CAP_SYS_ADMIN already.
    Root,
    /// A user namespace in which this user is root.
    UserNamespace,
}

/// Moves this process into a network and a mount namespace of its own, through a user namespace where it lacks
/// the privilege. Call it in `main` before any thread exists: unshare(2) refuses CLONE_NEWUSER otherwise.
///
/// # Errors
/// [`NamespaceError::Unavailable`], naming the setting to change.
pub fn enter_private() -> Result<Privilege, NamespaceError> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let privilege = match sys::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) {
        Ok(()) => Privilege::Root,
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            enter_user_namespace(uid.as_raw(), gid.as_raw())?;
            Privilege::UserNamespace
        }
        Err(e) => return Err(unavailable("unshare the network and mount namespaces", e)),
    };
    // Mounts made here must not appear outside, and mounts made outside must not disturb a run.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| unavailable("make mounts private", e.into()))?;
    Ok(privilege)
}

/// Kills every process that this one started, in whatever thread. For an interrupted drill: the signal that the
/// kernel would send them at their parent's death is forgotten by a process that changes its file system user
/// (`commit_creds`), as a server does.
pub fn kill_processes() {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<i32> = children.flat_map(|list| numbers(&list)).collect();
    for pid in pids.into_iter().filter_map(rustix::process::Pid::from_raw) {
        // One that ended meanwhile is what is wanted.
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
}

fn numbers(list: &str) -> Vec<i32> {
    list.split_whitespace().filter_map(|word| word.parse().ok()).filter(|pid| *pid > 0).collect()
}

fn enter_user_namespace(uid: u32, gid: u32) -> Result<(), NamespaceError> {
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS)
        .map_err(|e| unavailable("unshare a user namespace", e))?;
    // user_namespaces(7): an unprivileged gid_map needs setgroups denied first.
    for (file, line) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(Path::new("/proc/self").join(file), line)
            .map_err(|e| unavailable("map this user to root in the user namespace", e))?;
    }
    Ok(())
}

fn unavailable(attempted: &'static str, source: io::Error) -> NamespaceError {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    NamespaceError::Unavailable { attempted, remedy: remedy(read), source }
}

/// The first setting that forbids user namespaces; `read` yields the text of a file under /proc/sys.
fn remedy(read: impl Fn(&str) -> Option<String>) -> String {
    const BLOCKERS: [(&str, &str, &str); 3] = [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let blocker =
        BLOCKERS.iter().find(|(file, blocking, _)| read(file).is_some_and(|text| text.trim() == *blocking));
    match blocker {
        Some((_, _, setting)) => {
            format!("user namespaces are off: run `sudo sysctl -w {setting}`, or run as root")
        }
        None => "run as root; in a container add `--cap-add SYS_ADMIN --cap-add NET_ADMIN \
                 --security-opt seccomp=unconfined --security-opt apparmor=unconfined`"
            .to_owned(),
    }
}

/// A host: a network namespace that lives as long as any clone of this value, or a process in it.
///
/// Dropping the last clone kills the processes that [`Host::spawn_process`] started.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    netns: OwnedFd,
    spawner: Sender<SpawnJob>,
}

#[derive(Debug)]
struct SpawnJob {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

impl Host {
    /// Makes an empty host: its own loopback device (down), no links, IPv6 and forwarding off.
    ///
    /// # Errors
    /// [`NamespaceError::Host`] when the namespace cannot be made.
    pub fn create(name: &str) -> Result<Self, NamespaceError> {
        let (spawner, jobs) = mpsc::channel();
        let (made, netns) = mpsc::channel();
        let keeper = move || keep_host(&made, &jobs);
        let outcome = thread::Builder::new().name(format!("{name}-keeper")).spawn(keeper).and_then(|_| {
            netns.recv().unwrap_or_else(|_| Err(io::Error::other("the host's thread ended early")))
        });
        let netns = outcome.map_err(|e| host_error(name, "make a network namespace", e))?;
        Ok(Self { inner: Arc::new(Inner { name: name.to_owned(), netns, spawner }) })
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The network namespace, for netlink requests that move an interface into it.
    pub fn netns(&self) -> &OwnedFd {
        &self.inner.netns
    }

    /// Runs `work` on this host in a thread of its own and waits for it. A panic in `work` goes on in the caller.
    ///
    /// # Errors
    /// [`NamespaceError::Host`] when the thread cannot be started or cannot enter the namespace.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, NamespaceError> {
        let entered = thread::scope(|scope| {
            let body = || self.enter().map(|()| work());
            let thread = thread::Builder::new().name(self.inner.name.clone()).spawn_scoped(scope, body)?;
            thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        });
        entered.map_err(|e| self.error("enter the network namespace", e))
    }

    /// Starts a thread on this host; sockets it opens belong to this host for good.
    ///
    /// # Errors
    /// [`NamespaceError::Host`] when the thread cannot be started or cannot enter the namespace.
    pub fn spawn_thread<R: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<JoinHandle<R>, NamespaceError> {
        // clone(2): a new thread shares the namespaces of the thread that created it.
        self.run(|| thread::Builder::new().name(name.to_owned()).spawn(work))?
            .map_err(|e| self.error("start a thread", e))
    }

    /// Starts a process on this host. It is killed when the host is dropped and when this process dies.
    ///
    /// # Errors
    /// [`NamespaceError::Host`] when the program cannot be started.
    pub fn spawn_process(&self, command: Command) -> Result<Child, NamespaceError> {
        let attempted = format!("start {}", command.get_program().display());
        let (reply, answer) = mpsc::channel();
        let gone = |_| io::Error::other("the host's thread is gone");
        let sent = self.inner.spawner.send(SpawnJob { command, reply });
        let spawned = sent.map_err(|_| gone(mpsc::RecvError)).and_then(|()| answer.recv().map_err(gone)?);
        spawned.map_err(|e| self.error(&attempted, e))
    }

    fn enter(&self) -> io::Result<()> {
        enter(&self.inner.netns)
    }

    fn error(&self, attempted: &str, source: io::Error) -> NamespaceError {
        host_error(&self.inner.name, attempted, source)
    }
}

/// The host's own thread. It makes the namespace and starts its processes: the parent-death signal follows the
/// thread that forked, so this one must live as long as the host does.
fn keep_host(made: &Sender<io::Result<OwnedFd>>, jobs: &Receiver<SpawnJob>) {
    let outcome = make_netns();
    let failed = outcome.is_err();
    if made.send(outcome).is_err() || failed {
        return;
    }
    for SpawnJob { mut command, reply } in jobs {
        sys::die_with_parent(&mut command);
        // A caller that went away leaves a child that ends with this thread.
        drop(reply.send(command.spawn()));
    }
}

fn make_netns() -> io::Result<OwnedFd> {
    sys::unshare(libc::CLONE_NEWNET)?;
    // devinet_init_net copies the machine's own setting, which may be on.
    fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
    silence_ipv6()?;
    Ok(fs::File::open("/proc/thread-self/ns/net")?.into())
}

/// Router solicitations and duplicate address detection would be noise in every capture.
fn silence_ipv6() -> io::Result<()> {
    for scope in ["all", "default"] {
        match fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1") {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

fn enter(netns: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn host_error(host: &str, attempted: &str, source: io::Error) -> NamespaceError {
    NamespaceError::Host { host: host.to_owned(), attempted: attempted.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy_when(file: &'static str, value: &'static str) -> String {
        remedy(|name| (name == file).then(|| value.to_owned()))
    }

    #[test]
    fn the_remedy_names_the_setting_that_blocks() {
        assert!(remedy_when("user/max_user_namespaces", "0\n").contains("user.max_user_namespaces=10000"));
        assert!(
            remedy_when("kernel/unprivileged_userns_clone", "0\n").contains("unprivileged_userns_clone=1")
        );
        let apparmor = remedy_when("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        assert!(apparmor.contains("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"));
    }

    #[test]
    fn a_started_process_is_killed_from_any_thread() {
        let started = thread::spawn(|| Command::new("sleep").arg("600").spawn().unwrap());
        let mut child = started.join().unwrap();
        kill_processes();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_setting_that_allows_is_not_blamed() {
        assert!(remedy_when("user/max_user_namespaces", "96365\n").contains("run as root"));
        assert!(remedy_when("kernel/apparmor_restrict_unprivileged_userns", "0\n").contains("seccomp"));
    }

    #[test]
    fn an_error_says_what_where_and_what_next() {
        let error =
            host_error("node-a", "start remoor", io::Error::from_raw_os_error(libc::EAGAIN)).to_string();
        assert!(error.contains("node-a") && error.contains("start remoor") && error.contains("ulimit"));
    }
}
