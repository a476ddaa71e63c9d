//! Where files were last seen, for handles that name a file by number and birth: the kernel does not tell a path.
//!
//! Each node appends to its own log before a handle leaves it, and reads what its peers appended when it does not know a
//! handle. Logs are hints: whoever follows one compares number and birth with what is found, so that an old or lost
//! record costs a search and never gives the wrong file. They are not synced for that reason.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use rustix::fs::{FlockOperation, flock};

use super::record::{Parsed, Record};
use super::stat::FileId;

/// Files whose place is kept in memory; about 150 bytes each. Others are found in the logs.
const MAX_HINTS: NonZeroUsize = NonZeroUsize::new(1 << 19).expect("not zero");
/// Files that are remembered as gone.
const MAX_GONE: NonZeroUsize = NonZeroUsize::new(1 << 14).expect("not zero");
/// Processes of one node name on one export at a time; the second has `NAME.1.log`, and so on.
const MAX_LOGS_PER_NODE: usize = 16;
/// Bytes read from a log at a time.
const CHUNK: usize = 1 << 16;

/// Where a file was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) id: FileId,
    /// Number of the directory.
    pub(super) parent: u64,
    pub(super) name: Box<[u8]>,
}

/// The logs of all nodes for one export.
#[derive(Debug)]
pub(super) struct Index {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: Known,
    own: File,
    own_name: OsString,
    peers: HashMap<OsString, Tail>,
    /// The own log could not be written, which was said.
    failed: bool,
}

/// How far a peer's log was read.
#[derive(Debug)]
struct Tail {
    file: File,
    ino: u64,
    offset: u64,
}

#[derive(Debug)]
struct Known {
    hints: LruCache<u64, Hint>,
    gone: LruCache<FileId, ()>,
}

impl Known {
    fn new() -> Self {
        Self { hints: LruCache::new(MAX_HINTS), gone: LruCache::new(MAX_GONE) }
    }

    /// Of two files that had the same number, the younger one is the one that may exist.
    fn apply(&mut self, record: Record) {
        match record {
            Record::Seen { id, parent, name } => {
                self.gone.pop(&id);
                if self.hints.peek(&id.ino).is_none_or(|old| old.id.birth <= id.birth) {
                    self.hints.put(id.ino, Hint { id, parent, name });
                }
            }
            Record::Gone { id } => {
                if self.hints.peek(&id.ino).is_some_and(|old| old.id == id) {
                    self.hints.pop(&id.ino);
                }
                self.gone.put(id, ());
            }
        }
    }
}

impl Index {
    /// Reads all logs in `dir`, which is made if needed, and starts a compacted one for `node`.
    pub(super) fn open(dir: &Path, node: &str) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let (old, own_name) = claim(dir, node)?;
        let mut known = Known::new();
        read_records(&old, 0, &mut |record| known.apply(record))?;
        let own = compact(dir, &own_name, &known)?;
        let state = State { known, own, own_name, peers: HashMap::new(), failed: false };
        let index = Self { dir: dir.to_owned(), state: Mutex::new(state) };
        index.read_peers();
        Ok(index)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the file with this number was last seen.
    pub(super) fn hint(&self, ino: u64) -> Option<Hint> {
        self.lock().known.hints.get(&ino).cloned()
    }

    pub(super) fn is_gone(&self, id: FileId) -> bool {
        self.lock().known.gone.contains(&id)
    }

    /// Remembers a place, in the log too if it is new.
    pub(super) fn seen(&self, id: FileId, parent: u64, name: &[u8]) {
        let mut state = self.lock();
        let same = |hint: &Hint| hint.id == id && hint.parent == parent && *hint.name == *name;
        if !state.known.hints.get(&id.ino).is_some_and(same) {
            // What was just seen exists, whatever the clock said when its predecessor was born.
            state.known.hints.pop(&id.ino);
            state.append(Record::Seen { id, parent, name: name.into() }, &self.dir);
        }
    }

    /// Remembers that a file does not exist any more.
    pub(super) fn gone(&self, id: FileId) {
        let mut state = self.lock();
        if !state.known.gone.contains(&id) {
            state.append(Record::Gone { id }, &self.dir);
        }
    }

    /// Reads what the peers appended since the last time. A log that can't be read is no hint.
    pub(super) fn read_peers(&self) {
        let mut state = self.lock();
        for name in log_names(&self.dir) {
            if name != state.own_name {
                let _ = state.read_peer(&self.dir, name);
            }
        }
    }

