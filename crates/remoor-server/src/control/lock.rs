//! One server a name: a file that is locked as long as its server lives, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::system::uname;

/// Bytes of a lock file that are read: who holds it.
const MAX_HOLDER: u64 = 256;

/// Held as long as the server lives.
pub(crate) struct NodeLock {
    _file: File,
}

/// Why a lock is not held.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum Taken {
    #[error("{path} is locked by a running server ({holder})")]
    Held { path: PathBuf, holder: String },
    #[error("cannot lock {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl NodeLock {
    /// Locks `path`, which is made if needed, and notes in it who holds it.
    pub(crate) fn take(path: &Path) -> Result<Self, Taken> {
        let failed = |source| Taken::Io { path: path.into(), source };
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        if let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let e = io::Error::from(e);
            return Err(match e.kind() {
                io::ErrorKind::WouldBlock => Taken::Held { path: path.into(), holder: holder(&mut file) },
                _ => failed(e),
            });
        }
        let host = uname();
        let holder = format!("pid {} on {}\n", std::process::id(), host.nodename().to_string_lossy());
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
        written.map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(MAX_HOLDER).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "which one is not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.lock");
        std::fs::write(&path, "a longer text than what a server writes, of one that is gone ".repeat(9))
            .unwrap();
        let first = NodeLock::take(&path).unwrap();
        let error = NodeLock::take(&path).err().unwrap().to_string();
        let pid = std::process::id();
        assert!(error.contains("node.lock is locked by a running server (pid "), "{error}");
        assert!(error.contains(&format!("pid {pid} on ")), "{error}");
        drop(first);
        assert!(NodeLock::take(&path).is_ok());
        assert!(matches!(NodeLock::take(&dir.path().join("none/x")), Err(Taken::Io { .. })));
    }
}
