//! Setting attributes, with the rules of the kernel's `setattr_prepare`.

use remoor_nfs::v3::{Fattr, FileType, NfsStat, Sattr, SetTime, Time};

use super::super::permission::may_change;
use super::super::{Caller, Result};
use super::content::Content;
use super::tree::{Body, Object, Tree};
use super::{MAX_FILE_SIZE, WRITE, granted, may_write_data};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// Owner and group of a new object: the caller's, or the group of a set-group-id directory.
pub(super) fn inherit(attr: &mut Fattr, parent: &Fattr, caller: &Caller) {
    attr.uid = caller.uid;
    attr.gid = caller.gid;
    if parent.mode & SET_GID != 0 {
        attr.gid = parent.gid;
        if attr.kind == FileType::Directory {
            attr.mode |= SET_GID;
        }
    }
    if attr.kind != FileType::Directory && !group_trusts(attr, caller) && attr.mode & 0o010 != 0 {
        attr.mode &= !SET_GID;
    }
}

/// Applies `sattr` in the order owner, size, mode, times: a caller who is not allowed to is told before anything changed.
pub(super) fn set(tree: &mut Tree, caller: &Caller, id: u64, sattr: &Sattr) -> Result<()> {
    check(tree.get(id)?, caller, sattr)?;
    if sattr.uid.is_some() || sattr.gid.is_some() {
        set_owner(&mut tree.get_mut(id)?.attr, caller, sattr);
        touch(tree, id)?;
    }
    if let Some(size) = sattr.size {
        resize(tree, caller, id, size)?;
    }
    if let Some(mode) = sattr.mode {
        set_mode(&mut tree.get_mut(id)?.attr, caller, mode);
        touch(tree, id)?;
    }
    set_times(tree, id, sattr)
}

fn check(object: &Object, caller: &Caller, sattr: &Sattr) -> Result<()> {
    let attr = &object.attr;
    may_change(attr, caller, sattr)?;
    if sattr.mode.is_some() && attr.kind == FileType::Symlink {
        return Err(NfsStat::NotSupp);
    }
    if sattr.size.is_some() {
        writable(object, caller)?;
    }
    let now = [sattr.atime, sattr.mtime].contains(&SetTime::Server);
    let owner = caller.uid == attr.uid;
    if now && !owner && granted(attr, caller) & WRITE == 0 { Err(NfsStat::Acces) } else { Ok(()) }
}

/// Whether the caller may change the data of what must be a regular file.
pub(super) fn writable(object: &Object, caller: &Caller) -> Result<()> {
    match object.body {
        Body::Directory(_) => Err(NfsStat::IsDir),
        Body::File(_) if may_write_data(&object.attr, caller) => Ok(()),
        Body::File(_) => Err(NfsStat::Acces),
        _ => Err(NfsStat::Inval),
    }
}

/// Changes a file's data through `change`, then size, times and set-id bits follow.
pub(super) fn data_changed(
    tree: &mut Tree,
    caller: &Caller,
    id: u64,
    change: impl FnOnce(&mut Content, &mut Fattr),
) -> Result<()> {
    let now = tree.tick();
    let Object { attr, body: Body::File(content) } = tree.get_mut(id)? else { return Err(NfsStat::Inval) };
    change(content, attr);
    attr.used = content.used();
    (attr.mtime, attr.ctime) = (now, now);
    if !caller.is_root() {
        drop_set_ids(attr, caller);
    }
    Ok(())
}

fn resize(tree: &mut Tree, caller: &Caller, id: u64, size: u64) -> Result<()> {
    if size > MAX_FILE_SIZE {
        return Err(NfsStat::FBig);
    }
    let before = tree.get(id)?.attr.used;
    data_changed(tree, caller, id, |content, attr| {
        content.truncate(size);
        attr.size = size;
    })?;
    let after = tree.get(id)?.attr.used;
    tree.refund(before - after);
    Ok(())
}

fn set_owner(attr: &mut Fattr, caller: &Caller, sattr: &Sattr) {
    if attr.kind != FileType::Directory {
        drop_set_ids(attr, caller);
    }
    attr.uid = sattr.uid.unwrap_or(attr.uid);
    attr.gid = sattr.gid.unwrap_or(attr.gid);
}

fn set_mode(attr: &mut Fattr, caller: &Caller, mode: u32) {
    attr.mode = mode & 0o7777;
    if !group_trusts(attr, caller) {
        attr.mode &= !SET_GID;
    }
}

fn group_trusts(attr: &Fattr, caller: &Caller) -> bool {
    caller.is_root() || caller.in_group(attr.gid)
}

/// The kernel's `setattr_should_drop_suidgid`.
fn drop_set_ids(attr: &mut Fattr, caller: &Caller) {
    attr.mode &= !SET_UID;
    if attr.mode & 0o010 != 0 || !group_trusts(attr, caller) {
        attr.mode &= !SET_GID;
    }
}

fn set_times(tree: &mut Tree, id: u64, sattr: &Sattr) -> Result<()> {
    let now = tree.tick();
    let attr = &mut tree.get_mut(id)?.attr;
    if [sattr.atime, sattr.mtime] == [SetTime::Keep, SetTime::Keep] {
        return Ok(());
    }
    attr.atime = resolve(sattr.atime, attr.atime, now);
    attr.mtime = resolve(sattr.mtime, attr.mtime, now);
    attr.ctime = now;
    Ok(())
}

fn resolve(set: SetTime, old: Time, now: Time) -> Time {
    match set {
        SetTime::Keep => old,
        SetTime::Server => now,
        SetTime::Client(time) => time,
    }
}

fn touch(tree: &mut Tree, id: u64) -> Result<()> {
    let now = tree.tick();
    tree.get_mut(id)?.attr.ctime = now;
    Ok(())
}