    /// Reads all logs again for a place that memory had no room for.
    pub(super) fn hint_on_disk(&self, id: FileId) -> Option<Hint> {
        let mut found = None;
        for name in log_names(&self.dir) {
            let Ok(file) = File::open(self.dir.join(name)) else { continue };
            let _ = read_records(&file, 0, &mut |record| match record {
                Record::Seen { id: seen, parent, name } if seen == id => {
                    found = Some(Hint { id, parent, name })
                }
                _ => {}
            });
        }
        found
    }
}

impl State {
    fn append(&mut self, record: Record, dir: &Path) {
        let written = self.own.write_all(&record.encode());
        self.known.apply(record);
        if let Err(error) = written
            && !self.failed
        {
            self.failed = true;
            tracing::warn!(
                log = %dir.join(&self.own_name).display(), %error,
                "cannot append to the handle index; after a restart some handles need a search of the export: make room in the state directory and restart",
            );
        }
    }

    /// A peer that starts puts a compacted log in place of its old one; that is read from its start.
    fn read_peer(&mut self, dir: &Path, name: OsString) -> io::Result<()> {
        let path = dir.join(&name);
        let ino = fs::metadata(&path)?.ino();
        if self.peers.get(&name).is_none_or(|tail| tail.ino != ino) {
            let file = File::open(&path)?;
            let ino = file.metadata()?.ino();
            self.peers.insert(name.clone(), Tail { file, ino, offset: 0 });
        }
        if let Some(tail) = self.peers.get_mut(&name) {
            let known = &mut self.known;
            tail.offset = read_records(&tail.file, tail.offset, &mut |record| known.apply(record))?;
        }
        Ok(())
    }
}

fn log_names(dir: &Path) -> Vec<OsString> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter(|name| name.as_encoded_bytes().ends_with(b".log")).collect()
}

/// The first log of this node that no other process has.
fn claim(dir: &Path, node: &str) -> io::Result<(File, OsString)> {
    for n in 0..MAX_LOGS_PER_NODE {
        let name = if n == 0 { format!("{node}.log") } else { format!("{node}.{n}.log") };
        if let Some(file) = lock_log(&dir.join(&name))? {
            return Ok((file, name.into()));
        }
    }
    Err(io::Error::other(format!(
        "{MAX_LOGS_PER_NODE} processes with node name {node:?} serve this directory already; stop one, or give this one another name"
    )))
}

/// Locks the log, unless another process has it. The lock is on the file that has the name: a process that compacts
/// replaces it.
fn lock_log(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            other => other?,
        }
        if fs::metadata(path).is_ok_and(|meta| file.metadata().is_ok_and(|own| own.ino() == meta.ino())) {
            return Ok(Some(file));
        }
    }
}

/// Writes what is known as a new log, locks it and puts it in place of the old one.
fn compact(dir: &Path, name: &OsString, known: &Known) -> io::Result<File> {
    let mut own = name.clone();
    own.push(".new");
    let path = dir.join(own);
    let options = || {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true).mode(0o600);
        options
    };
    let _ = fs::remove_file(&path);
    let mut file = options().open(&path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let mut out = io::BufWriter::new(&mut file);
    for (_, hint) in known.hints.iter().rev() {
        let Hint { id, parent, name } = hint.clone();
        out.write_all(&Record::Seen { id, parent, name }.encode())?;
    }
    for (id, ()) in known.gone.iter().rev() {
        out.write_all(&Record::Gone { id: *id }.encode())?;
    }
    out.flush()?;
    drop(out);
    fs::rename(&path, dir.join(name))?;
    Ok(file)
}

