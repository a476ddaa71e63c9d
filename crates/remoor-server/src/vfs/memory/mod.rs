//! A file system in memory, with the permission rules of Linux. Property tests use it as the model of the others.

mod attributes;
mod content;
mod tree;

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use remoor_nfs::v3::{
    CreateHow, CreateVerf, Device, Fattr, FileType, FsstatOk, MknodData, NfsStat, Sattr, StableHow, Time,
    WccAttr, WccData,
};

use self::content::Content;
use self::tree::{Body, Directory, OBJECT_COST, Object, ROOT, Tree};
use super::permission::{EXEC, READ, WRITE, access_bits, granted, may_read_data, may_write_data};
use super::{
    Caller, DirEntry, Made, NewAttr, Node, NodeHandle, Payload, ReadData, Result, Vfs, Written,
    check_link_text, exclusive_times, is_dot, made_by, mknod_parts,
};

/// Most bytes a [`MemoryVfs`] holds unless told otherwise.
pub const DEFAULT_LIMIT_BYTES: u64 = 1 << 30;
/// Largest file, as on Linux.
const MAX_FILE_SIZE: u64 = i64::MAX as u64;

/// Objects in memory, at most a given number of bytes with names and attributes counted; beyond is NFS3ERR_NOSPC.
/// Everything is stable at once, and gone with the process.
#[derive(Debug)]
pub struct MemoryVfs {
    tree: Mutex<Tree>,
    instance: u64,
}

impl MemoryVfs {
    /// An empty file system of `limit_bytes` whose root belongs to user 0, mode 0755. `instance` tells this one's
    /// handles from those of an earlier one, which are stale.
    pub fn new(limit_bytes: u64, instance: u64) -> Self {
        Self { tree: Mutex::new(Tree::new(limit_bytes.max(OBJECT_COST))), instance }
    }

    fn lock(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, id: u64) -> NodeHandle {
        [self.instance.to_be_bytes(), id.to_be_bytes()].concat().into()
    }

    fn id(&self, handle: &NodeHandle) -> Result<u64> {
        let raw: [u8; 16] = handle[..].try_into().map_err(|_| NfsStat::BadHandle)?;
        let (instance, id) = (u128::from_be_bytes(raw) >> 64, u128::from_be_bytes(raw) as u64);
        if instance as u64 == self.instance { Ok(id) } else { Err(NfsStat::Stale) }
    }

    fn node(&self, object: &Object) -> Node {
        Node { handle: self.handle(object.attr.fileid), attr: object.attr.clone() }
    }

    /// The directory's number; the caller may search it.
    fn search(&self, tree: &Tree, caller: &Caller, dir: &NodeHandle) -> Result<u64> {
        let id = self.id(dir)?;
        tree.directory(id)?;
        allow(granted(&tree.get(id)?.attr, caller), EXEC)?;
        Ok(id)
    }

