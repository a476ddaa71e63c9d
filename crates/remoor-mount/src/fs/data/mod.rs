//! Data of regular files.
//!
//! A write is acknowledged from memory. What is held is sent by tasks of its own, which no caller's end ends, in WRITEs of
//! full size as soon as there are any, and the rest after a second, before attributes are asked for, at fsync and at
//! close. [`remoor_nfs::writeback`] knows what is where; what is here sends it, bounds it, and lets callers wait for it.
//!
//! | module | subject |
//! |---|---|
//! | `file` | what is held of one file, and what is to be sent of it next |
//! | `pool` | what is held of all files: bounds, and what is sent because of its age |
//! | `send` | WRITE and COMMIT |
//! | `write` | writing |
//! | `flush` | fsync, close, sync, and everything that waits for data to be written |
//! | `read` | reading |
//! | `fetch` | one range being read from the server |
//! | `ahead` | what is read before it is asked for |
//! | `layers` | what was read under what is held |

mod ahead;
mod fetch;
mod file;
mod flush;
mod layers;
mod pool;
mod read;
mod send;
mod write;

use std::sync::Mutex;

use remoor_nfs::writeback::ErrorMark;

use super::Fs;
use super::node::{Node, lock};
use crate::errno::Errno;
use ahead::Ahead;

pub(crate) use file::FileData;
pub(crate) use pool::Pool;

/// Data of one open file: what is read ahead for it, and which errors it was told of.
#[derive(Debug)]
pub(crate) struct OpenData {
    ahead: Mutex<Ahead>,
    errors: Mutex<ErrorMark>,
}

impl OpenData {
    /// For a file that is opened now.
    pub(crate) fn new(node: &Node) -> Self {
        Self { ahead: Mutex::default(), errors: Mutex::new(node.data().lock().error_mark()) }
    }
}

impl Fs {
    /// The end of what is held: the file is at least that long.
    pub(super) fn data_end(&self, node: &Node) -> u64 {
        node.data_if_opened().map_or(0, |data| data.lock().end())
    }

    /// Whether something is still to be written, so that the kernel must ask again before it shows attributes.
    pub(super) fn data_dirty(&self, node: &Node) -> bool {
        node.data_if_opened().is_some_and(|data| data.lock().has_unwritten())
    }

    /// Somebody else has changed the file: what was read before is not true any more.
    pub(super) fn data_changed(&self, node: &Node) {
        if let Some(data) = node.data_if_opened() {
            data.lock().outdate();
        }
    }

    /// Where the next data or hole is: NFS version 3 cannot tell (ENOSYS makes the kernel take all for data).
    pub fn lseek(&self) -> Result<u64, Errno> {
        Err(Errno::NOSYS)
    }

    /// Space cannot be reserved over NFS version 3.
    pub fn fallocate(&self) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    /// The latest error of write-behind that `errors` was not told of.
    fn take_error(&self, node: &Node, errors: &Mutex<ErrorMark>) -> Result<(), Errno> {
        node.data().lock().take_error(&mut lock(errors)).map_or(Ok(()), Err)
    }
}
