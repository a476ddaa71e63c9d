//! How an object of the export is named: the two forms of a node handle, and which one an export uses.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use remoor_nfs::v3::NfsStat;
use rustix::fs::{FileType, Mode, OFlags, RawDir, fstatfs, openat};

use super::super::{MAX_NODE_HANDLE, NodeHandle, Result};
use super::stat::{FileId, stat};
use crate::sys::{KernelHandle, name_to_handle, open_by_handle};

/// Bytes that tell which directory is exported; handles of another export are stale here.
const ROOT_KEY_LEN: usize = 8;
/// Tag, root key and kind, before a kernel handle's bytes.
const KERNEL_HEAD_LEN: usize = 1 + ROOT_KEY_LEN + 4;
/// Longest kernel handle that fits, in bytes. ext4 has 8, xfs 12, btrfs 20.
const MAX_KERNEL_HANDLE: usize = MAX_NODE_HANDLE - KERNEL_HEAD_LEN;
/// File systems whose kernel handles hold for one mount only, or depend on mount options (linux/magic.h).
const PER_MOUNT: &[(i64, &str)] =
    &[(0x6573_5546, "FUSE"), (0x794c_7630, "overlayfs"), (0x6969, "NFS"), (0x0102_1997, "9p")];

/// How handles name objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// As the kernel does (name_to_handle_at(2)): needs CAP_DAC_READ_SEARCH outside every user namespace.
    Kernel,
    /// By inode number and birth time, found through an index in the state directory.
    Fileid,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Fileid => "fileid",
        }
    }
}

/// A node handle, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Kernel { kind: i32, bytes: Bytes },
    Fileid(FileId),
}

/// Which export a handle is of: the number and birth of its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RootKey([u8; ROOT_KEY_LEN]);

impl RootKey {
    pub(super) fn new(root: FileId) -> Self {
        use sha2::Digest;
        let mut key = [0; ROOT_KEY_LEN];
        let hash = sha2::Sha256::digest([root.ino.to_be_bytes(), root.birth.to_be_bytes()].concat());
        key.copy_from_slice(&hash[..ROOT_KEY_LEN]);
        Self(key)
    }

    /// As the name of a directory.
    pub(super) fn hex(self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.0))
    }

    pub(super) fn kernel(self, handle: &KernelHandle) -> Result<NodeHandle> {
        if handle.bytes.len() > MAX_KERNEL_HANDLE {
            return Err(NfsStat::ServerFault);
        }
        Ok([b"k", &self.0[..], &handle.kind.to_be_bytes(), &handle.bytes].concat().into())
    }

    pub(super) fn fileid(self, id: FileId) -> NodeHandle {
        [b"f", &self.0[..], &id.ino.to_be_bytes(), &id.birth.to_be_bytes()].concat().into()
    }

    /// Takes a handle apart; one of another export is stale.
    pub(super) fn open(self, handle: &NodeHandle) -> Result<Key> {
        let (tag, rest) = handle.split_first().ok_or(NfsStat::BadHandle)?;
        let (root, rest) = rest.split_at_checked(ROOT_KEY_LEN).ok_or(NfsStat::BadHandle)?;
        if root != self.0 {
            return Err(NfsStat::Stale);
        }
        match tag {
            b'k' => {
                let kind = rest.first_chunk().ok_or(NfsStat::BadHandle)?;
                Ok(Key::Kernel { kind: i32::from_be_bytes(*kind), bytes: handle.slice(KERNEL_HEAD_LEN..) })
            }
            b'f' => {
                let raw = u128::from_be_bytes(rest.try_into().map_err(|_| NfsStat::BadHandle)?);
                Ok(Key::Fileid(FileId { ino: (raw >> 64) as u64, birth: raw as u64 }))
            }
            _ => Err(NfsStat::BadHandle),
        }
    }
}

/// Where a file system's kernel handles have the inode number, as tried on objects of the export: 8 bytes (xfs, btrfs, and
/// tmpfs on little-endian machines) or 4 (ext4). Without a place every object is opened to know its handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InoPlace {
    offset: usize,
    len: usize,
}

impl InoPlace {
    const ALL: [Self; 3] =
        [Self { offset: 0, len: 8 }, Self { offset: 4, len: 8 }, Self { offset: 0, len: 4 }];

    /// The place that holds for the root and for a file.
    pub(super) fn find(root: BorrowedFd<'_>) -> Option<Self> {
        let of = |fd: BorrowedFd<'_>| Some((name_to_handle(fd).ok()?, stat(fd).ok()?.attr.fileid));
        let known = [of(root)?, of(regular_file(root)?.as_fd())?];
        Self::ALL.into_iter().find(|place| known.iter().all(|(handle, ino)| place.has(handle, *ino)))
    }

