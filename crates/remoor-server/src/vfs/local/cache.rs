//! Descriptors kept open, so that a file that is used again is not looked for again.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lru::LruCache;
use remoor_nfs::v3::FileType;

use super::super::NodeHandle;
use super::judgement::Judgement;
use super::stat::FileId;
use super::writeback::Unsettled;

/// Most parts of the cache, each with a lock of its own.
const MAX_PARTS: usize = 16;
/// Fewest objects that a part of several holds, so that what is in use together is held together.
const MIN_PART: usize = 32;

/// An object of the export that is held open. It stays the same object whatever happens to its names, and must be
/// asked for its link count before it is used: it may have been removed.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) handle: NodeHandle,
    pub(super) id: FileId,
    pub(super) kind: FileType,
    /// Open with O_PATH, or if `for_data` a regular file for reading and writing, a directory for reading.
    pub(super) fd: OwnedFd,
    pub(super) for_data: bool,
    /// Opened on first use, for reading.
    pub(super) read: OnceLock<OwnedFd>,
    /// Opened on first use, for writing.
    pub(super) write: OnceLock<OwnedFd>,
    /// What a caller may do with it.
    pub(super) judged: Judgement,
    /// Whether unstable data was written that nobody made stable yet.
    pub(super) unsettled: Unsettled,
    /// Since when it is held; see [`Cache::now`].
    since: u64,
}

impl Open {
    pub(super) fn new(
        handle: NodeHandle,
        id: FileId,
        kind: FileType,
        fd: OwnedFd,
        for_data: bool,
        unsettled: Unsettled,
    ) -> Self {
        let (read, write) = (OnceLock::new(), OnceLock::new());
        Self {
            handle,
            id,
            kind,
            fd,
            for_data,
            read,
            write,
            judged: Judgement::default(),
            unsettled,
            since: 0,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The descriptor to write a file through, if one is open.
    pub(super) fn write_fd(&self) -> Option<BorrowedFd<'_>> {
        if self.for_data { Some(self.fd()) } else { self.write.get().map(AsFd::as_fd) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.unsettled.abandon(self.id.ino, self.write_fd());
    }
}

/// A part of what is held, most recently used first.
type Held = LruCache<NodeHandle, Arc<Open>>;
/// A part of what is held, by inode number.
type Numbered = HashMap<u64, Arc<Open>>;

/// The most recently used objects, at most a given number; each holds at most three descriptors.
///
/// Lock order: a part of `by_handle`, then a part of `by_ino`.
#[derive(Debug)]
pub(super) struct Cache {
    by_handle: Box<[Mutex<Held>]>,
    by_ino: Box<[Mutex<Numbered>]>,
    clock: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    pub(super) fn new(limit: NonZeroUsize) -> Self {
        let parts = (limit.get() / MIN_PART).clamp(1, MAX_PARTS);
        let part = NonZeroUsize::new(limit.get() / parts).unwrap_or(NonZeroUsize::MIN);
        Self {
            by_handle: (0..parts).map(|_| Mutex::new(LruCache::new(part))).collect(),
            by_ino: (0..parts).map(|_| Mutex::default()).collect(),
            clock: AtomicU64::new(1),
        }
    }

    /// Handles differ in a few bytes that are mostly numbers; any mix of all of them spreads those.
    fn handles(&self, handle: &NodeHandle) -> MutexGuard<'_, LruCache<NodeHandle, Arc<Open>>> {
        let mix = handle.iter().fold(0u32, |mix, byte| mix.wrapping_mul(31).wrapping_add((*byte).into()));
        locked(&self.by_handle[mix as usize % self.by_handle.len()])
    }

    fn numbers(&self, ino: u64) -> MutexGuard<'_, HashMap<u64, Arc<Open>>> {
        locked(&self.by_ino[ino as usize % self.by_ino.len()])
    }

    /// Later than the insertion of everything that is held.
    pub(super) fn now(&self) -> u64 {
        self.clock.load(SeqCst)
    }

    pub(super) fn get(&self, handle: &NodeHandle) -> Option<Arc<Open>> {
        self.handles(handle).get(handle).cloned()
    }

