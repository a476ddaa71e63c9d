//! Writers under load. Each notes what was acknowledged, and stops between two steps when asked, so that nothing is in
//! flight while a test compares the ledger with what is there.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Context;

use crate::content::{WORD, content, mix};
use crate::ledger::{Fact, Ledger};
use crate::store::{How, Store, Trouble};

/// Files a writer keeps before it removes the oldest.
const KEEP: u64 = 24;
/// Names that are no more which a writer still knows of.
const KEEP_ABSENT: u64 = 24;
/// Bytes of a record of a writer's log.
const RECORD_BYTES: u64 = 512;
/// A log does not grow beyond this, so that comparing it stays short; its last record is then written again.
const MAX_LOG_BYTES: u64 = 1 << 20;
/// Most words of a part of a file.
const MAX_PART_WORDS: u64 = 2048;

/// Starts `writers` in `store` and answers on `control` until told to quit.
pub(crate) fn run(
    store: impl Store,
    control: SocketAddr,
    writers: usize,
    prefix: &str,
) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(control).with_context(|| format!("cannot listen on {control}"))?;
    let pledge = Arc::new(Pledge { store, gate: Gate::new(writers) });
    let ledgers: Vec<_> = (0..writers).map(|_| Arc::<Mutex<Ledger>>::default()).collect();
    for (n, ledger) in ledgers.iter().enumerate() {
        let (pledge, ledger, prefix) = (Arc::clone(&pledge), Arc::clone(ledger), format!("{prefix}{n}"));
        thread::spawn(move || write_on(&pledge, &prefix, &ledger));
    }
    println!("writing");
    for stream in listener.incoming() {
        // An asker that went away may come again.
        if stream.is_ok_and(|stream| pledge.answer(&stream, &ledgers).unwrap_or(false)) {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where writers wait.
struct Gate {
    inner: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    paused: bool,
    /// Writers at work.
    working: usize,
}

impl Gate {
    fn new(working: usize) -> Self {
        Self { inner: Mutex::new(Waiting { paused: false, working }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, guard: MutexGuard<'a, Waiting>) -> MutexGuard<'a, Waiting> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// A writer is between two steps; tells whether it had to wait.
    fn pass(&self) -> bool {
        let mut waiting = self.lock();
        if !waiting.paused {
            return false;
        }
        waiting.working -= 1;
        self.changed.notify_all();
        while waiting.paused {
            waiting = self.wait(waiting);
        }
        waiting.working += 1;
        true
    }

    /// A writer ended.
    fn leave(&self) {
        self.lock().working -= 1;
        self.changed.notify_all();
    }

    /// Waits until no writer is at work.
    fn pause(&self) {
        let mut waiting = self.lock();
        waiting.paused = true;
        while waiting.working > 0 {
            waiting = self.wait(waiting);
        }
    }

    fn resume(&self) {
        self.lock().paused = false;
        self.changed.notify_all();
    }
}

struct Pledge<S> {
    store: S,
    gate: Gate,
}

impl<S: Store> Pledge<S> {
    /// Answers one asker; tells whether it said `quit`.
    fn answer(&self, stream: &TcpStream, ledgers: &[Arc<Mutex<Ledger>>]) -> anyhow::Result<bool> {
        for line in BufReader::new(stream).lines() {
            let text = match line?.as_str() {
                "pause" => {
                    self.gate.pause();
                    format!("{}end\n", self.ledger(ledgers))
                }
                "resume" => {
                    self.gate.resume();
                    "end\n".to_owned()
                }
                "quit" => return Ok(true),
                other => format!("`{other}` is none of pause, resume and quit\nend\n"),
            };
            (&*stream).write_all(text.as_bytes())?;
        }
        Ok(false)
    }

    /// What all writers noted; they must be paused.
    fn ledger(&self, ledgers: &[Arc<Mutex<Ledger>>]) -> Ledger {
        let mut all = Ledger::default();
        for ledger in ledgers {
            let mut ledger = lock(ledger);
            all.merge(ledger.clone());
            ledger.gap_ms = 0;
        }
        all
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes until a call fails.
fn write_on<S: Store>(pledge: &Pledge<S>, prefix: &str, ledger: &Mutex<Ledger>) {
    let mut writer = Writer::new(&pledge.store, prefix, ledger);
    let failed = (0..).find_map(|n| {
        if pledge.gate.pass() {
            writer.acknowledged.set(Instant::now());
        }
        writer.step(n).err().map(|trouble| format!("{prefix} at step {n}: {trouble}"))
    });
    lock(ledger).failures.extend(failed);
    pledge.gate.leave();
}

/// A file that stays open for as long as the writer lives: its handle must outlive every restart.
struct Log<F> {
    file: F,
    len: u64,
}

struct Writer<'a, S: Store> {
    store: &'a S,
    prefix: &'a str,
    ledger: &'a Mutex<Ledger>,
    log: Option<Log<S::File>>,
    /// When a call was acknowledged last.
    acknowledged: Cell<Instant>,
}

impl<'a, S: Store> Writer<'a, S> {
    fn new(store: &'a S, prefix: &'a str, ledger: &'a Mutex<Ledger>) -> Self {
        Self { store, prefix, ledger, log: None, acknowledged: Cell::new(Instant::now()) }
    }

    /// Saves file `n` as careful applications do, reads one back, removes an old one, and appends to the log.
    fn step(&mut self, n: u64) -> Result<(), Trouble> {
        self.save(n)?;
        self.read_back(n - mix(n) % KEEP.min(n + 1))?;
        if n >= KEEP {
            self.remove(n - KEEP)?;
        }
        self.append()
    }

    fn name(&self, n: u64) -> String {
        format!("{}-{n}.dat", self.prefix)
    }

    /// Differs for every file of every writer.
    fn seed(&self, n: u64) -> u64 {
        self.prefix.bytes().fold(mix(n), |seed, byte| mix(seed ^ u64::from(byte)))
    }

    fn save(&self, n: u64) -> Result<(), Trouble> {
        let (temporary, name, seed) = (format!("{}-{n}.tmp", self.prefix), self.name(n), self.seed(n));
        let file = self.create(&temporary)?;
        self.note(&temporary, Fact::Holds { seed, len: 0 });
        let how = [How::Commit, How::FileSync, How::DataSync][(n % 3) as usize];
        let len = self.fill(&file, seed, how)?;
        self.note(&temporary, Fact::Holds { seed, len });
        self.tolerate(self.store.rename(&temporary, &name))?;
        self.note(&name, Fact::Holds { seed, len });
        self.note(&temporary, Fact::Absent);
        Ok(())
    }

    /// Compares file `n`, which is there, with what was written to it.
    fn read_back(&self, n: u64) -> Result<(), Trouble> {
        let name = self.name(n);
        let Some(found) = self.store.read(&name)? else {
            return Err(Trouble::Failed(format!("{name} is not there any more")));
        };
        match lock(self.ledger).facts.get(&name) {
            Some(Fact::Holds { seed, len }) if content(*seed, 0, *len) == found => Ok(()),
            fact => Err(Trouble::Failed(format!(
                "{name} of {} bytes is not what was written: {fact:?}",
                found.len()
            ))),
        }
    }

    /// Writes one to four parts; returns their length.
    fn fill(&self, file: &S::File, seed: u64, how: How) -> Result<u64, Trouble> {
        let part = |n| WORD * (1 + mix(seed ^ n) % MAX_PART_WORDS);
        let mut len = 0;
        let mut parts = Vec::new();
        for n in 0..=seed % 4 {
            parts.push(content(seed, len, part(n)));
            len += part(n);
        }
        self.store.write(file, 0, parts, how).map(|()| len)
    }

    fn create(&self, name: &str) -> Result<S::File, Trouble> {
        match self.store.create(name) {
            Err(Trouble::Repeated) => {
                lock(self.ledger).repeated += 1;
                self.store.open(name)
            }
            created => created,
        }
    }

    fn remove(&self, n: u64) -> Result<(), Trouble> {
        let name = self.name(n);
        self.tolerate(self.store.remove(&name))?;
        self.note(&name, Fact::Absent);
        if n >= KEEP_ABSENT {
            let old = n - KEEP_ABSENT;
            let mut ledger = lock(self.ledger);
            ledger.facts.remove(&self.name(old));
            ledger.facts.remove(&format!("{}-{old}.tmp", self.prefix));
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), Trouble> {
        let (name, seed) = (format!("{}.log", self.prefix), self.seed(u64::MAX));
        if self.log.is_none() {
            self.log = Some(Log { file: self.create(&name)?, len: 0 });
        }
        let Some(log) = &mut self.log else { return Ok(()) };
        let at = log.len.min(MAX_LOG_BYTES - RECORD_BYTES);
        let record = content(seed, at, RECORD_BYTES);
        self.store.write(&log.file, at, vec![record], How::FileSync)?;
        log.len = at + RECORD_BYTES;
        let (len, verifier) = (log.len, self.store.verifier(&log.file)?);
        self.note(&name, Fact::Holds { seed, len });
        lock(self.ledger).verifier = verifier;
        Ok(())
    }

    /// A call that was sent again after a crash, and says so, has been carried out. A file that was lost before it was
    /// removed hides here; those beside it do not.
    fn tolerate(&self, outcome: Result<(), Trouble>) -> Result<(), Trouble> {
        match outcome {
            Err(Trouble::Repeated) => {
                lock(self.ledger).repeated += 1;
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn note(&self, name: &str, fact: Fact) {
        let waited = self.acknowledged.replace(Instant::now()).elapsed();
        let mut ledger = lock(self.ledger);
        ledger.facts.insert(name.to_owned(), fact);
        ledger.acknowledged += 1;
        ledger.gap_ms = ledger.gap_ms.max(waited.as_millis() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Mounted;

    fn ledger_of(steps: u64, dir: &std::path::Path) -> Ledger {
        let store = Mounted::new(dir).unwrap();
        let ledger = Mutex::default();
        let mut writer = Writer::new(&store, "w0", &ledger);
        (0..steps).for_each(|n| writer.step(n).unwrap());
        ledger.into_inner().unwrap()
    }

    #[test]
    fn what_is_noted_is_there_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger_of(KEEP + KEEP_ABSENT + 10, dir.path());
        assert_eq!(ledger.losses(&Mounted::new(dir.path()).unwrap()).unwrap(), [""; 0]);
        assert_eq!(ledger.repeated, 0);
        let names = ledger.facts.len() as u64;
        assert!((KEEP..=2 * (KEEP + KEEP_ABSENT) + 1).contains(&names), "{names}");
        assert!(ledger.facts.values().any(|fact| *fact == Fact::Absent));
    }

    #[test]
    fn a_second_run_over_the_same_names_tells_that_calls_repeat() {
        let dir = tempfile::tempdir().unwrap();
        ledger_of(1, dir.path());
        assert!(ledger_of(1, dir.path()).repeated > 0);
    }

    #[test]
    fn pausing_waits_for_writers_and_not_for_those_that_ended() {
        let gate = Arc::new(Gate::new(2));
        gate.leave();
        let writer = thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                while !gate.lock().paused {
                    thread::yield_now()
                }
            }
        });
        let passer = thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                writer.join().unwrap();
                gate.pass();
            }
        });
        gate.pause();
        assert_eq!(gate.lock().working, 0);
        gate.resume();
        passer.join().unwrap();
        assert_eq!(gate.lock().working, 1);
    }
}
