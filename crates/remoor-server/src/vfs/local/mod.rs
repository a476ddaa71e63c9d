//! A directory of this host.
//!
//! # What clients can rely on
//! - A handle means the same file after renames, after a restart and on every node that serves the directory; when the
//!   file has no name left, it is stale at once, also while another client has it open.
//! - Nothing outside the directory is reached: no link is followed, no mount point crossed (LOOKUP of one is
//!   NFS3ERR_ACCES), and `..` of the root is the root. As with `no_subtree_check`, a directory that someone on the host
//!   moves out of the export stays reachable by its handle, but not what is above it.
//! - With [`Scheme::Fileid`] a file is found through the name it was seen under last. When that name is gone and the file
//!   has others, or was renamed while no server ran, finding it takes a search of its directory, then of the export, up
//!   to about a million entries; more than 256 directories deep it is found only while it is held open. A file made with the number of one removed within the same clock tick (4 ms or less)
//!   can't be told from it.
//! - READDIR cookies are the file system's own (`d_off`), which ext4, xfs, btrfs and tmpfs (since Linux 6.6) keep valid
//!   across restarts and changes.
//! - A SETATTR guard and its change are one, as against all changes through this server but those of a link count.
//!   Attributes from before a change are told only if no other change through this server came between; a process of the
//!   host that changes the same object in those microseconds is not noticed, nor kept from it.
//! - The write verifier changes with every start and with every error that making data stable meets. What is mounted over
//!   the directory while it is served is not seen: the server goes on with the file system it began with.
//! - Each call is judged by the rights of that moment; who lost the right to write can't go on because it was there before.

mod attributes;
mod cache;
mod changes;
mod data;
mod directory;
mod exclusive;
mod identity;
mod index;
mod judgement;
mod names;
mod outside;
mod pages;
mod record;
mod scheme;
mod stat;
mod store;
mod walk;
mod wcc;
mod writeback;

use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use remoor_nfs::v3::{CreateHow, Fattr, FileType, FsstatOk, MknodData, Sattr, StableHow, Time, WccData};
use rustix::fs::{CWD, Mode, OFlags, SeekFrom, fstatvfs, open, openat, seek};
use rustix::process::{Resource, getrlimit, umask};
use thiserror::Error;

use self::cache::{Cache, Open};
use self::changes::Changes;
use self::identity::Identity;
pub use self::identity::{be_server, keep_identity};
use self::index::Index;
pub(crate) use self::outside::state_inside;
pub use self::pages::Pages;
pub(crate) use self::pages::Pool;
pub use self::scheme::Scheme;
use self::scheme::{InoPlace, RootKey, agreed, kernel_handles_unusable, regular_file};
use self::stat::{BirthSource, FileId, stat};
use self::store::{Finder, Store};
use self::walk::Walks;
use self::writeback::{Unsettled, WriteBack};
use super::{Caller, DirEntry, Made, Node, NodeHandle, ReadData, Result, Vfs, Written};
use crate::errno::status;
use crate::sys::{generation, name_to_handle};

/// Most objects held open, unless fewer descriptors are allowed (RLIMIT_NOFILE).
pub const MAX_OPEN: usize = 8192;
/// Fewest objects held open.
const MIN_OPEN: usize = 64;

/// When changes are on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns, as exports(5) `sync`.
    Sync,
    /// When the kernel gets to it, as exports(5) `async`: a crash of the host loses what clients were told is stable.
    Async,
}

/// How a directory is served.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// When changes are stable.
    pub durability: Durability,
    /// Directory that all nodes share, for the index of handles; outside every export.
    pub state_dir: PathBuf,
    /// Name of this node, a file name; nodes that share `state_dir` differ in it.
    pub node: String,
    /// Most objects held open; by default [`MAX_OPEN`], or what RLIMIT_NOFILE leaves.
    pub max_open: Option<NonZeroUsize>,
    /// How handles name objects; by default what is possible, kernel handles first.
    pub scheme: Option<Scheme>,
}

