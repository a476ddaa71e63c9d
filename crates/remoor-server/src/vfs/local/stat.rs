//! Attributes as the kernel tells them, and what identifies a file for its whole life.

use std::os::fd::BorrowedFd;

use remoor_nfs::v3::{Device, Fattr, FileType, Time};
use rustix::fs::{self, AtFlags, RawMode, Statx, StatxAttributes, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

/// What is asked of the kernel.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

/// Names a file among all that ever had its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    /// Inode number.
    pub(super) ino: u64,
    /// Birth time in nanoseconds since 1970, or what [`BirthSource`] has instead.
    pub(super) birth: u64,
}

/// What tells a file from a later one with the same inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BirthSource {
    /// The birth time (statx(2)).
    Time,
    /// The inode's generation (FS_IOC_GETVERSION), for regular files and directories.
    Generation,
    /// Nothing: a handle to a removed file can come to mean a later one.
    Nothing,
}

/// A file's attributes, with what NFS does not carry.
#[derive(Debug, Clone)]
pub(super) struct Stat {
    pub(super) attr: Fattr,
    /// Birth time in nanoseconds since 1970; 0 if the file system has none.
    pub(super) btime: u64,
    pub(super) device: (u32, u32),
    /// Nobody may change it (`chattr +i`).
    pub(super) immutable: bool,
    /// What it holds may only be added to (`chattr +a`).
    pub(super) append_only: bool,
    /// Number of the mount; 0 if the kernel does not tell (before Linux 5.8).
    pub(super) mount: u64,
}

/// Attributes of what `fd` is open on, O_PATH included.
pub(super) fn stat(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    stat_at(fd, b"")
}

/// Attributes of `name` in `dir`, of a symbolic link itself.
pub(super) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let raw = fs::statx(dir, name, flags, WANTED)?;
    let mount = if raw.stx_mask & StatxFlags::MNT_ID.bits() != 0 { raw.stx_mnt_id } else { 0 };
    let btime = if raw.stx_mask & StatxFlags::BTIME.bits() != 0 { nanos(raw.stx_btime) } else { 0 };
    Ok(Stat {
        attr: attributes(&raw),
        btime,
        device: (raw.stx_dev_major, raw.stx_dev_minor),
        immutable: raw.stx_attributes.contains(StatxAttributes::IMMUTABLE),
        append_only: raw.stx_attributes.contains(StatxAttributes::APPEND),
        mount,
    })
}

fn attributes(raw: &Statx) -> Fattr {
    Fattr {
        kind: kind(raw.stx_mode.into()),
        mode: u32::from(raw.stx_mode) & 0o7777,
        nlink: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        size: raw.stx_size,
        used: raw.stx_blocks * 512,
        rdev: Device { major: raw.stx_rdev_major, minor: raw.stx_rdev_minor },
        fsid: 0,
        fileid: raw.stx_ino,
        atime: time(raw.stx_atime),
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
    }
}

fn kind(mode: RawMode) -> FileType {
    match fs::FileType::from_raw_mode(mode) {
        fs::FileType::Directory => FileType::Directory,
        fs::FileType::Symlink => FileType::Symlink,
        fs::FileType::BlockDevice => FileType::Block,
        fs::FileType::CharacterDevice => FileType::Character,
        fs::FileType::Fifo => FileType::Fifo,
        fs::FileType::Socket => FileType::Socket,
        fs::FileType::RegularFile | fs::FileType::Unknown => FileType::Regular,
    }
}

/// NFS version 3 has 32 bits for seconds; knfsd cuts the rest off too.
fn time(raw: StatxTimestamp) -> Time {
    Time { seconds: raw.tv_sec as u32, nanos: raw.tv_nsec }
}

fn nanos(raw: StatxTimestamp) -> u64 {
    (raw.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(raw.tv_nsec.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn attributes_are_those_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"12345").unwrap();
        let stat = stat(file.as_file().as_fd()).unwrap();
        assert_eq!((stat.attr.kind, stat.attr.mode, stat.attr.size), (FileType::Regular, 0o600, 5));
        let meta = file.as_file().metadata().unwrap();
        assert_eq!(stat.attr.fileid, std::os::unix::fs::MetadataExt::ino(&meta));
        let modified = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(u64::from(stat.attr.mtime.seconds), modified.as_secs());
        assert_eq!(stat.attr.mtime.nanos, modified.subsec_nanos());
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(stat_at(fd.as_fd(), b"link").unwrap().attr.kind, FileType::Symlink);
    }
}
