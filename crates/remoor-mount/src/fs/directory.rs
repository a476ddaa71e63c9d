//! Reading directories.
//!
//! A directory is streamed: an open directory keeps the chunk it is read from and the one after it, which is asked for
//! ahead. An offset is the server's cookie, so that seekdir(3) needs no table; `.` and `..` are ours, whatever the server
//! sends, with two offsets of their own.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use remoor_nfs::v3::{
    self, CookieVerf, Entry as NameEntry, EntryPlus, FileType, NfsStat, ReaddirArgs, ReaddirplusArgs, Res,
    access,
};
use tokio::task::JoinHandle;

use super::attributes::Stamp;
use super::node::{Node, NodeId, lock};
use super::open::OpenId;
use super::{Caller, Credential, Entry, Fs};
use crate::errno::Errno;

/// Least and most bytes asked of one READDIR or READDIRPLUS.
pub(crate) const MIN_CHUNK: u32 = 8 << 10;
/// See [`MIN_CHUNK`].
pub(crate) const MAX_CHUNK: u32 = 64 << 10;
/// Chunks read to find the place again after the server has lost a cookie: as many as a directory of 2^32 bytes has.
const MAX_RESTART: usize = 1 << 16;
/// Offset after `.`: no server's cookie, which are counters, or hashes of at most 63 bits.
const AFTER_DOT: u64 = i64::MAX as u64 - 2;
/// Offset after `..`, where the server's entries begin.
const AFTER_DOT_DOT: u64 = i64::MAX as u64 - 1;
/// The server's cookie before its first entry.
const START: u64 = 0;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Number of the object.
    pub fileid: u64,
    /// Its name. Bytes, not text.
    pub name: Bytes,
    /// Where to go on after it.
    pub offset: u64,
    /// Its type, if the server told.
    pub kind: Option<FileType>,
    /// What a lookup would have found, if that was asked for and the server told.
    pub found: Option<Entry>,
}

/// Takes entries while there is room for them: false leaves the entry for the next time.
pub type Take<'a> = &'a mut (dyn FnMut(&DirEntry) -> bool + Send);

/// An open directory.
#[derive(Debug)]
struct OpenDirectory {
    node: Arc<Node>,
    who: Arc<Credential>,
    stream: Mutex<Stream>,
}

/// Where reading has come to.
#[derive(Debug, Default)]
struct Stream {
    chunk: Option<Arc<Chunk>>,
    ahead: Option<Ahead>,
    /// The last name given out: finds the place again if the server has lost its cookie.
    last: Option<Bytes>,
}

impl Stream {
    /// The name of the entry whose cookie `cookie` is.
    fn name_before(&self, cookie: u64) -> Option<Bytes> {
        let mut entries = self.chunk.iter().flat_map(|chunk| &chunk.entries);
        let here = entries.find(|entry| entry.cookie == cookie).map(|entry| entry.name.0.clone());
        here.or_else(|| self.last.clone())
    }
}

/// A reply to READDIR or READDIRPLUS.
#[derive(Debug)]
struct Chunk {
    /// The cookie before its first entry.
    start: u64,
    plus: bool,
    verf: CookieVerf,
    entries: Vec<EntryPlus>,
    eof: bool,
    asked: Stamp,
}

/// The next chunk, being asked for.
#[derive(Debug)]
struct Ahead {
    start: u64,
    plus: bool,
    task: JoinHandle<Result<Chunk, Errno>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Chunk {
    /// Index of the entry after `cookie`, if it is here, or the end is.
    fn after(&self, cookie: u64) -> Option<usize> {
        let next = match cookie == self.start {
            true => 0,
            false => self.entries.iter().position(|entry| entry.cookie == cookie)? + 1,
        };
        (next < self.entries.len() || self.eof).then_some(next)
    }

    fn end(&self) -> u64 {
        self.entries.last().map_or(self.start, |entry| entry.cookie)
    }
}

/// All open directories.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<OpenId, Arc<OpenDirectory>>,
}

impl Directories {
    fn get(&self, id: OpenId) -> Result<Arc<OpenDirectory>, Errno> {
        lock(&self.table).open.get(&id).cloned().ok_or(Errno::BADF)
    }

