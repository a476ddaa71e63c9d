//! What is held of one file, and what is to be sent of it next.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use remoor_nfs::v3::WriteVerf;
use remoor_nfs::writeback::{CommitId, ErrorMark, Mark, Urgency, Write, WriteId, Writeback, Wrote};
use tokio::sync::Notify;

use super::super::node::lock;
use super::super::{Credential, Node};
use crate::errno::Errno;

/// WRITEs of one file in flight.
const MAX_WRITES: usize = 8;
/// Unstable bytes of one file from which on it is committed without being asked to.
const COMMIT_AT: u64 = 64 << 20;
/// How often in a row a COMMIT may find that the server has lost what it was to commit, before that is an error.
const MAX_LOST: u32 = 100;
/// Age at which what is dirty is written, and what is written is committed.
pub(super) const WRITE_AGE: Duration = Duration::from_secs(1);
const COMMIT_AGE: Duration = Duration::from_secs(5);

/// Data of one file.
#[derive(Debug, Default)]
pub(crate) struct FileData {
    held: Mutex<Held>,
    /// A WRITE or COMMIT was answered, or the gate was opened.
    pub(super) progress: Notify,
}

impl FileData {
    /// Locked for a few instructions, never over a call.
    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

/// What is to be sent.
#[derive(Debug)]
pub(super) enum Job {
    /// A WRITE.
    Write(Write),
    /// A COMMIT.
    Commit(CommitId),
}

/// What is held of one file.
#[derive(Debug, Default)]
pub(super) struct Held {
    writeback: Option<Box<Writeback<Errno>>>,
    /// On whose behalf it was written.
    who: Option<Arc<Credential>>,
    /// What was written before is to be written to the server, or to be stable there.
    written: Option<Mark>,
    stable: Option<Mark>,
    dirty_since: Option<Instant>,
    unstable_since: Option<Instant>,
    /// Somebody sets the size: nothing is sent and nothing taken over.
    gated: bool,
    /// COMMITs in a row that found the data lost.
    lost: u32,
    /// Moves whenever bytes read before may differ from those read after.
    generation: u64,
}

/// What written data has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// Somebody else's data must be stable first, because what is sent again must be sent on behalf of who wrote it.
    OfAnother,
    /// The size is being set, and the data comes after that.
    Gated,
}

/// What a reader must lay over what it reads.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pub(super) pieces: Vec<(u64, Bytes)>,
    /// The file is at least that long.
    pub(super) end: u64,
    pub(super) generation: u64,
}

impl Held {
    /// Takes written data over, unless it has to wait.
    pub(super) fn write(
        &mut self,
        who: &Arc<Credential>,
        wsize: u32,
        at: (u64, Bytes),
        now: Instant,
    ) -> Result<(), Busy> {
        if self.gated {
            return Err(Busy::Gated);
        }
        let writeback = self.writeback.get_or_insert_with(|| Box::new(Writeback::new(wsize)));
        let same = self.who.as_ref().is_some_and(|other| other.identity == who.identity);
        if !same {
            if !writeback.is_stable() {
                return Err(Busy::OfAnother);
            }
            self.who = Some(who.clone());
        }
        writeback.write(at.0, at.1);
        self.generation += 1;
        self.age(now);
        Ok(())
    }

    /// Bytes that the server has not answered, and those it has not committed.
    pub(super) fn behind(&self) -> (u64, u64) {
        self.writeback.as_ref().map_or((0, 0), |held| (held.dirty_bytes(), held.unstable_bytes()))
    }

    /// Begins and ends the age of what is held.
    fn age(&mut self, now: Instant) {
        let (dirty, unstable) = self.behind();
        let since = |since: Option<Instant>, bytes: u64| (bytes > 0).then(|| since.unwrap_or(now));
        self.dirty_since = since(self.dirty_since, dirty);
        self.unstable_since = since(self.unstable_since, unstable);
    }

    /// The next call to be sent, and on whose behalf.
    pub(super) fn next_job(&mut self) -> Option<(Job, Arc<Credential>)> {
        if self.gated {
            return None;
        }
        let writeback = self.writeback.as_mut()?;
        self.written = self.written.filter(|mark| !writeback.is_written(*mark));
        self.stable = self.stable.filter(|mark| !writeback.is_stable_since(*mark));
        let commit = self.stable.is_some_and(|mark| writeback.is_written(mark));
        let urgency = match (self.stable, self.written) {
            (Some(_), _) if !commit => Urgency::Stable,
            (_, Some(_)) => Urgency::All,
            _ => Urgency::Full,
        };
        let free = writeback.in_flight() < MAX_WRITES;
        let job = free.then(|| writeback.poll_write(urgency)).flatten().map(Job::Write);
        let commit = commit || writeback.unstable_bytes() >= COMMIT_AT;
        let job = job.or_else(|| commit.then(|| writeback.poll_commit()).flatten().map(Job::Commit))?;
        Some((job, self.who.clone()?))
    }

