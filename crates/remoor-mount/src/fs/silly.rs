//! Files that are open while they have no name: the name they have on the server meanwhile.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::node::Place;

/// The name a removed file has while it is open.
#[derive(Debug)]
pub(crate) struct Silly {
    pub(crate) place: Place,
}

/// Keeps silly names where the next mount finds them after a crash.
#[derive(Debug)]
pub struct Journal {}

impl Journal {
    /// Keeps nothing.
    pub fn none() -> Self {
        Self {}
    }
}

/// Numbers no two creators share.
#[derive(Debug)]
pub(crate) struct Unique {
    seed: u32,
    next: AtomicU64,
}

impl Unique {
    pub(crate) fn new() -> Self {
        let seed = RandomState::new().hash_one(std::process::id());
        Self { seed: seed as u32, next: AtomicU64::new(seed >> 32) }
    }

    pub(crate) fn next(&self) -> u64 {
        u64::from(self.seed) << 32 | self.next.fetch_add(1, Relaxed) & u64::from(u32::MAX)
    }
}
