//! FUSE_INTERRUPT: which requests end because their caller was hit by a signal.
//!
//! The kernel sends one interrupt for a request, at the first signal of any kind, and then waits without being
//! interruptible until the request is answered (`request_wait_answer`). A file system that answers EINTR at once breaks
//! programs that take timers or SIGCHLD, and one that never does leaves what was killed hanging. So a request whose
//! caller was interrupted, but not killed, is looked at again until it ends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

/// Which interrupts end a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterruptPolicy {
    /// Those by a signal that kills the caller, as of a `hard` NFS mount since Linux 2.6.25. A caller that cannot be
    /// looked at counts as killed.
    #[default]
    Fatal,
    /// Those by any signal, as `intr` was.
    Any,
    /// None.
    Never,
}

/// How often an interrupted request is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

/// How long a request of a process that is ending already may take. This is its last FLUSHes: with a server that
/// answers, what it wrote is there when it has ended; with one that does not, it ends all the same.
const GRACE: Duration = Duration::from_millis(500);

/// Interrupts remembered whose request is not there: it was received by another reader that is about to register it.
const MAX_EARLY: usize = 256;

/// Interrupted requests that are looked at again; those beyond are answered when they end by themselves.
const MAX_WATCHED: usize = 4096;

/// SIGKILL in a mask of signals.
const SIGKILL: u64 = 1 << (9 - 1);

/// `PF_EXITING` of `linux/sched.h`.
const PF_EXITING: u64 = 0x4;

/// The requests that are executing, of all readers of a connection.
#[derive(Debug)]
pub(crate) struct Outstanding {
    policy: InterruptPolicy,
    requests: Mutex<Requests>,
    interrupted: Notify,
}

#[derive(Debug, Default)]
struct Requests {
    executing: HashMap<u64, Executing>,
    early: VecDeque<u64>,
    watched: HashSet<u64>,
    /// The connection is gone: nobody waits for anything.
    closed: bool,
}

#[derive(Debug)]
struct Executing {
    caller: u32,
    cut: oneshot::Sender<()>,
    /// Since when its caller is known to be ending.
    ending: Option<Instant>,
}

/// What a caller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Alive,
    /// SIGKILL is pending, as it is for every thread once a signal is fatal (`complete_signal`).
    Killed,
    /// It was killed or called exit(2), and closes its files. Nothing can be pending that tells more.
    Ending,
}

impl Outstanding {
    pub(crate) fn new(policy: InterruptPolicy) -> Self {
        Self { policy, requests: Mutex::default(), interrupted: Notify::new() }
    }

    /// Registers a request; the receiver ends when the request has to. `finished` must follow.
    pub(crate) fn register(&self, unique: u64, caller: u32) -> oneshot::Receiver<()> {
        let (cut, receiver) = oneshot::channel();
        let mut requests = self.lock();
        let closed = requests.closed;
        let early = requests.forget_early(unique);
        if !closed {
            requests.executing.insert(unique, Executing { caller, cut, ending: None });
        }
        drop(requests);
        if early {
            self.interrupt(unique);
        }
        receiver
    }

    pub(crate) fn finished(&self, unique: u64) {
        let mut requests = self.lock();
        requests.executing.remove(&unique);
        requests.watched.remove(&unique);
    }

    /// A FUSE_INTERRUPT for the request `unique`, which may have ended or not be registered yet. EAGAIN, by which the
    /// kernel would send it again, is of no use: it is looked up on the descriptor that it is answered on, and with
    /// several of them the request may be on another (`fuse_dev_do_write`).
    pub(crate) fn interrupt(&self, unique: u64) {
        if self.policy == InterruptPolicy::Never {
            return;
        }
        let mut requests = self.lock();
        if !requests.executing.contains_key(&unique) {
            return requests.remember_early(unique);
        }
        if requests.watched.len() < MAX_WATCHED {
            requests.watched.insert(unique);
        }
        drop(requests);
        self.look(unique, Instant::now());
        self.interrupted.notify_one();
    }

    /// Ends all requests: nobody waits for them any more.
    pub(crate) fn close(&self) {
        let mut requests = self.lock();
        requests.closed = true;
        requests.watched.clear();
        requests.executing.clear();
    }

    /// Looks at interrupted requests for as long as there are any.
    pub(crate) async fn watch(&self) {
        loop {
            self.interrupted.notified().await;
            while !self.lock().watched.is_empty() {
                sleep(AGAIN).await;
                self.look_at_all(Instant::now());
            }
        }
    }

    fn look_at_all(&self, now: Instant) {
        let watched: Vec<_> = self.lock().watched.iter().copied().collect();
        watched.into_iter().for_each(|unique| self.look(unique, now));
    }

