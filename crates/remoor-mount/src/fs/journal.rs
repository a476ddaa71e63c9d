//! Where silly names are kept, so that the next mount of the same export removes what a crash left.
//!
//! One file for each mount, locked while the mount lives: text, a line for each name added and removed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use remoor_client::Client;
use remoor_nfs::v3::{self, DirOp, FileHandle, MAX_HANDLE, NfsStat};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use rustix::fs::{FlockOperation, flock};

use super::Credential;
use super::credentials::machine_name;
use super::node::{Node, lock};

/// First word of a journal.
const MAGIC: &str = "remoor-silly-1";
/// Longest journal that is read.
const MAX_BYTES: u64 = 64 << 20;
/// How every silly name begins: nothing else is ever removed.
const PREFIX: &str = ".nfs";

/// A silly name: where it is, what has it and who may remove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    dir: FileHandle,
    file: FileHandle,
    uid: u32,
    gid: u32,
    name: String,
}

impl Record {
    pub(crate) fn new(dir: &Node, file: &Node, who: &Credential, name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name).into_owned();
        Self { dir: dir.handle.clone(), file: file.handle.clone(), uid: who.uid, gid: who.gid, name }
    }

    fn line(&self) -> String {
        let (dir, file) = (hex(&self.dir), hex(&self.file));
        format!("+ {dir} {file} {} {} {}\n", self.uid, self.gid, self.name)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("+ ")?.split(' ');
        let mut word = || words.next();
        let (dir, file) = (unhex(word()?)?, unhex(word()?)?);
        let (uid, gid) = (word()?.parse().ok()?, word()?.parse().ok()?);
        let name = word().filter(|name| name.starts_with(PREFIX))?.to_owned();
        Some(Self { dir, file, uid, gid, name })
    }
}

fn hex(handle: &FileHandle) -> String {
    handle.0.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

fn unhex(text: &str) -> Option<FileHandle> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.len() > 2 * MAX_HANDLE {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    Some(Bytes::from(bytes?).into())
}

/// Keeps silly names where the next mount finds them after a crash.
#[derive(Debug)]
pub struct Journal {
    open: Option<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    header: u64,
    kept: usize,
}

impl Journal {
    /// Keeps nothing.
    pub fn none() -> Self {
        Self { open: None }
    }

    /// The journal of a new mount of `root` in `dir`, which is made if it is not there.
    pub fn create(dir: &Path, root: &FileHandle) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        std::fs::create_dir_all(dir)?;
        let name = format!("{}-{}.silly", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = dir.join(name);
        let mut file = File::options().read(true).append(true).create(true).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let header = format!("{MAGIC} {}\n", hex(root));
        file.set_len(0)?;
        file.write_all(header.as_bytes())?;
        let header = header.len() as u64;
        Ok(Self { open: Some(Mutex::new(Open { file, path, header, kept: 0 })) })
    }

    /// Keeps a name. A journal that cannot be written costs a forgotten file after a crash, not the operation.
    pub(crate) fn add(&self, record: &Record) {
        let Some(open) = &self.open else { return };
        let mut open = lock(open);
        open.kept += 1;
        open.append(&record.line());
    }

    /// A name is gone.
    pub(crate) fn done(&self, dir: &Node, name: &[u8]) {
        let Some(open) = &self.open else { return };
        let mut open = lock(open);
        open.kept = open.kept.saturating_sub(1);
        match open.kept {
            0 => open.empty(),
            _ => open.append(&format!("- {} {}\n", hex(&dir.handle), String::from_utf8_lossy(name))),
        }
    }
}

impl Open {
    fn append(&mut self, line: &str) {
        self.file.write_all(line.as_bytes()).unwrap_or_else(|error| self.lost(&error));
    }

    fn empty(&mut self) {
        self.file.set_len(self.header).unwrap_or_else(|error| self.lost(&error));
    }

    fn lost(&self, error: &io::Error) {
        let path = self.path.display();
        tracing::warn!(
            "cannot write {path}, the journal of files that are open without a name: {error}; what a crash leaves \
             (.nfs*) must then be removed by hand"
        );
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.kept == 0 {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Removes what crashed mounts of `root` left, as their journals in `dir` tell; journals of mounts that live are locked
/// and left alone. Returns how many names were removed.
pub async fn clean_up(dir: &Path, root: &FileHandle, client: &Client) -> io::Result<usize> {
    let mut removed = 0;
    for path in journals(dir)? {
        let Some((file, records)) = left_behind(&path, root)? else { continue };
        let mut all = true;
        for record in &records {
            match remove(record, client).await {
                Ok(was_there) => removed += usize::from(was_there),
                Err(error) => {
                    tracing::warn!("{} of {}: not removed: {error}", record.name, path.display());
                    all = false;
                }
            }
        }
        if all {
            std::fs::remove_file(&path)?;
        }
        drop(file);
    }
    Ok(removed)
}

fn journals(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "silly")).collect())
}

/// What the journal at `path` has, if it is one of `root` and its mount has gone; locked by the returned file.
fn left_behind(path: &Path, root: &FileHandle) -> io::Result<Option<(File, Vec<Record>)>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let mut text = String::new();
    file.rewind()?;
    if (&file).take(MAX_BYTES).read_to_string(&mut text).is_err() {
        return Ok(None);
    }
    let mut lines = text.lines();
    let ours = lines.next() == Some(&format!("{MAGIC} {}", hex(root)));
    Ok(ours.then(|| (file, records(lines))))
}

