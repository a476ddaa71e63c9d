//! Looking at a running server, and changing it: a Unix socket for its administrator, HTTP for monitoring.
//!
//! On the socket, a request is one line of JSON and so is its answer; then the connection ends. Threads of their own
//! serve both, so that nothing here holds up a call, and no file system that hangs holds up what only looks.

mod attendance;
mod desk;
pub(crate) mod health;
mod lock;
mod monitor;
mod pages;
mod socket;
mod status;

use std::fs::DirEntry;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use attendance::AttendError;
pub(crate) use attendance::{Attendance, Pages, Places};
pub(crate) use desk::Desk;
pub use health::{ExportHealth, Health};
pub(crate) use lock::NodeLock;
pub use lock::Taken;
pub use socket::ControlError;
pub use status::{ClientStatus, ExportStatus, Replays, Status};

use crate::exporter::{Changes, Listed, Reload};

/// What can be asked of a running server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// What is exported: [`Answer::Exports`].
    Exports,
    /// To read the configured exports again: [`Answer::Changes`].
    Reload {
        /// What happens to others.
        how: Reload,
    },
    /// `exportfs -o OPTIONS PLACE`: [`Answer::Changes`].
    Export {
        /// `CLIENT:/PATH`.
        place: String,
        /// As in exports(5).
        options: String,
    },
    /// `exportfs -u PLACE`: [`Answer::Changes`].
    Unexport {
        /// `CLIENT:/PATH`.
        place: String,
    },
    /// `exportfs -ua`: [`Answer::Changes`].
    UnexportAll,
    /// What the server does: [`Answer::Status`].
    Status,
    /// What `/metrics` tells: [`Answer::Metrics`].
    Metrics,
    /// What `/health` tells: [`Answer::Health`].
    Health,
}

/// What a running server answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The table of exports.
    Exports(Vec<Listed>),
    /// What was changed.
    Changes(Changes),
    /// What the server does.
    Status(Box<Status>),
    /// In the text format of Prometheus.
    Metrics(String),
    /// Whether the server is well.
    Health(Health),
    /// Why not.
    Error {
        /// Whether what was asked is wrong, and not what the server could do.
        usage: bool,
        /// A sentence for its reader.
        message: String,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum CallError {
    #[error("cannot ask the server at {path}: {source}; only root and the server's own user may")]
    NotAllowed { path: PathBuf, source: io::Error },
    #[error("no server answers at {path}: {source}; is it running, with this control socket (--control)?{others}", others = others(.path))]
    NoServer { path: PathBuf, source: io::Error },
    #[error(
        "the server at {path} has not answered for {secs} s; it may be stopped, or a file system may hang"
    )]
    Silent { path: PathBuf, secs: u64 },
    #[error("the server at {path} closed the connection: {reason}")]
    Closed { path: PathBuf, reason: String },
}

/// What else lies in the directory of a control socket and may be one: that of a server with another --node.
fn others(path: &Path) -> String {
    const SHOWN: usize = 8;
    let entries = path.parent().and_then(|dir| dir.read_dir().ok()).into_iter().flatten().flatten();
    let is_socket = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_socket());
    let paths = entries.filter(is_socket).map(|entry| entry.path()).filter(|other| other != path);
    let mut found: Vec<String> = paths.take(SHOWN).map(|other| format!("{other:?}")).collect();
    found.sort_unstable();
    if found.is_empty() { String::new() } else { format!(" There are other sockets: {}", found.join(", ")) }
}

/// Asks the server whose control socket is at `path`, and waits for its answer no longer than `patience`.
pub fn call(path: &Path, request: &Request, patience: Duration) -> Result<Answer, CallError> {
    remoor_control::call(path, request, patience).map_err(|source: io::Error| match source.kind() {
        // A connection waits to be accepted only if many others do.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            CallError::Silent { path: path.into(), secs: patience.as_secs() }
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            CallError::Closed { path: path.into(), reason: source.to_string() }
        }
        io::ErrorKind::PermissionDenied => CallError::NotAllowed { path: path.into(), source },
        _ => CallError::NoServer { path: path.into(), source },
    })
}
