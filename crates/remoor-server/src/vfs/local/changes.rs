//! Which changes of an object nothing came between.
//!
//! Attributes from before a change (RFC 1813 section 2.6, `pre_op_attr`) tell a client that it saw every other change; with
//! a change of another client in between it would miss that one for good. Changes through this server are counted here,
//! and the attributes are given only if a change ran alone. What a process of this host does to the object in the
//! microseconds between the two statx(2) is not seen: only the kernel could exclude it, as knfsd does with the inode's lock.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Groups of objects that are counted together, by inode number.
const GROUPS: usize = 1024;
/// Changes that began, in the upper bits; those that go on, in the lower ones.
const BEGAN: u64 = 1 << 16;
const GOING_ON: u64 = BEGAN - 1;

/// All changes to the objects of an export that go on.
#[derive(Debug)]
pub(super) struct Changes(Box<[Group]>);

#[derive(Debug, Default)]
struct Group {
    /// Shared by changes; a guarded one has it alone, so that nothing happens between its comparison and its change.
    lock: RwLock<()>,
    count: AtomicU64,
}

/// A change that goes on until this is dropped.
#[derive(Debug)]
pub(super) struct Change<'a> {
    groups: [Option<Entered<'a>>; 2],
}

#[derive(Debug)]
struct Entered<'a> {
    group: &'a Group,
    /// The count when this change had just begun.
    count: u64,
    _lock: Lock<'a>,
}

#[derive(Debug)]
enum Lock<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()> },
    Alone { _guard: RwLockWriteGuard<'a, ()> },
    Nothing,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self((0..GROUPS).map(|_| Group::default()).collect())
    }

    fn group(&self, ino: u64) -> &Group {
        &self.0[ino as usize % GROUPS]
    }

    /// Begins a change of the object with this number.
    pub(super) fn begin(&self, ino: u64) -> Change<'_> {
        Change { groups: [Some(self.group(ino).enter()), None] }
    }

    /// Begins a change of two objects. Locks are taken in one order and none twice: one who waits for a guarded change must
    /// not be waited for by it.
    pub(super) fn begin_both(&self, one: u64, other: u64) -> Change<'_> {
        let (one, other) = (one % GROUPS as u64, other % GROUPS as u64);
        let first = self.group(one.min(other)).enter();
        let second = (one != other).then(|| self.group(one.max(other)).enter());
        Change { groups: [Some(first), second] }
    }

    /// Counts a change that another one brings along, of a link count; a guarded change is not kept from it.
    pub(super) fn count(&self, ino: u64) -> Change<'_> {
        Change { groups: [Some(self.group(ino).count(Lock::Nothing)), None] }
    }

    /// Begins a change that no other overlaps, when those that go on have ended.
    pub(super) fn begin_alone(&self, ino: u64) -> Change<'_> {
        let group = self.group(ino);
        let lock = Lock::Alone { _guard: group.lock.write().unwrap_or_else(PoisonError::into_inner) };
        Change { groups: [Some(group.count(lock)), None] }
    }
}

impl Group {
    fn enter(&self) -> Entered<'_> {
        self.count(Lock::Shared { _guard: self.lock.read().unwrap_or_else(PoisonError::into_inner) })
    }

    fn count<'a>(&'a self, lock: Lock<'a>) -> Entered<'a> {
        let count = self.count.fetch_add(BEGAN + 1, SeqCst).wrapping_add(BEGAN + 1);
        Entered { group: self, count, _lock: lock }
    }
}

impl Change<'_> {
    /// Whether no other change of these objects was going on at any time since this one began.
    pub(super) fn is_alone(&self) -> bool {
        self.groups
            .iter()
            .flatten()
            .all(|entered| entered.count & GOING_ON == 1 && entered.group.count.load(SeqCst) == entered.count)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.group.count.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_change_is_alone_unless_another_overlaps_it() {
        let changes = Changes::new();
        let first = changes.begin(1);
        assert!(first.is_alone() && changes.begin(2).is_alone());
        assert!(first.is_alone(), "another object");
        let second = changes.begin(1);
        drop(first);
        assert!(!second.is_alone(), "the first was going on");
        let third = changes.begin(1);
        drop(third);
        assert!(!second.is_alone());
        drop(second);
        assert!(changes.begin(1).is_alone());
        let outer = changes.begin(1);
        drop(changes.begin(1));
        assert!(!outer.is_alone(), "one came and went");
    }

    #[test]
    fn two_objects_of_one_group_are_entered_once() {
        let changes = Changes::new();
        let (one, same, other) = (5, 5 + GROUPS as u64, 6);
        assert!(changes.begin_both(one, same).is_alone());
        let both = changes.begin_both(one, other);
        assert!(both.is_alone());
        drop(changes.begin(other));
        assert!(!both.is_alone());
    }

    #[test]
    fn nothing_overlaps_a_guarded_change() {
        let (changes, inside, start) = (Changes::new(), AtomicU32::new(0), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..1000 {
                        let change = changes.begin_alone(7);
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        inside.fetch_sub(1, SeqCst);
                        assert!(change.is_alone());
                        drop(change);
                        drop(changes.begin_both(7, 8));
                    }
                });
            }
        });
    }
}
