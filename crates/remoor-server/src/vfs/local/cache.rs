//! Descriptors kept open, so that a file that is used again is not looked for again.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lru::LruCache;
use remoor_nfs::v3::FileType;

use super::super::NodeHandle;
use super::stat::FileId;

/// An object of the export that is held open. It stays the same object whatever happens to its names, and must be
/// asked for its link count before it is used: it may have been removed.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) handle: NodeHandle,
    pub(super) id: FileId,
    pub(super) kind: FileType,
    /// Open with O_PATH, or for reading and writing if `writable`.
    pub(super) fd: OwnedFd,
    pub(super) writable: bool,
    /// Opened on first use, for reading.
    pub(super) read: OnceLock<OwnedFd>,
    /// Opened on first use, for writing.
    pub(super) write: OnceLock<OwnedFd>,
}

impl Open {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The most recently used objects, at most a given number; each holds at most three descriptors.
#[derive(Debug)]
pub(super) struct Cache(Mutex<Maps>);

#[derive(Debug)]
struct Maps {
    by_handle: LruCache<NodeHandle, Arc<Open>>,
    by_ino: HashMap<u64, NodeHandle>,
}

impl Cache {
    pub(super) fn new(limit: NonZeroUsize) -> Self {
        Self(Mutex::new(Maps { by_handle: LruCache::new(limit), by_ino: HashMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, handle: &NodeHandle) -> Option<Arc<Open>> {
        self.lock().by_handle.get(handle).cloned()
    }

    /// What is held open with this inode number, which may be gone already.
    pub(super) fn by_ino(&self, ino: u64) -> Option<Arc<Open>> {
        let maps = self.lock();
        maps.by_handle.peek(maps.by_ino.get(&ino)?).cloned()
    }

    /// Keeps `open`, unless the object is held already; returns what is held.
    pub(super) fn insert(&self, open: Open) -> Arc<Open> {
        let mut maps = self.lock();
        if let Some(held) = maps.by_handle.get(&open.handle)
            && (held.writable || !open.writable)
        {
            return held.clone();
        }
        let open = Arc::new(open);
        maps.by_ino.insert(open.id.ino, open.handle.clone());
        let evicted = maps.by_handle.push(open.handle.clone(), open.clone()).map(|(_, old)| old);
        if let Some(old) = &evicted
            && old.handle != open.handle
        {
            maps.forget_number(old);
        }
        // Closing the last descriptor of a removed file frees its blocks, which takes time: not under the lock.
        drop(maps);
        open
    }

    /// Lets go of an object, so that a removed file's space is freed.
    pub(super) fn remove(&self, handle: &NodeHandle) -> Option<Arc<Open>> {
        let mut maps = self.lock();
        let open = maps.by_handle.pop(handle)?;
        maps.forget_number(&open);
        Some(open)
    }
}

impl Maps {
    fn forget_number(&mut self, open: &Open) {
        if self.by_ino.get(&open.id.ino) == Some(&open.handle) {
            self.by_ino.remove(&open.id.ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(n: u8, writable: bool) -> Open {
        Open {
            handle: NodeHandle::from(vec![n]),
            id: FileId { ino: n.into(), birth: 0 },
            kind: FileType::Regular,
            fd: std::fs::File::open("/dev/null").unwrap().into(),
            writable,
            read: OnceLock::new(),
            write: OnceLock::new(),
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = Cache::new(NonZeroUsize::new(2).unwrap());
        let first = cache.insert(open(1, false));
        cache.insert(open(2, false));
        assert!(cache.get(&first.handle).is_some());
        cache.insert(open(3, false));
        assert!(cache.by_ino(2).is_none() && cache.by_ino(1).is_some() && cache.by_ino(3).is_some());
        assert_eq!(cache.lock().by_ino.len(), 2);
    }

    #[test]
    fn an_object_is_held_once_and_writable_replaces_path_only() {
        let cache = Cache::new(NonZeroUsize::new(2).unwrap());
        let path = cache.insert(open(1, false));
        assert!(Arc::ptr_eq(&path, &cache.insert(open(1, false))));
        assert!(cache.insert(open(1, true)).writable);
        assert!(cache.insert(open(1, false)).writable);
        assert!(cache.remove(&path.handle).is_some() && cache.by_ino(1).is_none());
    }
}
