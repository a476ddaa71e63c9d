//! Searching directories for a file, when no hint led to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use remoor_nfs::v3::NfsStat;
use rustix::fs::{FileType, Mode, OFlags, RawDir, openat2};

use super::super::Result;
use super::cache::Open;
use super::stat::{FileId, stat};
use super::store::{BENEATH, Finder, Store};

/// Entries that one search of the export looks at.
const MAX_ENTRIES: usize = 1 << 20;
/// Files that are remembered as not found.
const MAX_MISSED: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1 << 12).expect("not zero");
/// How long a file that was not found is not searched for again: one client's stale handle must not keep the disk busy.
const MISSED_FOR: Duration = Duration::from_secs(10);
/// Bytes of directory read at a time.
pub(super) const BUFFER: usize = 1 << 15;

/// Searches of the whole export, one at a time.
#[derive(Debug)]
pub(super) struct Walks(Mutex<LruCache<FileId, Instant>>);

impl Walks {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MAX_MISSED)))
    }

    /// Searches the export for a file, and remembers its place and those of the directories above.
    pub(super) fn find(&self, store: &Store, id: FileId) -> Result<OwnedFd> {
        let mut missed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if missed.get(&id).is_some_and(|at| at.elapsed() < MISSED_FOR) {
            return Err(NfsStat::Stale);
        }
        if let Some(fd) = search(store, id) {
            return Ok(fd);
        }
        missed.put(id, Instant::now());
        Err(NfsStat::Stale)
    }
}

/// Looks for the file among the entries of one directory.
pub(super) fn scan(store: &Store, dir: &Open, id: FileId) -> Option<OwnedFd> {
    let fd = store.reopen_as_server(dir.fd(), OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
    let mut found = None;
    entries(fd.as_fd(), &mut |name, ino, _| {
        if ino == id.ino {
            found = store.open_if(fd.as_fd(), name, id);
        }
        if found.is_some() {
            remember(store, id, dir.id.ino, found.as_ref().map(|_| name));
        }
        found.is_none()
    });
    found
}

fn remember(store: &Store, id: FileId, parent: u64, name: Option<&[u8]>) {
    if let (Finder::Fileid { index, .. }, Some(name)) = (&store.finder, name) {
        index.seen(id, parent, name);
    }
}

/// Offers name, number and type of each entry, without `.` and `..`, until `each` returns false.
fn entries(dir: BorrowedFd<'_>, each: &mut dyn FnMut(&[u8], u64, FileType) -> bool) {
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut raw = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = raw.next() {
        let name = entry.file_name().to_bytes();
        if !super::super::is_dot(name) && !each(name, entry.ino(), entry.file_type()) {
            return;
        }
    }
}

/// Paths from the root, each opened when it is its turn: a wide tree takes no more descriptors than a narrow one.
fn search(store: &Store, id: FileId) -> Option<OwnedFd> {
    let mut budget = MAX_ENTRIES;
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let Some(dir) = open_dir(store, &path) else { continue };
        let mut found = None;
        entries(dir.as_fd(), &mut |name, ino, kind| {
            if ino == id.ino && store.open_if(dir.as_fd(), name, id).is_some() {
                found = Some(join(&path, name));
            }
            if matches!(kind, FileType::Directory | FileType::Unknown) {
                pending.push(join(&path, name));
            }
            budget = budget.saturating_sub(1);
            found.is_none() && budget > 0
        });
        if let Some(path) = found {
            return remember_path(store, &path).filter(|(_, found)| *found == id).map(|(fd, _)| fd);
        }
        if budget == 0 {
            tracing::warn!(
                entries = MAX_ENTRIES,
                fileid = id.ino,
                "gave up the search for a file handle; it is answered as stale"
            );
            return None;
        }
    }
    None
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') }
}

fn open_dir(store: &Store, path: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    openat2(&store.root_dir, path, flags, Mode::empty(), BENEATH).ok()
}

/// Goes down the path again, so that every directory on it has its place in the index.
fn remember_path(store: &Store, path: &[u8]) -> Option<(OwnedFd, FileId)> {
    let mut at = (store.root.fd().try_clone_to_owned().ok()?, store.root.id);
    for name in path.split(|byte| *byte == b'/') {
        let fd = super::store::open_child(at.0.as_fd(), name).ok()?;
        let id = store.id(fd.as_fd(), &stat(fd.as_fd()).ok()?);
        remember(store, id, at.1.ino, Some(name));
        at = (fd, id);
    }
    Some(at)
}
