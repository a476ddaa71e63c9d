//! Looking at exported directories with a deadline: a file system that hangs must not keep the others from being
//! exported, and not from being unexported.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::exports::Export;

/// What an exported directory is.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What has to be a mount point is one.
    pub(crate) mounted: bool,
    pub(crate) directory: io::Result<Directory>,
}

/// A directory.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Without symbolic links, so that one directory has one path and one identity.
    pub(crate) path: PathBuf,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
}

type Look = dyn Fn(&Export) -> Seen + Send + Sync;

/// Looks at directories, each on a thread of its own.
pub(crate) struct Looker {
    look: Arc<Look>,
    /// Paths that are being looked at. Nobody looks at them again, so each holds up one thread at most.
    busy: Arc<Mutex<HashSet<PathBuf>>>,
}

/// A look that has begun.
pub(crate) struct Looking(Option<Receiver<Seen>>);

impl Default for Looker {
    fn default() -> Self {
        Self::new(see)
    }
}

impl Looker {
    /// As [`Looker::default`], with another way to look.
    pub(crate) fn new(look: impl Fn(&Export) -> Seen + Send + Sync + 'static) -> Self {
        Self { look: Arc::new(look), busy: Arc::default() }
    }

    pub(crate) fn begin(&self, export: &Export) -> Looking {
        if !locked(&self.busy).insert(export.path.clone()) {
            return Looking(None);
        }
        let ((tell, told), look, busy) = (channel(), self.look.clone(), self.busy.clone());
        let export = export.clone();
        let path = export.path.clone();
        let thread = std::thread::Builder::new().name("nfs-look".to_owned());
        let started = thread.spawn(move || {
            let seen = look(&export);
            locked(&busy).remove(&export.path);
            let _ = tell.send(seen);
        });
        if started.is_err() {
            locked(&self.busy).remove(&path);
        }
        Looking(Some(told))
    }
}

impl Looking {
    /// What was seen; `None` if that takes longer than until `deadline`.
    pub(crate) fn until(self, deadline: Instant) -> Option<Seen> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.0?.recv_timeout(left).ok()
    }
}

fn see(export: &Export) -> Seen {
    Seen { mounted: export.is_mounted(), directory: directory(&export.path) }
}

fn directory(path: &Path) -> io::Result<Directory> {
    let path = path.canonicalize()?;
    let meta = path.metadata()?;
    if meta.is_dir() {
        Ok(Directory { path, identity: (meta.dev(), meta.ino()) })
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exports::Exports;

    fn export(path: &Path) -> Export {
        let text = format!("{} *(ro,mp)", path.display());
        Exports::parse(Path::new("x"), text.as_bytes()).unwrap().list.remove(0)
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_directory_is_seen_without_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&path, path.join("link")).unwrap();
        std::fs::write(path.join("file"), "").unwrap();
        let looker = Looker::default();
        let seen = |name: &str| looker.begin(&export(&path.join(name))).until(far()).unwrap();
        let link = seen("link");
        assert_eq!((link.mounted, link.directory.unwrap().path), (false, path.clone()));
        assert_eq!(seen("file").directory.unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(seen("none").directory.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn who_hangs_holds_up_one_thread() {
        let (release, held) = channel::<()>();
        let held = Mutex::new(held);
        let (asked, asks) = channel();
        let looker = Looker::new(move |export| {
            asked.send(()).unwrap();
            let _ = held.lock().unwrap().recv();
            see(export)
        });
        let proc = export(Path::new("/proc"));
        let first = looker.begin(&proc);
        asks.recv().unwrap();
        for _ in 0..3 {
            assert!(looker.begin(&proc).until(Instant::now()).is_none());
        }
        assert!(asks.try_recv().is_err(), "nobody looked again");
        drop(release);
        assert!(first.until(far()).unwrap().mounted);
        assert!(looker.begin(&proc).until(far()).is_some());
    }
}
