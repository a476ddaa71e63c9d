//! What a file system counts: relaxed atomics, so that counting costs next to nothing.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

/// Questions to a cache.
#[derive(Debug, Default)]
pub struct Asked {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Questions to a cache since it was mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    /// Answered from the cache.
    pub hits: u64,
    /// Asked of the server.
    pub misses: u64,
}

impl Asked {
    /// `n` were answered from the cache.
    pub fn hit(&self, n: u64) {
        self.hits.fetch_add(n, Relaxed);
    }

    /// `n` were asked of the server.
    pub fn miss(&self, n: u64) {
        self.misses.fetch_add(n, Relaxed);
    }

    /// One was answered, `from_cache` or by the server.
    pub fn count(&self, from_cache: bool) {
        if from_cache { self.hit(1) } else { self.miss(1) }
    }

    fn told(&self) -> Hits {
        Hits { hits: self.hits.load(Relaxed), misses: self.misses.load(Relaxed) }
    }
}

impl Hits {
    /// Part that came from the cache; `None` if nothing was asked.
    pub fn part(self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

/// One mount's counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Attributes that were wanted.
    pub attributes: Asked,
    /// Names that were looked up, those that do not exist included.
    pub names: Asked,
    /// Permissions that were wanted.
    pub access: Asked,
    /// Bytes that were read: from what was read ahead, or by waiting for the server.
    pub read_bytes: Asked,
}

/// What [`Counters`] have counted since it was mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Attributes that were wanted.
    pub attributes: Hits,
    /// Names that were looked up, those that do not exist included.
    pub names: Hits,
    /// Permissions that were wanted.
    pub access: Hits,
    /// Bytes that were read: from what was read ahead, or by waiting for the server. What the kernel has in its page cache
    /// is not seen here.
    pub read_bytes: Hits,
}

impl Counters {
    /// What was counted until now.
    pub fn told(&self) -> Counted {
        Counted {
            attributes: self.attributes.told(),
            names: self.names.told(),
            access: self.access.told(),
            read_bytes: self.read_bytes.told(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_and_misses_are_parts_of_all() {
        let counters = Counters::default();
        assert_eq!(counters.told().names.part(), None);
        (0..4).for_each(|n| counters.names.count(n > 0));
        counters.read_bytes.hit(4096);
        let told = counters.told();
        assert_eq!(told.names, Hits { hits: 3, misses: 1 });
        assert_eq!((told.names.part(), told.read_bytes.part()), (Some(0.75), Some(1.0)));
        assert_eq!(told.attributes, Hits::default());
    }
}
