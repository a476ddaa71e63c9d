//! Open files.
//!
//! An open asks the server one question, ACCESS: it answers who may, and what has become of the file since
//! (close-to-open).

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use remoor_nfs::v3::{
    self, CreateArgs, CreateHow, CreateOk, Fattr, FileHandle, FileType, NfsStat, Res, Sattr, SetTime,
};

use super::attributes::Stamp;
use super::data::OpenData;
use super::inode::wanted;
use super::lookup::place;
use super::node::{Node, NodeId, lock};
use super::{Caller, Credential, Entry, Fs, Lookup};
use crate::errno::Errno;

/// The kernel's `__FMODE_EXEC`: the file is opened to be executed.
const FMODE_EXEC: i32 = 0x20;

/// How a file is opened: flags of open(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFlags(pub i32);

impl OpenFlags {
    fn mode(self) -> i32 {
        self.0 & libc::O_ACCMODE
    }

    /// It may be read.
    pub fn read(self) -> bool {
        self.mode() != libc::O_WRONLY
    }

    /// It may be written.
    pub fn write(self) -> bool {
        self.mode() != libc::O_RDONLY
    }

    /// It is opened to be executed.
    pub fn exec(self) -> bool {
        self.0 & FMODE_EXEC != 0
    }

    /// Writes go to the end.
    pub fn append(self) -> bool {
        self.0 & libc::O_APPEND != 0
    }

    /// Its size becomes 0.
    pub fn truncate(self) -> bool {
        self.0 & libc::O_TRUNC != 0
    }

    /// It must not exist.
    pub fn exclusive(self) -> bool {
        self.0 & libc::O_EXCL != 0
    }

    /// Written data is stable when a write returns.
    pub fn sync(self) -> bool {
        self.0 & (libc::O_SYNC | libc::O_DSYNC) != 0
    }

    /// Nothing is kept between server and application.
    pub fn direct(self) -> bool {
        self.0 & libc::O_DIRECT != 0
    }
}

/// Number of an open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpenId(pub u64);

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    /// Its number.
    pub id: OpenId,
    /// What is open.
    pub node: Arc<Node>,
    /// Who opened it: its data is read and written on their behalf.
    pub who: Arc<Credential>,
    /// How.
    pub flags: OpenFlags,
    pub(crate) data: OpenData,
}

/// Answer to an open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The open file.
    pub id: OpenId,
    /// Data the kernel keeps of it is still true.
    pub keep_data: bool,
}

/// All open files.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    files: HashMap<OpenId, Arc<OpenFile>>,
}

impl Opens {
    pub(crate) fn get(&self, id: OpenId) -> Result<Arc<OpenFile>, Errno> {
        lock(&self.table).files.get(&id).cloned().ok_or(Errno::BADF)
    }

    pub(crate) fn add(&self, node: Arc<Node>, who: Arc<Credential>, flags: OpenFlags) -> OpenId {
        let mut table = lock(&self.table);
        table.next += 1;
        let id = OpenId(table.next);
        let file = OpenFile { id, who, flags, data: OpenData::new(&node), node };
        table.files.insert(id, Arc::new(file));
        id
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.table).files.is_empty()
    }

    pub(crate) fn remove(&self, id: OpenId) -> Option<Arc<OpenFile>> {
        lock(&self.table).files.remove(&id)
    }
}

/// Counts a file as open from before the server is asked, so that a name removed meanwhile becomes a silly one.
struct Opening<'a> {
    fs: &'a Arc<Fs>,
    node: &'a Arc<Node>,
    done: bool,
}

impl<'a> Opening<'a> {
    fn begin(fs: &'a Arc<Fs>, node: &'a Arc<Node>) -> Self {
        node.state().opens += 1;
        Self { fs, node, done: false }
    }

    fn opened(mut self, who: Arc<Credential>, flags: OpenFlags) -> Opened {
        self.done = true;
        let keep_data = !std::mem::take(&mut self.node.state().changed);
        Opened { id: self.fs.opens.add(self.node.clone(), who, flags), keep_data }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.done
            && let Some(silly) = self.node.closed()
        {
            tokio::spawn(self.fs.remove_silly(silly));
        }
    }
}

impl Fs {
    /// An open file.
    pub fn open_file(&self, id: OpenId) -> Result<Arc<OpenFile>, Errno> {
        self.opens.get(id)
    }

    /// Opens a file that exists.
    pub async fn open(
        self: &Arc<Self>,
        caller: &Caller,
        node: NodeId,
        flags: OpenFlags,
    ) -> Result<Opened, Errno> {
        let (node, who) = (self.nodes.get(node)?, self.who(caller));
        self.open_node(&node, who, flags).await
    }

    async fn open_node(
        self: &Arc<Self>,
        node: &Arc<Node>,
        who: Arc<Credential>,
        flags: OpenFlags,
    ) -> Result<Opened, Errno> {
        if node.is_dir() {
            return Err(Errno::ISDIR);
        }
        let opening = Opening::begin(self, node);
        let granted = match self.config().close_to_open {
            true => self.ask_access(node, &who).await?,
            false => self.granted(node, &who).await?,
        };
        // A program that may be executed but not read is read by the kernel to be executed.
        let wanted = wanted(node, flags.read() && !flags.exec(), flags.write(), flags.exec());
        if granted & wanted != wanted {
            return Err(Errno::ACCES);
        }
        if flags.truncate() {
            self.set(node, &who, Sattr { size: Some(0), ..Sattr::default() }).await?;
        }
        Ok(opening.opened(who, flags))
    }

