//! ACCESS and SETATTR.

use remoor_nfs::v3::{Fattr, FileType, NfsStat, Sattr, SetTime, Time, WccData};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use rustix::fs::{chmodat, chownat, ftruncate, utimensat};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::super::permission::{EXEC, READ, WRITE, access_bits, granted, may_change};
use super::super::{Caller, NodeHandle, Result};
use super::LocalVfs;
use super::cache::Open;
use super::data::{Want, regular};
use super::stat::Stat;
use crate::errno::status;
use crate::sys::may_access;

impl LocalVfs {
    pub(super) fn check_access(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        asked: u32,
    ) -> Result<(u32, Fattr)> {
        let (open, Stat { attr, immutable, .. }) = self.store.get(node)?;
        let forbidden = if immutable { WRITE } else { 0 };
        let have = self.rights(caller, &open, &attr)? & !forbidden;
        Ok((access_bits(attr.kind, have, asked), attr))
    }

    /// What the caller may do. Owner and root are judged by the mode; for others the kernel is asked, which knows access
    /// control lists, once for as long as nothing changes.
    pub(super) fn rights(&self, caller: &Caller, open: &Open, attr: &Fattr) -> Result<u32> {
        if !self.identity.is_single() && (caller.is_root() || caller.uid == attr.uid) {
            return Ok(granted(attr, caller));
        }
        if let Some(known) = open.judged.granted(caller, attr.ctime) {
            return Ok(known);
        }
        let have = {
            let _as_caller = self.identity.assume(caller)?;
            ask(open)
        };
        open.judged.grant(caller, attr.ctime, have);
        Ok(have)
    }

    /// Whether the caller may look names up in the directory.
    pub(super) fn may_search(&self, caller: &Caller, dir: &Open) -> Result<()> {
        let _as_caller = self.identity.assume(caller)?;
        may_access(dir.fd(), libc::X_OK).map_err(status)
    }

    pub(super) fn set_attributes(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        sattr: &Sattr,
        guard: Option<Time>,
    ) -> Result<WccData> {
        let open = self.store.held(node)?;
        let window = if guard.is_some() { self.guarded_window(&open) } else { self.window(&open) }?;
        if guard.is_some_and(|at| at != window.before().ctime) {
            return Err(NfsStat::NotSync);
        }
        may_change(window.before(), self.identity.effective(caller), sattr)?;
        let applied = self.apply(caller, &open, window.before(), sattr);
        open.judged.forget();
        applied?;
        let wcc = window.close();
        self.stabilise(&open)?;
        Ok(wcc)
    }

    /// In the order owner, size, mode, times: what was checked before can't become forbidden half-way.
    pub(super) fn apply(&self, caller: &Caller, open: &Open, attr: &Fattr, sattr: &Sattr) -> Result<()> {
        if sattr.mode.is_some() && open.kind == FileType::Symlink {
            return Err(NfsStat::NotSupp);
        }
        let size = match sattr.size {
            Some(size) => {
                regular(open.kind)?;
                self.allow_data(caller, open, attr, Want::Write)?;
                let size = Some(size).filter(|size| *size <= i64::MAX as u64).ok_or(NfsStat::FBig)?;
                Some((self.data_fd(open, Want::Write)?, size))
            }
            None => None,
        };
        let _as_caller = self.identity.assume(caller)?;
        self.set_owner(open, sattr).map_err(status)?;
        if let Some((fd, size)) = size {
            ftruncate(fd, size).map_err(status)?;
        }
        self.set_mode(open, sattr).map_err(status)?;
        self.set_times(caller, open, attr, sattr).map_err(status)
    }

    fn set_owner(&self, open: &Open, sattr: &Sattr) -> std::result::Result<(), Errno> {
        if [sattr.uid, sattr.gid].contains(&Some(u32::MAX)) {
            return Err(Errno::INVAL);
        }
        if sattr.uid.is_none() && sattr.gid.is_none() {
            return Ok(());
        }
        let (uid, gid) = (sattr.uid.map(Uid::from_raw), sattr.gid.map(Gid::from_raw));
        chownat(open.fd(), "", uid, gid, AtFlags::EMPTY_PATH)
    }

    /// Through `/proc/self/fd`, because fchmod(2) refuses descriptors that only name a file.
    fn set_mode(&self, open: &Open, sattr: &Sattr) -> std::result::Result<(), Errno> {
        let Some(mode) = sattr.mode else { return Ok(()) };
        let mode = Mode::from_raw_mode(mode & 0o7777);
        chmodat(&self.store.descriptors, DecInt::from_fd(open.fd()), mode, AtFlags::empty())
    }

    /// Who may write may set times to now. For one time alone utimensat(2) asks for the owner; a Linux client sends mtime
    /// alone for O_TRUNC, and knfsd asks for permission to write, so the server does it itself.
    fn set_times(
        &self,
        caller: &Caller,
        open: &Open,
        attr: &Fattr,
        sattr: &Sattr,
    ) -> std::result::Result<(), Errno> {
        let set = [sattr.atime, sattr.mtime];
        if set == [SetTime::Keep; 2] {
            return Ok(());
        }
        let one_is_now = set.contains(&SetTime::Server) && set.contains(&SetTime::Keep);
        if one_is_now && !self.identity.is_single() && !caller.is_root() && caller.uid != attr.uid {
            may_access(open.fd(), libc::W_OK)?;
            self.identity.be_server();
        }
        let times = timestamps(sattr);
        utimensat(&self.store.descriptors, DecInt::from_fd(open.fd()), &times, AtFlags::empty())
    }
}

/// What the thread's identity may do; most may do all or are asked about one thing after the other.
fn ask(open: &Open) -> u32 {
    let may = |mode| may_access(open.fd(), mode).is_ok();
    if may(libc::R_OK | libc::W_OK | libc::X_OK) {
        return READ | WRITE | EXEC;
    }
    let bits = [(libc::R_OK, READ), (libc::W_OK, WRITE), (libc::X_OK, EXEC)];
    bits.iter().filter(|(mode, _)| may(*mode)).map(|(_, bit)| bit).sum()
}

/// For utimensat(2).
pub(super) fn timestamps(sattr: &Sattr) -> Timestamps {
    Timestamps { last_access: timespec(sattr.atime), last_modification: timespec(sattr.mtime) }
}

fn timespec(set: SetTime) -> Timespec {
    let special = |nanos| Timespec { tv_sec: 0, tv_nsec: nanos };
    match set {
        SetTime::Keep => special(UTIME_OMIT),
        SetTime::Server => special(UTIME_NOW),
        SetTime::Client(time) => Timespec { tv_sec: time.seconds.into(), tv_nsec: time.nanos.into() },
    }
}
