//! The backends, their health, and the choice among them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::config::{Config, Hash, OnAllDown, Selection, Tuple};
use crate::packet::{BackendId, Segment};

/// What the balancer's probes say of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It gets new flows.
    Up,
    /// It gets no new flows while another is up.
    Down,
}

#[derive(Debug)]
pub(crate) struct Pool {
    /// In the operator's order of preference, each id once.
    members: Vec<(BackendId, Health)>,
    seed: u64,
}

impl Pool {
    pub(crate) fn new(backends: &[BackendId], seed: u64) -> Self {
        let mut members: Vec<(BackendId, Health)> = Vec::with_capacity(backends.len());
        for &backend in backends {
            if members.iter().all(|(known, _)| *known != backend) {
                members.push((backend, Health::Up));
            }
        }
        Self { members, seed }
    }

    pub(crate) fn health(&self, backend: BackendId) -> Option<Health> {
        self.members.iter().find(|(id, _)| *id == backend).map(|(_, health)| *health)
    }

    pub(crate) fn set_health(&mut self, backend: BackendId, health: Health) {
        if let Some(member) = self.members.iter_mut().find(|(id, _)| *id == backend) {
            member.1 = health;
        }
    }

    pub(crate) fn all_down(&self) -> bool {
        self.members.iter().all(|(_, health)| *health == Health::Down)
    }

    /// The backend of a new flow that starts with `segment`.
    pub(crate) fn select(&self, config: &Config, segment: &Segment) -> Option<BackendId> {
        let fail_open = self.all_down() && config.on_all_down == OnAllDown::FailOpen;
        let mut candidates =
            self.members.iter().filter(|(_, health)| fail_open || *health == Health::Up).map(|(id, _)| *id);
        match config.selection {
            Selection::Priority => candidates.next(),
            Selection::Hash => candidates.max_by_key(|id| self.score(config.hash, segment, *id)),
        }
    }

    /// Rendezvous hashing: a backend that leaves moves only its own flows.
    fn score(&self, hash: Hash, segment: &Segment, backend: BackendId) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, backend).hash(&mut hasher);
        let flow = segment.flow;
        match hash.tuple {
            Tuple::Five => flow.hash(&mut hasher),
            Tuple::Three | Tuple::Two => (flow.client.ip(), flow.service.ip()).hash(&mut hasher),
        }
        if hash.isn {
            segment.seq.hash(&mut hasher);
        }
        hasher.finish()
    }
}