    /// Adds an object under a name that is not taken.
    fn make(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], new: New<'_>) -> Result<Made> {
        let mut tree = self.lock();
        tree.directory(self.id(dir)?)?;
        if is_dot(name) {
            return Err(NfsStat::Exist);
        }
        let dir = self.search(&tree, caller, dir)?;
        if tree.directory(dir)?.get(name).is_some() {
            return Err(NfsStat::Exist);
        }
        let before = before(&tree, dir)?;
        let node = self.add(&mut tree, caller, dir, name, new)?;
        Ok(Made { node, dir: wcc(&tree, dir, before) })
    }

    /// What CREATE tells of a file that is there already.
    fn existing(&self, node: Node, dir: &NodeHandle) -> Result<Made> {
        let after = Some(self.lock().get(self.id(dir)?)?.attr.clone());
        Ok(Made { node, dir: WccData { before: None, after } })
    }

    fn add(&self, tree: &mut Tree, caller: &Caller, dir: u64, name: &[u8], new: New<'_>) -> Result<Node> {
        allow(granted(&tree.get(dir)?.attr, caller), WRITE)?;
        if new.is_device() && !caller.is_root() {
            return Err(NfsStat::Perm);
        }
        let parent = tree.get(dir)?.attr.clone();
        let attr = NewAttr::of(new.attr, new.kind, caller);
        let object = tree.add(dir, name, new.kind, attr.mode & 0o7777, new.body(dir))?;
        object.attr.rdev = new.device.unwrap_or(Device { major: 0, minor: 0 });
        attributes::inherit(&mut object.attr, &parent, caller);
        let id = object.attr.fileid;
        attributes::set(tree, caller, id, &attr.rest)?;
        Ok(self.node(tree.get(id)?))
    }

    fn create_exclusive(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        verf: CreateVerf,
    ) -> Result<Made> {
        let (atime, mtime) = exclusive_times(verf);
        let attr = Sattr { atime, mtime, ..Sattr::default() };
        match self.make(caller, dir, name, New::empty(FileType::Regular, &attr)) {
            Err(NfsStat::Exist) if !is_dot(name) => {
                let node = self.lookup(caller, dir, name)?;
                if made_by(&node.attr, verf) { self.existing(node, dir) } else { Err(NfsStat::Exist) }
            }
            made => made,
        }
    }

    fn create_unchecked(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], attr: &Sattr) -> Result<Made> {
        match self.make(caller, dir, name, New::empty(FileType::Regular, attr)) {
            Err(NfsStat::Exist) if !is_dot(name) => {
                let node = self.lookup(caller, dir, name)?;
                if node.attr.kind != FileType::Regular {
                    return Err(NfsStat::Exist);
                }
                let size = Sattr { size: attr.size, ..Sattr::default() };
                let attr = self.setattr(caller, &node.handle, &size, None)?.after;
                self.existing(Node { attr: attr.unwrap_or(node.attr), ..node }, dir)
            }
            made => made,
        }
    }

    /// Takes a name away after `fits` looked at its object.
    fn take(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        fits: impl Fn(&Object) -> Result<()>,
    ) -> Result<WccData> {
        let mut tree = self.lock();
        tree.directory(self.id(dir)?)?;
        if is_dot(name) {
            return Err(NfsStat::Inval);
        }
        let dir = self.search(&tree, caller, dir)?;
        let id = tree.directory(dir)?.get(name).ok_or(NfsStat::NoEnt)?;
        may_delete(&tree, caller, dir, id)?;
        fits(tree.get(id)?)?;
        let before = before(&tree, dir)?;
        tree.unlink(dir, name, id)?;
        Ok(wcc(&tree, dir, before))
    }
}

/// What is to be made.
struct New<'a> {
    kind: FileType,
    attr: &'a Sattr,
    text: &'a [u8],
    device: Option<Device>,
}

impl<'a> New<'a> {
    fn empty(kind: FileType, attr: &'a Sattr) -> Self {
        Self { kind, attr, text: &[], device: None }
    }

    fn is_device(&self) -> bool {
        self.device.is_some()
    }

    fn body(&self, parent: u64) -> Body {
        match self.kind {
            FileType::Regular => Body::File(Content::default()),
            FileType::Directory => Body::Directory(Directory::new(parent)),
            FileType::Symlink => Body::Symlink(Bytes::copy_from_slice(self.text)),
            FileType::Block | FileType::Character | FileType::Socket | FileType::Fifo => Body::Special,
        }
    }
}

/// Attributes from before a change; the tree's lock keeps all others away until those from after are there.
fn before(tree: &Tree, id: u64) -> Result<WccAttr> {
    Ok((&tree.get(id)?.attr).into())
}

fn wcc(tree: &Tree, id: u64, before: WccAttr) -> WccData {
    WccData { before: Some(before), after: tree.get(id).ok().map(|object| object.attr.clone()) }
}

fn allow(have: u32, need: u32) -> Result<()> {
    if have & need == need { Ok(()) } else { Err(NfsStat::Acces) }
}

/// The kernel's `may_delete`, for names whose directory may be searched.
fn may_delete(tree: &Tree, caller: &Caller, dir: u64, id: u64) -> Result<()> {
    let dir = &tree.get(dir)?.attr;
    allow(granted(dir, caller), WRITE | EXEC)?;
    let sticky = dir.mode & 0o1000 != 0;
    let owner = [dir.uid, tree.get(id)?.attr.uid].contains(&caller.uid);
    if sticky && !owner && !caller.is_root() { Err(NfsStat::Perm) } else { Ok(()) }
}

fn not_directory(object: &Object) -> Result<()> {
    if matches!(object.body, Body::Directory(_)) { Err(NfsStat::IsDir) } else { Ok(()) }
}

fn empty_directory(object: &Object) -> Result<()> {
    match &object.body {
        Body::Directory(directory) if directory.is_empty() => Ok(()),
        Body::Directory(_) => Err(NfsStat::NotEmpty),
        _ => Err(NfsStat::NotDir),
    }
}

