//! Answers that take long, fetched by threads of their own and kept.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::Pending;

/// Threads that fetch for one kind of answer at the same time.
const MAX_THREADS: usize = 4;
/// Keys that wait for a thread; with more a question is answered [`Pending`] and has to be asked again.
const MAX_QUEUE: usize = 1024;
/// Longest time that a caller waits for an answer nobody has asked for before.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Callers that wait at the same time for fetchers that share [`Waiters`]; others are told [`Pending`] at once, so that
/// workers remain for clients that are known.
const MAX_WAITING: usize = 2;
/// How long a failed lookup is not repeated.
const RETRY: Duration = Duration::from_secs(30);

/// What a lookup comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fetched<V> {
    /// The answer, which may be that there is nothing.
    Answer(V),
    /// No answer: what was known before stays true, or else this value holds until the lookup works.
    Failed(V),
}

/// How long answers are true, and how many are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// After this time an answer is looked up again, and told nevertheless until then.
    pub(crate) ttl: Duration,
    /// Keys; the one that was asked for the longest ago is forgotten.
    pub(crate) max: NonZeroUsize,
}

/// Callers that wait, of all fetchers that a call may come to ask.
pub(crate) type Waiters = Arc<AtomicUsize>;

type Fetch<K, V> = dyn Fn(&K) -> Fetched<V> + Send + Sync;

/// Answers of one kind.
pub(crate) struct Fetcher<K: Hash + Eq, V> {
    shared: Arc<Shared<K, V>>,
}

struct Shared<K: Hash + Eq, V> {
    fetch: Box<Fetch<K, V>>,
    table: Mutex<Table<K, V>>,
    answered: Condvar,
    waiters: Waiters,
}

impl<K, V> Fetcher<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    pub(crate) fn new(
        keep: Keep,
        waiters: &Waiters,
        fetch: impl Fn(&K) -> Fetched<V> + Send + Sync + 'static,
    ) -> Self {
        let (table, answered) = (Mutex::new(Table::new(keep)), Condvar::new());
        let shared = Shared { fetch: Box::new(fetch), table, answered, waiters: waiters.clone() };
        Self { shared: Arc::new(shared) }
    }

    /// The answer, old ones included. One that is not known is waited for [`MAX_WAIT`] at most.
    pub(crate) fn get(&self, key: &K) -> Result<V, Pending> {
        let now = Instant::now();
        let mut table = self.shared.locked();
        let known = table.known(key, now);
        if known.as_ref().is_none_or(|(_, age)| *age == Age::Old) {
            self.shared.ask(&mut table, key);
        }
        match known {
            Some((value, _)) => Ok(value),
            None => self.shared.wait(table, key, now + MAX_WAIT),
        }
    }

    /// Whether what is told of a key was ever an answer, and not what holds because no lookup has worked yet.
    pub(crate) fn is_sure(&self, key: &K) -> bool {
        self.shared.locked().known.peek(key).is_some_and(|known| known.sure)
    }

    /// Looks up again in the background what is not known, or was learnt more than [`RETRY`] ago.
    pub(crate) fn refresh(&self, key: &K) {
        let now = Instant::now();
        let mut table = self.shared.locked();
        let recent = table.learnt(key).is_some_and(|at| now.saturating_duration_since(at) < RETRY);
        if !recent {
            self.shared.ask(&mut table, key);
        }
    }
}

