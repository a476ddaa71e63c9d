//! From handles to open objects and back, without ever leaving the export.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use remoor_nfs::v3::{Fattr, FileType, NfsStat};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::super::{Node, NodeHandle, Result};
use super::cache::{Cache, Open};
use super::data::regular;
use super::identity::Identity;
use super::index::{Hint, Index};
use super::scheme::{InoPlace, Key, RootKey};
use super::stat::{BirthSource, FileId, Stat, stat, stat_at};
use super::walk::{Walks, scan};
use super::writeback::{Unsettled, WriteBack};
use crate::errno::status;
use crate::sys::{generation, name_to_handle, name_to_handle_at, open_by_handle};

/// Directories between an object and the export's root; deeper ones are not found by fileid.
const MAX_DEPTH: usize = 256;
/// How often a kernel handle is tried while its number is in transition.
const MAX_HANDLE_TRIES: usize = 64;
/// What a descriptor that only names an object is opened with.
const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// No way out of the directory: no `..` above it, no link, no mount point.
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// How handles are found again.
#[derive(Debug)]
pub(super) enum Finder {
    Kernel,
    Fileid { index: Box<Index>, walks: Walks },
}

/// The export's objects. Methods that need the server's own rights take them; the others run as whoever the thread is.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) root: Arc<Open>,
    /// The root, open for reading.
    pub(super) root_dir: OwnedFd,
    pub(super) device: (u32, u32),
    /// The root's mount; 0 if the kernel does not tell.
    pub(super) mount: u64,
    /// Where kernel handles have the inode number, if it could be found out.
    pub(super) ino_place: Option<InoPlace>,
    pub(super) identity: Identity,
    pub(super) writeback: Arc<WriteBack>,
    pub(super) key: RootKey,
    pub(super) birth: BirthSource,
    pub(super) finder: Finder,
    pub(super) cache: Cache,
    /// `/proc/self/fd`, through which a descriptor is opened anew.
    pub(super) descriptors: OwnedFd,
}

