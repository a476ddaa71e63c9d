//! What a caller was allowed to do with an object, remembered for as long as it holds.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use remoor_nfs::v3::Time;
use rustix::time::{ClockId, clock_gettime};

use super::super::Caller;

/// How old a ctime must be for any later change to have another: the coarsest clock tick that file systems use.
const TICK: Duration = Duration::from_millis(20);

/// The latest judgement of one object: of whom, at which ctime, and what was granted.
#[derive(Debug, Default)]
pub(super) struct Judgement(Mutex<Option<(Caller, Time, u32)>>);

impl Judgement {
    fn lock(&self) -> MutexGuard<'_, Option<(Caller, Time, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the kernel granted the caller while the object had this ctime, which changes with mode, owner and access
    /// control lists.
    pub(super) fn granted(&self, caller: &Caller, ctime: Time) -> Option<u32> {
        let latest = self.lock();
        latest.as_ref().filter(|(who, at, _)| *at == ctime && who == caller).map(|(.., bits)| *bits)
    }

    /// Remembers what the kernel granted, if a change from now on would show in ctime.
    pub(super) fn grant(&self, caller: &Caller, ctime: Time, bits: u32) {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let age = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
            - i128::from(ctime.seconds) * 1_000_000_000
            - i128::from(ctime.nanos);
        if age > TICK.as_nanos() as i128 {
            *self.lock() = Some((caller.clone(), ctime, bits));
        }
    }

    /// Owner, group or mode may be others now.
    pub(super) fn forget(&self) {
        *self.lock() = None;
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
        let judged = Judgement::default();
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
        let judged = Judgement::default();
        let now = clock_gettime(ClockId::Realtime);
        let ctime = Time { seconds: now.tv_sec as u32, nanos: now.tv_nsec as u32 };
        judged.grant(&caller(1), ctime, 6);
        let later = clock_gettime(ClockId::Realtime);
        let passed = (later.tv_sec - now.tv_sec) * 1_000_000_000 + later.tv_nsec - now.tv_nsec;
        assert!(judged.granted(&caller(1), ctime).is_none() || passed > TICK.as_nanos() as i64);
    }
}
