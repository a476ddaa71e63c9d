//! What CREATE, MKDIR, SYMLINK and MKNOD mean in every vfs.

use remoor_nfs::v3::{CreateVerf, Device, Fattr, FileType, MknodData, NfsStat, Sattr, SetTime, Time};

use super::{Caller, Result};

/// Longest text of a symbolic link, in bytes (`PATH_MAX` without its NUL).
pub(crate) const MAX_LINK_TEXT: usize = 4095;

/// Whether the name is `.` or `..`, which only LOOKUP knows.
pub(crate) fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Attributes of a new object: the mode it is made with, and what is set on it afterwards.
#[derive(Debug)]
pub(crate) struct NewAttr {
    pub(crate) mode: u32,
    pub(crate) rest: Sattr,
}

impl NewAttr {
    /// As knfsd does: owner and group are only root's to choose (clients send the group they expect anyway), a
    /// directory has no set-id bits but those it inherits, a symbolic link no mode. Without a mode the object is
    /// its owner's alone.
    pub(crate) fn of(attr: &Sattr, kind: FileType, caller: &Caller) -> Self {
        let mode = match kind {
            FileType::Directory => attr.mode.unwrap_or(0o700) & 0o1777,
            FileType::Symlink => 0o777,
            _ => attr.mode.unwrap_or(0o600) & 0o7777,
        };
        let owner = if caller.is_root() { (attr.uid, attr.gid) } else { (None, None) };
        let size = attr.size.filter(|size| kind == FileType::Regular && *size > 0);
        let (atime, mtime) = (attr.atime, attr.mtime);
        Self { mode, rest: Sattr { mode: None, uid: owner.0, gid: owner.1, size, atime, mtime } }
    }
}

/// The times in which an exclusive create keeps its verifier, as knfsd does (`nfsd3_create_file`): on the disk with
/// the file, so that the create is known again after a restart and on another node.
/// The top bits are left out because not every file system stores them.
pub(crate) fn exclusive_times(verf: CreateVerf) -> (SetTime, SetTime) {
    let (atime, mtime) = verf_times(verf);
    (SetTime::Client(atime), SetTime::Client(mtime))
}

fn verf_times(verf: CreateVerf) -> (Time, Time) {
    let verf = u64::from_be_bytes(verf) & 0x7fff_ffff_7fff_ffff;
    let time = |seconds| Time { seconds, nanos: 0 };
    (time(verf as u32), time((verf >> 32) as u32))
}

/// Whether the object was made by an exclusive create with this verifier and not changed since.
pub(crate) fn made_by(attr: &Fattr, verf: CreateVerf) -> bool {
    attr.kind == FileType::Regular && attr.size == 0 && (attr.atime, attr.mtime) == verf_times(verf)
}

/// Refuses texts that symlink(2) can't store.
pub(crate) fn check_link_text(text: &[u8]) -> Result<()> {
    match text {
        _ if text.len() > MAX_LINK_TEXT => Err(NfsStat::NameTooLong),
        _ if text.is_empty() || text.contains(&0) => Err(NfsStat::Inval),
        _ => Ok(()),
    }
}

/// Type, attributes and device numbers of what MKNOD makes.
pub(crate) fn mknod_parts(what: &MknodData) -> Result<(FileType, &Sattr, Option<Device>)> {
    match what {
        MknodData::Block(data) => Ok((FileType::Block, &data.attr, Some(data.device))),
        MknodData::Character(data) => Ok((FileType::Character, &data.attr, Some(data.device))),
        MknodData::Socket(attr) => Ok((FileType::Socket, attr, None)),
        MknodData::Fifo(attr) => Ok((FileType::Fifo, attr, None)),
        MknodData::Other(_) => Err(NfsStat::BadType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Caller = Caller { uid: 7, gid: 7, gids: Vec::new() };
    const ROOT: Caller = Caller { uid: 0, gid: 0, gids: Vec::new() };

    #[test]
    fn only_root_gives_new_files_away() {
        let attr = Sattr { uid: Some(1), gid: Some(2), ..Sattr::default() };
        let of = |caller: &Caller| NewAttr::of(&attr, FileType::Regular, caller).rest;
        assert_eq!((of(&USER).uid, of(&USER).gid), (None, None));
        assert_eq!((of(&ROOT).uid, of(&ROOT).gid), (Some(1), Some(2)));
    }

    #[test]
    fn modes_are_those_the_kernel_would_keep() {
        let attr = Sattr { mode: Some(0o7777), size: Some(9), ..Sattr::default() };
        let mode = |kind| NewAttr::of(&attr, kind, &ROOT).mode;
        assert_eq!(mode(FileType::Regular), 0o7777);
        assert_eq!(mode(FileType::Directory), 0o1777);
        assert_eq!(mode(FileType::Symlink), 0o777);
        assert_eq!(NewAttr::of(&attr, FileType::Directory, &ROOT).rest.size, None);
        assert_eq!(NewAttr::of(&Sattr::default(), FileType::Regular, &USER).mode, 0o600);
    }

    #[test]
    fn both_halves_of_a_verifier_count() {
        let verf = *b"\x81abc\xff123";
        assert_ne!(verf_times(verf), verf_times(*b"\x81abc\xff124"));
        assert_ne!(verf_times(verf), verf_times(*b"\x81abd\xff123"));
        assert!(verf_times(verf).0.seconds < 1 << 31 && verf_times(verf).1.seconds < 1 << 31);
    }

    #[test]
    fn link_texts_are_what_the_kernel_stores() {
        assert_eq!(check_link_text(b"../anything/at all\xff"), Ok(()));
        assert_eq!(check_link_text(b""), Err(NfsStat::Inval));
        assert_eq!(check_link_text(b"a\0b"), Err(NfsStat::Inval));
        assert_eq!(check_link_text(&[b'a'; 4096]), Err(NfsStat::NameTooLong));
    }
}