impl<K, V> Shared<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Each value of the table is whole between statements, so a poisoned lock is used on.
    fn locked(&self) -> MutexGuard<'_, Table<K, V>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: &Arc<Self>, table: &mut Table<K, V>, key: &K) {
        if !table.enqueue(key) || table.threads == MAX_THREADS {
            return;
        }
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("names".into());
        // Without a thread the key stays queued, and the next question tries again.
        // The thread that asks may run as one of its callers, and so would the new one.
        let work = move || {
            crate::vfs::local::be_server();
            shared.work();
        };
        if thread.spawn(work).is_ok() {
            table.threads += 1;
        }
    }

    /// Fetches until nothing is asked for.
    fn work(&self) {
        let mut table = self.locked();
        while let Some(key) = table.queue.pop_front() {
            drop(table);
            let fetched = (self.fetch)(&key);
            table = self.locked();
            table.learn(&key, fetched, Instant::now());
            self.answered.notify_all();
        }
        table.threads -= 1;
    }

    fn wait(&self, table: MutexGuard<'_, Table<K, V>>, key: &K, deadline: Instant) -> Result<V, Pending> {
        if self.waiters.fetch_add(1, SeqCst) >= MAX_WAITING {
            self.waiters.fetch_sub(1, SeqCst);
            return Err(Pending);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let unanswered = |table: &mut Table<K, V>| table.asked.contains(key);
        let waited = self.answered.wait_timeout_while(table, left, unanswered);
        let (mut table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        self.waiters.fetch_sub(1, SeqCst);
        table.known(key, deadline).map(|(value, _)| value).ok_or(Pending)
    }
}

/// What is known and what is asked for, without threads and without a clock.
struct Table<K: Hash + Eq, V> {
    ttl: Duration,
    known: LruCache<K, Known<V>>,
    /// Asked for, and not yet taken by a thread.
    queue: VecDeque<K>,
    /// Asked for, and not yet answered.
    asked: HashSet<K>,
    threads: usize,
}

struct Known<V> {
    value: V,
    learnt: Instant,
    until: Instant,
    /// The value is an answer, or was one.
    sure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Fresh,
    Old,
}

impl<K: Hash + Eq + Clone, V: Clone> Table<K, V> {
    fn new(keep: Keep) -> Self {
        Self {
            ttl: keep.ttl,
            known: LruCache::new(keep.max),
            queue: VecDeque::new(),
            asked: HashSet::new(),
            threads: 0,
        }
    }

    fn known(&mut self, key: &K, now: Instant) -> Option<(V, Age)> {
        let known = self.known.get(key)?;
        let age = if now < known.until { Age::Fresh } else { Age::Old };
        Some((known.value.clone(), age))
    }

    fn learnt(&self, key: &K) -> Option<Instant> {
        self.known.peek(key).map(|known| known.learnt)
    }

    /// Whether a thread is wanted for this key.
    fn enqueue(&mut self, key: &K) -> bool {
        if self.queue.len() < MAX_QUEUE && self.asked.insert(key.clone()) {
            self.queue.push_back(key.clone());
        }
        self.queue.contains(key)
    }

    fn learn(&mut self, key: &K, fetched: Fetched<V>, now: Instant) {
        self.asked.remove(key);
        let before = self.known.pop(key).map(|known| (known.value, known.sure));
        let ((value, sure), ttl) = match fetched {
            Fetched::Answer(value) => ((value, true), self.ttl),
            Fetched::Failed(value) => (before.unwrap_or((value, false)), RETRY),
        };
        self.known.put(key.clone(), Known { value, learnt: now, until: now + ttl, sure });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::Fetched::{Answer, Failed};
    use super::*;

    const KEEP: Keep = Keep { ttl: Duration::from_secs(60), max: NonZeroUsize::new(4).unwrap() };

    fn table() -> (Table<u32, &'static str>, Instant) {
        (Table::new(KEEP), Instant::now())
    }

    /// The name service's files may be readable to the server only.
    #[test]
    fn the_server_looks_up_whoever_asks() {
        let fs_user = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
            line.split_ascii_whitespace().nth(4).unwrap().to_owned()
        };
        let own = fs_user();
        let asker = move || {
            crate::sys::set_fs_user(65_534);
            let fetcher = Fetcher::new(KEEP, &Waiters::default(), move |_: &u32| Answer(fs_user()));
            loop {
                if let Ok(answer) = fetcher.get(&1) {
                    return answer;
                }
            }
        };
        assert_eq!(std::thread::spawn(asker).join().unwrap(), own);
    }

    #[test]
    fn an_answer_gets_old_and_is_told_nevertheless() {
        let (mut table, now) = table();
        assert_eq!(table.known(&1, now), None);
        assert!(table.enqueue(&1));
        table.queue.clear();
        table.learn(&1, Answer("a"), now);
        assert_eq!(table.known(&1, now + KEEP.ttl - Duration::from_nanos(1)), Some(("a", Age::Fresh)));
        assert_eq!(table.known(&1, now + KEEP.ttl), Some(("a", Age::Old)));
        assert_eq!(table.learnt(&1), Some(now));
    }

    #[test]
    fn a_failure_keeps_what_was_known_and_is_retried_sooner() {
        let (mut table, now) = table();
        table.learn(&1, Failed("none"), now);
        assert_eq!(table.known(&1, now), Some(("none", Age::Fresh)));
        assert_eq!(table.known(&1, now + RETRY), Some(("none", Age::Old)));
        table.learn(&1, Answer("a"), now);
        table.learn(&1, Failed("none"), now + KEEP.ttl);
        assert_eq!(table.known(&1, now + KEEP.ttl), Some(("a", Age::Fresh)));
        assert_eq!(table.known(&1, now + KEEP.ttl + RETRY), Some(("a", Age::Old)));
    }

    #[test]
    fn a_key_is_asked_for_once_at_a_time() {
        let (mut table, now) = table();
        assert!(table.enqueue(&1) && table.enqueue(&1));
        assert_eq!(table.queue.len(), 1);
        table.queue.pop_front();
        assert!(!table.enqueue(&1), "a thread has it");
        table.learn(&1, Answer("a"), now);
        assert!(table.enqueue(&1));
    }

    #[test]
    fn keys_and_questions_are_bounded() {
        let (mut table, now) = table();
        (0..10).for_each(|key| table.learn(&key, Answer("a"), now));
        assert_eq!(table.known.len(), KEEP.max.get());
        for key in 0..MAX_QUEUE as u32 + 10 {
            table.enqueue(&key);
        }
        assert_eq!((table.queue.len(), table.asked.len()), (MAX_QUEUE, MAX_QUEUE));
    }

    /// A fetcher whose lookups say which key they are for, and answer when told to.
    fn controlled_by(waiters: &Waiters) -> (Fetcher<u32, u32>, Receiver<u32>, Sender<Fetched<u32>>) {
        let ((asked, questions), (answer, answers)) = (channel(), channel());
        let answers = Mutex::new(answers);
        let fetch = move |key: &u32| {
            let _ = asked.send(*key);
            answers.lock().unwrap().recv().unwrap_or(Failed(0))
        };
        (Fetcher::new(Keep { ttl: Duration::ZERO, ..KEEP }, waiters, fetch), questions, answer)
    }

    fn controlled() -> (Fetcher<u32, u32>, Receiver<u32>, Sender<Fetched<u32>>) {
        controlled_by(&Waiters::default())
    }

    #[test]
    fn what_no_lookup_has_answered_is_not_sure() {
        let (fetcher, _questions, answer) = controlled();
        assert!(!fetcher.is_sure(&1));
        for (fetched, sure) in [(Failed(1), false), (Answer(2), true), (Failed(3), true)] {
            answer.send(fetched).unwrap();
            fetcher.shared.ask(&mut fetcher.shared.locked(), &1);
            while fetcher.shared.locked().threads > 0 {
                std::thread::yield_now();
            }
            assert_eq!(fetcher.is_sure(&1), sure);
        }
    }

    #[test]
    fn the_first_question_waits_and_later_ones_do_not() {
        let (fetcher, questions, answer) = controlled();
        answer.send(Answer(10)).unwrap();
        assert_eq!(fetcher.get(&1), Ok(10));
        assert_eq!(questions.recv().unwrap(), 1);
        assert_eq!(fetcher.get(&1), Ok(10), "old, and told without waiting for a new answer");
        assert_eq!(questions.recv().unwrap(), 1, "which is asked for in the background");
        assert_eq!(fetcher.get(&1), Ok(10));
        answer.send(Answer(11)).unwrap();
        while fetcher.get(&1) == Ok(10) {
            std::thread::yield_now();
            let _ = answer.send(Answer(11));
        }
        assert_eq!(fetcher.get(&1), Ok(11));
    }

    #[test]
    fn an_answer_that_does_not_come_is_pending_and_holds_up_few() {
        let waiters = Waiters::default();
        let (fetcher, questions, _answer) = controlled_by(&waiters);
        let (other, _, _other_answer) = controlled_by(&waiters);
        let fetcher = Arc::new(fetcher);
        let waiting: Vec<_> = (0..MAX_WAITING as u32)
            .map(|key| {
                let fetcher = fetcher.clone();
                let thread = std::thread::spawn(move || fetcher.get(&key));
                questions.recv().unwrap();
                thread
            })
            .collect();
        while waiters.load(SeqCst) < MAX_WAITING {
            if waiting.iter().all(|thread| thread.is_finished()) {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!([fetcher.get(&7), other.get(&1)], [Err(Pending); 2], "whatever it is that they ask");
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Err(Pending));
        }
    }

    #[test]
    fn a_refresh_does_not_wait_and_not_repeat_itself() {
        let (fetcher, questions, answer) = controlled();
        fetcher.refresh(&3);
        assert_eq!(questions.recv().unwrap(), 3);
        answer.send(Answer(30)).unwrap();
        while fetcher.shared.locked().threads > 0 {
            std::thread::yield_now();
        }
        fetcher.refresh(&3);
        assert!(questions.try_recv().is_err() && fetcher.shared.locked().asked.is_empty(), "learnt just now");
    }
}
