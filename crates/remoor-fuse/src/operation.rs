//! The operations the kernel asks for.

use bytes::Bytes;

use crate::{NodeId, Time};

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOrNow {
    /// The time when it is executed.
    Now,
    /// This time.
    At(Time),
}

/// What SETATTR changes: what is `Some`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Permissions; the type bits are the file's own.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes: truncates or extends with zeroes.
    pub size: Option<u64>,
    /// Time of the last access.
    pub atime: Option<TimeOrNow>,
    /// Time of the last change.
    pub mtime: Option<TimeOrNow>,
    /// The open file by which the change is made, if by one: ftruncate(2).
    pub fh: Option<u64>,
    /// The file system has to clear setuid and setgid bits (FUSE_HANDLE_KILLPRIV_V2).
    pub kill_suidgid: bool,
}

/// What the kernel asks for. Names are bytes without NUL and `/`, never empty; `fh` is what the file system answered at
/// OPEN, CREATE or OPENDIR; `flags` of open files are those of open(2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are named as in the protocol, and told above where that says too little"
)]
pub enum Operation {
    /// What a name stands for: [`crate::Reply::Entry`].
    Lookup { parent: NodeId, name: Bytes },
    /// [`crate::Reply::Attributes`]. `fh` is given for fstat(2) of some kernels.
    Getattr { node: NodeId, fh: Option<u64> },
    /// [`crate::Reply::Attributes`], from after the change.
    Setattr { node: NodeId, change: SetAttributes },
    /// The target of a symbolic link: [`crate::Reply::Data`].
    Readlink { node: NodeId },
    /// [`crate::Reply::Entry`].
    Symlink { parent: NodeId, name: Bytes, target: Bytes },
    /// [`crate::Reply::Entry`]. `mode` has the type, and the umask is applied to it already.
    Mknod { parent: NodeId, name: Bytes, mode: u32, umask: u32, rdev: u32 },
    /// [`crate::Reply::Entry`]. The umask is applied to `mode` already.
    Mkdir { parent: NodeId, name: Bytes, mode: u32, umask: u32 },
    /// [`crate::Reply::Empty`].
    Unlink { parent: NodeId, name: Bytes },
    /// [`crate::Reply::Empty`].
    Rmdir { parent: NodeId, name: Bytes },
    /// [`crate::Reply::Empty`]. `flags` are those of renameat2(2): 0 is a plain rename.
    Rename { parent: NodeId, name: Bytes, new_parent: NodeId, new_name: Bytes, flags: u32 },
    /// [`crate::Reply::Entry`] of the file that has one more name.
    Link { node: NodeId, new_parent: NodeId, new_name: Bytes },
    /// [`crate::Reply::Opened`]. O_CREAT, O_EXCL and O_NOCTTY are not among `flags`, O_TRUNC only if so negotiated.
    Open { node: NodeId, flags: u32, kill_suidgid: bool },
    /// [`crate::Reply::Data`], at most `size` bytes; less is the end of the file, unless the file is `direct_io`.
    Read { node: NodeId, fh: u64, offset: u64, size: u32, flags: u32 },
    /// [`crate::Reply::Written`]. `cached`: written back from a shared mapping, and `fh` is one of those that are open.
    Write { node: NodeId, fh: u64, offset: u64, data: Bytes, flags: u32, cached: bool, kill_suidgid: bool },
    /// [`crate::Reply::Statfs`].
    Statfs { node: NodeId },
    /// The last descriptor and mapping of an open file are gone: [`crate::Reply::Empty`].
    Release { node: NodeId, fh: u64, flags: u32 },
    /// [`crate::Reply::Empty`] once what was written is stable.
    Fsync { node: NodeId, fh: u64, data_only: bool },
    /// A descriptor is closed; its error is close(2)'s: [`crate::Reply::Empty`]. May come several times for an `fh`.
    Flush { node: NodeId, fh: u64, lock_owner: u64 },
    /// [`crate::Reply::Opened`].
    Opendir { node: NodeId, flags: u32 },
    /// [`crate::Reply::Directory`] of plain entries, from the position `offset` of an earlier entry, or 0.
    Readdir { node: NodeId, fh: u64, offset: u64, size: u32 },
    /// [`crate::Reply::Directory`] of entries with attributes. Each with a node counts as a lookup.
    Readdirplus { node: NodeId, fh: u64, offset: u64, size: u32 },
    /// [`crate::Reply::Empty`].
    Releasedir { node: NodeId, fh: u64, flags: u32 },
    /// [`crate::Reply::Empty`].
    Fsyncdir { node: NodeId, fh: u64, data_only: bool },
    /// access(2), chdir(2) and, without `default_permissions`, nothing else: [`crate::Reply::Empty`] or EACCES.
    Access { node: NodeId, mask: u32 },
    /// Makes and opens a regular file: [`crate::Reply::Created`]. `flags` may have O_EXCL.
    Create { parent: NodeId, name: Bytes, mode: u32, umask: u32, flags: u32, kill_suidgid: bool },
    /// [`crate::Reply::Empty`]. `mode` is that of fallocate(2).
    Fallocate { node: NodeId, fh: u64, offset: u64, length: u64, mode: u32 },
    /// [`crate::Reply::Offset`]: SEEK_DATA and SEEK_HOLE; the others the kernel does itself.
    Lseek { node: NodeId, fh: u64, offset: u64, whence: u32 },
    /// [`crate::Reply::Written`].
    CopyFileRange {
        node: NodeId,
        fh: u64,
        offset: u64,
        to_node: NodeId,
        to_fh: u64,
        to_offset: u64,
        length: u64,
        flags: u64,
    },
    /// [`crate::Reply::Empty`]. `flags` are those of setxattr(2).
    Setxattr { node: NodeId, name: Bytes, value: Bytes, flags: u32 },
    /// [`crate::Reply::Length`] if `size` is 0, else [`crate::Reply::Data`], or ERANGE if it is longer than `size`.
    Getxattr { node: NodeId, name: Bytes, size: u32 },
    /// Names, each ended by NUL; answered as [`Operation::Getxattr`].
    Listxattr { node: NodeId, size: u32 },
    /// [`crate::Reply::Empty`].
    Removexattr { node: NodeId, name: Bytes },
    /// syncfs(2), only sent to file systems the kernel trusts (virtiofs): [`crate::Reply::Empty`].
    Syncfs { node: NodeId },
}

