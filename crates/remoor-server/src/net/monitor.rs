//! A thread that looks after the workers: it notices the one that is stuck in a call, and that the server has lapsed.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread::Thread;

use super::crew::Worker;
use super::lapse::boottime_millis;
use super::limits::{LAPSE_TICK, LOOK, LOOKS_IN_VAIN};
use super::schedule::ConnectionId;
use super::{Net, Service, locked};

/// What one worker does, for the others to see. A line of the cache each, because it is written at every call.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Slot {
    /// Calls begun, the class of the last, and whether it executes.
    step: AtomicU64,
    /// The connection that it runs; 0 for none.
    connection: AtomicU64,
    is_woken: Mutex<bool>,
    woken: Condvar,
}

const EXECUTES: u64 = 1;
const CLASS_SHIFT: u32 = 1;
const COUNT_SHIFT: u32 = 9;

impl Slot {
    /// Begins to run a connection.
    pub(super) fn begin(&self, connection: ConnectionId) {
        // In one order with `Dormant`: either the monitor sees this, or this worker wakes it.
        self.connection.swap(connection, SeqCst);
    }

    pub(super) fn end(&self) {
        self.connection.store(0, Relaxed);
    }

    /// Begins a call. Only its worker writes to a slot, so no update is lost.
    pub(super) fn enter(&self, class: u8) {
        let count = (self.step.load(Relaxed) >> COUNT_SHIFT) + 1;
        self.step.store(count << COUNT_SHIFT | u64::from(class) << CLASS_SHIFT | EXECUTES, Relaxed);
    }

    /// Ends a call.
    pub(super) fn exit(&self) {
        self.step.store(self.step.load(Relaxed) & !EXECUTES, Relaxed);
    }

    /// Waits for [`Slot::wake`], which may have come before.
    pub(super) fn sleep(&self) {
        let woken = self.woken.wait_while(locked(&self.is_woken), |woken| !*woken);
        *woken.unwrap_or_else(PoisonError::into_inner) = false;
    }

    pub(super) fn wake(&self) {
        *locked(&self.is_woken) = true;
        self.woken.notify_one();
    }
}

/// Whether the monitor sleeps long, because there are no calls.
#[derive(Debug, Default)]
pub(super) struct Dormant {
    is_dormant: AtomicBool,
    monitor: OnceLock<Thread>,
}

impl Dormant {
    /// There is a call.
    pub(super) fn end(&self) {
        if self.is_dormant.load(SeqCst)
            && self.is_dormant.swap(false, SeqCst)
            && let Some(monitor) = self.monitor.get()
        {
            monitor.unpark();
        }
    }
}

/// What the last look at a worker showed.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    step: u64,
}

impl<S: Service> Net<S> {
    /// Notes that the server runs, and looks at its workers, until it stops.
    pub(super) fn tick(&self) {
        let _ = self.dormant.monitor.set(std::thread::current());
        let mut seen = vec![Seen::default(); self.slots.len()];
        let mut in_vain = 0;
        while !self.stopping.load(Relaxed) {
            self.noted(self.heartbeat.beat(boottime_millis));
            in_vain = if self.look(&mut seen) { 0 } else { in_vain + 1 };
            if in_vain < LOOKS_IN_VAIN {
                std::thread::park_timeout(LOOK);
                continue;
            }
            self.dormant.is_dormant.store(true, SeqCst);
            if !self.slots.iter().any(|slot| slot.connection.load(SeqCst) != 0) {
                std::thread::park_timeout(LAPSE_TICK);
            }
            self.dormant.is_dormant.store(false, SeqCst);
        }
    }

    /// Whether there were calls since the last look.
    fn look(&self, seen: &mut [Seen]) -> bool {
        let mut any = false;
        for (worker, seen) in seen.iter_mut().enumerate() {
            let step = self.slots[worker].step.load(Relaxed);
            let is_stuck = step & EXECUTES != 0 && step == seen.step;
            any |= step != seen.step || self.slots[worker].connection.load(Relaxed) != 0;
            seen.step = step;
            if is_stuck {
                self.rescue(worker, step);
            }
        }
        any
    }

    /// A worker is in one call since the last look: what waits behind that call is another's.
    fn rescue(&self, worker: Worker, step: u64) {
        let slot = &self.slots[worker];
        let connection = self.connection(slot.connection.load(Relaxed));
        let Some(connection) = connection.filter(|_| slot.step.load(Relaxed) == step) else { return };
        connection.pace.suspect((step >> CLASS_SHIFT) as u8);
        let is_news = !locked(&self.roster).crew.is_away(worker) || connection.is_attended_by(worker);
        if is_news {
            let wake = self.detach(worker, &connection);
            self.flush(&connection);
            self.wake(wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_tells_calls_apart() {
        let slot = Slot::default();
        slot.enter(255);
        let first = slot.step.load(Relaxed);
        assert_eq!((first >> CLASS_SHIFT) as u8, 255);
        slot.exit();
        assert_eq!(slot.step.load(Relaxed) & EXECUTES, 0);
        slot.enter(255);
        assert_ne!(slot.step.load(Relaxed), first);
    }

    #[test]
    fn a_wake_before_sleep_is_not_lost() {
        let slot = Slot::default();
        slot.wake();
        slot.sleep();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| slot.sleep());
            slot.wake();
            sleeper.join().unwrap();
        });
    }
}
