//! READ, WRITE, COMMIT and what makes changes stable.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use bytes::Bytes;
use remoor_nfs::v3::{Fattr, FileType, MAX_IO, NfsStat, StableHow, WccData};
use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, fsync, syncfs};
use rustix::io::{Errno, ReadWriteFlags, pread, pwrite, pwritev2};

use super::super::permission::{EXEC, READ};
use super::super::{Caller, NodeHandle, Payload, ReadData, Result, Written};
use super::LocalVfs;
use super::cache::Open;
use super::pages::Spliced;
use super::stat::Stat;
use crate::errno::status;
use crate::sys::may_access;

/// READs from this many bytes on are sent from the page cache. Below, copying costs less than the three system calls and
/// the references to pages.
const PAGES_FROM: usize = 64 << 10;

/// What a descriptor is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Write,
}

impl LocalVfs {
    pub(super) fn read_data(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        offset: u64,
        count: u32,
    ) -> Result<ReadData> {
        let (open, Stat { attr, .. }) = self.store.get(node)?;
        regular(open.kind)?;
        self.allow_data(caller, &open, &attr, Want::Read)?;
        let rest = attr.size.saturating_sub(offset);
        let count = u64::from(count).min(MAX_IO as u64).min(rest) as usize;
        let fd = self.data_fd(&open, Want::Read)?;
        let (data, ended) = self.payload(fd, offset, count)?;
        Ok(ReadData { eof: ended || data.len() as u64 == rest, data, attr })
    }

    /// At most `count` bytes, less only at the end of the file; whether it ended before.
    fn payload(&self, fd: BorrowedFd<'_>, offset: u64, count: usize) -> Result<(Payload, bool)> {
        if count >= PAGES_FROM
            && let Some(Spliced { pages, ended }) = self.pages.splice(fd, offset, count).map_err(status)?
        {
            return Ok((Payload::Pages(pages), ended));
        }
        let (bytes, ended) = read_at(fd, offset, count)?;
        Ok((bytes.into(), ended))
    }

    pub(super) fn write_data(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        offset: u64,
        data: &Bytes,
        stable: StableHow,
    ) -> Result<Written> {
        let open = self.store.writable(node)?;
        self.allow_writing(caller, &open)?;
        offset.checked_add(data.len() as u64).filter(|end| *end <= i64::MAX as u64).ok_or(NfsStat::FBig)?;
        let fd = self.data_fd(&open, Want::Write)?;
        let flags = match stable {
            StableHow::Unstable => ReadWriteFlags::empty(),
            _ if !self.is_sync() => ReadWriteFlags::empty(),
            StableHow::DataSync => ReadWriteFlags::DSYNC,
            StableHow::FileSync => ReadWriteFlags::SYNC,
        };
        let change = self.changes.begin(open.id.ino);
        if flags.is_empty() {
            open.unsettled.begin();
        }
        let written = {
            // As the caller, so that the kernel takes set-id bits from the file and counts quota as it should.
            let _as_caller = self.identity.assume(caller)?;
            self.write_noted(fd, offset, data, flags)
        };
        written.map_err(status)?;
        drop(change);
        let after = Some(self.store.alive(&open)?.attr);
        Ok(Written { committed: stable, wcc: WccData { before: None, after } })
    }

    /// Writes everything, as the thread's user. An error of a stable write may be that of its write-back, which may have
    /// been of other data, too. Where there is no room the same data is refused once more without being stable; that loses
    /// nothing, and must not make all clients send again what they wrote for as long as somebody tries.
    fn write_noted(
        &self,
        fd: BorrowedFd<'_>,
        offset: u64,
        data: &[u8],
        flags: ReadWriteFlags,
    ) -> std::result::Result<(), Errno> {
        let written = write_all(fd, offset, data, flags);
        let no_room = matches!(written, Err(Errno::NOSPC | Errno::DQUOT));
        if flags.is_empty() || no_room && write_all(fd, offset, data, ReadWriteFlags::empty()) == written {
            return written;
        }
        self.store.writeback.note(written)
    }

