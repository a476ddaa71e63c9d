//! Open files.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::Credential;
use super::data::OpenData;
use super::node::{Node, lock};
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
        let file = OpenFile { id, node, who, flags, data: OpenData::default() };
        table.files.insert(id, Arc::new(file));
        id
    }

    pub(crate) fn remove(&self, id: OpenId) -> Option<Arc<OpenFile>> {
        lock(&self.table).files.remove(&id)
    }
}
