//! What the NFS procedures need of a file system. Handlers reach files only through [`Vfs`].

mod creation;
pub mod local;
pub mod memory;
mod permission;

use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use remoor_nfs::v3::{CreateHow, Fattr, FsstatOk, MknodData, NfsStat, Sattr, StableHow, Time, WccData};

pub use self::local::Pages;

use self::creation::{
    MAX_LINK_TEXT, NewAttr, check_link_text, exclusive_times, is_dot, made_by, mknod_parts,
};

/// Names an object inside one vfs for as long as it exists, on every node and after every restart.
/// At most [`MAX_NODE_HANDLE`] bytes; the export's signature is put around it before a client sees it.
pub type NodeHandle = Bytes;
/// Longest [`NodeHandle`], in bytes.
pub const MAX_NODE_HANDLE: usize = 39;

/// Result of an operation; the error is the status the client sees.
pub type Result<T> = std::result::Result<T, NfsStat>;

/// On whose behalf an operation runs, after squashing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub gids: Vec<u32>,
}

/// An object that was found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its handle.
    pub handle: NodeHandle,
    /// Its attributes; `fsid` is filled in by the export.
    pub attr: Fattr,
}

/// An object that was made, and what that did to its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The object.
    pub node: Node,
    /// Of the directory; see [`Vfs`].
    pub dir: WccData,
}

/// Data of a file.
#[derive(Debug)]
pub enum Payload {
    /// In memory.
    Bytes(Bytes),
    /// Still in the page cache; to be sent from there.
    Pages(Pages),
}

impl Payload {
    /// How many bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Pages(pages) => pages.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, in memory. The pages of one that was sent in part give the rest.
    pub fn into_bytes(self) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Pages(pages) => pages.copy().map(Bytes::from),
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// What READ found.
#[derive(Debug)]
pub struct ReadData {
    /// At most as much as was asked.
    pub data: Payload,
    /// Whether the end was reached.
    pub eof: bool,
    /// The file's attributes.
    pub attr: Fattr,
}

/// What WRITE did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// How durable the data is: as asked, or better.
    pub committed: StableHow,
    /// Of the file; see [`Vfs`].
    pub wcc: WccData,
}

/// One directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: Bytes,
    /// The object's number.
    pub fileid: u64,
    /// Goes on after this entry; never 0; valid after a restart.
    pub cookie: u64,
}

/// A file system as NFS sees it. Every call may run on any thread, many at a time.
///
/// Names are single components, already checked to be non-empty, without `/` and NUL, and within 255 bytes.
///
/// [`WccData`] tells what an operation did to an object. Its attributes from before are there only if no other operation of
/// this vfs changed the object between them and those from after: a client that knew them missed nothing. `fsid` is filled
/// in by the export, here too.
#[allow(missing_docs, reason = "named after the procedures of RFC 1813")]
pub trait Vfs: Send + Sync {
    /// Handle of the exported directory.
    fn root(&self) -> Result<NodeHandle>;
    fn getattr(&self, caller: &Caller, node: &NodeHandle) -> Result<Fattr>;
    /// With a guard the change happens only if ctime equals it, else NFS3ERR_NOT_SYNC.
    fn setattr(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        attr: &Sattr,
        guard: Option<Time>,
    ) -> Result<WccData>;
    fn lookup(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<Node>;
    /// As [`Vfs::lookup`], of an entry that READDIRPLUS lists; the client need not use it next.
    fn look_at(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<Node> {
        self.lookup(caller, dir, name)
    }
    /// The granted bits of those asked, and the object's attributes.
    fn access(&self, caller: &Caller, node: &NodeHandle, bits: u32) -> Result<(u32, Fattr)>;
    /// The text of a symbolic link, and its attributes.
    fn readlink(&self, caller: &Caller, node: &NodeHandle) -> Result<(Bytes, Fattr)>;
    /// At most `count` bytes from `offset`.
    fn read(&self, caller: &Caller, node: &NodeHandle, offset: u64, count: u32) -> Result<ReadData>;
    /// Writes all of `data` as durable as asked, or better.
    fn write(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        offset: u64,
        data: &Bytes,
        stable: StableHow,
    ) -> Result<Written>;
    fn create(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], how: &CreateHow) -> Result<Made>;
    fn mkdir(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], attr: &Sattr) -> Result<Made>;
    fn symlink(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        text: &[u8],
        attr: &Sattr,
    ) -> Result<Made>;
    fn mknod(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], what: &MknodData) -> Result<Made>;
    fn remove(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<WccData>;
    fn rmdir(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<WccData>;
    /// What it did to the directories, the one it left first.
    fn rename(
        &self,
        caller: &Caller,
        from: (&NodeHandle, &[u8]),
        to: (&NodeHandle, &[u8]),
    ) -> Result<(WccData, WccData)>;
    /// The attributes of what has one more name, and what it did to the directory.
    fn link(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        dir: &NodeHandle,
        name: &[u8],
    ) -> Result<(Fattr, WccData)>;
    /// Offers entries after `cookie` (0: from the start) until `each` breaks; true if the end was reached. `.` and `..`
    /// are among them: a Linux client shows applications what READDIR gave and adds neither.
    fn readdir(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<bool>;
    fn fsstat(&self, caller: &Caller) -> Result<FsstatOk>;
    /// Most bytes a file can have. A client refuses to write beyond, where it could only tell later that data was lost.
    fn max_file_size(&self) -> u64 {
        i64::MAX as u64
    }
    /// Makes everything written to the file before this call stable.
    fn commit(&self, caller: &Caller, node: &NodeHandle) -> Result<WccData>;
    /// Changes whenever unstable data may have been lost while the server ran. A WRITE tells the one from before it wrote,
    /// COMMIT the one from after it ended, both as part of the write verifier.
    fn write_epoch(&self) -> u64 {
        0
    }
}