    /// Ends a request if its caller is gone. `/proc` is read without the lock.
    fn look(&self, unique: u64, now: Instant) {
        let Some(caller) = self.lock().executing.get(&unique).map(|e| e.caller) else { return };
        let state = if self.policy == InterruptPolicy::Any { State::Killed } else { state_of(caller) };
        self.lock().settle(unique, state, now);
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requests {
    /// Ends the request if its caller's state says so.
    fn settle(&mut self, unique: u64, state: State, now: Instant) {
        let Some(executing) = self.executing.get_mut(&unique) else { return };
        let ends = match state {
            State::Alive => false,
            State::Killed => true,
            State::Ending => now.duration_since(*executing.ending.get_or_insert(now)) >= GRACE,
        };
        if ends && let Some(executing) = self.executing.remove(&unique) {
            self.watched.remove(&unique);
            let _ = executing.cut.send(());
        }
    }

    fn remember_early(&mut self, unique: u64) {
        if self.early.len() == MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back(unique);
    }

    fn forget_early(&mut self, unique: u64) -> bool {
        let found = self.early.iter().position(|&early| early == unique);
        found.and_then(|at| self.early.remove(at)).is_some()
    }
}

/// What the thread is doing.
fn state_of(thread: u32) -> State {
    let read = |file: &str| fs::read_to_string(format!("/proc/{thread}/{file}"));
    match (thread, read("status")) {
        (0, _) | (_, Err(_)) => State::Killed,
        (_, Ok(status)) => state(&status, || read("stat").unwrap_or_default()),
    }
}

/// The state that `/proc/TID/status` and, if that does not tell, `/proc/TID/stat` show. SIGKILL in the mask of the whole
/// process stays there until it is gone, so it only says that it is ending.
fn state(status: &str, stat: impl FnOnce() -> String) -> State {
    if has_sigkill(status, "SigPnd:") {
        State::Killed
    } else if has_sigkill(status, "ShdPnd:") || is_exiting(&stat()) {
        State::Ending
    } else {
        State::Alive
    }
}

fn has_sigkill(status: &str, field: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix(field));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & SIGKILL != 0)
}

/// The flags are the 9th field of proc_pid_stat(5); the 2nd, a name, may have blanks and parentheses in it.
fn is_exiting(stat: &str) -> bool {
    let after_name = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let flags = after_name.split_ascii_whitespace().nth(9 - 3).and_then(|f| f.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: u32 = 0;

    fn me() -> u32 {
        rustix::thread::gettid().as_raw_nonzero().get() as u32
    }

    #[test]
    fn the_states_of_a_thread() {
        let of = |own: u64, shared: u64, flags: u64| {
            let status = format!("Name:\tx\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n");
            state(&status, || format!("7 (a) b) S 1 2 3 4 5 {flags} 0 0"))
        };
        let (sigalrm, untouched) = (1 << 13, 0x40_0000);
        assert_eq!(of(0, 0, untouched), State::Alive);
        assert_eq!(of(sigalrm, sigalrm, untouched), State::Alive);
        assert_eq!(of(SIGKILL | sigalrm, 0, untouched), State::Killed);
        assert_eq!(of(0, SIGKILL, untouched), State::Ending);
        assert_eq!(of(0, sigalrm, untouched | PF_EXITING), State::Ending);
        assert_eq!(state("", String::new), State::Alive);
    }

    #[test]
    fn this_thread_is_alive_and_one_that_is_not_visible_counts_as_killed() {
        assert_eq!(state_of(me()), State::Alive);
        assert_eq!(state_of(0), State::Killed);
        assert_eq!(state_of(u32::MAX), State::Killed);
    }

    #[test]
    fn a_request_of_a_killed_caller_ends() {
        let all = Outstanding::new(InterruptPolicy::Fatal);
        let mut cut = all.register(4, NOBODY);
        assert!(cut.try_recv().is_err());
        all.interrupt(4);
        assert_eq!(cut.try_recv(), Ok(()));
    }

    #[test]
    fn a_request_of_a_live_caller_goes_on_and_is_watched() {
        let all = Outstanding::new(InterruptPolicy::Fatal);
        let mut cut = all.register(4, me());
        all.interrupt(4);
        all.look_at_all(Instant::now());
        assert_eq!(cut.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(all.lock().watched.len(), 1);
        all.finished(4);
        assert!(all.lock().watched.is_empty());
    }

    #[test]
    fn the_policy_decides() {
        let any = Outstanding::new(InterruptPolicy::Any);
        let mut cut = any.register(4, me());
        any.interrupt(4);
        assert_eq!(cut.try_recv(), Ok(()));
        let never = Outstanding::new(InterruptPolicy::Never);
        let mut cut = never.register(4, NOBODY);
        never.interrupt(4);
        assert_eq!(cut.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn a_caller_that_is_ending_has_a_while() {
        let all = Outstanding::new(InterruptPolicy::Fatal);
        let mut cut = all.register(4, me());
        let now = Instant::now();
        all.lock().settle(4, State::Ending, now);
        all.lock().settle(4, State::Ending, now + GRACE / 2);
        assert_eq!(cut.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        all.lock().settle(4, State::Ending, now + GRACE);
        assert_eq!(cut.try_recv(), Ok(()));
    }

    #[test]
    fn an_interrupt_that_comes_before_its_request_is_remembered() {
        let all = Outstanding::new(InterruptPolicy::Fatal);
        all.interrupt(4);
        let mut other = all.register(6, NOBODY);
        assert!(other.try_recv().is_err());
        assert_eq!(all.register(4, NOBODY).try_recv(), Ok(()));
        (0..2 * MAX_EARLY as u64).for_each(|unique| all.interrupt(1000 + unique));
        assert_eq!(all.lock().early.len(), MAX_EARLY);
    }

    #[test]
    fn closing_ends_all_and_whatever_comes_later() {
        let all = Outstanding::new(InterruptPolicy::Never);
        let mut before = all.register(4, NOBODY);
        all.close();
        let closed = Err(oneshot::error::TryRecvError::Closed);
        assert_eq!(before.try_recv(), closed);
        assert_eq!(all.register(6, NOBODY).try_recv(), closed);
    }

    #[tokio::test(start_paused = true)]
    async fn watched_requests_are_looked_at_until_their_caller_is_killed() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let all = std::sync::Arc::new(Outstanding::new(InterruptPolicy::Fatal));
        let watching = tokio::spawn({
            let all = all.clone();
            async move { all.watch().await }
        });
        let mut cut = all.register(4, child.id());
        all.interrupt(4);
        sleep(AGAIN * 5).await;
        assert_eq!(cut.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(cut.await, Ok(()));
        watching.abort();
    }
}