/// Gives `each` the whole records from `offset` on; returns where the next one will start.
fn read_records(mut file: &File, offset: u64, each: &mut dyn FnMut(Record)) -> io::Result<u64> {
    file.seek(SeekFrom::Start(offset))?;
    let mut done = offset;
    let mut have = Vec::new();
    loop {
        let before = have.len();
        Read::take(&mut file, CHUNK as u64).read_to_end(&mut have)?;
        let mut at = 0;
        while let Parsed::Record(record, len) = Record::parse(&have[at..]) {
            each(record);
            at += len;
        }
        have.drain(..at);
        done += at as u64;
        let at_end = have.len() + at == before;
        if at_end || Record::parse(&have) == Parsed::Damaged {
            return Ok(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FileId = FileId { ino: 1, birth: 100 };
    const B: FileId = FileId { ino: 2, birth: 100 };

    fn name(index: &Index, id: FileId) -> Option<String> {
        index.hint(id.ino).map(|hint| String::from_utf8(hint.name.into()).unwrap())
    }

    fn log(dir: &Path) -> PathBuf {
        dir.join("a.log")
    }

    #[test]
    fn a_restart_knows_the_last_place_and_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), "a").unwrap();
        for n in 0..100 {
            index.seen(A, 9, format!("name {n}").as_bytes());
        }
        index.seen(B, 9, b"b");
        index.gone(B);
        drop(index);
        let before = fs::metadata(log(dir.path())).unwrap().len();
        let index = Index::open(dir.path(), "a").unwrap();
        assert_eq!(name(&index, A).as_deref(), Some("name 99"));
        assert_eq!(name(&index, B), None);
        assert!(fs::metadata(log(dir.path())).unwrap().len() < before / 50);
        index.seen(A, 9, b"name 99");
        assert_eq!(index.hint_on_disk(A), index.hint(1));
    }

    #[test]
    fn what_is_seen_again_is_not_gone() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), "a").unwrap();
        index.seen(A, 9, b"one");
        index.gone(A);
        assert!(index.is_gone(A));
        index.seen(A, 9, b"again, within the same clock tick");
        assert!(!index.is_gone(A) && Index::open(dir.path(), "b").unwrap().hint(1).is_some());
    }

    #[test]
    fn peers_are_read_as_they_grow_and_restart() {
        let dir = tempfile::tempdir().unwrap();
        let a = Index::open(dir.path(), "a").unwrap();
        let b = Index::open(dir.path(), "b").unwrap();
        a.seen(A, 9, b"one");
        assert_eq!(name(&b, A), None);
        b.read_peers();
        assert_eq!(name(&b, A).as_deref(), Some("one"));
        drop(a);
        let a = Index::open(dir.path(), "a").unwrap();
        a.seen(A, 9, b"two");
        b.read_peers();
        assert_eq!(name(&b, A).as_deref(), Some("two"));
        a.gone(A);
        b.read_peers();
        assert!(b.is_gone(A) && name(&b, A).is_none());
    }

    #[test]
    fn a_torn_tail_is_waited_for_and_cut_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let a = Index::open(dir.path(), "a").unwrap();
        let b = Index::open(dir.path(), "b").unwrap();
        a.seen(A, 9, b"one");
        let record = Record::Seen { id: B, parent: 9, name: (*b"two").into() }.encode();
        let mut raw = OpenOptions::new().append(true).open(log(dir.path())).unwrap();
        raw.write_all(&record[..record.len() - 1]).unwrap();
        b.read_peers();
        assert_eq!((name(&b, A).as_deref(), name(&b, B)), (Some("one"), None));
        raw.write_all(&record[record.len() - 1..]).unwrap();
        b.read_peers();
        assert_eq!(name(&b, B).as_deref(), Some("two"));
        raw.write_all(&record[..7]).unwrap();
        drop(a);
        let a = Index::open(dir.path(), "a").unwrap();
        a.seen(A, 9, b"three");
        b.read_peers();
        assert_eq!(name(&b, A).as_deref(), Some("three"));
    }

    #[test]
    fn damage_ends_a_log_but_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let a = Index::open(dir.path(), "a").unwrap();
        a.seen(A, 9, b"one");
        let mut raw = OpenOptions::new().append(true).open(log(dir.path())).unwrap();
        raw.write_all(&[0xff; 1000]).unwrap();
        a.seen(B, 9, b"two");
        let b = Index::open(dir.path(), "b").unwrap();
        assert_eq!((name(&b, A).as_deref(), name(&b, B)), (Some("one"), None));
    }

    #[test]
    fn processes_of_one_name_have_logs_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let first = Index::open(dir.path(), "a").unwrap();
        let second = Index::open(dir.path(), "a").unwrap();
        assert_ne!(first.lock().own_name, second.lock().own_name);
        let more: io::Result<Vec<_>> =
            (2..=MAX_LOGS_PER_NODE).map(|_| Index::open(dir.path(), "a")).collect();
        assert!(more.unwrap_err().to_string().contains("node name \"a\""));
    }

    #[test]
    fn a_long_log_is_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let a = Index::open(dir.path(), "a").unwrap();
        for ino in 0..5000 {
            a.seen(FileId { ino, birth: 1 }, ino / 10, &[b'x'; 200]);
        }
        let b = Index::open(dir.path(), "b").unwrap();
        assert_eq!(b.hint(4999).unwrap().parent, 499);
        assert_eq!(b.lock().known.hints.len(), 5000);
    }
}
