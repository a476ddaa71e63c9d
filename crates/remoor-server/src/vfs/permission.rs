//! What mode bits allow, as the kernel's `generic_permission` and knfsd's `nfsd_permission` and `nfsd_access` decide it.

use remoor_nfs::v3::{Fattr, FileType, NfsStat, Sattr, SetTime, access};

use super::{Caller, Result};

/// The caller may read.
pub(crate) const READ: u32 = 4;
/// The caller may write.
pub(crate) const WRITE: u32 = 2;
/// The caller may execute, or search a directory.
pub(crate) const EXEC: u32 = 1;

impl Caller {
    /// The user the kernel lets do everything.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether `gid` is the caller's group or one of the supplementary groups.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.gids.contains(&gid)
    }
}

/// The `rwx` bits that `attr` grants, without the exceptions for owners.
pub(crate) fn granted(attr: &Fattr, caller: &Caller) -> u32 {
    if caller.is_root() {
        let exec = attr.kind == FileType::Directory || attr.mode & 0o111 != 0;
        return READ | WRITE | u32::from(exec);
    }
    let shift = match () {
        () if caller.uid == attr.uid => 6,
        () if caller.in_group(attr.gid) => 3,
        () => 0,
    };
    attr.mode >> shift & 7
}

/// READ is allowed to the owner whatever the mode, because the client checked when it opened the file, and to those
/// who may execute, because a client must read a program to run it (RFC 1813 section 4.4).
pub(crate) fn may_read_data(attr: &Fattr, caller: &Caller) -> bool {
    caller.uid == attr.uid || granted(attr, caller) & (READ | EXEC) != 0
}

/// WRITE and truncation are allowed to the owner whatever the mode (RFC 1813 section 4.4).
pub(crate) fn may_write_data(attr: &Fattr, caller: &Caller) -> bool {
    caller.uid == attr.uid || granted(attr, caller) & WRITE != 0
}

/// Whether the caller may set owner, group, mode and times, as the kernel's `setattr_prepare` decides it. Setting times to
/// now, and size, takes permission to write only: neither is decided here.
pub(crate) fn may_change(attr: &Fattr, caller: &Caller, sattr: &Sattr) -> Result<()> {
    if caller.is_root() {
        return Ok(());
    }
    let set_times = [sattr.atime, sattr.mtime].iter().any(|time| matches!(time, SetTime::Client(_)));
    let change = sattr.mode.is_some() || sattr.uid.is_some() || sattr.gid.is_some() || set_times;
    let owner = caller.uid == attr.uid;
    let uid = sattr.uid.is_none_or(|uid| uid == attr.uid);
    let gid = sattr.gid.is_none_or(|gid| gid == attr.gid || caller.in_group(gid));
    if change && !(owner && uid && gid) { Err(NfsStat::Perm) } else { Ok(()) }
}

/// ACCESS: the bits of `asked` that mean something for the type and that `have` (of [`granted`]) allows.
pub(crate) fn access_bits(kind: FileType, have: u32, asked: u32) -> u32 {
    const FILE: &[(u32, u32)] =
        &[(access::READ, READ), (access::MODIFY, WRITE), (access::EXTEND, WRITE), (access::EXECUTE, EXEC)];
    const DIRECTORY: &[(u32, u32)] = &[
        (access::READ, READ),
        (access::LOOKUP, EXEC),
        (access::MODIFY, WRITE | EXEC),
        (access::EXTEND, WRITE | EXEC),
        (access::DELETE, WRITE | EXEC),
    ];
    let table = if kind == FileType::Directory { DIRECTORY } else { FILE };
    table.iter().filter(|(bit, need)| asked & bit != 0 && have & need == *need).map(|(bit, _)| bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use remoor_nfs::v3::{Device, Time};

    fn attr(kind: FileType, mode: u32) -> Fattr {
        let zero = Time { seconds: 0, nanos: 0 };
        Fattr {
            kind,
            mode,
            nlink: 1,
            uid: 10,
            gid: 20,
            size: 0,
            used: 0,
            rdev: Device { major: 0, minor: 0 },
            fsid: 0,
            fileid: 1,
            atime: zero,
            mtime: zero,
            ctime: zero,
        }
    }

    fn caller(uid: u32, gid: u32, gids: &[u32]) -> Caller {
        Caller { uid, gid, gids: gids.to_vec() }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let file = attr(FileType::Regular, 0o074);
        assert_eq!(granted(&file, &caller(10, 20, &[])), 0, "the owner is judged as owner only");
        assert_eq!(granted(&file, &caller(11, 20, &[])), 7);
        assert_eq!(granted(&file, &caller(11, 1, &[20])), 7);
        assert_eq!(granted(&file, &caller(11, 1, &[2])), READ);
    }

    #[test]
    fn root_executes_only_what_someone_may() {
        let root = caller(0, 0, &[]);
        assert_eq!(granted(&attr(FileType::Regular, 0o600), &root), READ | WRITE);
        assert_eq!(granted(&attr(FileType::Regular, 0o001), &root), 7);
        assert_eq!(granted(&attr(FileType::Directory, 0), &root), 7);
    }

    #[test]
    fn owners_read_and_write_and_programs_are_readable() {
        let sealed = attr(FileType::Regular, 0);
        assert!(may_read_data(&sealed, &caller(10, 1, &[])) && may_write_data(&sealed, &caller(10, 1, &[])));
        assert!(
            !may_read_data(&sealed, &caller(11, 1, &[])) && !may_write_data(&sealed, &caller(11, 1, &[]))
        );
        let program = attr(FileType::Regular, 0o711);
        assert!(
            may_read_data(&program, &caller(11, 1, &[])) && !may_write_data(&program, &caller(11, 1, &[]))
        );
    }

    #[test]
    fn access_names_only_bits_of_the_type() {
        let all = 0x3f;
        assert_eq!(access_bits(FileType::Directory, 7, all), 0x1f);
        assert_eq!(access_bits(FileType::Regular, 7, all), 0x2d);
        assert_eq!(access_bits(FileType::Directory, WRITE, all), 0, "write without search");
        assert_eq!(access_bits(FileType::Regular, READ | WRITE, access::READ), access::READ);
    }

    #[test]
    fn owners_change_what_is_theirs() {
        let file = attr(FileType::Regular, 0o600);
        let may = |uid, sattr: Sattr| may_change(&file, &caller(uid, 20, &[21]), &sattr);
        let none = Sattr::default;
        assert_eq!(may(10, Sattr { mode: Some(0), gid: Some(21), uid: Some(10), ..none() }), Ok(()));
        assert_eq!(may(10, Sattr { gid: Some(22), ..none() }), Err(NfsStat::Perm));
        assert_eq!(may(10, Sattr { uid: Some(11), ..none() }), Err(NfsStat::Perm));
        assert_eq!(may(11, Sattr { mode: Some(0), ..none() }), Err(NfsStat::Perm));
        let past = SetTime::Client(Time { seconds: 1, nanos: 0 });
        assert_eq!(may(11, Sattr { mtime: past, atime: SetTime::Server, ..none() }), Err(NfsStat::Perm));
        assert_eq!(may(11, Sattr { mtime: SetTime::Server, ..none() }), Ok(()));
        assert_eq!(may(11, Sattr { mtime: SetTime::Server, atime: SetTime::Server, ..none() }), Ok(()));
        assert_eq!(may(0, Sattr { uid: Some(11), ..none() }), Ok(()));
    }
}
