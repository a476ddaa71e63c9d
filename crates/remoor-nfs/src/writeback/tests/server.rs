//! A server of one file that executes out of order, answers short, loses replies, crashes, and knows what it had made
//! stable; and the driver's side of it.

use std::ops::Range;

use bytes::Bytes;

use super::super::*;
use crate::v3::StableHow;

/// A call that is on its way, or whose answer is.
struct Call {
    kind: Kind,
    answer: Option<Answer>,
}

#[derive(Clone)]
enum Kind {
    Write(Write),
    Commit(CommitId),
}

#[derive(Clone, Copy)]
enum Answer {
    Wrote(Wrote),
    Committed(u64),
}

/// One file, its only client, and what its contents should be.
pub(super) struct World {
    pub(super) client: Writeback<&'static str>,
    pub(super) model: Vec<u8>,
    calls: Vec<Call>,
    visible: Vec<u8>,
    stable: Vec<u8>,
    verf: u64,
    fill: u8,
    pub(super) sent: usize,
}

fn put(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if file.len() < offset + data.len() {
        file.resize(offset + data.len(), 0);
    }
    file[offset..offset + data.len()].copy_from_slice(data);
}

impl World {
    pub(super) fn new(wsize: u32) -> Self {
        Self {
            client: Writeback::new(wsize),
            model: Vec::new(),
            calls: Vec::new(),
            visible: Vec::new(),
            stable: Vec::new(),
            verf: 1,
            fill: 0,
            sent: 0,
        }
    }

    /// Writes bytes that no write before it wrote.
    pub(super) fn write(&mut self, at: Range<usize>) {
        self.fill = self.fill % 250 + 1;
        let data = Bytes::from(vec![self.fill; at.len()]);
        put(&mut self.model, at.start, &data);
        self.client.write(at.start as u64, data);
    }

    pub(super) fn send(&mut self, urgency: Urgency) -> bool {
        let write = self.client.poll_write(urgency);
        self.sent += usize::from(write.is_some());
        let new = write.map(|write| Call { kind: Kind::Write(write), answer: None });
        let sends = new.is_some();
        self.calls.extend(new);
        sends
    }

    pub(super) fn commit(&mut self) {
        let commit = self.client.poll_commit();
        self.calls.extend(commit.map(|id| Call { kind: Kind::Commit(id), answer: None }));
    }

    /// Executes one of the calls, or executes it again because its reply was lost.
    pub(super) fn execute(&mut self, pick: usize, short: usize) {
        let Some(pick) = pick.checked_rem(self.calls.len()) else { return };
        let answer = match self.calls[pick].kind.clone() {
            Kind::Write(write) => Answer::Wrote(self.execute_write(&write, short)),
            Kind::Commit(_) => {
                self.stable = self.visible.clone();
                Answer::Committed(self.verf)
            }
        };
        self.calls[pick].answer = Some(answer);
    }

    fn execute_write(&mut self, write: &Write, short: usize) -> Wrote {
        let data = write.segments.concat();
        let count = data.len().saturating_sub(short).max(1);
        put(&mut self.visible, write.offset as usize, &data[..count]);
        if write.stable == StableHow::FileSync {
            put(&mut self.stable, write.offset as usize, &data[..count]);
        }
        Wrote { count: count as u32, committed: write.stable, verf: self.verf.to_be_bytes() }
    }

    /// Delivers an answer, if there is one.
    pub(super) fn deliver(&mut self, pick: usize) {
        let answered: Vec<_> = (0..self.calls.len()).filter(|at| self.calls[*at].answer.is_some()).collect();
        let Some(pick) = pick.checked_rem(answered.len()) else { return };
        let call = self.calls.remove(answered[pick]);
        match (call.kind, call.answer) {
            (Kind::Write(write), Some(Answer::Wrote(wrote))) => self.client.wrote(write.id, Ok(wrote)),
            (Kind::Commit(id), Some(Answer::Committed(verf))) => {
                self.client.committed(id, Ok(verf.to_be_bytes()));
            }
            _ => unreachable!("an answer is of its call's kind"),
        }
    }

    pub(super) fn crash(&mut self) {
        self.visible = self.stable.clone();
        self.verf += 1;
    }

    pub(super) fn settle(&mut self) {
        while !self.calls.is_empty() {
            self.execute(0, 0);
            self.deliver(0);
        }
    }

    /// As a mount does: everything is written before the size changes.
    pub(super) fn truncate(&mut self, size: usize) {
        while self.client.dirty_bytes() > 0 || !self.calls.is_empty() {
            while self.send(Urgency::All) {}
            self.settle();
        }
        self.visible.resize(size, 0);
        self.stable.truncate(size);
        self.stable.resize(size, 0);
        self.model.resize(size, 0);
        self.client.truncate(size as u64);
    }

    pub(super) fn fsync(&mut self) {
        for _ in 0..1000 {
            while self.send(Urgency::Stable) {}
            self.settle();
            if self.client.is_stable() {
                return;
            }
            self.commit();
            self.settle();
        }
        panic!("not stable after 1000 rounds: {:?}", self.client);
    }

    /// What a reader sees.
    pub(super) fn read(&self) -> Vec<u8> {
        let mut file = self.visible.clone();
        for (offset, data) in self.client.overlay(0, u64::MAX) {
            put(&mut file, offset as usize, &data);
        }
        file
    }

    /// What is there after a power failure.
    pub(super) fn survives(&self) -> &[u8] {
        &self.stable
    }
}
