//! What is told about files: attributes, entries, open files, file systems.

use std::time::Duration;

/// The number by which the kernel names a file: given by the file system in an [`Entry`], valid until the kernel has
/// forgotten it as often as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(
    /// The number; 0 is none.
    pub u64,
);

impl NodeId {
    /// No file: an entry that says a name does not exist.
    pub const NONE: NodeId = NodeId(0);
    /// The root of the mount, which the kernel knows without a lookup.
    pub const ROOT: NodeId = NodeId(1);
}

/// A time since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds within the second, below 1 000 000 000.
    pub nanoseconds: u32,
}

/// The attributes of a file, as stat(2) has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The number that stat(2) shows; need not be the node.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Time of the last access.
    pub atime: Time,
    /// Time of the last change of the data.
    pub mtime: Time,
    /// Time of the last change of the attributes.
    pub ctime: Time,
    /// Type (`S_IFMT`) and permissions.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as the kernel's `new_encode_dev` has it: see [`Attributes::device`].
    pub rdev: u32,
    /// Preferred block size of I/O, in bytes.
    pub blksize: u32,
}

impl Attributes {
    /// `rdev` of a device: 12 bits of the major and 20 of the minor number (`new_encode_dev` in `linux/kdev_t.h`).
    pub const fn device(major: u32, minor: u32) -> u32 {
        (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)
    }

    /// Major and minor number of an `rdev`.
    pub const fn major_minor(rdev: u32) -> (u32, u32) {
        ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00))
    }
}

/// What a name stands for. Every entry the kernel is given counts as one lookup of its node, until forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file; [`NodeId::NONE`] is a negative entry: the name does not exist, and may be remembered not to.
    pub node: NodeId,
    /// Tells files apart that had the same node at different times.
    pub generation: u64,
    /// The file's attributes.
    pub attributes: Attributes,
    /// How long the kernel may use the attributes without asking.
    pub attributes_valid: Duration,
    /// How long the kernel may use the name without asking.
    pub entry_valid: Duration,
}

impl Entry {
    /// The name does not exist, and the kernel need not ask again for `valid`.
    pub fn negative(valid: Duration) -> Self {
        Self {
            node: NodeId::NONE,
            generation: 0,
            attributes: Attributes::default(),
            attributes_valid: Duration::ZERO,
            entry_valid: valid,
        }
    }
}

/// How the kernel treats an open file (`FOPEN_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// Pages that are cached from before stay valid; without this open drops them.
    pub keep_cache: bool,
    /// Reads and writes go past the page cache.
    pub direct_io: bool,
    /// The kernel may cache what READDIR answered.
    pub cache_dir: bool,
    /// lseek(2) is refused.
    pub nonseekable: bool,
    /// The file has no position at all.
    pub stream: bool,
    /// No FLUSH at close.
    pub noflush: bool,
    /// With `direct_io`: writes within the file may run in parallel.
    pub parallel_direct_writes: bool,
}

/// A file system's space, as statvfs(3) has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statfs {
    /// Size in units of `frsize`.
    pub blocks: u64,
    /// Free space in units of `frsize`.
    pub bfree: u64,
    /// Free space for ordinary users, in units of `frsize`.
    pub bavail: u64,
    /// Number of files there can be.
    pub files: u64,
    /// Number of files that can still be made.
    pub ffree: u64,
    /// Preferred block size of I/O, in bytes.
    pub bsize: u32,
    /// Longest name, in bytes.
    pub namelen: u32,
    /// The unit of the sizes, in bytes.
    pub frsize: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(1, 3), (10, 229), (0xfff, 0xfffff), (8, 0x12345)] {
            assert_eq!(Attributes::major_minor(Attributes::device(major, minor)), (major, minor));
        }
        assert_eq!(Attributes::device(1, 3), 0x103);
    }
}