    fn add(&self, node: Arc<Node>, who: Arc<Credential>) -> OpenId {
        let mut table = lock(&self.table);
        table.next += 1;
        let id = OpenId(table.next);
        let directory = OpenDirectory { node, who, stream: Mutex::default() };
        table.open.insert(id, Arc::new(directory));
        id
    }
}

impl Fs {
    /// Opens a directory to be read.
    pub async fn opendir(&self, caller: &Caller, node: NodeId) -> Result<OpenId, Errno> {
        let (node, who) = (self.nodes.get(node)?, self.who(caller));
        if !node.is_dir() {
            return Err(Errno::NOTDIR);
        }
        match self.granted(&node, &who).await? & access::READ {
            0 => Err(Errno::ACCES),
            _ => Ok(self.directories.add(node, who)),
        }
    }

    /// Closes a directory.
    pub fn releasedir(&self, id: OpenId) -> Result<(), Errno> {
        let directory = lock(&self.directories.table).open.remove(&id).ok_or(Errno::BADF)?;
        // What is asked for ahead keeps the directory until it is told to stop.
        *lock(&directory.stream) = Stream::default();
        Ok(())
    }

    /// Gives entries of an open directory from `offset` on, 0 for its start, to `take`; none are left if it is not
    /// called.
    pub async fn readdir(self: &Arc<Self>, id: OpenId, offset: u64, take: Take<'_>) -> Result<(), Errno> {
        self.read_directory(id, offset, false, take).await
    }

    /// As [`Fs::readdir`], with what a lookup of each name would find. The kernel is told of every node taken: each
    /// must be forgotten ([`Fs::forget`]).
    pub async fn readdirplus(self: &Arc<Self>, id: OpenId, offset: u64, take: Take<'_>) -> Result<(), Errno> {
        self.read_directory(id, offset, true, take).await
    }

    async fn read_directory(
        self: &Arc<Self>,
        id: OpenId,
        offset: u64,
        plus: bool,
        take: Take<'_>,
    ) -> Result<(), Errno> {
        let directory = self.directories.get(id)?;
        if offset == 0 {
            // rewinddir(3): what was read before does not count.
            *lock(&directory.stream) = Stream::default();
            self.leaving.wait(directory.node.id).await;
        }
        let Some(mut cookie) = self.dots(&directory.node, offset, take) else { return Ok(()) };
        let mut taken = false;
        loop {
            let chunk = self.chunk_after(&directory, cookie, plus).await?;
            let Some(first) = chunk.after(cookie) else { return Err(Errno::IO) };
            self.read_ahead(&directory, &chunk);
            for entry in &chunk.entries[first..] {
                if !self.give(&directory, &chunk, entry, plus, take) {
                    return Ok(());
                }
                taken |= !is_dot(&entry.name.0);
            }
            cookie = chunk.end();
            // One chunk fills a buffer of the kernel; waiting for the next would keep these from it.
            if chunk.eof || taken {
                return Ok(());
            }
        }
    }