impl Operation {
    /// The operation's name in `linux/fuse.h`, for log lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lookup { .. } => "LOOKUP",
            Self::Getattr { .. } => "GETATTR",
            Self::Setattr { .. } => "SETATTR",
            Self::Readlink { .. } => "READLINK",
            Self::Symlink { .. } => "SYMLINK",
            Self::Mknod { .. } => "MKNOD",
            Self::Mkdir { .. } => "MKDIR",
            Self::Unlink { .. } => "UNLINK",
            Self::Rmdir { .. } => "RMDIR",
            Self::Rename { .. } => "RENAME",
            Self::Link { .. } => "LINK",
            Self::Open { .. } => "OPEN",
            Self::Read { .. } => "READ",
            Self::Write { .. } => "WRITE",
            Self::Statfs { .. } => "STATFS",
            Self::Release { .. } => "RELEASE",
            Self::Fsync { .. } => "FSYNC",
            Self::Flush { .. } => "FLUSH",
            Self::Opendir { .. } => "OPENDIR",
            Self::Readdir { .. } => "READDIR",
            Self::Readdirplus { .. } => "READDIRPLUS",
            Self::Releasedir { .. } => "RELEASEDIR",
            Self::Fsyncdir { .. } => "FSYNCDIR",
            Self::Access { .. } => "ACCESS",
            Self::Create { .. } => "CREATE",
            Self::Fallocate { .. } => "FALLOCATE",
            Self::Lseek { .. } => "LSEEK",
            Self::CopyFileRange { .. } => "COPY_FILE_RANGE",
            Self::Setxattr { .. } => "SETXATTR",
            Self::Getxattr { .. } => "GETXATTR",
            Self::Listxattr { .. } => "LISTXATTR",
            Self::Removexattr { .. } => "REMOVEXATTR",
            Self::Syncfs { .. } => "SYNCFS",
        }
    }

    /// Whether it always runs to its end, whatever happens to its caller: nobody would give back what it gives back.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Release { .. } | Self::Releasedir { .. })
    }
}