    /// Whether the handle is of the inode with this number.
    pub(super) fn has(self, handle: &KernelHandle, ino: u64) -> bool {
        let bytes = handle.bytes.get(self.offset..self.offset + self.len);
        let low = u32::try_from(ino).map(u32::to_ne_bytes);
        match self.len {
            4 => bytes.is_some() && bytes == low.as_ref().ok().map(|low| &low[..]),
            _ => bytes == Some(&ino.to_ne_bytes()[..]),
        }
    }
}

/// Why kernel handles can't be used for the export, if so.
pub(super) fn kernel_handles_unusable(root: BorrowedFd<'_>) -> Option<String> {
    let magic = fstatfs(root).map_or(0, |stat| stat.f_type);
    if let Some((_, name)) = PER_MOUNT.iter().find(|(known, _)| *known == magic) {
        return Some(format!("{name} gives kernel handles that do not outlive a mount"));
    }
    match name_to_handle(root) {
        Err(error) => return Some(format!("the file system gives no kernel handles ({error})")),
        Ok(handle) if handle.bytes.len() > MAX_KERNEL_HANDLE => {
            return Some(format!(
                "kernel handles have {} bytes, at most {MAX_KERNEL_HANDLE} fit",
                handle.bytes.len()
            ));
        }
        Ok(_) => {}
    }
    let file = match regular_file(root) {
        Some(file) => file,
        None => return Some("there is no regular file to try kernel handles on".to_owned()),
    };
    let opened =
        name_to_handle(file.as_fd()).and_then(|handle| open_by_handle(root, handle.kind, &handle.bytes));
    opened.err().map(|error| format!("this process may not open files by kernel handle ({error})"))
}

/// A file that was never linked, or any in the export's root; in a user namespace directories open and files don't.
pub(super) fn regular_file(root: BorrowedFd<'_>) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = openat(root, ".", flags, Mode::RUSR) {
        return Some(file.into());
    }
    let dir = openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = Vec::with_capacity(1 << 15);
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if entry.file_type() == FileType::RegularFile
            && let Ok(file) = openat(root, entry.file_name(), flags, Mode::empty())
        {
            return Some(file.into());
        }
    }
    None
}

/// The scheme this export's handles have had so far; the first node writes it down as `ours`.
pub(super) fn agreed(dir: &Path, ours: Scheme) -> io::Result<Scheme> {
    let path = dir.join("scheme");
    let own = dir.join(format!("scheme.{}.{:?}", std::process::id(), std::thread::current().id()));
    let _ = fs::remove_file(&own);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&own)?;
    file.write_all(ours.name().as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&own, &path);
    fs::remove_file(&own)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let text = fs::read_to_string(&path)?;
    [Scheme::Kernel, Scheme::Fileid].into_iter().find(|scheme| scheme.name() == text.trim()).ok_or_else(
        || {
            io::Error::other(format!(
                "{} holds {text:?}, not \"kernel\" or \"fileid\"; correct or remove it",
                path.display()
            ))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: FileId = FileId { ino: 2, birth: 7 };

    #[test]
    fn handles_come_back_and_belong_to_one_export() {
        let id = FileId { ino: u64::MAX, birth: 1 };
        let kernel = KernelHandle { kind: -1, bytes: vec![5; MAX_KERNEL_HANDLE] };
        let root = RootKey::new(ROOT);
        assert_eq!(root.open(&root.fileid(id)), Ok(Key::Fileid(id)));
        let sealed = root.kernel(&kernel).unwrap();
        assert_eq!(sealed.len(), MAX_NODE_HANDLE);
        assert_eq!(
            root.open(&sealed),
            Ok(Key::Kernel { kind: -1, bytes: vec![5; MAX_KERNEL_HANDLE].into() })
        );
        let other = RootKey::new(FileId { birth: 8, ..ROOT });
        assert_eq!(other.open(&sealed), Err(NfsStat::Stale));
        assert!(root.kernel(&KernelHandle { kind: 1, bytes: vec![0; MAX_KERNEL_HANDLE + 1] }).is_err());
    }

    #[test]
    fn what_is_no_handle_is_told_apart_from_what_is_stale() {
        let root = RootKey::new(ROOT);
        let sealed = root.fileid(ROOT);
        for len in 0..sealed.len() {
            assert_eq!(root.open(&sealed.slice(..len)), Err(NfsStat::BadHandle), "{len} bytes");
        }
        assert_eq!(root.open(&[b"x", &sealed[1..]].concat().into()), Err(NfsStat::BadHandle));
    }

    #[test]
    fn the_first_node_decides_for_all() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(agreed(dir.path(), Scheme::Fileid).unwrap(), Scheme::Fileid);
        assert_eq!(agreed(dir.path(), Scheme::Kernel).unwrap(), Scheme::Fileid);
        fs::write(dir.path().join("scheme"), "else").unwrap();
        assert!(agreed(dir.path(), Scheme::Kernel).unwrap_err().to_string().contains("holds \"else\""));
    }
}