    /// Gives `.` and `..`. Returns the server's cookie to go on from if there is room.
    fn dots(&self, dir: &Node, offset: u64, take: Take<'_>) -> Option<u64> {
        let mut dot = |name: &'static [u8], fileid, offset| {
            let name = Bytes::from_static(name);
            take(&DirEntry { fileid, name, offset, kind: Some(FileType::Directory), found: None })
        };
        if offset == 0 && !dot(b".", dir.fileid, AFTER_DOT) {
            return None;
        }
        if (offset == 0 || offset == AFTER_DOT) && !dot(b"..", self.fileid_of_parent(dir), AFTER_DOT_DOT) {
            return None;
        }
        let dots = [0, AFTER_DOT, AFTER_DOT_DOT];
        Some(if dots.contains(&offset) { START } else { offset })
    }

    fn fileid_of_parent(&self, dir: &Node) -> u64 {
        let parent = dir.place().and_then(|place| self.nodes.get(place.parent).ok());
        parent.map_or(dir.fileid, |parent| parent.fileid)
    }

    fn give(
        &self,
        directory: &OpenDirectory,
        chunk: &Chunk,
        entry: &EntryPlus,
        plus: bool,
        take: Take<'_>,
    ) -> bool {
        let name = &entry.name.0;
        if is_dot(name) {
            return true;
        }
        let told = entry.file.as_ref().zip(entry.attr.as_ref()).filter(|_| plus);
        let found =
            told.and_then(|(file, attr)| self.enter(&directory.node, name, file, attr, chunk.asked).ok());
        let node = found.as_ref().map(|found| found.node);
        let kind = entry.attr.as_ref().map(|attr| attr.kind);
        let (fileid, offset) = (entry.fileid, entry.cookie);
        let taken = take(&DirEntry { fileid, name: name.clone(), offset, kind, found });
        match (taken, node) {
            (true, _) => lock(&directory.stream).last = Some(name.clone()),
            (false, Some(node)) => self.forget(node, 1),
            (false, None) => {}
        }
        taken
    }

    /// The chunk that has the entry after `cookie`.
    async fn chunk_after(
        &self,
        directory: &OpenDirectory,
        cookie: u64,
        plus: bool,
    ) -> Result<Arc<Chunk>, Errno> {
        let ahead = {
            let mut stream = lock(&directory.stream);
            if let Some(chunk) = &stream.chunk
                && (chunk.plus || !plus)
                && chunk.after(cookie).is_some()
            {
                return Ok(chunk.clone());
            }
            stream.ahead.take().filter(|ahead| ahead.start == cookie && ahead.plus == plus)
        };
        let chunk = match ahead {
            Some(mut ahead) => (&mut ahead.task).await.unwrap_or(Err(Errno::IO))?,
            None => self.ask_from(directory, cookie, plus).await?,
        };
        let chunk = Arc::new(chunk);
        lock(&directory.stream).chunk = Some(chunk.clone());
        Ok(chunk)
    }

    /// Asks for the chunk after the one that is being read.
    fn read_ahead(self: &Arc<Self>, directory: &Arc<OpenDirectory>, chunk: &Chunk) {
        let (start, plus, verf) = (chunk.end(), chunk.plus, chunk.verf);
        let mut stream = lock(&directory.stream);
        let asked = stream.ahead.as_ref().is_some_and(|ahead| ahead.start == start && ahead.plus == plus);
        if chunk.eof || asked {
            return;
        }
        let (fs, of) = (self.clone(), directory.clone());
        let task = tokio::spawn(async move { fs.ask_with(&of, start, verf, plus).await });
        stream.ahead = Some(Ahead { start, plus, task });
    }

    async fn ask_from(&self, directory: &OpenDirectory, cookie: u64, plus: bool) -> Result<Chunk, Errno> {
        let verf = match (&lock(&directory.stream).chunk, cookie) {
            (_, START) | (None, _) => CookieVerf::default(),
            (Some(chunk), _) => chunk.verf,
        };
        self.ask_with(directory, cookie, verf, plus).await
    }

    async fn ask_with(
        &self,
        directory: &OpenDirectory,
        cookie: u64,
        verf: CookieVerf,
        plus: bool,
    ) -> Result<Chunk, Errno> {
        match self.ask_chunk(directory, cookie, verf, plus).await? {
            Ok(chunk) => Ok(chunk),
            Err(NfsStat::BadCookie) if cookie != START => self.find_again(directory, cookie, plus).await,
            Err(status) => Err(self.refused(&directory.node, status)),
        }
    }

    /// The server does not know `cookie` any more: reads from the start to the entry it was the cookie of, by cookie or
    /// by name. If that has gone, everything is given again, which a program that removes what it reads needs, and
    /// others can take better than a loss.
    async fn find_again(&self, directory: &OpenDirectory, lost: u64, plus: bool) -> Result<Chunk, Errno> {
        let last = lock(&directory.stream).name_before(lost);
        let (mut cookie, mut verf) = (START, CookieVerf::default());
        for _ in 0..MAX_RESTART {
            let asked = self.ask_chunk(directory, cookie, verf, plus).await?;
            let mut chunk = asked.map_err(|status| self.refused(&directory.node, status))?;
            let here = |entry: &EntryPlus| entry.cookie == lost || Some(&entry.name.0) == last.as_ref();
            if let Some(found) = chunk.entries.iter().position(here) {
                let end = chunk.end();
                chunk.entries.drain(..=found);
                if chunk.entries.is_empty() && !chunk.eof {
                    let next = self.ask_chunk(directory, end, chunk.verf, plus).await?;
                    chunk = next.map_err(|status| self.refused(&directory.node, status))?;
                }
                chunk.start = lost;
                return Ok(chunk);
            }
            if chunk.eof {
                break;
            }
            (cookie, verf) = (chunk.end(), chunk.verf);
        }
        let again = self.ask_chunk(directory, START, CookieVerf::default(), plus).await?;
        let mut chunk = again.map_err(|status| self.refused(&directory.node, status))?;
        chunk.start = lost;
        Ok(chunk)
    }

    /// One READDIRPLUS or READDIR, whichever is wanted and supported.
    async fn ask_chunk(
        &self,
        directory: &OpenDirectory,
        cookie: u64,
        verf: CookieVerf,
        plus: bool,
    ) -> Result<Result<Chunk, NfsStat>, Errno> {
        if plus && !self.lacks.readdirplus.load(Relaxed) {
            match self.ask_readdirplus(directory, cookie, verf).await? {
                Err(NfsStat::NotSupp) => self.lacks.readdirplus.store(true, Relaxed),
                Err(status) => return Ok(Err(status)),
                Ok(chunk) => return chunk.checked().map(Ok),
            }
        }
        match self.ask_readdir(directory, cookie, verf).await? {
            Err(status) => Ok(Err(status)),
            // Where READDIRPLUS is not supported this is all there is.
            Ok(chunk) => Chunk { plus, ..chunk }.checked().map(Ok),
        }
    }

    async fn ask_readdirplus(
        &self,
        directory: &OpenDirectory,
        cookie: u64,
        verf: CookieVerf,
    ) -> Result<Result<Chunk, NfsStat>, Errno> {
        let (node, asked) = (&directory.node, self.ask());
        let max_count = self.limits.directory;
        let dir = node.handle.clone();
        let args = ReaddirplusArgs { dir, cookie, verf, dir_count: max_count / 4, max_count };
        Ok(match self.call::<v3::Readdirplus, _, _>(&directory.who, args).await? {
            Res::Ok(ok) => {
                self.learn_if_told(node, ok.dir_attr.as_ref(), asked);
                let entries = ok.entries.0;
                Ok(Chunk { start: cookie, plus: true, verf: ok.verf, entries, eof: ok.eof, asked })
            }
            Res::Fail(status, attr) => {
                self.learn_if_told(node, attr.as_ref(), asked);
                Err(status)
            }
        })
    }

    async fn ask_readdir(
        &self,
        directory: &OpenDirectory,
        cookie: u64,
        verf: CookieVerf,
    ) -> Result<Result<Chunk, NfsStat>, Errno> {
        let (node, asked) = (&directory.node, self.ask());
        let args = ReaddirArgs { dir: node.handle.clone(), cookie, verf, count: self.limits.directory };
        Ok(match self.call::<v3::Readdir, _, _>(&directory.who, args).await? {
            Res::Ok(ok) => {
                self.learn_if_told(node, ok.dir_attr.as_ref(), asked);
                let bare = |NameEntry { fileid, name, cookie }| EntryPlus {
                    fileid,
                    name,
                    cookie,
                    attr: None,
                    file: None,
                };
                let entries = ok.entries.0.into_iter().map(bare).collect();
                Ok(Chunk { start: cookie, plus: false, verf: ok.verf, entries, eof: ok.eof, asked })
            }
            Res::Fail(status, attr) => {
                self.learn_if_told(node, attr.as_ref(), asked);
                Err(status)
            }
        })
    }
}

impl Chunk {
    /// EIO for a reply that would have us read for ever.
    fn checked(self) -> Result<Self, Errno> {
        let stands_still = !self.eof && self.end() == self.start;
        if stands_still {
            tracing::warn!(
                "the server's READDIR reply has neither entries nor the end: the directory cannot be read"
            );
        }
        if stands_still { Err(Errno::IO) } else { Ok(self) }
    }
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}
