//! Whether unstable data could have been lost, which the write verifier must tell (RFC 1813 section 3.3.7).
//!
//! The kernel tells a failed write-back once to each descriptor that was open then, and to one opened later only if nobody
//! was told before (`errseq_sample` in lib/errseq.c). A file whose descriptor was closed between WRITE and COMMIT could lose
//! data unnoticed; so its number is kept, and its COMMIT also asks the file system, whose errors the root's descriptor,
//! open from the start, is told without exception (`syncfs`).

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::sys::write_error;

/// Files that are remembered as closed with unstable data. With more than that every COMMIT asks the file system.
const MAX_ABANDONED: usize = 4096;

/// Of one export.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    epoch: AtomicU64,
    abandoned: Mutex<Abandoned>,
    any_abandoned: AtomicBool,
}

#[derive(Debug, Default)]
struct Abandoned {
    /// When each was closed last, counted in closings.
    inos: HashMap<u64, u64>,
    /// When one was closed that there was no room for.
    others: Option<u64>,
    closings: u64,
}

impl WriteBack {
    /// Changes whenever unstable data may have been lost.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Takes note of how making something stable ended. Errors of the call itself, of a descriptor or an argument, lose
    /// nothing.
    pub(super) fn note(&self, result: Result<(), Errno>) -> Result<(), Errno> {
        if let Err(
            error @ (Errno::IO | Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::NXIO | Errno::NODEV),
        ) = result
        {
            self.epoch.fetch_add(1, SeqCst);
            tracing::error!(
                %error,
                "data could not be written back; clients are told to send again what they have not committed"
            );
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Abandoned> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn abandon(&self, ino: u64, fd: Option<BorrowedFd<'_>>) {
        let mut abandoned = self.lock();
        abandoned.closings += 1;
        let closing = abandoned.closings;
        if abandoned.inos.len() < MAX_ABANDONED || abandoned.inos.contains_key(&ino) {
            abandoned.inos.insert(ino, closing);
        } else {
            abandoned.others = Some(closing);
        }
        self.any_abandoned.store(true, SeqCst);
        drop(abandoned);
        if let Some(fd) = fd {
            let _ = self.note(write_error(fd));
        }
    }

    /// Whether the file was closed with unstable data; then `syncfs` makes it stable, and tells of errors.
    pub(super) fn settle(&self, ino: u64, syncfs: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        if !self.any_abandoned.load(SeqCst) {
            return Ok(());
        }
        let abandoned = self.lock();
        if abandoned.others.is_none() && !abandoned.inos.contains_key(&ino) {
            return Ok(());
        }
        let until = abandoned.closings;
        drop(abandoned);
        self.note(syncfs())?;
        let mut abandoned = self.lock();
        abandoned.inos.retain(|_, closing| *closing > until);
        abandoned.others = abandoned.others.filter(|closing| *closing > until);
        self.any_abandoned.store(abandoned.others.is_some() || !abandoned.inos.is_empty(), SeqCst);
        Ok(())
    }
}

/// Whether an open file has unstable data.
#[derive(Debug)]
pub(super) struct Unsettled {
    export: Arc<WriteBack>,
    unstable: AtomicBool,
}

impl Unsettled {
    pub(super) fn new(export: &Arc<WriteBack>) -> Self {
        Self { export: export.clone(), unstable: AtomicBool::new(false) }
    }

    /// Before unstable data is written.
    pub(super) fn begin(&self) {
        if !self.is_unstable() {
            self.unstable.store(true, SeqCst);
        }
    }

    /// Whether there is unstable data.
    pub(super) fn is_unstable(&self) -> bool {
        self.unstable.load(SeqCst)
    }

    /// The file is gone, and nobody misses its data.
    pub(super) fn forget(&self) {
        self.unstable.store(false, SeqCst);
    }

    /// Makes everything stable that was written before, through `fsync`. What is written meanwhile stays unstable.
    pub(super) fn settle(&self, fsync: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        let was = self.unstable.swap(false, SeqCst);
        let done = self.export.note(fsync());
        if done.is_err() && was {
            self.unstable.store(true, SeqCst);
        }
        done
    }

    /// The file's descriptors are about to be closed.
    pub(super) fn abandon(&self, ino: u64, fd: Option<BorrowedFd<'_>>) {
        if self.is_unstable() {
            self.export.abandon(ino, fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn file(export: &Arc<WriteBack>) -> Unsettled {
        Unsettled::new(export)
    }

    #[test]
    fn only_lost_data_begins_an_epoch() {
        let export = Arc::new(WriteBack::default());
        let file = file(&export);
        file.begin();
        assert_eq!(file.settle(|| Err(Errno::BADF)), Err(Errno::BADF));
        assert_eq!(file.settle(|| Ok(())), Ok(()));
        assert_eq!(export.epoch(), 0);
        for (n, error) in [Errno::IO, Errno::NOSPC, Errno::DQUOT].into_iter().enumerate() {
            assert_eq!(file.settle(|| Err(error)), Err(error));
            assert_eq!(export.epoch(), n as u64 + 1);
        }
    }

    /// How often the file system was asked for the COMMIT of a file.
    fn asked(export: &WriteBack, ino: u64, result: Result<(), Errno>) -> bool {
        let asked = Cell::new(false);
        let done = export.settle(ino, || {
            asked.set(true);
            result
        });
        assert_eq!(done, if asked.get() { result } else { Ok(()) });
        asked.get()
    }

    #[test]
    fn a_file_that_was_closed_too_early_is_asked_for_until_it_is_stable() {
        let export = Arc::new(WriteBack::default());
        let (early, settled) = (file(&export), file(&export));
        early.begin();
        settled.begin();
        settled.settle(|| Ok(())).unwrap();
        early.abandon(1, None);
        settled.abandon(2, None);
        assert!(!asked(&export, 2, Ok(())));
        assert!(asked(&export, 1, Err(Errno::IO)));
        assert_eq!(export.epoch(), 1);
        assert!(asked(&export, 1, Ok(())), "still unstable");
        assert!(!asked(&export, 1, Ok(())));
    }

    #[test]
    fn a_failed_flush_leaves_data_unstable() {
        let export = Arc::new(WriteBack::default());
        let file = file(&export);
        file.begin();
        file.settle(|| Err(Errno::IO)).unwrap_err();
        file.abandon(1, None);
        assert!(asked(&export, 1, Ok(())));
        file.settle(|| Ok(())).unwrap();
        file.begin();
        file.forget();
        file.abandon(1, None);
        assert!(!asked(&export, 1, Ok(())));
    }

    #[test]
    fn too_many_to_remember_are_all_asked_for() {
        let export = Arc::new(WriteBack::default());
        let file = file(&export);
        file.begin();
        (0..=MAX_ABANDONED as u64).for_each(|ino| file.abandon(ino, None));
        assert!(asked(&export, u64::MAX, Ok(())));
        assert!(!asked(&export, 0, Ok(())));
    }
}