    pub(super) fn commit_data(&self, caller: &Caller, node: &NodeHandle) -> Result<WccData> {
        let open = self.store.writable(node)?;
        let Stat { attr, .. } = self.store.alive(&open)?;
        self.allow_data(caller, &open, &attr, Want::Write)?;
        if self.is_sync() {
            let fd = self.data_fd(&open, Want::Write)?;
            open.unsettled.settle(|| (self.fsync)(fd)).map_err(status)?;
            // The new epoch makes clients send again what this may have lost.
            let _ = self.store.writeback.settle(open.id.ino, || syncfs(&self.store.root_dir));
        }
        Ok(WccData { before: None, after: Some(self.store.alive(&open)?.attr) })
    }

    /// Whether the caller may write to the file now, asked for each call: a change by a process of the host counts for
    /// what is held open, too.
    fn allow_writing(&self, caller: &Caller, open: &Open) -> Result<()> {
        let Stat { attr, immutable, append_only, .. } = self.store.alive(open)?;
        // As knfsd: what may be added to could be opened to append, but a WRITE names its place.
        if immutable || append_only {
            return Err(NfsStat::Perm);
        }
        self.allow_data(caller, open, &attr, Want::Write)
    }

    /// Whether the caller may read or write a file's data: as for open(2), with the exceptions of RFC 1813 section 4.4 for
    /// the owner and for programs. In single-user mode opening the file tells.
    pub(super) fn allow_data(&self, caller: &Caller, open: &Open, attr: &Fattr, want: Want) -> Result<()> {
        if self.identity.is_single() || caller.is_root() || caller.uid == attr.uid {
            return Ok(());
        }
        // Writing changes ctime, for which the rights were remembered.
        if want == Want::Read && self.rights(caller, open, attr)? & (READ | EXEC) != 0 {
            return Ok(());
        }
        // Only the kernel knows with which error.
        let _as_caller = self.identity.assume(caller)?;
        may_access(open.fd(), if want == Want::Write { libc::W_OK } else { libc::R_OK }).map_err(status)
    }

    /// A descriptor for data; opened by the server itself, since [`LocalVfs::allow_data`] decides for the caller.
    pub(super) fn data_fd<'a>(&self, open: &'a Open, want: Want) -> Result<BorrowedFd<'a>> {
        if open.for_data {
            return Ok(open.fd());
        }
        let (slot, flags) = match want {
            Want::Read => (&open.read, OFlags::RDONLY),
            Want::Write => (&open.write, OFlags::WRONLY),
        };
        self.opened(open, slot, flags)
    }

    fn opened<'a>(&self, open: &Open, slot: &'a OnceLock<OwnedFd>, flags: OFlags) -> Result<BorrowedFd<'a>> {
        if let Some(fd) = slot.get() {
            return Ok(fd.as_fd());
        }
        // Two threads may open at once; the second descriptor is closed.
        let fd = self.store.reopen_as_server(open.fd(), flags).map_err(status)?;
        Ok(slot.get_or_init(|| fd).as_fd())
    }

    /// With `sync`, returns when the object's attributes, or a directory's entries, are on stable storage.
    pub(super) fn stabilise(&self, open: &Open) -> Result<()> {
        if !self.is_sync() {
            return Ok(());
        }
        let syncfs = || self.store.writeback.note(syncfs(&self.store.root_dir));
        let fd = match open.kind {
            FileType::Regular if open.write_fd().is_some() => self.data_fd(open, Want::Write),
            FileType::Regular | FileType::Directory => self.data_fd(open, Want::Read),
            // These can't be opened without side effects, or at all.
            _ => return syncfs().map_err(status),
        };
        match fd {
            Ok(fd) => open.unsettled.settle(|| (self.fsync)(fd)),
            // Single-user mode and a mode that keeps the owner out.
            Err(_) => syncfs(),
        }
        .map_err(status)
    }
}