    /// Closes an open file. It is done to its end whether or not anybody waits.
    pub async fn release(self: &Arc<Self>, id: OpenId) -> Result<(), Errno> {
        let file = self.opens.remove(id).ok_or(Errno::BADF)?;
        let Some(silly) = file.node.closed() else {
            self.data_release(&file);
            return Ok(());
        };
        self.data_discard(&file);
        let removed = self.remove_silly(silly);
        Self::to_the_end(async move {
            removed.await;
            Ok(())
        })
        .await
    }

    /// Creates a regular file with permission bits `mode` and opens it, or opens what has the name if `flags` permit.
    pub async fn create(
        self: &Arc<Self>,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened), Errno> {
        let (dir, who) = (self.nodes.get(parent)?, self.who(caller));
        self.name_fits(name)?;
        match self.create_new(&dir, name, mode, flags, &who).await {
            // Not O_EXCL: somebody was quicker, and it is an open like any other.
            Err(Errno::EXIST) if !flags.exclusive() => self.open_found(&dir, name, flags, who).await,
            Err(error) => Err(error),
            Ok(entry) => {
                // Its mode may forbid its creator what this open was asked for: it is not asked about (open(2)).
                let node = self.nodes.get(entry.node)?;
                let opened = Opening::begin(self, &node).opened(who, flags);
                Ok((entry, opened))
            }
        }
    }

    async fn open_found(
        self: &Arc<Self>,
        dir: &Arc<Node>,
        name: &[u8],
        flags: OpenFlags,
        who: Arc<Credential>,
    ) -> Result<(Entry, Opened), Errno> {
        let Lookup::Found(entry) = self.look_up(dir, name, &who).await? else {
            return Err(Errno::STALE);
        };
        let told = Told { fs: self, node: entry.node, done: false };
        let node = self.nodes.get(entry.node)?;
        if node.kind != FileType::Regular {
            // The kernel looks the name up again, follows the link or opens what it is.
            return Err(Errno::STALE);
        }
        let opened = self.open_node(&node, who, flags).await?;
        told.done();
        Ok((entry, opened))
    }

    async fn create_new(
        self: &Arc<Self>,
        dir: &Arc<Node>,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
        who: &Arc<Credential>,
    ) -> Result<Entry, Errno> {
        if flags.exclusive() && !self.lacks.exclusive.load(Relaxed) {
            match self.create_exclusive(dir, name, mode, who).await {
                Err(Errno::OPNOTSUPP) => self.lacks.exclusive.store(true, Relaxed),
                Err(error) => return Err(error),
                Ok((file, Some(attr), asked)) => return self.made_known(dir, name, (&file, &attr), asked),
                Ok((file, None, _)) => return self.made_handle(dir, name, &file, who).await,
            }
        }
        let how = CreateHow::Guarded(Sattr { mode: Some(mode), ..Sattr::default() });
        let change = self.change(dir);
        let reply = self.call::<v3::Create, _, _>(who, CreateArgs { place: place(dir, name), how }).await?;
        self.made(dir, name, change, reply, who).await
    }

    /// CREATE with a verifier, then the attributes, whose place the verifier took (RFC 1813 section 3.3.8). Returns them
    /// as they are then, if the server tells, and when they were asked for.
    async fn create_exclusive(
        self: &Arc<Self>,
        dir: &Arc<Node>,
        name: &[u8],
        mode: u32,
        who: &Arc<Credential>,
    ) -> Result<(FileHandle, Option<Fattr>, Stamp), Errno> {
        let (fs, dir, who) = (self.clone(), dir.clone(), who.clone());
        let place = place(&dir, name);
        Self::to_the_end(async move {
            let how = CreateHow::Exclusive(fs.unique.next().to_be_bytes());
            let change = fs.change(&dir);
            let reply = fs.call::<v3::Create, _, _>(&who, CreateArgs { place: place.clone(), how }).await?;
            let file = fs.created(&dir, change, reply)?.file;
            let file = match file {
                Some(file) => file,
                None => fs.call::<v3::Lookup, _, _>(&who, place.clone()).await?.into_result()?.file,
            };
            let attr = Sattr {
                mode: Some(mode),
                atime: SetTime::Server,
                mtime: SetTime::Server,
                ..Sattr::default()
            };
            let args = v3::SetattrArgs { file: file.clone(), attr, guard: None };
            let asked = fs.ask();
            match fs.call::<v3::Setattr, _, _>(&who, args).await?.into_result() {
                Ok(wcc) => Ok((file, wcc.after, asked)),
                Err(status) => {
                    fs.call::<v3::Remove, _, _>(&who, place).await?;
                    Err(status.into())
                }
            }
        })
        .await
    }

    /// The reply to a CREATE, MKDIR, SYMLINK or MKNOD in `dir`.
    pub(crate) fn created(
        &self,
        dir: &Node,
        change: super::Change<'_>,
        reply: Res<CreateOk, v3::WccData>,
    ) -> Result<CreateOk, Errno> {
        match reply {
            Res::Ok(ok) => {
                change.end(&ok.dir_wcc);
                Ok(ok)
            }
            Res::Fail(status, wcc) => {
                change.end(&wcc);
                if status == NfsStat::Stale { Err(self.refused(dir, status)) } else { Err(status.into()) }
            }
        }
    }
}

impl Node {
    /// One open less. Returns the silly name it had, if that was the last.
    fn closed(&self) -> Option<super::silly::Silly> {
        let mut state = self.state();
        state.opens = state.opens.saturating_sub(1);
        if state.opens > 0 { None } else { state.silly.take().map(|silly| *silly) }
    }
}

/// Takes back that the kernel was to be told of a node, unless it is.
struct Told<'a> {
    fs: &'a Fs,
    node: NodeId,
    done: bool,
}

impl Told<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.fs.forget(self.node, 1);
        }
    }
}
