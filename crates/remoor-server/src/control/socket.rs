//! The control socket: for the user whom the server runs as, and for root.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::{Answer, Desk, Door, MAX_REQUEST, NodeLock, Request, Taken, read_line};

/// How long a visitor may take to say its line, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A control socket in use. Dropping it removes it.
pub(crate) struct ControlSocket {
    path: PathBuf,
    _door: Door,
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
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
        }
        let lock = NodeLock::take(&beside(path, ".lock"))
            .map_err(|taken| ControlError::Taken { path: path.into(), taken })?;
        let listener = bind(path).map_err(failed)?;
        let door = Door::open("control", listener, move |stream| {
            if let Err(e) = visit(stream, &desk) {
                tracing::debug!("control connection ended: {e}");
            }
        });
        Ok(Self { path: path.into(), _door: door.map_err(failed)?, _lock: lock })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The path with more at its end: what has the same name but for an extension may be somebody's file.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// Under another name first, so that nobody connects before the mode is right; then in place of a stale one. What is no
/// socket stays.
fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file has this name"));
    }
    let new = beside(path, ".new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

fn visit(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    // The mode of a socket keeps others away where the file system honours it; this does everywhere.
    let visitor = socket_peercred(&stream)?.uid;
    let answer = if visitor == geteuid() || visitor.is_root() {
        answer(&mut stream, desk)?
    } else {
        let message = format!("user {} may not control this server", visitor.as_raw());
        Answer::Error { usage: false, message }
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&line)
}

fn answer(stream: &mut UnixStream, desk: &Desk) -> io::Result<Answer> {
    let line = match read_line(stream, MAX_REQUEST, Instant::now() + PATIENCE) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(wrong(&e)),
        line => line?,
    };
    Ok(serde_json::from_slice::<Request>(&line).map_or_else(|e| wrong(&e), |request| desk.answer(&request)))
}

fn wrong(error: &dyn std::fmt::Display) -> Answer {
    Answer::Error { usage: true, message: format!("not a request this server knows: {error}") }
}
