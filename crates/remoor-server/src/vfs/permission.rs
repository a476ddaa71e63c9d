//! What mode bits allow, as the kernel's `generic_permission` and knfsd's `nfsd_permission` and `nfsd_access` decide it.

use remoor_nfs::v3::{Fattr, FileType, access};

use super::Caller;

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

/// ACCESS: the bits of `asked` that mean something for the object's type and that the mode grants.
pub(crate) fn access_bits(attr: &Fattr, caller: &Caller, asked: u32) -> u32 {
    const FILE: &[(u32, u32)] =
        &[(access::READ, READ), (access::MODIFY, WRITE), (access::EXTEND, WRITE), (access::EXECUTE, EXEC)];
    const DIRECTORY: &[(u32, u32)] = &[
        (access::READ, READ),
        (access::LOOKUP, EXEC),
        (access::MODIFY, WRITE | EXEC),
        (access::EXTEND, WRITE | EXEC),
        (access::DELETE, WRITE | EXEC),
    ];
    let table = if attr.kind == FileType::Directory { DIRECTORY } else { FILE };
    let have = granted(attr, caller);
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
        let root = caller(0, 0, &[]);
        let all = 0x3f;
        assert_eq!(access_bits(&attr(FileType::Directory, 0o700), &root, all), 0x1f);
        assert_eq!(access_bits(&attr(FileType::Regular, 0o700), &root, all), 0x2d);
        assert_eq!(
            access_bits(&attr(FileType::Directory, 0o702), &caller(1, 1, &[]), all),
            0,
            "write without search"
        );
        assert_eq!(
            access_bits(&attr(FileType::Regular, 0o704), &caller(1, 1, &[]), access::READ),
            access::READ
        );
    }
}
