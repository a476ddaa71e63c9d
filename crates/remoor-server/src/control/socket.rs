//! The control socket: for the user whom the server runs as, and for root.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use remoor_control::Refusal;

use super::{Answer, Desk, NodeLock, Request, Taken};

/// Of the directory of a control socket, which is made if needed. The socket itself is for its owner alone.
const DIR_MODE: u32 = 0o755;

/// A control socket in use. Dropping it removes it.
pub(crate) struct ControlSocket {
    _socket: remoor_control::ControlSocket,
    /// Released last, so that nobody takes the path for free while the file is there.
    _lock: NodeLock,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum ControlError {
    #[error("cannot make the control socket {path}: {source}; name another place with --control")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot make the control socket {path}: {taken}; name another place with --control")]
    Taken { path: PathBuf, taken: Taken },
}

impl ControlSocket {
    /// Answers at `path`, whose directory is made if needed. What a server that is gone left there is replaced.
    pub(crate) fn open(path: &Path, desk: Arc<Desk>) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Io { path: path.into(), source };
        remoor_control::make_dir_of(path, DIR_MODE).map_err(failed)?;
        let lock = NodeLock::take(&beside(path, ".lock"))
            .map_err(|taken| ControlError::Taken { path: path.into(), taken })?;
        let socket =
            remoor_control::ControlSocket::open(path, DIR_MODE, move |request| answer(&desk, request));
        Ok(Self { _socket: socket.map_err(failed)?, _lock: lock })
    }
}

fn answer(desk: &Desk, request: Result<Request, Refusal>) -> Answer {
    match request {
        Ok(request) => desk.answer(&request),
        Err(Refusal::Malformed(why)) => {
            Answer::Error { usage: true, message: format!("not a request this server knows: {why}") }
        }
        Err(Refusal::User(user)) => {
            Answer::Error { usage: false, message: format!("user {user} may not control this server") }
        }
    }
}

/// The path with more at its end: what has the same name but for an extension may be somebody's file.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}
