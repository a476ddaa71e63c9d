//! CREATE EXCLUSIVE (RFC 1813 section 3.3.8): the file appears with its verifier, so that no crash and no other node ever
//! finds one without it.

use std::os::fd::{AsFd, OwnedFd};

use remoor_nfs::v3::{CreateVerf, FileType, NfsStat, Sattr};
use rustix::fs::{Mode, OFlags, futimens, openat};
use rustix::io::Errno;

use super::super::{Caller, Made, Result, exclusive_times};
use super::LocalVfs;
use super::attributes::timestamps;
use super::cache::Open;
use super::stat::stat_at;
use super::wcc::Window;

/// What a file system says that has no files without a name (open(2), O_TMPFILE).
const NO_TMPFILE: [Errno; 3] = [Errno::OPNOTSUPP, Errno::ISDIR, Errno::INVAL];

impl LocalVfs {
    /// Makes the file without a name, gives it the verifier and then the name; journals keep that order. On file systems that
    /// have no such files it has its name a moment before its verifier; who finds it like that is told NFS3ERR_EXIST.
    pub(super) fn create_exclusive(
        &self,
        caller: &Caller,
        dir: &Open,
        name: &[u8],
        verf: CreateVerf,
    ) -> Result<Made> {
        let (atime, mtime) = exclusive_times(verf);
        let attr = Sattr { atime, mtime, ..Sattr::default() };
        let window = self.window(dir)?;
        match self.without_name(caller, dir, &attr) {
            Ok(fd) => self.appear(caller, window, name, fd),
            Err(error) if NO_TMPFILE.contains(&error) => {
                drop(window);
                self.create_new(caller, dir, name, &attr)
            }
            // Whether the name is taken counts first, as for open(2).
            Err(_) if stat_at(dir.fd(), name).is_ok() => Err(NfsStat::Exist),
            Err(error) => self.store.in_dir(dir, Err(error)),
        }
    }

    fn without_name(&self, caller: &Caller, dir: &Open, attr: &Sattr) -> std::result::Result<OwnedFd, Errno> {
        let new = self.new_attr(attr, FileType::Regular, caller);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let _as_caller = self.identity.assume(caller).map_err(|_| Errno::ACCESS)?;
        let fd = openat(dir.fd(), c".", flags, Mode::from_raw_mode(new.mode))?;
        futimens(&fd, &timestamps(&new.rest))?;
        Ok(fd)
    }

    fn appear(&self, caller: &Caller, window: Window<'_>, name: &[u8], fd: OwnedFd) -> Result<Made> {
        let named = {
            let _as_caller = self.identity.assume(caller)?;
            self.name_file(fd.as_fd(), window.open(), name)
        };
        self.store.in_dir(window.open(), named)?;
        self.finish(caller, window, name, (fd, true), &Sattr::default())
    }
}
