//! A thread that looks after the workers: it notices the one that is stuck in a call, and that the server has lapsed.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use rustix::thread::gettid;

use super::crew::Worker;
use super::lapse::boottime_millis;
use super::limits::{LAPSE_TICK, LOOK, LOOKS_AT_RUNNING, LOOKS_IN_VAIN};
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
    /// The thread's number; 0 before it runs.
    thread: AtomicI32,
    is_woken: Mutex<bool>,
    woken: Condvar,
}

const EXECUTES: u64 = 1;
const CLASS_SHIFT: u32 = 1;
const COUNT_SHIFT: u32 = 9;

impl Slot {
    /// The worker's thread runs.
    pub(super) fn started(&self) {
        self.thread.store(gettid().as_raw_nonzero().get(), Relaxed);
    }

    /// Whether the thread computes, or would if it had a turn; false if it waits, or nobody knows (proc_pid_stat(5)).
    fn is_running(&self) -> bool {
        let stat = std::fs::read(format!("/proc/self/task/{}/stat", self.thread.load(Relaxed)));
        stat.is_ok_and(|stat| is_running(&stat))
    }

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

/// The state follows the name, which may hold anything, in parentheses.
fn is_running(stat: &[u8]) -> bool {
    let name_end = stat.iter().rposition(|b| *b == b')');
    name_end.is_some_and(|at| stat[at..].starts_with(b") R"))
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
    /// Looks at which the worker was in this step and running.
    running: u32,
}

impl Seen {
    /// Whether the worker is stuck in a call.
    fn update(&mut self, step: u64, is_running: impl FnOnce() -> bool) -> bool {
        if step & EXECUTES == 0 || step != self.step {
            *self = Self { step, running: 0 };
            return false;
        }
        if self.running < LOOKS_AT_RUNNING && is_running() {
            self.running += 1;
            return self.running == LOOKS_AT_RUNNING;
        }
        true
    }
}

impl<S: Service> Net<S> {
    /// Notes that the server runs, and looks at its workers, until it stops.
    pub(super) fn tick(&self) {
        let _ = self.dormant.monitor.set(std::thread::current());
        let mut seen = vec![Seen::default(); self.slots.len()];
        let (mut in_vain, mut due) = (0, Instant::now());
        while !self.stopping.load(Relaxed) {
            self.noted(self.heartbeat.beat(boottime_millis));
            if Instant::now() >= due {
                due = self.tick_service();
            }
            in_vain = if self.look(&mut seen) { 0 } else { in_vain + 1 };
            if in_vain < LOOKS_IN_VAIN {
                std::thread::park_timeout(LOOK);
                continue;
            }
            self.dormant.is_dormant.store(true, SeqCst);
            if !self.slots.iter().any(|slot| slot.connection.load(SeqCst) != 0) {
                std::thread::park_timeout(LAPSE_TICK.min(due.saturating_duration_since(Instant::now())));
            }
            self.dormant.is_dormant.store(false, SeqCst);
        }
    }

    /// When the service is to be called next.
    fn tick_service(&self) -> Instant {
        let now = Instant::now();
        let latest = now + LAPSE_TICK;
        // Not at once again, whatever it asks.
        self.service.tick(now).map_or(latest, |at| at.clamp(now + LOOK, latest))
    }

    /// Whether there were calls since the last look.
    fn look(&self, seen: &mut [Seen]) -> bool {
        let mut any = false;
        for (worker, seen) in seen.iter_mut().enumerate() {
            let slot = &self.slots[worker];
            let step = slot.step.load(Relaxed);
            any |= step != seen.step || slot.connection.load(Relaxed) != 0;
            if seen.update(step, || slot.is_running()) {
                self.rescue(worker, step, seen.running == 0);
            }
        }
        any
    }