/// The kernel's `vfs_rename`: whether `id` may go to a name that `target` has now.
fn may_rename(tree: &Tree, caller: &Caller, id: u64, from: u64, to: u64, target: Option<u64>) -> Result<()> {
    let moved = tree.get(id)?;
    let is_dir = matches!(moved.body, Body::Directory(_));
    if is_dir && tree.is_within(to, id)? {
        return Err(NfsStat::Inval);
    }
    if let Some(target) = target
        && tree.directory(target).is_ok()
        && tree.is_within(from, target)?
    {
        return Err(NfsStat::NotEmpty);
    }
    may_delete(tree, caller, from, id)?;
    match target {
        None => allow(granted(&tree.get(to)?.attr, caller), WRITE | EXEC)?,
        Some(target) => {
            may_delete(tree, caller, to, target)?;
            if !is_dir {
                not_directory(tree.get(target)?)?;
            } else if tree.directory(target).is_err() {
                return Err(NfsStat::NotDir);
            }
        }
    }
    if is_dir && from != to {
        allow(granted(&moved.attr, caller), WRITE)?;
    }
    match target {
        Some(target) if is_dir => empty_directory(tree.get(target)?),
        _ => Ok(()),
    }
}

/// The kernel's `may_linkat` with `protected_hardlinks` set, as distributions have it.
fn may_link(attr: &Fattr, caller: &Caller) -> Result<()> {
    let privileged = attr.mode & 0o4000 != 0 || attr.mode & 0o2010 == 0o2010;
    let safe = attr.kind == FileType::Regular && !privileged && granted(attr, caller) & 6 == 6;
    if safe || caller.uid == attr.uid || caller.is_root() { Ok(()) } else { Err(NfsStat::Perm) }
}

impl Vfs for MemoryVfs {
    fn root(&self) -> Result<NodeHandle> {
        Ok(self.handle(ROOT))
    }

    fn getattr(&self, _: &Caller, node: &NodeHandle) -> Result<Fattr> {
        Ok(self.lock().get(self.id(node)?)?.attr.clone())
    }

    fn setattr(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        attr: &Sattr,
        guard: Option<Time>,
    ) -> Result<WccData> {
        let mut tree = self.lock();
        let id = self.id(node)?;
        if guard.is_some_and(|at| tree.get(id).is_ok_and(|object| object.attr.ctime != at)) {
            return Err(NfsStat::NotSync);
        }
        let before = before(&tree, id)?;
        attributes::set(&mut tree, caller, id, attr)?;
        Ok(wcc(&tree, id, before))
    }

    fn lookup(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<Node> {
        let tree = self.lock();
        let dir = self.search(&tree, caller, dir)?;
        let id = match name {
            b"." => dir,
            b".." => tree.directory(dir)?.parent,
            _ => tree.directory(dir)?.get(name).ok_or(NfsStat::NoEnt)?,
        };
        Ok(self.node(tree.get(id)?))
    }

    fn access(&self, caller: &Caller, node: &NodeHandle, bits: u32) -> Result<(u32, Fattr)> {
        let tree = self.lock();
        let attr = &tree.get(self.id(node)?)?.attr;
        Ok((access_bits(attr.kind, granted(attr, caller), bits), attr.clone()))
    }

    fn readlink(&self, _: &Caller, node: &NodeHandle) -> Result<(Bytes, Fattr)> {
        let tree = self.lock();
        let object = tree.get(self.id(node)?)?;
        match &object.body {
            Body::Symlink(text) => Ok((text.clone(), object.attr.clone())),
            _ => Err(NfsStat::Inval),
        }
    }

    fn read(&self, caller: &Caller, node: &NodeHandle, offset: u64, count: u32) -> Result<ReadData> {
        let tree = self.lock();
        let object = tree.get(self.id(node)?)?;
        let content = match &object.body {
            Body::File(content) => content,
            Body::Directory(_) => return Err(NfsStat::IsDir),
            _ => return Err(NfsStat::Inval),
        };
        if !may_read_data(&object.attr, caller) {
            return Err(NfsStat::Acces);
        }
        let rest = object.attr.size.saturating_sub(offset);
        let len = rest.min(u64::from(count));
        let data = Payload::from(content.read(offset, len as usize));
        Ok(ReadData { data, eof: len == rest, attr: object.attr.clone() })
    }

    fn write(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        offset: u64,
        data: &Bytes,
        _: StableHow,
    ) -> Result<Written> {
        let mut tree = self.lock();
        let id = self.id(node)?;
        attributes::writable(tree.get(id)?, caller)?;
        let end =
            offset.checked_add(data.len() as u64).filter(|end| *end <= MAX_FILE_SIZE).ok_or(NfsStat::FBig)?;
        let Body::File(content) = &tree.get(id)?.body else { return Err(NfsStat::Inval) };
        let before = before(&tree, id)?;
        let growth = content.growth(offset, data.len() as u64);
        tree.charge(growth)?;
        if !data.is_empty() {
            attributes::data_changed(&mut tree, caller, id, |content, attr| {
                content.write(offset, data);
                attr.size = attr.size.max(end);
            })?;
        }
        Ok(Written { committed: StableHow::FileSync, wcc: wcc(&tree, id, before) })
    }

    fn create(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], how: &CreateHow) -> Result<Made> {
        match how {
            CreateHow::Unchecked(attr) => self.create_unchecked(caller, dir, name, attr),
            CreateHow::Guarded(attr) => self.make(caller, dir, name, New::empty(FileType::Regular, attr)),
            CreateHow::Exclusive(verf) => self.create_exclusive(caller, dir, name, *verf),
        }
    }