/// Why a directory can't be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory itself.
    #[error("cannot {what} {path}: {source}; an export must be a directory that the server's user may read")]
    Directory {
        /// What was attempted.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The state directory.
    #[error("cannot use {path} for the handles of {export}: {source}")]
    State {
        /// The state directory.
        path: PathBuf,
        /// The exported directory.
        export: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Clients could read the key or destroy the index.
    #[error(
        "the state directory {state} lies in the export {export}, where clients reach it; choose another place for it"
    )]
    StateInside {
        /// The state directory.
        state: PathBuf,
        /// The exported directory.
        export: PathBuf,
    },
    /// Kernel handles were chosen, here or by the first node, and are not possible.
    #[error(
        "{export} is served with kernel handles, which can't be used here: {reason}; run as root outside every container, or remove {record} (clients must then mount anew)"
    )]
    Kernel {
        /// The exported directory.
        export: PathBuf,
        /// Why not.
        reason: String,
        /// Where the choice is recorded.
        record: PathBuf,
    },
}

/// A served directory. See the module's text for what clients can rely on.
#[derive(Debug)]
pub struct LocalVfs {
    store: Store,
    identity: Identity,
    changes: Changes,
    durability: Durability,
    scheme: Scheme,
    reason: String,
    max_file_size: u64,
    pages: Arc<Pool>,
    /// fsync(2), unless a test has other plans.
    fsync: fn(BorrowedFd<'_>) -> std::result::Result<(), rustix::io::Errno>,
}

impl LocalVfs {
    /// Serves `path`. Sets the process's umask to 0, because clients apply their own.
    pub fn open(path: &Path, options: &LocalOptions) -> std::result::Result<Self, OpenError> {
        umask(Mode::empty());
        let broken = |what| {
            move |source: rustix::io::Errno| OpenError::Directory {
                what,
                path: path.to_owned(),
                source: source.into(),
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root_dir = openat(CWD, path, flags, Mode::empty()).map_err(broken("open"))?;
        let root_stat = stat(root_dir.as_fd()).map_err(broken("stat"))?;
        let birth = birth_source(&root_dir, root_stat.btime);
        let id = root_id(&root_dir, &root_stat, birth);
        let key = RootKey::new(id);
        let (scheme, reason) = choose(path, options, &root_dir, key)?;
        let handle = match scheme {
            Scheme::Kernel => {
                let kernel = name_to_handle(root_dir.as_fd()).map_err(broken("get a handle of"))?;
                key.kernel(&kernel).map_err(|_| broken("use the handle of")(rustix::io::Errno::OVERFLOW))?
            }
            Scheme::Fileid => key.fileid(id),
        };
        let max_file_size = max_file_size(root_dir.as_fd());
        let descriptors =
            open("/proc/self/fd", flags, Mode::empty()).map_err(broken("open /proc/self/fd to serve"))?;
        let fd = root_dir.try_clone().map_err(|source| OpenError::Directory {
            what: "hold",
            path: path.to_owned(),
            source,
        })?;
        let (identity, writeback) = (Identity::probe(), Arc::new(WriteBack::default()));
        let unsettled = Unsettled::new(&writeback);
        let store = Store {
            root: Arc::new(Open::new(handle, id, FileType::Directory, fd, false, unsettled)),
            ino_place: InoPlace::find(root_dir.as_fd()),
            root_dir,
            device: root_stat.device,
            mount: root_stat.mount,
            identity: identity.clone(),
            writeback,
            key,
            birth,
            finder: finder(path, options, key, scheme)?,
            cache: Cache::new(options.max_open.unwrap_or_else(default_max_open)),
            descriptors,
        };
        let (durability, changes) = (options.durability, Changes::new());
        Ok(Self {
            store,
            identity,
            changes,
            durability,
            scheme,
            reason,
            max_file_size,
            pages: Arc::default(),
            fsync: |fd| rustix::fs::fsync(fd),
        })
    }

    /// How handles name objects, and why so; for the log.
    pub fn scheme(&self) -> (Scheme, &str) {
        (self.scheme, &self.reason)
    }

    /// Whether everything runs as the server's own user, because it may not act as its callers: permissions are then the
    /// server's, and owner and group can't be set.
    pub fn is_single_user(&self) -> bool {
        self.identity.is_single()
    }

    fn is_sync(&self) -> bool {
        self.durability == Durability::Sync
    }
}

fn birth_source(root: &OwnedFd, btime: u64) -> BirthSource {
    match btime {
        0 if generation(root.as_fd()).is_ok() => BirthSource::Generation,
        0 => BirthSource::Nothing,
        _ => BirthSource::Time,
    }
}

/// What the file system can store (`s_maxbytes`). Only lseek(2) tells: `vfs_setpos` answers EINVAL beyond it.
fn max_file_size(root: BorrowedFd<'_>) -> u64 {
    let (mut reached, mut beyond) = (0, i64::MAX as u64);
    let file = regular_file(root);
    let reaches = |offset| file.as_ref().is_some_and(|file| seek(file, SeekFrom::Start(offset)).is_ok());
    if reaches(beyond) || !reaches(reached) {
        return beyond;
    }
    while beyond - reached > 1 {
        let middle = reached + (beyond - reached) / 2;
        *(if reaches(middle) { &mut reached } else { &mut beyond }) = middle;
    }
    reached
}

fn root_id(root: &OwnedFd, stat: &stat::Stat, source: BirthSource) -> FileId {
    let birth = match source {
        BirthSource::Time => stat.btime,
        BirthSource::Generation => generation(root.as_fd()).unwrap_or(0).into(),
        BirthSource::Nothing => 0,
    };
    FileId { ino: stat.attr.fileid, birth }
}

fn index_dir(options: &LocalOptions, key: RootKey) -> PathBuf {
    options.state_dir.join("index").join(key.hex())
}

fn state_error(path: &Path, options: &LocalOptions) -> impl Fn(io::Error) -> OpenError {
    let (path, export) = (options.state_dir.clone(), path.to_owned());
    move |source| OpenError::State { path: path.clone(), export: export.clone(), source }
}

/// Which scheme, and why: the one asked for, the one the export has had so far, or the best that is possible.
fn choose(
    path: &Path,
    options: &LocalOptions,
    root: &OwnedFd,
    key: RootKey,
) -> std::result::Result<(Scheme, String), OpenError> {
    refuse_state_inside(path, options)?;
    let dir = index_dir(options, key);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(state_error(path, options))?;
    let unusable = kernel_handles_unusable(root.as_fd());
    let possible = if unusable.is_none() { Scheme::Kernel } else { Scheme::Fileid };
    let wanted = options.scheme.unwrap_or(possible);
    let scheme = agreed(&dir, wanted).map_err(state_error(path, options))?;
    match (scheme, unusable) {
        (Scheme::Kernel, None) => Ok((scheme, "the file system and the kernel allow it".to_owned())),
        (Scheme::Kernel, Some(reason)) => {
            Err(OpenError::Kernel { export: path.to_owned(), reason, record: dir.join("scheme") })
        }
        (Scheme::Fileid, Some(reason)) => Ok((scheme, reason)),
        (Scheme::Fileid, None) => {
            Ok((scheme, "it was chosen, here or when the export was first served".to_owned()))
        }
    }
}

fn refuse_state_inside(path: &Path, options: &LocalOptions) -> std::result::Result<(), OpenError> {
    let failed = state_error(path, options);
    let export = path.canonicalize().map_err(&failed)?;
    match state_inside(&export, &options.state_dir).map_err(&failed)? {
        Some(state) => Err(OpenError::StateInside { state, export }),
        None => Ok(()),
    }
}

fn finder(
    path: &Path,
    options: &LocalOptions,
    key: RootKey,
    scheme: Scheme,
) -> std::result::Result<Finder, OpenError> {
    match scheme {
        Scheme::Kernel => Ok(Finder::Kernel),
        Scheme::Fileid => {
            let index =
                Index::open(&index_dir(options, key), &options.node).map_err(state_error(path, options))?;
            Ok(Finder::Fileid { index: Box::new(index), walks: Walks::new() })
        }
    }
}

/// An object holds up to three descriptors; connections and directories need some too.
fn default_max_open() -> NonZeroUsize {
    let allowed = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
    NonZeroUsize::new((allowed / 4).clamp(MIN_OPEN, MAX_OPEN)).unwrap_or(NonZeroUsize::MIN)
}

impl Vfs for LocalVfs {
    fn root(&self) -> Result<NodeHandle> {
        Ok(self.store.root.handle.clone())
    }

    fn getattr(&self, _: &Caller, node: &NodeHandle) -> Result<Fattr> {
        self.store.get(node).map(|(_, stat)| stat.attr)
    }

    fn setattr(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        attr: &Sattr,
        guard: Option<Time>,
    ) -> Result<WccData> {
        self.set_attributes(caller, node, attr, guard)
    }

    fn lookup(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<Node> {
        self.look_up(caller, dir, name)
    }

    fn look_at(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<Node> {
        self.look_at_entry(caller, dir, name)
    }

    fn access(&self, caller: &Caller, node: &NodeHandle, bits: u32) -> Result<(u32, Fattr)> {
        self.check_access(caller, node, bits)
    }

    fn readlink(&self, _: &Caller, node: &NodeHandle) -> Result<(Bytes, Fattr)> {
        self.read_link(node)
    }

    fn read(&self, caller: &Caller, node: &NodeHandle, offset: u64, count: u32) -> Result<ReadData> {
        self.read_data(caller, node, offset, count)
    }

    fn write(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        offset: u64,
        data: &Bytes,
        stable: StableHow,
    ) -> Result<Written> {
        self.write_data(caller, node, offset, data, stable)
    }

    fn create(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], how: &CreateHow) -> Result<Made> {
        self.create_file(caller, dir, name, how)
    }

    fn mkdir(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], attr: &Sattr) -> Result<Made> {
        self.make_directory(caller, dir, name, attr)
    }

    fn symlink(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        text: &[u8],
        attr: &Sattr,
    ) -> Result<Made> {
        self.make_symlink(caller, dir, name, text, attr)
    }

    fn mknod(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], what: &MknodData) -> Result<Made> {
        self.make_special(caller, dir, name, what)
    }

    fn remove(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<WccData> {
        self.unlink(caller, dir, name, rustix::fs::AtFlags::empty())
    }

    fn rmdir(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<WccData> {
        self.unlink(caller, dir, name, rustix::fs::AtFlags::REMOVEDIR)
    }

    fn rename(
        &self,
        caller: &Caller,
        from: (&NodeHandle, &[u8]),
        to: (&NodeHandle, &[u8]),
    ) -> Result<(WccData, WccData)> {
        self.rename_entry(caller, from, to)
    }

    fn link(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        dir: &NodeHandle,
        name: &[u8],
    ) -> Result<(Fattr, WccData)> {
        self.link_file(caller, node, dir, name)
    }

    fn readdir(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<bool> {
        self.read_directory(caller, dir, cookie, each)
    }

    fn fsstat(&self, _: &Caller) -> Result<FsstatOk> {
        let raw = fstatvfs(&self.store.root_dir).map_err(status)?;
        let bytes = |blocks: u64| blocks.saturating_mul(raw.f_frsize);
        Ok(FsstatOk {
            attr: Some(self.store.alive(&self.store.root)?.attr),
            total_bytes: bytes(raw.f_blocks),
            free_bytes: bytes(raw.f_bfree),
            available_bytes: bytes(raw.f_bavail),
            total_files: raw.f_files,
            free_files: raw.f_ffree,
            available_files: raw.f_favail,
            invarsec: 0,
        })
    }

    fn max_file_size(&self) -> u64 {
        self.max_file_size
    }

    fn commit(&self, caller: &Caller, node: &NodeHandle) -> Result<WccData> {
        self.commit_data(caller, node)
    }

    fn write_epoch(&self) -> u64 {
        self.store.writeback.epoch()
    }
}
