//! The machine.

use bytes::Bytes;

use super::errors::{ErrorMark, Errors};
use super::piece::State;
use super::pieces::Pieces;
use crate::v3::{StableHow, WriteVerf};

/// Names a WRITE of one [`Writeback`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(u64);

/// Names a COMMIT of one [`Writeback`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(u64);

/// A point between two writes: what was written before it can be waited for, however much is written after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(u64);

/// How much is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Only WRITEs of full size.
    Full,
    /// Everything.
    All,
    /// Everything, and it will be committed next. If it fits one WRITE and nothing else is to be committed, that WRITE is
    /// FILE_SYNC and no COMMIT is needed.
    Stable,
}

/// A WRITE to be sent.
#[derive(Debug, Clone)]
pub struct Write {
    /// For the answer.
    pub id: WriteId,
    /// Where.
    pub offset: u64,
    /// What, in order.
    pub segments: Vec<Bytes>,
    /// How stable it must be.
    pub stable: StableHow,
}

impl Write {
    /// Bytes to write.
    pub fn count(&self) -> usize {
        self.segments.iter().map(Bytes::len).sum()
    }
}

/// A server's answer to a WRITE.
#[derive(Debug, Clone, Copy)]
pub struct Wrote {
    /// Bytes it has written, from the start. At least one: a driver makes an error of none, lest it be sent for ever.
    pub count: u32,
    /// How stable they are.
    pub committed: StableHow,
    /// Its instance.
    pub verf: WriteVerf,
}

#[derive(Debug)]
struct Flight {
    id: WriteId,
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct Committing {
    id: CommitId,
    /// How many WRITEs had been answered when it was sent.
    answered: u64,
}

/// One file's written data that is not known to be stable. `E` is what a WRITE or COMMIT fails with.
#[derive(Debug)]
pub struct Writeback<E> {
    pieces: Pieces,
    flights: Vec<Flight>,
    committing: Option<Committing>,
    /// Of everything unstable.
    verf: Option<WriteVerf>,
    errors: Errors<E>,
    wsize: u64,
    next_id: u64,
    answered: u64,
    mark: u64,
}

impl<E: Clone> Writeback<E> {
    /// For WRITEs of at most `wsize` bytes, at least one.
    pub fn new(wsize: u32) -> Self {
        let wsize = u64::from(wsize.max(1));
        Self {
            pieces: Pieces::new(wsize),
            flights: Vec::new(),
            committing: None,
            verf: None,
            errors: Errors::default(),
            wsize,
            next_id: 0,
            answered: 0,
            mark: 0,
        }
    }

    /// Takes `data` over, which replaces what was written there before. `offset` and the data's end fit u64.
    pub fn write(&mut self, offset: u64, data: Bytes) {
        if !data.is_empty() {
            self.pieces.write(offset, data, self.mark);
        }
    }

    /// Forgets what lies beyond `size`. The caller sees to it that no WRITE is in flight when it sets the server's size.
    pub fn truncate(&mut self, size: u64) {
        self.pieces.clear(size, u64::MAX);
    }

