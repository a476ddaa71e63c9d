//! All pieces of a file: disjoint, in order, with their sums.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::machine::WriteId;
use super::piece::{self, Piece, State};
use super::runs::Runs;

/// How many pieces each mark waits for.
#[derive(Debug, Default)]
struct Ages(BTreeMap<u64, usize>);

impl Ages {
    fn add(&mut self, born: u64) {
        *self.0.entry(born).or_default() += 1;
    }

    fn remove(&mut self, born: u64) {
        if let Some(count) = self.0.get_mut(&born) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&born);
            }
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.0.first_key_value().map(|(born, _)| *born)
    }
}

/// The pieces by offset. Everything that changes a piece's place, size or state goes through `put` and `take`, which keep
/// the sums.
#[derive(Debug)]
pub(super) struct Pieces {
    map: BTreeMap<u64, Piece>,
    pub(super) dirty: Runs,
    pub(super) dirty_bytes: u64,
    pub(super) unstable_bytes: u64,
    pub(super) cost: usize,
    /// Of what is dirty or in flight.
    unwritten: Ages,
    /// Of what is unstable.
    uncommitted: Ages,
}

impl Pieces {
    pub(super) fn new(wsize: u64) -> Self {
        Self {
            map: BTreeMap::new(),
            dirty: Runs::new(wsize),
            dirty_bytes: 0,
            unstable_bytes: 0,
            cost: 0,
            unwritten: Ages::default(),
            uncommitted: Ages::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(super) fn end(&self) -> Option<u64> {
        self.map.last_key_value().map(|(offset, piece)| offset + piece.len())
    }

    /// The oldest mark that waits for something to be written.
    pub(super) fn oldest_unwritten(&self) -> Option<u64> {
        self.unwritten.oldest()
    }

    /// The oldest mark that waits for something to be committed.
    pub(super) fn oldest_uncommitted(&self) -> Option<u64> {
        self.uncommitted.oldest()
    }

    /// Takes the place of whatever is there. What waited for older data now waits for the new.
    pub(super) fn write(&mut self, offset: u64, data: Bytes, born: u64) {
        let older = self.clear(offset, offset + data.len() as u64);
        let born = older.map_or(born, |older| older.min(born));
        if !self.append(offset, &data, born) {
            self.put(offset, Piece::dirty(data, born));
        }
    }

    /// Continues the small writes that end at `offset`.
    fn append(&mut self, offset: u64, data: &[u8], born: u64) -> bool {
        let Some((start, piece)) = self.map.range_mut(..offset).next_back() else { return false };
        let cost = piece.cost();
        let fits = start + piece.len() == offset && piece.state == State::Dirty && piece.born <= born;
        if !fits || !piece.grow(data) {
            return false;
        }
        self.cost += piece.cost() - cost;
        self.dirty_bytes += data.len() as u64;
        self.dirty.insert(offset, offset + data.len() as u64);
        true
    }

    fn put(&mut self, offset: u64, piece: Piece) {
        let len = piece.len();
        self.cost += piece.cost();
        match piece.state {
            State::Dirty => {
                self.dirty_bytes += len;
                self.dirty.insert(offset, offset + len);
                self.unwritten.add(piece.born);
            }
            State::InFlight(_) => self.unwritten.add(piece.born),
            State::Unstable(_) => {
                self.unstable_bytes += len;
                self.uncommitted.add(piece.born);
            }
        }
        self.map.insert(offset, piece);
    }

    fn take(&mut self, offset: u64) -> Option<Piece> {
        let piece = self.map.remove(&offset)?;
        let len = piece.len();
        self.cost -= piece.cost();
        match piece.state {
            State::Dirty => {
                self.dirty_bytes -= len;
                self.dirty.remove(offset, offset + len);
                self.unwritten.remove(piece.born);
            }
            State::InFlight(_) => self.unwritten.remove(piece.born),
            State::Unstable(_) => {
                self.unstable_bytes -= len;
                self.uncommitted.remove(piece.born);
            }
        }
        Some(piece)
    }

    fn split(&mut self, at: u64) {
        let Some((&start, piece)) = self.map.range(..at).next_back() else { return };
        if start + piece.len() > at
            && let Some(piece) = self.take(start)
        {
            let (head, tail) = piece.split((at - start) as usize);
            self.put(start, head);
            self.put(at, tail);
        }
    }

    /// Offsets of the pieces that begin in a range.
    fn places(&self, start: u64, end: u64) -> Vec<u64> {
        self.map.range(start..end).map(|(offset, _)| *offset).collect()
    }

    /// Forgets a range. Returns the oldest mark that waited for some of it.
    pub(super) fn clear(&mut self, start: u64, end: u64) -> Option<u64> {
        if start >= end {
            return None;
        }
        self.split(start);
        self.split(end);
        let gone = self.places(start, end);
        gone.into_iter().filter_map(|offset| self.take(offset)).map(|piece| piece.born).min()
    }

    /// Takes a dirty range into a WRITE.
    pub(super) fn send(&mut self, start: u64, end: u64, id: WriteId) -> Vec<Bytes> {
        self.split(start);
        self.split(end);
        let taken: Vec<_> =
            self.places(start, end).into_iter().filter_map(|offset| self.take(offset)).collect();
        let joined = piece::join(taken.into_iter());
        let mut offset = start;
        for (data, born) in &joined {
            self.put(offset, Piece::sent(data.clone(), id, *born));
            offset += data.len() as u64;
        }
        joined.into_iter().map(|(data, _)| data).collect()
    }

    /// What is left of a WRITE's data in a range comes to `state`, or is forgotten.
    pub(super) fn settle(&mut self, start: u64, end: u64, id: WriteId, state: Option<State>) {
        self.split(end);
        for offset in self.places(start, end) {
            if self.map.get(&offset).is_some_and(|piece| piece.state == State::InFlight(id)) {
                self.change(offset, state);
            }
        }
    }

    /// Everything unstable that was answered before `before` comes to `state`, or is forgotten.
    pub(super) fn settle_unstable(&mut self, before: u64, state: Option<State>) {
        let covered = |piece: &Piece| matches!(piece.state, State::Unstable(nth) if nth < before);
        let places: Vec<_> =
            self.map.iter().filter(|(_, piece)| covered(piece)).map(|(offset, _)| *offset).collect();
        for offset in places {
            self.change(offset, state);
        }
    }

    fn change(&mut self, offset: u64, state: Option<State>) {
        if let Some(mut piece) = self.take(offset)
            && let Some(state) = state
        {
            piece.state = state;
            self.put(offset, piece);
        }
    }

    /// What lies in a range, cut to it.
    pub(super) fn overlay(&self, start: u64, end: u64) -> Vec<(u64, Bytes)> {
        let spans = |(at, piece): &(&u64, &Piece)| **at + piece.len() > start;
        let first = self.map.range(..start).next_back().filter(spans);
        let within = self.map.range(start..end.max(start));
        let cut = |(&at, piece): (&u64, &Piece)| {
            let (from, to) = (start.max(at), end.min(at + piece.len()));
            (from, piece.share((from - at) as usize, (to - at) as usize))
        };
        first.into_iter().chain(within).map(cut).filter(|(_, data)| !data.is_empty()).collect()
    }

    /// Panics unless the pieces are disjoint and the sums right.
    #[cfg(test)]
    pub(super) fn assert_consistent(&self) {
        let mut end = 0;
        let (mut dirty, mut unstable, mut cost) = (0, 0, 0);
        for (offset, piece) in &self.map {
            assert!(*offset >= end && piece.len() > 0, "pieces overlap or are empty at {offset}");
            end = offset + piece.len();
            cost += piece.cost();
            match piece.state {
                State::Dirty => dirty += piece.len(),
                State::InFlight(_) => {}
                State::Unstable(_) => unstable += piece.len(),
            }
        }
        assert_eq!((self.dirty_bytes, self.unstable_bytes, self.cost), (dirty, unstable, cost));
        assert_eq!(self.dirty.all().map(|(start, end)| end - start).sum::<u64>(), dirty);
        let counted: usize = self.unwritten.0.values().chain(self.uncommitted.0.values()).sum();
        assert_eq!(counted, self.map.len());
    }
}