    fn mkdir(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], attr: &Sattr) -> Result<Made> {
        self.make(caller, dir, name, New::empty(FileType::Directory, attr))
    }

    fn symlink(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        text: &[u8],
        attr: &Sattr,
    ) -> Result<Made> {
        check_link_text(text)?;
        self.make(caller, dir, name, New { text, ..New::empty(FileType::Symlink, attr) })
    }

    fn mknod(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], what: &MknodData) -> Result<Made> {
        let (kind, attr, device) = mknod_parts(what)?;
        self.make(caller, dir, name, New { device, ..New::empty(kind, attr) })
    }

    fn remove(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<WccData> {
        self.take(caller, dir, name, not_directory)
    }

    fn rmdir(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<WccData> {
        self.take(caller, dir, name, empty_directory)
    }

    fn rename(
        &self,
        caller: &Caller,
        from: (&NodeHandle, &[u8]),
        to: (&NodeHandle, &[u8]),
    ) -> Result<(WccData, WccData)> {
        let mut tree = self.lock();
        tree.directory(self.id(from.0)?)?;
        tree.directory(self.id(to.0)?)?;
        if is_dot(from.1) || is_dot(to.1) {
            return Err(NfsStat::Inval);
        }
        let (old, new) = (self.search(&tree, caller, from.0)?, self.search(&tree, caller, to.0)?);
        let id = tree.directory(old)?.get(from.1).ok_or(NfsStat::NoEnt)?;
        let target = tree.directory(new)?.get(to.1);
        let (left, entered) = (before(&tree, old)?, before(&tree, new)?);
        if target != Some(id) {
            may_rename(&tree, caller, id, old, new, target)?;
            tree.rename(id, (old, from.1), (new, to.1), target)?;
        }
        Ok((wcc(&tree, old, left), wcc(&tree, new, entered)))
    }

    fn link(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        dir: &NodeHandle,
        name: &[u8],
    ) -> Result<(Fattr, WccData)> {
        let mut tree = self.lock();
        let id = self.id(node)?;
        not_directory(tree.get(id)?)?;
        tree.directory(self.id(dir)?)?;
        if is_dot(name) {
            return Err(NfsStat::Exist);
        }
        let dir = self.search(&tree, caller, dir)?;
        if tree.directory(dir)?.get(name).is_some() {
            return Err(NfsStat::Exist);
        }
        may_link(&tree.get(id)?.attr, caller)?;
        allow(granted(&tree.get(dir)?.attr, caller), WRITE)?;
        let before = before(&tree, dir)?;
        tree.link(id, dir, name)?;
        Ok((tree.get(id)?.attr.clone(), wcc(&tree, dir, before)))
    }

    fn readdir(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<bool> {
        let tree = self.lock();
        let id = self.id(dir)?;
        let directory = tree.directory(id)?;
        allow(granted(&tree.get(id)?.attr, caller), READ)?;
        let stopped = directory
            .after(id, cookie)
            .map(|(cookie, name, fileid)| each(DirEntry { name, fileid, cookie }))
            .any(|flow| flow.is_break());
        Ok(!stopped)
    }

    fn fsstat(&self, _: &Caller) -> Result<FsstatOk> {
        let tree = self.lock();
        let (free, slots) = (tree.free(), tree.free() / OBJECT_COST);
        Ok(FsstatOk {
            attr: Some(tree.get(ROOT)?.attr.clone()),
            total_bytes: tree.limit(),
            free_bytes: free,
            available_bytes: free,
            total_files: tree.count() + slots,
            free_files: slots,
            available_files: slots,
            invarsec: 0,
        })
    }

    fn commit(&self, caller: &Caller, node: &NodeHandle) -> Result<WccData> {
        let tree = self.lock();
        let id = self.id(node)?;
        attributes::writable(tree.get(id)?, caller)?;
        Ok(wcc(&tree, id, before(&tree, id)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT_CALLER: Caller = Caller { uid: 0, gid: 0, gids: Vec::new() };

    fn file(vfs: &MemoryVfs, name: &str) -> Node {
        let how = CreateHow::Guarded(Sattr::default());
        vfs.create(&ROOT_CALLER, &vfs.root().unwrap(), name.as_bytes(), &how).unwrap().node
    }

    fn write(vfs: &MemoryVfs, node: &Node, offset: u64, data: &[u8]) -> Result<StableHow> {
        let data = Bytes::copy_from_slice(data);
        vfs.write(&ROOT_CALLER, &node.handle, offset, &data, StableHow::Unstable).map(|done| done.committed)
    }

    #[test]
    fn a_full_file_system_says_so_and_space_comes_back() {
        let vfs = MemoryVfs::new(16 << 10, 1);
        let root = vfs.root().unwrap();
        let before = vfs.fsstat(&ROOT_CALLER).unwrap().free_bytes;
        let node = file(&vfs, "a");
        assert_eq!(write(&vfs, &node, 0, &[1; 32 << 10]), Err(NfsStat::NoSpc));
        assert_eq!(write(&vfs, &node, 1 << 40, b"x"), Ok(StableHow::FileSync));
        assert_eq!(vfs.getattr(&ROOT_CALLER, &node.handle).unwrap().size, (1 << 40) + 1);
        vfs.remove(&ROOT_CALLER, &root, b"a").unwrap();
        assert_eq!(vfs.fsstat(&ROOT_CALLER).unwrap().free_bytes, before);
        let many = (0..100).find_map(|n| vfs.mkdir(&ROOT_CALLER, &root, &[n + 65], &Sattr::default()).err());
        assert_eq!(many, Some(NfsStat::NoSpc));
    }

    #[test]
    fn a_removed_file_is_stale_and_so_is_another_instance() {
        let vfs = MemoryVfs::new(DEFAULT_LIMIT_BYTES, 1);
        let node = file(&vfs, "a");
        assert_eq!(MemoryVfs::new(1, 2).getattr(&ROOT_CALLER, &node.handle), Err(NfsStat::Stale));
        assert_eq!(vfs.getattr(&ROOT_CALLER, &Bytes::from_static(b"x")), Err(NfsStat::BadHandle));
        vfs.remove(&ROOT_CALLER, &vfs.root().unwrap(), b"a").unwrap();
        assert_eq!(vfs.getattr(&ROOT_CALLER, &node.handle), Err(NfsStat::Stale));
    }

    #[test]
    fn the_largest_offset_is_a_limit_not_a_panic() {
        let vfs = MemoryVfs::new(DEFAULT_LIMIT_BYTES, 1);
        let node = file(&vfs, "a");
        assert_eq!(write(&vfs, &node, u64::MAX, b"x"), Err(NfsStat::FBig));
        assert_eq!(write(&vfs, &node, MAX_FILE_SIZE, b"x"), Err(NfsStat::FBig));
        let read = vfs.read(&ROOT_CALLER, &node.handle, u64::MAX, 1).unwrap();
        assert!(read.data.is_empty() && read.eof);
    }

    #[test]
    fn guards_compare_ctime() {
        let vfs = MemoryVfs::new(DEFAULT_LIMIT_BYTES, 1);
        let node = file(&vfs, "a");
        let chmod = Sattr { mode: Some(0o640), ..Sattr::default() };
        let set = |at| vfs.setattr(&ROOT_CALLER, &node.handle, &chmod, Some(at));
        assert_eq!(set(node.attr.ctime).unwrap().after.unwrap().mode, 0o640);
        assert_eq!(set(node.attr.ctime), Err(NfsStat::NotSync));
    }
}
