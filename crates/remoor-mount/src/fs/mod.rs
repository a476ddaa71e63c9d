//! The file system over NFS version 3, which knows nothing of FUSE.
//!
//! [`Fs`] has one method for each operation of a file system. What it tells the kernel on its own account goes through
//! [`Kernel`].
//!
//! | module | subject |
//! |---|---|
//! | [`node`] | objects the kernel knows, by number and by handle |
//! | [`attributes`] | attributes: how long they are kept, who changed them |
//! | `call` | one call: JUKEBOX, ESTALE, what a reply tells of an object |
//! | [`credentials`] | who calls, as the server is told |
//! | `lookup` | names, and names that are not there |
//! | `access` | what the server grants to whom |
//! | `names` | making, removing and renaming |
//! | [`open`] | open files |
//! | [`directory`] | reading directories |
//! | `control` | what the command around the mount sees and changes |
//! | [`silly`] | files that are open while they have no name |
//! | `leaving` | the names of those, on their way out |
//! | `data` | data of regular files |

pub mod attributes;
pub mod config;
pub mod credentials;
pub mod directory;
pub mod node;
pub mod open;
pub mod silly;

mod access;
mod call;
mod control;
mod data;
mod inode;
mod journal;
mod leaving;
mod lookup;
mod names;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;
use remoor_client::Client;
use remoor_nfs::v3::Fattr;

use crate::status::Counters;

pub use call::Change;
pub use config::Config;
pub use credentials::{Caller, Credential, Groups};
pub use node::{Node, NodeId, Nodes, ROOT};

use credentials::Credentials;
use directory::Directories;
use leaving::Leaving;
use open::Opens;
use silly::Journal;

/// What the file system tells the kernel without being asked. None of these may wait: they are called in the middle of
/// operations for which the kernel may hold locks of the same objects.
pub trait Kernel: Send + Sync {
    /// Attributes the kernel keeps of `node` are not true any more.
    fn invalidate_attributes(&self, node: NodeId);
    /// Attributes and data the kernel keeps of `node` are not true any more.
    fn invalidate_data(&self, node: NodeId);
    /// What the kernel keeps of `name` in `parent`, there or not there, is not true any more.
    fn invalidate_entry(&self, parent: NodeId, name: &[u8]);
}

/// Attributes as they are shown, and how long the kernel may keep them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// The attributes.
    pub attr: Fattr,
    /// What is left of their time.
    pub valid: Duration,
}

/// A name that exists. The kernel has been told of the node once more: it must be forgotten as often
/// ([`Fs::forget`]), also if the reply never reaches the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What has the name.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
    /// How long the kernel may keep the name.
    pub valid: Duration,
}

/// Answer to a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The name exists.
    Found(Entry),
    /// It does not exist.
    Missing {
        /// How long the kernel may keep that.
        valid: Duration,
    },
}

/// Longest name, in bytes, whatever the server allows: `NAME_MAX` of Linux.
pub const MAX_NAME: usize = 255;

/// What FSINFO and PATHCONF told when it was mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a READ: `rsize`, and what the server allows.
    pub read: u32,
    /// Most bytes of a WRITE: `wsize`, and what the server allows.
    pub write: u32,
    /// Most bytes of a READDIR or READDIRPLUS reply.
    pub directory: u32,
    /// Largest file, in bytes.
    pub file: u64,
    /// Longest name, in bytes.
    pub name: u32,
}

/// What the server turned out not to support. Asked once, not again.
#[derive(Debug, Default)]
struct Lacks {
    readdirplus: AtomicBool,
    exclusive: AtomicBool,
}

/// A mounted file system.
pub struct Fs {
    pub(crate) client: Client,
    /// As it is now: a remount replaces it.
    config: ArcSwap<Config>,
    pub(crate) counters: Counters,
    pub(crate) limits: Limits,
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) nodes: Nodes,
    credentials: Credentials,
    opens: Opens,
    data: data::Pool,
    directories: Directories,
    lacks: Lacks,
    journal: Journal,
    /// Silly names that are being removed.
    pub(crate) leaving: Leaving,
    /// Orders questions: see [`attributes::Stamp`].
    questions: AtomicU64,
    /// Names no two creators share.
    unique: silly::Unique,
}

impl std::fmt::Debug for Fs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fs")
            .field("config", &self.config)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}