/// Data is a regular file's.
pub(super) fn regular(kind: FileType) -> Result<()> {
    match kind {
        FileType::Regular => Ok(()),
        FileType::Directory => Err(NfsStat::IsDir),
        _ => Err(NfsStat::Inval),
    }
}

/// At most `count` bytes; whether the file ended before.
fn read_at(fd: BorrowedFd<'_>, offset: u64, count: usize) -> Result<(Vec<u8>, bool)> {
    let mut buffer = Vec::with_capacity(count);
    while buffer.len() < count {
        let at = offset + buffer.len() as u64;
        match pread(fd, spare_capacity(&mut buffer), at) {
            Ok(0) => return Ok((buffer, true)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(status(error)),
        }
    }
    // The allocation may be larger than asked, and so may what was read.
    buffer.truncate(count);
    Ok((buffer, false))
}

/// Writes everything; with RWF_SYNC or RWF_DSYNC only this range is waited for.
fn write_all(
    fd: BorrowedFd<'_>,
    offset: u64,
    data: &[u8],
    flags: ReadWriteFlags,
) -> std::result::Result<(), Errno> {
    let mut done = 0;
    while done < data.len() {
        let (rest, at) = (&data[done..], offset + done as u64);
        let written = match flags.is_empty() {
            true => pwrite(fd, rest, at),
            false => pwritev2(fd, &[IoSlice::new(rest)], at, flags),
        };
        match written {
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) if !flags.is_empty() => return write_then_sync(fd, offset, data),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// For file systems without per-write flags.
fn write_then_sync(fd: BorrowedFd<'_>, offset: u64, data: &[u8]) -> std::result::Result<(), Errno> {
    write_all(fd, offset, data, ReadWriteFlags::empty())?;
    fsync(fd)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use remoor_nfs::v3::{CreateHow, MknodData, Sattr};
    use tempfile::TempDir;

    use super::super::super::Vfs;
    use super::super::{Durability, LocalOptions};
    use super::*;

    fn own() -> Caller {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Caller { uid, gid, gids: Vec::new() }
    }

    /// An export of which one object is held open at a time.
    fn served(place: &TempDir) -> LocalVfs {
        let dir = place.path().join("export");
        std::fs::create_dir(&dir).unwrap();
        let options = LocalOptions {
            durability: Durability::Sync,
            state_dir: place.path().join("state"),
            node: "a".to_owned(),
            max_open: NonZeroUsize::new(1),
            scheme: None,
        };
        LocalVfs::open(&dir, &options).unwrap()
    }

    fn file(vfs: &LocalVfs, name: &str) -> NodeHandle {
        let how = CreateHow::Unchecked(Sattr { mode: Some(0o600), ..Sattr::default() });
        vfs.create(&own(), &vfs.root().unwrap(), name.as_bytes(), &how).unwrap().node.handle
    }

    fn write(vfs: &LocalVfs, node: &NodeHandle) {
        vfs.write(&own(), node, 0, &Bytes::from_static(b"data"), StableHow::Unstable).unwrap();
    }

    #[test]
    fn a_commit_that_fails_says_so_and_begins_an_epoch() {
        let place = tempfile::tempdir().unwrap();
        let mut vfs = served(&place);
        let node = file(&vfs, "file");
        write(&vfs, &node);
        vfs.commit(&own(), &node).unwrap();
        assert_eq!(vfs.write_epoch(), 0);
        write(&vfs, &node);
        for (error, expected) in [(Errno::IO, NfsStat::Io), (Errno::DQUOT, NfsStat::DQuot)] {
            let epoch = vfs.write_epoch();
            vfs.fsync = if error == Errno::IO { |_| Err(Errno::IO) } else { |_| Err(Errno::DQUOT) };
            assert_eq!(vfs.commit(&own(), &node), Err(expected));
            assert_eq!(vfs.write_epoch(), epoch + 1);
        }
        vfs.fsync = |fd| fsync(fd);
        vfs.commit(&own(), &node).unwrap();
        assert_eq!(vfs.write_epoch(), 2);
    }

    /// Whoever makes something stable meets the error, and must tell all.
    #[test]
    fn an_error_that_another_procedure_meets_begins_an_epoch_too() {
        let place = tempfile::tempdir().unwrap();
        let mut vfs = served(&place);
        let node = file(&vfs, "file");
        write(&vfs, &node);
        vfs.fsync = |_| Err(Errno::IO);
        let chmod = Sattr { mode: Some(0o640), ..Sattr::default() };
        assert_eq!(vfs.setattr(&own(), &node, &chmod, None), Err(NfsStat::Io));
        assert_eq!(vfs.write_epoch(), 1);
    }

    #[test]
    fn no_change_is_told_before_it_is_stable() {
        let place = tempfile::tempdir().unwrap();
        let mut vfs = served(&place);
        let (root, attr) = (vfs.root().unwrap(), Sattr::default);
        let exclusive = |vfs: &LocalVfs, name| {
            let how = CreateHow::Exclusive(*b"verifier");
            vfs.create(&own(), &root, name, &how).map(|made| made.node.handle)
        };
        let known = exclusive(&vfs, b"known").unwrap();
        let _files = ["one", "two"].map(|name| file(&vfs, name));
        vfs.mkdir(&own(), &root, b"dir", &attr()).unwrap();
        vfs.fsync = |_| Err(Errno::IO);
        let unchecked = CreateHow::Unchecked(attr());
        let size = Sattr { size: Some(1), ..attr() };
        let results = [
            exclusive(&vfs, b"new").map(drop),
            exclusive(&vfs, b"known").map(drop),
            vfs.create(&own(), &root, b"unchecked", &unchecked).map(drop),
            vfs.create(&own(), &root, b"one", &unchecked).map(drop),
            vfs.mkdir(&own(), &root, b"made", &attr()).map(drop),
            vfs.symlink(&own(), &root, b"symlink", b"text", &attr()).map(drop),
            vfs.mknod(&own(), &root, b"fifo", &MknodData::Fifo(attr())).map(drop),
            vfs.link(&own(), &known, &root, b"link").map(drop),
            vfs.rename(&own(), (&root, b"one"), (&root, b"moved")).map(drop),
            vfs.remove(&own(), &root, b"two").map(drop),
            vfs.rmdir(&own(), &root, b"dir").map(drop),
            vfs.setattr(&own(), &known, &size, None).map(drop),
            vfs.commit(&own(), &known).map(drop),
        ];
        assert_eq!(results, [Err(NfsStat::Io); 13]);
    }

    #[test]
    fn what_was_closed_before_its_commit_is_asked_of_the_file_system() {
        let place = tempfile::tempdir().unwrap();
        let vfs = served(&place);
        let (first, root) = (file(&vfs, "first"), vfs.root().unwrap());
        write(&vfs, &first);
        let ino = vfs.getattr(&own(), &first).unwrap().fileid;
        let closed = |vfs: &LocalVfs, ino| {
            let mut asked = false;
            let done = vfs.store.writeback.settle(ino, || {
                asked = true;
                // Not settled: the next one asks again.
                Err(Errno::BADF)
            });
            assert_eq!(done.is_err(), asked);
            asked
        };
        assert!(!closed(&vfs, ino), "it is open");
        let second = file(&vfs, "second");
        assert!(closed(&vfs, ino), "another file took its place");
        vfs.commit(&own(), &first).unwrap();
        assert!(!closed(&vfs, ino) && vfs.write_epoch() == 0);
        write(&vfs, &second);
        let gone = vfs.getattr(&own(), &second).unwrap().fileid;
        vfs.remove(&own(), &root, b"second").unwrap();
        assert!(!closed(&vfs, gone), "nobody misses what was removed");
        write(&vfs, &first);
        vfs.rename(&own(), (&root, b"first"), (&root, b"first")).unwrap();
        file(&vfs, "third");
        assert!(closed(&vfs, ino), "a file that was renamed to its own name is there");
    }
}
