//! A Unix socket for the user whom the process runs as, and for root.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::Door;

/// How long a visitor may take to say its line, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request, in bytes: paths and options.
const MAX_REQUEST: usize = 64 << 10;
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// A control socket in use. Dropping it removes it, unless another process has put its own in its place.
pub struct ControlSocket {
    path: PathBuf,
    /// Device and inode of the socket.
    identity: Option<(u64, u64)>,
    _door: Door,
}

/// Why a visitor's request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is nothing that is known here.
    Malformed(String),
    /// The visitor is this user, who is neither root nor the process's own.
    User(u32),
}

impl ControlSocket {
    /// Answers at `path`, whose directory is made if needed, with a mode of `dir_mode`. What a process that is gone left
    /// there is replaced: that no other one lives is the caller's to know.
    pub fn open<R: DeserializeOwned, A: Serialize>(
        path: &Path,
        dir_mode: u32,
        answer: impl Fn(Result<R, Refusal>) -> A + Send + Sync + 'static,
    ) -> io::Result<Self> {
        make_dir_of(path, dir_mode)?;
        let listener = bind(path)?;
        let door = Door::open("control", listener, move |stream| {
            if let Err(e) = visit(stream, &answer) {
                tracing::debug!("control connection ended: {e}");
            }
        });
        Ok(Self { path: path.into(), identity: identity(path), _door: door? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the directory that a path is in, and those above it, unless they are there.
pub fn make_dir_of(path: &Path, mode: u32) -> io::Result<()> {
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => fs::DirBuilder::new().recursive(true).mode(mode).create(dir),
        None => Ok(()),
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The kernel gives the device of a mount that is gone to the next one, which may be there already.
        if identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Asks the process whose control socket is at `path`, and waits for its answer no longer than `patience`.
///
/// # Errors
/// `WouldBlock` or `TimedOut` if it does not answer in time, `UnexpectedEof` or `InvalidData` if it answers something
/// else, `PermissionDenied` where only others may ask; any other kind if nobody is there.
pub fn call<R: Serialize, A: DeserializeOwned>(
    path: &Path,
    request: &R,
    patience: Duration,
) -> io::Result<A> {
    let deadline = Instant::now() + patience;
    let mut stream = connect(path)?;
    stream.set_write_timeout(Some(patience))?;
    say(&mut stream, request)?;
    let answer = read_line(&mut stream, MAX_ANSWER, deadline)?;
    serde_json::from_slice(&answer).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Whether a control socket is there that nobody listens at, because its process was killed.
pub fn is_abandoned(path: &Path) -> bool {
    connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Without waiting: a process that is stopped accepts nothing, and its queue may be full.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

fn say(stream: &mut UnixStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// What comes before the end of the first line, at most `max` bytes, until `deadline`.
fn read_line(stream: &mut UnixStream, max: usize, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before the end of the line"));
        }
        if let Some(end) = chunk[..n].iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(&chunk[..end]);
            return Ok(line);
        }
        line.extend_from_slice(&chunk[..n]);
        if line.len() > max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line has over {max} bytes")));
        }
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

fn visit<R: DeserializeOwned, A: Serialize>(
    mut stream: UnixStream,
    answer: &impl Fn(Result<R, Refusal>) -> A,
) -> io::Result<()> {
    // The mode of a socket keeps others away where the file system honours it; this does everywhere.
    let visitor = socket_peercred(&stream)?.uid;
    let request = if visitor == geteuid() || visitor.is_root() {
        request(&mut stream)?
    } else {
        Err(Refusal::User(visitor.as_raw()))
    };
    let answer = answer(request);
    stream.set_write_timeout(Some(PATIENCE))?;
    say(&mut stream, &answer)
}

fn request<R: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<Result<R, Refusal>> {
    let malformed = |e: &dyn std::fmt::Display| Refusal::Malformed(e.to_string());
    match read_line(stream, MAX_REQUEST, Instant::now() + PATIENCE) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Err(malformed(&e))),
        line => Ok(serde_json::from_slice(&line?).map_err(|e| malformed(&e))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn echo(request: Result<u32, Refusal>) -> Result<u32, String> {
        request.map(|n| n + 1).map_err(|refusal| format!("{refusal:?}"))
    }

    #[test]
    fn a_line_is_answered_by_a_line_and_the_socket_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/x");
        let socket = ControlSocket::open(&path, 0o700, echo).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let answer: Result<u32, String> = call(&path, &41, LONG).unwrap();
        assert_eq!(answer, Ok(42));
        let refused: Result<u32, String> = call(&path, &"text", LONG).unwrap();
        assert!(refused.unwrap_err().starts_with("Malformed"));
        let long: Result<u32, String> = call(&path, &"x".repeat(2 * MAX_REQUEST), LONG).unwrap();
        assert!(long.unwrap_err().contains("has over 65536 bytes"));
        assert_eq!(call::<_, u32>(&path, &1, LONG).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(socket);
        assert!(!path.exists());
        assert_eq!(call::<_, u32>(&path, &1, LONG).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nobody_waits_longer_than_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let _silent = UnixListener::bind(&path).unwrap();
        let error = call::<_, u32>(&path, &1, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    }

    #[test]
    fn a_socket_that_was_replaced_stays_when_its_predecessor_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0:57.sock");
        let old = ControlSocket::open(&path, 0o700, echo).unwrap();
        let new = ControlSocket::open(&path, 0o700, echo).unwrap();
        drop(old);
        let answer: Result<u32, String> = call(&path, &41, LONG).unwrap();
        assert_eq!(answer, Ok(42));
        drop(new);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists() && is_abandoned(&path));
        drop(ControlSocket::open(&path, 0o700, echo).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(ControlSocket::open(&path, 0o700, echo).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
