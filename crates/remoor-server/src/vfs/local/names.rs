//! Everything that changes a directory.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use remoor_nfs::v3::{CreateHow, CreateVerf, Device, Fattr, FileType, MknodData, NfsStat, Sattr};
use rustix::fs::{
    self, AtFlags, Mode, OFlags, linkat, makedev, mkdirat, mknodat, openat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::super::{
    Caller, NewAttr, Node, NodeHandle, Result, check_link_text, exclusive_times, is_dot, made_by, mknod_parts,
};
use super::LocalVfs;
use super::cache::Open;
use super::stat::{stat, stat_at};
use super::store::{descriptor_name, open_child};
use crate::errno::status;

/// How often CREATE tries again when the name comes and goes meanwhile.
const MAX_CREATE_TRIES: usize = 8;

impl LocalVfs {
    pub(super) fn create_file(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        how: &CreateHow,
    ) -> Result<Node> {
        let dir = self.place(dir, name)?;
        let attr = match how {
            CreateHow::Unchecked(attr) | CreateHow::Guarded(attr) => attr.clone(),
            CreateHow::Exclusive(verf) => {
                let (atime, mtime) = exclusive_times(*verf);
                Sattr { atime, mtime, ..Sattr::default() }
            }
        };
        for _ in 0..MAX_CREATE_TRIES {
            match self.create_new(caller, &dir, name, &attr) {
                Err(NfsStat::Exist) => {}
                made => return made,
            }
            let existing = match how {
                CreateHow::Guarded(_) => return Err(NfsStat::Exist),
                CreateHow::Unchecked(attr) => self.reuse(caller, &dir, name, attr),
                CreateHow::Exclusive(verf) => self.recognise(caller, &dir, name, *verf),
            };
            if existing != Err(NfsStat::NoEnt) {
                return existing;
            }
        }
        Err(NfsStat::Jukebox)
    }

    fn create_new(&self, caller: &Caller, dir: &Open, name: &[u8], attr: &Sattr) -> Result<Node> {
        let new = self.new_attr(attr, FileType::Regular, caller);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = {
            let _as_caller = self.identity.assume(caller)?;
            openat(dir.fd(), name, flags, Mode::from_raw_mode(new.mode))
        };
        let fd = self.store.in_dir(dir, opened)?;
        self.finish(caller, dir, name, (fd, true), &new.rest)
    }

    /// CREATE UNCHECKED of a file that exists: only the size counts.
    fn reuse(&self, caller: &Caller, dir: &Open, name: &[u8], attr: &Sattr) -> Result<Node> {
        let node = self.look_up(caller, &dir.handle, name)?;
        if node.attr.kind != FileType::Regular {
            return Err(NfsStat::Exist);
        }
        let size = Sattr { size: attr.size, ..Sattr::default() };
        match attr.size {
            Some(_) => Ok(Node { attr: self.set_attributes(caller, &node.handle, &size, None)?, ..node }),
            None => Ok(node),
        }
    }

    /// CREATE EXCLUSIVE sent again, maybe to another node or after a restart.
    fn recognise(&self, caller: &Caller, dir: &Open, name: &[u8], verf: CreateVerf) -> Result<Node> {
        let node = self.look_up(caller, &dir.handle, name)?;
        if made_by(&node.attr, verf) { Ok(node) } else { Err(NfsStat::Exist) }
    }

    pub(super) fn make_directory(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        attr: &Sattr,
    ) -> Result<Node> {
        let dir = self.place(dir, name)?;
        let new = self.new_attr(attr, FileType::Directory, caller);
        let mode = Mode::from_raw_mode(new.mode);
        self.make(caller, &dir, name, FileType::Directory, &new, || mkdirat(dir.fd(), name, mode))
    }

    pub(super) fn make_symlink(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        text: &[u8],
        attr: &Sattr,
    ) -> Result<Node> {
        check_link_text(text)?;
        let dir = self.place(dir, name)?;
        let new = self.new_attr(attr, FileType::Symlink, caller);
        self.make(caller, &dir, name, FileType::Symlink, &new, || symlinkat(text, dir.fd(), name))
    }

    pub(super) fn make_special(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        what: &MknodData,
    ) -> Result<Node> {
        let (kind, attr, device) = mknod_parts(what)?;
        let dir = self.place(dir, name)?;
        let new = self.new_attr(attr, kind, caller);
        let Device { major, minor } = device.unwrap_or(Device { major: 0, minor: 0 });
        let (raw_kind, mode) = (raw_kind(kind), Mode::from_raw_mode(new.mode));
        let call = || mknodat(dir.fd(), name, raw_kind, mode, makedev(major, minor));
        self.make(caller, &dir, name, kind, &new, call)
    }

    /// Makes an object that is not opened by its making, and finds it again under its name. Someone on the host may have
    /// replaced it in between; attributes are then not for what is there.
    fn make(
        &self,
        caller: &Caller,
        dir: &Open,
        name: &[u8],
        kind: FileType,
        new: &NewAttr,
        call: impl FnOnce() -> std::result::Result<(), Errno>,
    ) -> Result<Node> {
        let made = {
            let _as_caller = self.identity.assume(caller)?;
            call()
        };
        self.store.in_dir(dir, made)?;
        let fd = self.store.in_dir(dir, open_child(dir.fd(), name))?;
        let attr = stat(fd.as_fd()).map_err(status)?.attr;
        let ours = attr.kind == kind && (self.identity.is_single() || attr.uid == caller.uid);
        let rest = if ours { new.rest.clone() } else { Sattr::default() };
        self.finish(caller, dir, name, (fd, false), &rest)
    }

    /// Sets what could not be given at the making, and makes everything stable.
    fn finish(
        &self,
        caller: &Caller,
        dir: &Open,
        name: &[u8],
        (fd, writable): (OwnedFd, bool),
        rest: &Sattr,
    ) -> Result<Node> {
        let (open, attr) = self.store.found(fd, writable, dir, name)?;
        let untouched = *rest == Sattr::default();
        if !untouched {
            self.apply(caller, &open, &attr, rest)?;
        }
        if matches!(open.kind, FileType::Regular | FileType::Directory) {
            self.stabilise(&open)?;
        }
        self.stabilise(dir)?;
        let attr: Fattr = if untouched { attr } else { self.store.alive(&open)?.attr };
        Ok(open.node(attr))
    }

    pub(super) fn unlink(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        name: &[u8],
        flags: AtFlags,
    ) -> Result<()> {
        let dir = self.store.directory(dir)?;
        if is_dot(name) {
            return Err(NfsStat::Inval);
        }
        let victim = stat_at(dir.fd(), name);
        let done = {
            let _as_caller = self.identity.assume(caller)?;
            unlinkat(dir.fd(), name, flags)
        };
        self.store.in_dir(&dir, done)?;
        if let Ok(victim) = victim {
            self.store.forget_if_gone(victim.attr.fileid);
        }
        self.stabilise(&dir)
    }

    pub(super) fn rename_entry(
        &self,
        caller: &Caller,
        from: (&NodeHandle, &[u8]),
        to: (&NodeHandle, &[u8]),
    ) -> Result<()> {
        let (old, new) = (self.store.directory(from.0)?, self.store.directory(to.0)?);
        if is_dot(from.1) || is_dot(to.1) {
            return Err(NfsStat::Inval);
        }
        let victim = stat_at(new.fd(), to.1);
        let done = {
            let _as_caller = self.identity.assume(caller)?;
            renameat(old.fd(), from.1, new.fd(), to.1)
        };
        self.store.in_dir(&old, done).map_err(|error| self.store.alive(&new).err().unwrap_or(error))?;
        if let Ok(victim) = victim {
            self.store.forget_if_gone(victim.attr.fileid);
        }
        self.store.moved(&new, to.1);
        self.stabilise(&new)?;
        if Arc::ptr_eq(&old, &new) { Ok(()) } else { self.stabilise(&old) }
    }

    pub(super) fn link_file(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        dir: &NodeHandle,
        name: &[u8],
    ) -> Result<()> {
        let (open, _) = self.store.get(node)?;
        if open.kind == FileType::Directory {
            return Err(NfsStat::IsDir);
        }
        let dir = self.place(dir, name)?;
        let done = {
            let _as_caller = self.identity.assume(caller)?;
            // AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH; this link leads to the descriptor's file itself.
            linkat(
                &self.store.descriptors,
                descriptor_name(open.fd()),
                dir.fd(),
                name,
                AtFlags::SYMLINK_FOLLOW,
            )
        };
        self.store.in_dir(&dir, done)?;
        self.store.moved(&dir, name);
        self.stabilise(&dir)
    }

    /// The directory in which something new gets `name`.
    fn place(&self, dir: &NodeHandle, name: &[u8]) -> Result<Arc<Open>> {
        let dir = self.store.directory(dir)?;
        if is_dot(name) {
            self.store.alive(&dir)?;
            return Err(NfsStat::Exist);
        }
        Ok(dir)
    }

    /// In single-user mode everything belongs to the server's user.
    fn new_attr(&self, attr: &Sattr, kind: FileType, caller: &Caller) -> NewAttr {
        let mut new = NewAttr::of(attr, kind, caller);
        if self.identity.is_single() {
            (new.rest.uid, new.rest.gid) = (None, None);
        }
        new
    }
}

fn raw_kind(kind: FileType) -> fs::FileType {
    match kind {
        FileType::Regular => fs::FileType::RegularFile,
        FileType::Directory => fs::FileType::Directory,
        FileType::Block => fs::FileType::BlockDevice,
        FileType::Character => fs::FileType::CharacterDevice,
        FileType::Symlink => fs::FileType::Symlink,
        FileType::Socket => fs::FileType::Socket,
        FileType::Fifo => fs::FileType::Fifo,
    }
}