    /// A worker is in one call since the last look: what waits behind that call is another's.
    fn rescue(&self, worker: Worker, step: u64, waits: bool) {
        let slot = &self.slots[worker];
        let in_call = || slot.step.load(Relaxed) == step;
        // None if it was closed meanwhile, which ends neither the call nor the need of another worker.
        let connection = self.connection(slot.connection.load(Relaxed)).filter(|_| in_call());
        let connection = connection.as_ref();
        if let Some(connection) = connection.filter(|_| waits) {
            connection.pace.suspect((step >> CLASS_SHIFT) as u8);
        }
        let is_news = !locked(&self.roster).crew.is_away(worker)
            || connection.is_some_and(|connection| connection.is_attended_by(worker));
        if is_news {
            let wake = self.detach(worker, connection, in_call);
            connection.into_iter().for_each(|connection| self.flush(connection));
            self.wake(wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use bytes::Bytes;
    use remoor_rpc::xdr::Writer;

    use super::super::{Answer, Entrances, How, Kind, Limits, Malformed, Origin};
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
    fn a_worker_that_waits_is_stuck_sooner_than_one_that_runs() {
        let call = 1 << COUNT_SHIFT | EXECUTES;
        let mut seen = Seen::default();
        assert!(!seen.update(call, || false), "it may have begun just now");
        assert!(seen.update(call, || false));
        let mut seen = Seen { step: call, running: 0 };
        let looks = [(); LOOKS_AT_RUNNING as usize].map(|()| seen.update(call, || true));
        assert_eq!(looks.iter().filter(|stuck| **stuck).count(), 1);
        assert!(looks[looks.len() - 1]);
        assert!(!seen.update(call + (1 << COUNT_SHIFT), || false), "another call");
        assert!(!seen.update(0, || false), "no call");
    }

    #[test]
    fn the_state_of_a_thread() {
        assert!(is_running(b"7 (nfs) D 1) R 1 7"));
        assert!(!is_running(b"7 (nfs) R 1) D 1 7") && !is_running(b""));
        let slot = Slot::default();
        slot.started();
        assert!(slot.is_running(), "this thread runs");
    }

    /// Answers once it is told to.
    struct Gate(Mutex<Receiver<()>>);

    impl Service for Gate {
        fn kind(&self, _: &[u8]) -> Kind {
            Kind { is_idempotent: true, ..Kind::default() }
        }

        fn serve(&self, _: &Origin, _: Bytes, _: &mut Writer) -> Result<Answer, Malformed> {
            let _ = locked(&self.0).recv();
            Ok(Answer::Now)
        }
    }

    fn looks_until(net: &Net<Gate>, seen: &mut [Seen], done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline);
            net.look(seen);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_call_is_seen_to_be_stuck_also_when_its_connection_was_closed() {
        let (open, gate) = channel();
        let address = ["127.0.0.1:0".parse().unwrap()];
        let entrances = Entrances { addresses: &address, ..Entrances::default() };
        let net = Net::new(Arc::new(Gate(gate.into())), entrances, 2, Limits::default()).unwrap();
        let client = TcpStream::connect(net.listeners[0].address).unwrap();
        std::thread::scope(|scope| {
            (0..2).for_each(|worker| {
                _ = scope.spawn({
                    let net = &net;
                    move || net.work(worker)
                })
            });
            (&client).write_all(b"\x80\0\0\x04call").unwrap();
            while net.slots[0].step.load(Relaxed) & EXECUTES == 0 {
                std::thread::yield_now();
            }
            net.snapshot().iter().for_each(|connection| net.close(connection, How::Closed));
            let mut seen = vec![Seen::default(); 2];
            looks_until(&net, &mut seen, || locked(&net.roster).crew.is_away(0));
            // What the monitor saw of a call says nothing of a worker that has ended it.
            let step = net.slots[0].step.load(Relaxed);
            open.send(()).unwrap();
            looks_until(&net, &mut seen, || locked(&net.roster).crew.is_asleep(0));
            net.rescue(0, step, false);
            assert!(!locked(&net.roster).crew.is_away(0));
            net.stopping.store(true, Relaxed);
            rustix::io::write(&net.stop, &1u64.to_ne_bytes()).unwrap();
            net.slots.iter().for_each(Slot::wake);
        });
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