    /// A WRITE was answered.
    pub(super) fn wrote(&mut self, id: WriteId, result: Result<Wrote, Errno>, now: Instant) {
        if let Some(writeback) = &mut self.writeback {
            writeback.wrote(id, result);
        }
        self.generation += 1;
        self.age(now);
    }

    /// A COMMIT was answered.
    pub(super) fn committed(&mut self, id: CommitId, result: Result<WriteVerf, Errno>, now: Instant) {
        let Some(writeback) = &mut self.writeback else { return };
        let dirty = writeback.dirty_bytes();
        let hopeless = self.lost >= MAX_LOST;
        writeback.committed(id, if hopeless { result.and(Err(Errno::IO)) } else { result });
        let lost = writeback.dirty_bytes() > dirty;
        self.lost = if lost { self.lost + 1 } else { 0 };
        self.generation += 1;
        self.unstable_since = None;
        self.age(now);
    }

    /// Asks for everything written up to now to be written to the server.
    pub(super) fn want_written(&mut self) -> Option<Mark> {
        let mark = self.writeback.as_mut()?.mark();
        self.written = Some(mark);
        Some(mark)
    }

    /// Asks for everything written up to now to be stable there.
    pub(super) fn want_stable(&mut self) -> Option<Mark> {
        let mark = self.writeback.as_mut()?.mark();
        self.stable = Some(mark);
        Some(mark)
    }

    /// Asks for what has become old to be written or committed.
    pub(super) fn want_by_age(&mut self, now: Instant) {
        let old = |since: Option<Instant>, age| since.is_some_and(|since| now >= since + age);
        if old(self.unstable_since, COMMIT_AGE) {
            self.want_stable();
        } else if old(self.dirty_since, WRITE_AGE) {
            self.want_written();
        }
    }

    pub(super) fn is_written(&self, mark: Mark) -> bool {
        self.writeback.as_ref().is_none_or(|held| held.is_written(mark))
    }

    pub(super) fn is_stable_since(&self, mark: Mark) -> bool {
        self.writeback.as_ref().is_none_or(|held| held.is_stable_since(mark))
    }

    /// Whether nothing is held.
    pub(super) fn is_stable(&self) -> bool {
        self.writeback.as_ref().is_none_or(|held| held.is_stable())
    }

    /// Lets nothing be sent or taken over until [`Held::open_gate`], unless something is to be sent or on its way, or
    /// somebody else has closed it.
    pub(super) fn close_gate(&mut self) -> bool {
        let idle =
            self.writeback.as_ref().is_none_or(|held| held.dirty_bytes() == 0 && held.in_flight() == 0);
        let closes = idle && !self.gated;
        self.gated |= closes;
        closes
    }

    pub(super) fn open_gate(&mut self) {
        self.gated = false;
    }

    pub(super) fn is_gated(&self) -> bool {
        self.gated
    }

    /// The server's file is `size` bytes long now.
    pub(super) fn truncate(&mut self, size: u64) {
        if let Some(writeback) = &mut self.writeback {
            writeback.truncate(size);
        }
        self.outdate();
    }

    /// What was read before is not true any more.
    pub(super) fn outdate(&mut self) {
        self.generation += 1;
    }

    /// What lies over a range of the server's file.
    pub(super) fn overlay(&self, offset: u64, len: u64) -> Overlay {
        let generation = self.generation;
        match &self.writeback {
            None => Overlay { generation, ..Overlay::default() },
            Some(held) => {
                Overlay { pieces: held.overlay(offset, len), end: held.end().unwrap_or(0), generation }
            }
        }
    }

    /// The file is at least that long, also if the server loses what it has not made stable.
    pub(super) fn end(&self) -> u64 {
        self.writeback.as_ref().and_then(|held| held.end()).unwrap_or(0)
    }

    pub(super) fn has_unwritten(&self) -> bool {
        self.writeback.as_ref().is_some_and(|held| held.has_unwritten())
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.writeback.as_ref().map_or(0, |held| held.held_bytes())
    }

    pub(super) fn error_mark(&self) -> ErrorMark {
        self.writeback.as_ref().map_or_else(ErrorMark::default, |held| held.error_mark())
    }

    pub(super) fn peek_error(&self, mark: ErrorMark) -> Option<Errno> {
        self.writeback.as_ref().and_then(|held| held.peek_error(mark).copied())
    }

    pub(super) fn take_error(&mut self, mark: &mut ErrorMark) -> Option<Errno> {
        self.writeback.as_mut().and_then(|held| held.take_error(mark))
    }
}

/// A file of which something is held, and a change to it.
pub(super) fn update<R>(node: &Node, change: impl FnOnce(&mut Held) -> R) -> (R, Sum) {
    let mut held = node.data().lock();
    let before = held.bytes();
    let result = change(&mut held);
    (result, Sum { before, after: held.bytes(), stable: held.is_stable() })
}

/// What a change did to the memory held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    pub(super) before: usize,
    pub(super) after: usize,
    pub(super) stable: bool,
}
