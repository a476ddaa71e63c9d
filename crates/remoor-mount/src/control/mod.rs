//! Looking at a running mount, and changing it, without touching its mount point: lines of JSON on a Unix socket that a
//! thread of its own serves, so that it answers while the server hangs.
//!
//! The socket of a mount is named by its device, `0:57.sock`, in a directory of the user who mounted it.

pub mod mountinfo;
mod places;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use remoor_control::{ControlSocket, Refusal};
use rustix::fs::statfs;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use mountinfo::MountEntry;
pub use places::{own_directory, socket_in, sockets_of};

use crate::options;
use crate::status::Status;

/// Of the directory of control sockets, which is made if needed: mounts are their user's own business.
const DIR_MODE: u32 = 0o700;

/// What can be asked of a running mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// What it does: [`Answer::Status`].
    Status,
    /// What `metrics=` tells: [`Answer::Metrics`].
    Metrics,
    /// To use these options from now on, as far as they can be changed: [`Answer::Remounted`].
    Remount {
        /// As after `-o`; those that are not named stay.
        options: String,
        /// Unknown options are ignored.
        #[serde(default)]
        sloppy: bool,
    },
    /// To write everything back, unmount and end: [`Answer::Done`] once it has begun.
    Unmount,
    /// To log what this filter of `RUST_LOG` lets through: [`Answer::Done`].
    LogLevel {
        /// As in `RUST_LOG`.
        filter: String,
    },
}

/// What a running mount answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What it does.
    Status(Box<Status>),
    /// In the text format of Prometheus.
    Metrics(String),
    /// What was changed.
    Remounted(Changes),
    /// It is done, or has begun.
    Done,
    /// Why not.
    Error {
        /// Whether what was asked is wrong, and not what the mount could do.
        usage: bool,
        /// A sentence for its reader.
        message: String,
    },
}

/// What a remount has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Effective options that hold no more.
    pub removed: Vec<String>,
    /// Effective options that hold from now on.
    pub added: Vec<String>,
    /// Flags of the mount as the kernel is to have them.
    pub flags: Flags,
}

/// Flags of a mount, as mount(2) has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are named as in mount(8)")]
pub struct Flags {
    pub ro: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
}

impl From<options::Flags> for Flags {
    fn from(flags: options::Flags) -> Self {
        let options::Flags { read_only, nosuid, nodev, noexec } = flags;
        Self { ro: read_only, nosuid, nodev, noexec }
    }
}

impl From<Flags> for options::Flags {
    fn from(flags: Flags) -> Self {
        let Flags { ro, nosuid, nodev, noexec } = flags;
        Self { read_only: ro, nosuid, nodev, noexec }
    }
}

impl Changes {
    /// For people.
    pub fn summary(&self) -> String {
        match self.added.is_empty() && self.removed.is_empty() {
            true => "nothing changes".to_owned(),
            false => format!("now {}; no more {}", list(&self.added), list(&self.removed)),
        }
    }

    /// Whether one of these options has changed.
    pub fn has(&self, options: &[&str]) -> bool {
        self.added.iter().chain(&self.removed).any(|option| options.contains(&option.as_str()))
    }
}

fn list(options: &[String]) -> String {
    if options.is_empty() { "-".to_owned() } else { options.join(",") }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum CallError {
    #[error("cannot ask the mount at {}: {source}; only root and the user who mounted it may", .target.display())]
    NotAllowed { target: PathBuf, source: io::Error },
    #[error(
        "no process answers for the mount at {}: {source}; it was killed, and `umount -l {}` removes it, or its \
         socket is elsewhere: its user's XDG_RUNTIME_DIR is not /run/user/UID",
        .target.display(), .target.display()
    )]
    Nobody { target: PathBuf, source: io::Error },
    #[error("the process of the mount at {} has not answered for {secs} s; it may be stopped", .target.display())]
    Silent { target: PathBuf, secs: u64 },
    #[error("the process of the mount at {} answered something else: {reason}; is it of another version?", .target.display())]
    Strange { target: PathBuf, reason: String },
}