    /// What is held open with this inode number, which may be gone already.
    pub(super) fn by_ino(&self, ino: u64) -> Option<Arc<Open>> {
        self.numbers(ino).get(&ino).cloned()
    }

    /// What had this inode number at `when`, and was held then. A number belongs to one inode for as long as a descriptor
    /// keeps it, so this is the object whose number was seen after `when`.
    pub(super) fn held_since(&self, when: u64, ino: u64) -> Option<Arc<Open>> {
        self.by_ino(ino).filter(|open| open.since < when)
    }

    /// Keeps `open`, unless the object is held already; returns what is held.
    pub(super) fn insert(&self, mut open: Open) -> Arc<Open> {
        let mut handles = self.handles(&open.handle);
        if let Some(held) = handles.get(&open.handle)
            && (held.for_data || !open.for_data)
        {
            return held.clone();
        }
        open.since = self.clock.fetch_add(1, SeqCst);
        let open = Arc::new(open);
        let evicted = handles.push(open.handle.clone(), open.clone()).map(|(_, old)| old);
        let old = evicted.as_ref().and_then(|old| self.forget_number(old));
        let replaced = self.numbers(open.id.ino).insert(open.id.ino, open.clone());
        drop(handles);
        // Closing the last descriptor of a removed file frees its blocks, which takes time: not under a lock.
        drop((old, replaced, evicted));
        open
    }

    /// Lets go of an object, so that a removed file's space is freed.
    pub(super) fn remove(&self, handle: &NodeHandle) -> Option<Arc<Open>> {
        let mut handles = self.handles(handle);
        let open = handles.pop(handle)?;
        let held = self.forget_number(&open);
        drop(handles);
        drop(held);
        Some(open)
    }

    fn forget_number(&self, open: &Arc<Open>) -> Option<Arc<Open>> {
        let mut numbers = self.numbers(open.id.ino);
        let same = numbers.get(&open.id.ino).is_some_and(|held| Arc::ptr_eq(held, open));
        if same { numbers.remove(&open.id.ino) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::writeback::WriteBack;
    use super::*;

    fn open(n: u8, for_data: bool) -> Open {
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        let unsettled = Unsettled::new(&Arc::new(WriteBack::default()));
        let id = FileId { ino: n.into(), birth: 0 };
        Open::new(NodeHandle::from(vec![n]), id, FileType::Regular, fd, for_data, unsettled)
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = Cache::new(NonZeroUsize::new(2).unwrap());
        let first = cache.insert(open(1, false));
        cache.insert(open(2, false));
        assert!(cache.get(&first.handle).is_some());
        cache.insert(open(3, false));
        assert!(cache.by_ino(2).is_none() && cache.by_ino(1).is_some() && cache.by_ino(3).is_some());
        assert_eq!(cache.by_ino.iter().map(|part| locked(part).len()).sum::<usize>(), 2);
    }

    #[test]
    fn an_object_is_held_once_and_data_replaces_path_only() {
        let cache = Cache::new(NonZeroUsize::new(2).unwrap());
        let path = cache.insert(open(1, false));
        assert!(Arc::ptr_eq(&path, &cache.insert(open(1, false))));
        assert!(cache.insert(open(1, true)).for_data);
        assert!(cache.insert(open(1, false)).for_data);
        assert!(cache.by_ino(1).is_some_and(|held| held.for_data));
        assert!(cache.remove(&path.handle).is_some() && cache.by_ino(1).is_none());
    }

    #[test]
    fn parts_together_hold_no_more_than_the_limit() {
        let limit = 1000;
        let cache = Cache::new(NonZeroUsize::new(limit).unwrap());
        (0..=255).for_each(|n| drop(cache.insert(open(n, false))));
        assert!((0..=255u64).all(|ino| cache.by_ino(ino).is_some()), "handles are spread over the parts");
        assert!(cache.by_handle.iter().map(|part| locked(part).cap().get()).sum::<usize>() <= limit);
    }

    #[test]
    fn what_came_after_a_number_was_seen_may_be_another_file() {
        let cache = Cache::new(NonZeroUsize::new(2).unwrap());
        let before = cache.now();
        cache.insert(open(1, false));
        assert!(cache.held_since(before, 1).is_none());
        assert!(cache.held_since(cache.now(), 1).is_some());
    }
}