    /// The next WRITE to send, lowest offset first.
    pub fn poll_write(&mut self, urgency: Urgency) -> Option<Write> {
        let (start, end) = self.next_range(urgency)?;
        let stable = self.how_stable(urgency, start, end);
        let id = WriteId(self.fresh_id());
        let segments = self.pieces.send(start, end, id);
        self.flights.push(Flight { id, start, end });
        Some(Write { id, offset: start, segments, stable })
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn next_range(&self, urgency: Urgency) -> Option<(u64, u64)> {
        let runs = &self.pieces.dirty;
        match urgency {
            Urgency::Full => runs.long().find_map(|run| self.in_run(run, self.wsize)),
            Urgency::All | Urgency::Stable => runs.all().find_map(|run| self.in_run(run, 1)),
        }
    }

    /// The first part of a run that does not overlap a WRITE in flight, if as much as `least` is left of the run.
    fn in_run(&self, (mut start, end): (u64, u64), least: u64) -> Option<(u64, u64)> {
        while end.saturating_sub(start) >= least {
            let stop = self.cut(start, end);
            match self.flights.iter().find(|flight| flight.start < stop && start < flight.end) {
                Some(flight) => start = flight.end,
                None => return Some((start, stop)),
            }
        }
        None
    }

    /// Where a WRITE from `start` ends: what does not fit one is cut at multiples of its size, as servers like it.
    fn cut(&self, start: u64, end: u64) -> u64 {
        if end - start <= self.wsize { end } else { (start / self.wsize + 1) * self.wsize }
    }

    fn how_stable(&self, urgency: Urgency, start: u64, end: u64) -> StableHow {
        let alone = self.flights.is_empty() && self.committing.is_none() && self.pieces.unstable_bytes == 0;
        let all = self.pieces.dirty.only() == Some((start, end));
        if urgency == Urgency::Stable && alone && all { StableHow::FileSync } else { StableHow::Unstable }
    }

    /// A WRITE was answered. What an error's WRITE carried is dropped.
    pub fn wrote(&mut self, id: WriteId, result: Result<Wrote, E>) {
        let Some(at) = self.flights.iter().position(|flight| flight.id == id) else { return };
        let Flight { start, end, .. } = self.flights.swap_remove(at);
        match result {
            Ok(wrote) => self.settle(id, start, end, wrote),
            Err(error) => {
                self.pieces.settle(start, end, id, None);
                self.errors.record(error);
            }
        }
    }

    fn settle(&mut self, id: WriteId, start: u64, end: u64, wrote: Wrote) {
        let done = end.min(start + u64::from(wrote.count));
        let unstable = wrote.committed == StableHow::Unstable;
        if unstable {
            self.seen(wrote.verf);
        }
        let state = unstable.then_some(State::Unstable(self.answered));
        self.answered += 1;
        self.pieces.settle(start, done, id, state);
        self.pieces.settle(done, end, id, Some(State::Dirty));
    }

    /// The server's instance. What another one did not make stable may be lost.
    fn seen(&mut self, verf: WriteVerf) {
        if self.verf.replace(verf).is_some_and(|old| old != verf) {
            self.pieces.settle_unstable(u64::MAX, Some(State::Dirty));
        }
    }

    /// A COMMIT of the whole file, if something is unstable and none is in flight.
    pub fn poll_commit(&mut self) -> Option<CommitId> {
        if self.pieces.unstable_bytes == 0 || self.committing.is_some() {
            return None;
        }
        let id = CommitId(self.fresh_id());
        self.committing = Some(Committing { id, answered: self.answered });
        Some(id)
    }

    /// A COMMIT was answered. What it covers is stable, or, after an error, dropped.
    pub fn committed(&mut self, id: CommitId, result: Result<WriteVerf, E>) {
        let Some(commit) = self.committing.take_if(|commit| commit.id == id) else { return };
        match result {
            Ok(verf) => self.seen(verf),
            Err(error) => self.errors.record(error),
        }
        self.pieces.settle_unstable(commit.answered, None);
    }

    /// What a READ of the range must be laid over with: all data that is held there, with its offset, in order.
    pub fn overlay(&self, offset: u64, len: u64) -> Vec<(u64, Bytes)> {
        self.pieces.overlay(offset, offset.saturating_add(len))
    }

    /// What is written from now on does not concern who waits for the mark.
    pub fn mark(&mut self) -> Mark {
        self.mark += 1;
        Mark(self.mark - 1)
    }

    /// Whether everything written before `mark` has been answered by the server, stable or not.
    pub fn is_written(&self, mark: Mark) -> bool {
        self.pieces.oldest_unwritten().is_none_or(|oldest| oldest > mark.0)
    }

    /// Whether everything written before `mark` is stable, or failed.
    pub fn is_stable_since(&self, mark: Mark) -> bool {
        self.is_written(mark) && self.pieces.oldest_uncommitted().is_none_or(|oldest| oldest > mark.0)
    }

    /// Whether nothing is held and no WRITE is in flight.
    pub fn is_stable(&self) -> bool {
        self.pieces.is_empty() && self.flights.is_empty()
    }

    /// Bytes that are to be sent.
    pub fn dirty_bytes(&self) -> u64 {
        self.pieces.dirty_bytes
    }

    /// Bytes that are to be committed.
    pub fn unstable_bytes(&self) -> u64 {
        self.pieces.unstable_bytes
    }

    /// Bytes of memory that are held, including what holding them costs.
    pub fn held_bytes(&self) -> usize {
        self.pieces.cost
    }

    /// Whether a WRITE of full size is to be sent.
    pub fn has_full(&self) -> bool {
        self.next_range(Urgency::Full).is_some()
    }

    /// WRITEs that are not answered.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The end of the last byte held, if any: the file is at least that long.
    pub fn end(&self) -> Option<u64> {
        self.pieces.end()
    }

    /// Whether the server has not answered for everything.
    pub fn has_unwritten(&self) -> bool {
        self.pieces.oldest_unwritten().is_some()
    }

    /// What an open file that is opened now knows of errors.
    pub fn error_mark(&self) -> ErrorMark {
        self.errors.mark()
    }

    /// The latest error since `mark`, which is told once.
    pub fn take_error(&mut self, mark: &mut ErrorMark) -> Option<E> {
        self.errors.since(mark)
    }

    /// The error that [`Writeback::take_error`] would tell.
    pub fn peek_error(&self, mark: ErrorMark) -> Option<&E> {
        self.errors.peek(mark)
    }

    #[cfg(test)]
    pub(super) fn assert_consistent(&self) {
        self.pieces.assert_consistent();
        for (nth, flight) in self.flights.iter().enumerate() {
            let overlaps = |other: &&Flight| other.start < flight.end && flight.start < other.end;
            assert_eq!(self.flights[nth + 1..].iter().find(overlaps).map(|other| other.id), None);
        }
    }
}
