//! What callers were allowed to do with an object, remembered for as long as it holds.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use remoor_nfs::v3::Time;
use rustix::time::{ClockId, clock_gettime};

use super::super::Caller;

/// How long one who may write goes on without being judged again. A change of owner or mode by a process of this host takes
/// effect after this time at the latest, for reads and for changes through this server at once: an application that
/// has a file open would go on for longer.
const WRITES_FOR: Duration = Duration::from_secs(1);
/// How old a ctime must be for any later change to have another: the coarsest clock tick that file systems use.
const TICK: Duration = Duration::from_millis(20);

/// The latest judgements of one object.
#[derive(Debug, Default)]
pub(super) struct Judgements(Mutex<Latest>);

#[derive(Debug, Default)]
struct Latest {
    kernel: Option<(Caller, Time, u32)>,
    writer: Option<(Caller, Instant)>,
}

impl Judgements {
    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the kernel granted the caller while the object had this ctime, which changes with mode, owner and access
    /// control lists.
    pub(super) fn granted(&self, caller: &Caller, ctime: Time) -> Option<u32> {
        let latest = self.lock();
        latest.kernel.as_ref().filter(|(who, at, _)| *at == ctime && who == caller).map(|(.., bits)| *bits)
    }

    /// Remembers what the kernel granted, if a change from now on would show in ctime.
    pub(super) fn grant(&self, caller: &Caller, ctime: Time, bits: u32) {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let age = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
            - i128::from(ctime.seconds) * 1_000_000_000
            - i128::from(ctime.nanos);
        if age > TICK.as_nanos() as i128 {
            self.lock().kernel = Some((caller.clone(), ctime, bits));
        }
    }

    /// Whether the caller may go on writing.
    pub(super) fn is_writer(&self, caller: &Caller) -> bool {
        let latest = self.lock();
        latest.writer.as_ref().is_some_and(|(who, since)| since.elapsed() < WRITES_FOR && who == caller)
    }

    /// Remembers that the caller may write.
    pub(super) fn writes(&self, caller: &Caller) {
        self.lock().writer = Some((caller.clone(), Instant::now()));
    }

    /// Owner, group or mode may be others now.
    pub(super) fn forget(&self) {
        *self.lock() = Latest::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32) -> Caller {
        Caller { uid, gid: 1, gids: vec![2] }
    }

    #[test]
    fn a_grant_is_for_one_caller_and_one_ctime() {
        let judged = Judgements::default();
        let old = Time { seconds: 1000, nanos: 5 };
        judged.grant(&caller(1), old, 6);
        assert_eq!(judged.granted(&caller(1), old), Some(6));
        assert_eq!(judged.granted(&caller(2), old), None);
        assert_eq!(judged.granted(&caller(1), Time { nanos: 6, ..old }), None);
        judged.forget();
        assert_eq!(judged.granted(&caller(1), old), None);
    }

    #[test]
    fn a_ctime_that_may_come_again_tells_nothing() {
        let judged = Judgements::default();
        let now = clock_gettime(ClockId::Realtime);
        let ctime = Time { seconds: now.tv_sec as u32, nanos: now.tv_nsec as u32 };
        judged.grant(&caller(1), ctime, 6);
        let later = clock_gettime(ClockId::Realtime);
        let passed = (later.tv_sec - now.tv_sec) * 1_000_000_000 + later.tv_nsec - now.tv_nsec;
        assert!(judged.granted(&caller(1), ctime).is_none() || passed > TICK.as_nanos() as i64);
    }

    #[test]
    fn a_writer_is_one_caller() {
        let judged = Judgements::default();
        judged.writes(&caller(1));
        assert!(!judged.is_writer(&caller(2)));
        judged.forget();
        assert!(!judged.is_writer(&caller(1)));
    }
}
