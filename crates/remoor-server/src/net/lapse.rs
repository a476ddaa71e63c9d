//! Whether this process ran all the time, or was stopped (SIGSTOP, a frozen container, a suspended host) and goes on.
//!
//! A thread stores the time every [`LAPSE_TICK`]. Whoever finds that longer than [`LAPSE_AFTER`] ago has found a lapse,
//! and a new epoch begins: what was accepted in an earlier one may have been sent again elsewhere, and is to be
//! executed here no more. CLOCK_BOOTTIME goes on while the host is suspended, as CLOCK_MONOTONIC does not.
//!
//! A machine so busy that the thread has no turn for [`LAPSE_AFTER`] looks the same, and costs clients a reconnect.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::limits::LAPSE_AFTER;

/// How many lapses were found before, counted in 24 bits: more than 97 days of nothing but lapses.
pub(super) type Epoch = u32;

/// Bits of [`Beat::millis`]: 34 years since boot.
const MILLIS_BITS: u32 = 40;
const MILLIS_MASK: u64 = (1 << MILLIS_BITS) - 1;
const EPOCH_MASK: Epoch = (1 << (u64::BITS - MILLIS_BITS)) - 1;

/// When the server was last seen running, and in which epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beat {
    epoch: Epoch,
    /// Milliseconds since the host's boot.
    millis: u64,
}

/// What a look at the clock told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) epoch: Epoch,
    /// How long the server had not run; for the one who found it, who is to end what came before.
    pub(super) lapse: Option<Duration>,
}

impl Beat {
    /// The beat at this time, which begins an epoch if the server had not run before it.
    fn next(self, now_millis: u64) -> (Self, Option<Duration>) {
        let lapse = Duration::from_millis(now_millis.saturating_sub(self.millis));
        let lapse = (lapse > LAPSE_AFTER).then_some(lapse);
        let epoch = self.epoch.wrapping_add(lapse.is_some().into()) & EPOCH_MASK;
        (Self { epoch, millis: now_millis.max(self.millis) }, lapse)
    }

    fn pack(self) -> u64 {
        u64::from(self.epoch) << MILLIS_BITS | self.millis & MILLIS_MASK
    }

    fn unpack(packed: u64) -> Self {
        Self { epoch: (packed >> MILLIS_BITS) as Epoch, millis: packed & MILLIS_MASK }
    }
}

/// A [`Beat`] that threads share. Time and epoch change as one, so that nobody sees the new time in the old epoch.
pub(super) struct Heartbeat(AtomicU64);

impl Heartbeat {
    pub(super) fn new(now_millis: u64) -> Self {
        Self(AtomicU64::new(Beat { epoch: 0, millis: now_millis }.pack()))
    }

    /// The epoch, for a price that every call can pay: a load, and a clock that the kernel shares (vdso(7)).
    ///
    /// The clock is read after the beat, so that a stop between the two shows.
    pub(super) fn look(&self, now_millis: impl Fn() -> u64) -> Seen {
        let beat = Beat::unpack(self.0.load(SeqCst));
        match beat.next(now_millis()) {
            (_, None) => Seen { epoch: beat.epoch, lapse: None },
            (_, Some(_)) => self.beat(now_millis),
        }
    }

    /// Tells that the server runs.
    pub(super) fn beat(&self, now_millis: impl Fn() -> u64) -> Seen {
        loop {
            let packed = self.0.load(SeqCst);
            let (next, lapse) = Beat::unpack(packed).next(now_millis());
            if self.0.compare_exchange(packed, next.pack(), SeqCst, SeqCst).is_ok() {
                return Seen { epoch: next.epoch, lapse };
            }
        }
    }
}

/// Milliseconds since the host's boot, suspended time included.
pub(super) fn boottime_millis() -> u64 {
    boottime_nanos() / 1_000_000
}

/// Nanoseconds since the host's boot, suspended time included. The kernel shares this clock (vdso(7)).
pub(super) fn boottime_nanos() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::limits::LAPSE_TICK;
    use super::*;

    const AFTER: u64 = LAPSE_AFTER.as_millis() as u64;

    fn seen(epoch: Epoch, lapse_millis: Option<u64>) -> Seen {
        Seen { epoch, lapse: lapse_millis.map(Duration::from_millis) }
    }

    #[test]
    fn only_a_beat_that_is_long_overdue_is_a_lapse() {
        let beat = Beat { epoch: 3, millis: 1000 };
        for (now, next, lapse) in [
            (1050, Beat { epoch: 3, millis: 1050 }, None),
            (1000 + AFTER, Beat { epoch: 3, millis: 1000 + AFTER }, None),
            (1001 + AFTER, Beat { epoch: 4, millis: 1001 + AFTER }, Some(AFTER + 1)),
            // Another thread's clock was read later.
            (900, beat, None),
        ] {
            assert_eq!(beat.next(now), (next, lapse.map(Duration::from_millis)), "at {now}");
        }
        assert!(LAPSE_TICK * 5 < LAPSE_AFTER, "a late tick is no lapse");
    }

    #[test]
    fn a_beat_survives_packing_to_the_last_epoch() {
        for beat in [(0, 0), (7, MILLIS_MASK), (EPOCH_MASK, 1)] {
            let beat = Beat { epoch: beat.0, millis: beat.1 };
            assert_eq!(Beat::unpack(beat.pack()), beat);
        }
        let last = Beat { epoch: EPOCH_MASK, millis: 0 };
        assert_eq!(last.next(AFTER + 1).0.epoch, 0);
    }

    #[test]
    fn one_finds_the_lapse_and_all_see_the_epoch() {
        let heartbeat = Heartbeat::new(1000);
        assert_eq!(heartbeat.look(|| 1000 + AFTER), seen(0, None));
        assert_eq!(heartbeat.look(|| 1001 + AFTER), seen(1, Some(AFTER + 1)));
        assert_eq!(heartbeat.look(|| 1002 + AFTER), seen(1, None));
        assert_eq!(heartbeat.beat(|| 1003 + AFTER), seen(1, None));
        assert_eq!(heartbeat.beat(|| 1004 + 2 * AFTER), seen(2, Some(AFTER + 1)));
    }

    #[test]
    fn looking_does_not_count_as_running() {
        let heartbeat = Heartbeat::new(0);
        assert_eq!(heartbeat.look(|| AFTER), seen(0, None));
        assert_eq!(heartbeat.look(|| AFTER + 1), seen(1, Some(AFTER + 1)));
    }

    /// The ticker found the lapse while this thread, which had found it too, was about to tell.
    #[test]
    fn who_comes_second_sees_the_epoch_and_no_lapse() {
        let heartbeat = Heartbeat::new(0);
        let reads = Cell::new(0);
        let now = || {
            reads.set(reads.get() + 1);
            if reads.get() == 2 {
                assert_eq!(heartbeat.beat(|| AFTER + 1), seen(1, Some(AFTER + 1)));
            }
            AFTER + 2
        };
        assert_eq!(heartbeat.look(now), seen(1, None));
        assert_eq!(reads.get(), 3);
    }
}