fn records<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Record> {
    let mut kept = HashMap::new();
    for line in lines {
        if let Some(record) = Record::parse(line) {
            kept.insert((hex(&record.dir), record.name.clone()), record);
        } else if let Some((dir, name)) = line.strip_prefix("- ").and_then(|rest| rest.split_once(' ')) {
            kept.remove(&(dir.to_owned(), name.to_owned()));
        }
    }
    kept.into_values().collect()
}

/// Removes a name if it still has the file it was given to. Returns whether it was there.
async fn remove(record: &Record, client: &Client) -> Result<bool, crate::errno::Errno> {
    let auth = OpaqueAuth::sys(&AuthSys::new(&machine_name(), record.uid, record.gid));
    let name = Bytes::copy_from_slice(record.name.as_bytes()).into();
    let place = DirOp { dir: record.dir.clone(), name };
    let found = client.call_as::<v3::Lookup>(&auth, place.clone()).await?;
    match found.into_result() {
        Ok(found) if found.file != record.file => return Ok(false),
        Ok(_) => {}
        Err(NfsStat::NoEnt | NfsStat::Stale) => return Ok(false),
        Err(status) => return Err(status.into()),
    }
    match client.call_as::<v3::Remove>(&auth, place).await?.status() {
        NfsStat::Ok => Ok(true),
        NfsStat::NoEnt => Ok(false),
        status => Err(status.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(bytes: &'static [u8]) -> FileHandle {
        Bytes::from_static(bytes).into()
    }

    fn record(name: &str) -> Record {
        Record { dir: handle(b"dir"), file: handle(b"file"), uid: 1, gid: 2, name: name.to_owned() }
    }

    #[test]
    fn a_record_reads_back_and_nothing_but_silly_names_is_taken() {
        let written = record(".nfs01");
        assert_eq!(Record::parse(written.line().trim_end()), Some(written));
        for line in
            ["", "+ ", "+ zz 00 1 2 .nfs", "+ 00 00 1 2 passwd", "+ 0 00 1 2 .nfs", "+ éé 00 1 2 .nfs"]
        {
            assert_eq!(Record::parse(line), None, "{line}");
        }
    }

    #[test]
    fn what_was_removed_is_not_left() {
        let (a, b) = (record(".nfsa"), record(".nfsb"));
        let text = format!("{}{}- {} .nfsa\ntorn", a.line(), b.line(), hex(&a.dir));
        assert_eq!(records(text.lines()), [b]);
    }

    #[test]
    fn a_journal_is_read_only_when_its_mount_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let root = handle(b"root");
        let journal = Journal::create(dir.path(), &root).unwrap();
        journal.add(&record(".nfs1"));
        let path = journals(dir.path()).unwrap().remove(0);
        assert!(left_behind(&path, &root).unwrap().is_none(), "locked");
        drop(journal);
        assert!(left_behind(&path, &handle(b"other")).unwrap().is_none(), "of another export");
        assert_eq!(left_behind(&path, &root).unwrap().unwrap().1, [record(".nfs1")]);
    }

    #[test]
    fn a_journal_with_nothing_in_it_goes_with_its_mount() {
        let dir = tempfile::tempdir().unwrap();
        drop(Journal::create(dir.path(), &handle(b"root")).unwrap());
        assert!(journals(dir.path()).unwrap().is_empty());
        assert!(journals(&dir.path().join("missing")).unwrap().is_empty());
    }
}