/// Asks the process of a mount, and waits for its answer no longer than `patience`.
pub fn call(mount: &MountEntry, request: &Request, patience: Duration) -> Result<Answer, CallError> {
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for socket in sockets_of(mount) {
        outcome = remoor_control::call(&socket, request, patience);
        // Where there is none, another directory may have it.
        if !matches!(&outcome, Err(e) if e.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    let target = mount.target.clone();
    outcome.map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            CallError::Silent { target, secs: patience.as_secs() }
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            CallError::Strange { target, reason: source.to_string() }
        }
        io::ErrorKind::PermissionDenied => CallError::NotAllowed { target, source },
        _ => CallError::Nobody { target, source },
    })
}

/// How long a mount without a control socket may take to say that its process is gone. One that is served may take any
/// time, and one that is not says it at once.
const LOOK: Duration = Duration::from_secs(2);

/// Whether the process of a mount is gone, so that nobody can use the mount any more.
pub fn is_dead(mount: &MountEntry) -> bool {
    let answers = |socket: &PathBuf| socket.exists() && !remoor_control::is_abandoned(socket);
    !sockets_of(mount).iter().any(answers) && is_cut(&mount.target)
}

/// Whether the connection of the mount there is gone. Waits a moment for one that is not.
pub fn is_cut(target: &Path) -> bool {
    let (told, outcome) = channel();
    let target = target.to_owned();
    // STATFS is always sent (`fuse_statfs`), attributes may come from the kernel's cache.
    let looking = thread::Builder::new().name("look".to_owned()).spawn(move || {
        // Nobody waits any more, if the time was up.
        let _ = told.send(statfs(&target));
    });
    looking.is_ok() && matches!(outcome.recv_timeout(LOOK), Ok(Err(Errno::NOTCONN)))
}

/// What answers for a mount.
pub trait Desk: Send + Sync + 'static {
    /// Answers without waiting for the server.
    fn answer(&self, request: &Request) -> Answer;
}

impl<D: Desk + ?Sized> Desk for Arc<D> {
    fn answer(&self, request: &Request) -> Answer {
        (**self).answer(request)
    }
}

/// Answers for the mount with this device until it is dropped, which removes the socket.
pub fn open(directory: &Path, device: &str, desk: impl Desk) -> io::Result<ControlSocket> {
    places::remove_stale(directory);
    ControlSocket::open(&socket_in(directory, device), DIR_MODE, move |request| match request {
        Ok(request) => desk.answer(&request),
        Err(Refusal::Malformed(why)) => {
            Answer::Error { usage: true, message: format!("not a request this mount knows: {why}") }
        }
        Err(Refusal::User(user)) => {
            Answer::Error { usage: false, message: format!("user {user} may not control this mount") }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Deaf;

    impl Desk for Deaf {
        fn answer(&self, _: &Request) -> Answer {
            Answer::Done
        }
    }

    #[test]
    fn a_mount_is_asked_by_its_device() {
        let dir = tempfile::tempdir().unwrap();
        let socket = open(dir.path(), "0:4711", Deaf).unwrap();
        assert_eq!(socket.path(), dir.path().join("0:4711.sock"));
        let answer: Answer =
            remoor_control::call(socket.path(), &Request::Unmount, Duration::from_secs(20)).unwrap();
        assert_eq!(answer, Answer::Done);
        let stranger: Answer =
            remoor_control::call(socket.path(), &"nonsense", Duration::from_secs(20)).unwrap();
        assert!(matches!(stranger, Answer::Error { usage: true, .. }));
    }

    #[test]
    fn a_mount_without_a_process_says_what_helps() {
        let mount = MountEntry {
            device: "0:999999".to_owned(),
            target: "/mnt/x".into(),
            source: "h:/x".into(),
            options: String::new(),
            user: 0,
        };
        let error = call(&mount, &Request::Status, Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains("no process answers for the mount at /mnt/x"), "{error}");
        assert!(error.contains("umount -l /mnt/x"), "{error}");
    }
}