/// Opens `name` in `dir` to name it only. Never follows a link, never crosses into another file system.
pub(super) fn open_child(dir: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<OwnedFd, Errno> {
    open_beneath(dir, name, PATH)
}

/// As [`open_child`], with other flags.
pub(super) fn open_beneath(
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
) -> std::result::Result<OwnedFd, Errno> {
    openat2(dir, name, flags, Mode::empty(), BENEATH).map_err(|error| match error {
        // The mount point's file system is not exported; knfsd without `crossmnt` shows the covered directory,
        // which no system call offers.
        Errno::XDEV => Errno::ACCESS,
        other => other,
    })
}

impl Store {
    /// The object, alive, with its attributes.
    pub(super) fn get(&self, handle: &NodeHandle) -> Result<(Arc<Open>, Stat)> {
        let open = self.held(handle)?;
        let stat = self.alive(&open)?;
        Ok((open, stat))
    }

    /// The directory; whether it is alive the next system call tells, see [`Store::in_dir`].
    pub(super) fn directory(&self, handle: &NodeHandle) -> Result<Arc<Open>> {
        let open = self.held(handle)?;
        if open.kind == FileType::Directory { Ok(open) } else { Err(NfsStat::NotDir) }
    }

    /// The status for what happened in `dir`: in a removed directory nothing is found, which means that it is stale.
    pub(super) fn in_dir<T>(&self, dir: &Open, result: std::result::Result<T, Errno>) -> Result<T> {
        result.map_err(|error| match error {
            Errno::NOENT => self.alive(dir).err().unwrap_or(NfsStat::NoEnt),
            other => status(other),
        })
    }

    /// Attributes, unless the object was removed: a descriptor keeps it alive, but its handle is stale.
    pub(super) fn alive(&self, open: &Open) -> Result<Stat> {
        let stat = stat(open.fd()).map_err(status)?;
        if stat.attr.nlink == 0 {
            self.forget(open);
            return Err(NfsStat::Stale);
        }
        Ok(stat)
    }

    /// Lets go of a removed object.
    pub(super) fn forget(&self, open: &Open) {
        open.unsettled.forget();
        self.cache.remove(&open.handle);
        if let Finder::Fileid { index, .. } = &self.finder {
            index.gone(open.id);
        }
    }

    /// After a name of this object was taken away: if it was the last, lets go of it. The index must not be told so by
    /// mistake, and that data is unstable must not be forgotten, so then the object is asked; the cache may let go of what
    /// someone has given another name meanwhile, or of what was renamed to its own name.
    pub(super) fn unlinked(&self, victim: &Stat) {
        let Some(open) = self.cache.by_ino(victim.attr.fileid) else { return };
        let was_last = victim.attr.nlink == 1 || victim.attr.kind == FileType::Directory;
        match self.finder {
            Finder::Kernel if was_last && !open.unsettled.is_unstable() => self.forget(&open),
            Finder::Kernel if !was_last => {}
            Finder::Kernel | Finder::Fileid { .. } => drop(self.alive(&open)),
        }
    }

    /// A file that data is written to; whether it is alive is to be asked afterwards.
    pub(super) fn writable(&self, handle: &NodeHandle) -> Result<Arc<Open>> {
        let open = self.held(handle)?;
        regular(open.kind).map(|()| open)
    }

    /// The object, which may have been removed.
    pub(super) fn held(&self, handle: &NodeHandle) -> Result<Arc<Open>> {
        if *handle == self.root.handle {
            return Ok(self.root.clone());
        }
        if let Some(open) = self.cache.get(handle) {
            return Ok(open);
        }
        self.identity.be_server();
        let fd = match self.key.open(handle)? {
            Key::Kernel { kind, bytes } => self.open_kernel(kind, &bytes)?,
            Key::Fileid(id) => self.open_fileid(id, 0)?,
        };
        self.hold(fd, false).map(|(open, _)| open).and_then(|open| {
            // The kernel may have other spellings of a handle; only its own is held.
            if open.handle == *handle { Ok(open) } else { Err(NfsStat::BadHandle) }
        })
    }

    /// What has these attributes, seen under a name at `when`, if it was held then. Nothing is opened, so it must be told
    /// that nothing is mounted there.
    pub(super) fn known(&self, seen: &Stat, when: u64) -> Option<Arc<Open>> {
        let open = self.cache.held_since(when, seen.attr.fileid).filter(|_| self.is_here(seen))?;
        let same =
            open.kind == seen.attr.kind && (self.birth != BirthSource::Time || open.id.birth == seen.btime);
        same.then_some(open)
    }

    fn is_here(&self, seen: &Stat) -> bool {
        self.mount != 0 && seen.mount == self.mount && seen.device == self.device
    }

    /// The handle of what has these attributes and a name, without opening it; `None` if that takes opening it. Number and
    /// handle are asked for one after the other: a name that came to mean another object in between is noticed.
    pub(super) fn handle_of(&self, dir: &Open, name: &[u8], seen: &Stat) -> Option<NodeHandle> {
        if !self.is_here(seen) {
            return None;
        }
        if let Finder::Fileid { index, .. } = &self.finder {
            let id = FileId { ino: seen.attr.fileid, birth: seen.btime };
            return (self.birth == BirthSource::Time).then(|| {
                index.seen(id, dir.id.ino, name);
                self.key.fileid(id)
            });
        }
        let place = self.ino_place?;
        let name = std::ffi::CString::new(name).ok()?;
        let (kernel, mount) = name_to_handle_at(dir.fd(), &name).ok()?;
        let same = u64::try_from(mount).is_ok_and(|mount| mount == self.mount)
            && place.has(&kernel, seen.attr.fileid);
        if same { self.key.kernel(&kernel).ok() } else { None }
    }

    fn open_kernel(&self, kind: i32, bytes: &[u8]) -> Result<OwnedFd> {
        if !matches!(self.finder, Finder::Kernel) {
            return Err(NfsStat::Stale);
        }
        let fd = self.try_by_handle(kind, bytes).map_err(|error| match error {
            Errno::INVAL => NfsStat::BadHandle,
            other => status(other),
        })?;
        let stat = stat(fd.as_fd()).map_err(status)?;
        if stat.device == self.device && stat.attr.nlink > 0 { Ok(fd) } else { Err(NfsStat::Stale) }
    }

    /// While a new file is being made with the number of a removed one, the old one's handle gives ENOMEM (iget_locked
    /// in fs/inode.c finds I_CREATING); a moment later it gives ESTALE.
    fn try_by_handle(&self, kind: i32, bytes: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        let open = || open_by_handle(self.root_dir.as_fd(), kind, bytes);
        for _ in 1..MAX_HANDLE_TRIES {
            match open() {
                Err(Errno::NOMEM) => std::thread::yield_now(),
                other => return other,
            }
        }
        open()
    }

    /// Keeps a descriptor of the export; with attributes.
    pub(super) fn hold(&self, fd: OwnedFd, for_data: bool) -> Result<(Arc<Open>, Stat)> {
        let stat = stat(fd.as_fd()).map_err(status)?;
        let id = self.id(fd.as_fd(), &stat);
        let handle = match self.finder {
            Finder::Kernel => self.key.kernel(&name_to_handle(fd.as_fd()).map_err(status)?)?,
            Finder::Fileid { .. } => self.key.fileid(id),
        };
        if handle == self.root.handle {
            return Ok((self.root.clone(), stat));
        }
        let unsettled = Unsettled::new(&self.writeback);
        let open = Open::new(handle, id, stat.attr.kind, fd, for_data, unsettled);
        Ok((self.cache.insert(open), stat))
    }

    /// Keeps what was found under a name, and remembers the name before the handle is given away.
    pub(super) fn found(
        &self,
        fd: OwnedFd,
        for_data: bool,
        dir: &Open,
        name: &[u8],
    ) -> Result<(Arc<Open>, Fattr)> {
        let (open, stat) = self.hold(fd, for_data)?;
        self.saw(&open, dir, name);
        Ok((open, stat.attr))
    }

    /// Remembers the name of what is held.
    pub(super) fn saw(&self, open: &Arc<Open>, dir: &Open, name: &[u8]) {
        if let Finder::Fileid { index, .. } = &self.finder
            && !Arc::ptr_eq(open, &self.root)
        {
            index.seen(open.id, dir.id.ino, name);
        }
    }

    /// Remembers the new name of what was moved or linked.
    pub(super) fn moved(&self, dir: &Open, name: &[u8]) {
        if let Finder::Kernel = self.finder {
            return;
        }
        self.identity.be_server();
        if let Ok(fd) = open_child(dir.fd(), name) {
            let _ = self.found(fd, false, dir, name);
        }
    }

    pub(super) fn id(&self, fd: BorrowedFd<'_>, stat: &Stat) -> FileId {
        let birth = match self.birth {
            BirthSource::Time => stat.btime,
            BirthSource::Generation => self.generation(fd, stat.attr.kind),
            BirthSource::Nothing => 0,
        };
        FileId { ino: stat.attr.fileid, birth }
    }

    /// Only what can be opened without side effects has a generation that can be asked for.
    fn generation(&self, fd: BorrowedFd<'_>, kind: FileType) -> u64 {
        if !matches!(kind, FileType::Regular | FileType::Directory) {
            return 0;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        self.reopen_as_server(fd, flags).and_then(|fd| generation(fd.as_fd())).unwrap_or(0).into()
    }

    /// As [`Store::reopen`], with the server's rights.
    pub(super) fn reopen_as_server(
        &self,
        fd: BorrowedFd<'_>,
        flags: OFlags,
    ) -> std::result::Result<OwnedFd, Errno> {
        self.identity.be_server();
        self.reopen(fd, flags)
    }

    /// Opens anew what a descriptor is open on; permissions are checked as for any open(2).
    pub(super) fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        openat(&self.descriptors, DecInt::from_fd(fd), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The directory above; the root has itself. One that was moved out of the export has none.
    pub(super) fn parent(&self, dir: &Arc<Open>) -> Result<Arc<Open>> {
        if Arc::ptr_eq(dir, &self.root) {
            return Ok(dir.clone());
        }
        self.identity.be_server();
        let above = || openat(dir.fd(), "..", PATH | OFlags::DIRECTORY, Mode::empty());
        let parent = self.in_dir(dir, above())?;
        self.check_within(parent.as_fd())?;
        self.hold(parent, false).map(|(open, _)| open)
    }

    /// Goes up to the export's root, or fails.
    fn check_within(&self, dir: BorrowedFd<'_>) -> Result<()> {
        let mut at = dir.try_clone_to_owned().map_err(|_| NfsStat::Jukebox)?;
        for _ in 0..MAX_DEPTH {
            let stat = stat(at.as_fd()).map_err(status)?;
            if stat.device != self.device {
                return Err(NfsStat::Stale);
            }
            if stat.attr.fileid == self.root.id.ino {
                return Ok(());
            }
            at = openat(&at, "..", PATH | OFlags::DIRECTORY, Mode::empty()).map_err(status)?;
        }
        Err(NfsStat::Stale)
    }

    /// Finds a file by number and birth: where it was seen last, where a peer saw it, in the directory it was in, and in
    /// the end anywhere in the export.
    fn open_fileid(&self, id: FileId, depth: usize) -> Result<OwnedFd> {
        let Finder::Fileid { index, walks } = &self.finder else { return Err(NfsStat::Stale) };
        if index.is_gone(id) || depth > MAX_DEPTH {
            return Err(NfsStat::Stale);
        }
        let mut hint = index.hint(id.ino);
        let mut dir = hint.as_ref().and_then(|hint| self.directory_by_ino(hint.parent, depth));
        if let Some(fd) = self.follow(id, dir.as_ref(), hint.as_ref()) {
            return Ok(fd);
        }
        index.read_peers();
        let newer = index.hint(id.ino).or_else(|| index.hint_on_disk(id));
        if newer != hint {
            hint = newer;
            dir = hint.as_ref().and_then(|hint| self.directory_by_ino(hint.parent, depth));
            if let Some(fd) = self.follow(id, dir.as_ref(), hint.as_ref()) {
                return Ok(fd);
            }
        }
        if index.is_gone(id) {
            return Err(NfsStat::Stale);
        }
        dir.and_then(|dir| scan(self, &dir, id)).map_or_else(|| walks.find(self, id), Ok)
    }

    /// What has the hint's name, if it is the file.
    fn follow(&self, id: FileId, dir: Option<&Arc<Open>>, hint: Option<&Hint>) -> Option<OwnedFd> {
        self.open_if(dir?.fd(), &hint?.name, id)
    }

    fn directory_by_ino(&self, ino: u64, depth: usize) -> Option<Arc<Open>> {
        if ino == self.root.id.ino {
            return Some(self.root.clone());
        }
        if let Some(open) = self.cache.by_ino(ino)
            && self.alive(&open).is_ok()
        {
            return Some(open);
        }
        let Finder::Fileid { index, .. } = &self.finder else { return None };
        let id = index.hint(ino)?.id;
        let fd = self.open_fileid(id, depth + 1).ok()?;
        self.hold(fd, false).ok().map(|(open, _)| open).filter(|open| open.kind == FileType::Directory)
    }

    /// Opens a name if it is this file's: number first, which costs one call less for others. A number that belongs to
    /// another file now tells that this one is gone.
    pub(super) fn open_if(&self, dir: BorrowedFd<'_>, name: &[u8], id: FileId) -> Option<OwnedFd> {
        if stat_at(dir, name).ok()?.attr.fileid != id.ino {
            return None;
        }
        let fd = open_child(dir, name).ok()?;
        let found = self.id(fd.as_fd(), &stat(fd.as_fd()).ok()?);
        if found.ino == id.ino
            && found != id
            && let Finder::Fileid { index, .. } = &self.finder
        {
            index.gone(id);
        }
        (found == id).then_some(fd)
    }
}

impl Open {
    /// As the procedures see it.
    pub(super) fn node(&self, attr: Fattr) -> Node {
        Node { handle: self.handle.clone(), attr }
    }
}
