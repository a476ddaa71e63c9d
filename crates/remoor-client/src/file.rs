//! Mounting, names, and data that survives a server's restart.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use remoor_nfs::mnt::{self, MountStat};
use remoor_nfs::v3::{
    self, CreateHow, DirOp, EntryPlus, Fattr, FileHandle, NfsStat, Sattr, StableHow, WriteVerf,
};

use crate::call::{CallError, Client};

/// Bytes of names and attributes asked of one READDIRPLUS.
const READDIR_BYTES: u32 = 64 << 10;
/// Entries one directory may have, so that a server that never tells the end is found out.
const MAX_ENTRIES: usize = 1 << 22;
/// How often unstable data is sent again because the server changed under it, before that is an error.
const MAX_COMMIT_ROUNDS: usize = 100;

/// An operation that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No result.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The server refused.
    #[error("{procedure}: {status}")]
    Nfs {
        /// The procedure.
        procedure: &'static str,
        /// Its status.
        status: NfsStat,
    },
    /// The server refused the mount.
    #[error("mount of {path}: {status}{}", mount_remedy(*status))]
    Mount {
        /// What was to be mounted.
        path: String,
        /// Why not.
        status: MountStat,
    },
    /// The server does not serve MOUNT on the port of NFS.
    #[error("no MOUNT on the port of NFS: give the port of MOUNT, or start the portmapper on the server")]
    NoMountProgram,
    /// The server's answer makes no sense.
    #[error("{procedure}: {what}")]
    Server {
        /// The procedure.
        procedure: &'static str,
        /// What is wrong with the answer.
        what: &'static str,
    },
}

fn mount_remedy(status: MountStat) -> &'static str {
    match status {
        MountStat::Acces => {
            ": the server does not export it to this address, or the export is secure and the source port is above \
             1023 (mount with resvport, or export with insecure)"
        }
        MountStat::NoEnt => ": no such export; see the server's list with showmount -e",
        _ => "",
    }
}

impl Error {
    /// The server's status, if that is the error.
    pub fn status(&self) -> Option<NfsStat> {
        if let Self::Nfs { status, .. } = self { Some(*status) } else { None }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// An object and what the server said of it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its handle.
    pub handle: FileHandle,
    /// Its attributes, if the server sent them.
    pub attr: Option<Fattr>,
}

/// Written data the server may still lose: kept until COMMIT says it is stable, sent again if the server changed.
/// Each file has its own, and all writes to the file go through it while it is not empty: what is sent again would
/// replace data that was written past it.
#[derive(Debug, Default)]
pub struct Unstable {
    /// In the order in which they were answered.
    writes: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    offset: u64,
    data: Bytes,
    verf: WriteVerf,
}

impl Unstable {
    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.writes.iter().map(|kept| kept.data.len()).sum()
    }

    /// Whether everything written is stable.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Keeps what was just written, if it may be lost or lies over something that may be written again.
    fn add(&mut self, offset: u64, data: Bytes, ok: &v3::WriteOk) {
        if ok.committed == StableHow::Unstable || self.writes.iter().any(|kept| kept.overlaps(offset, &data))
        {
            self.writes.push(Kept { offset, data, verf: ok.verf });
        }
    }

    /// The server instance `verf` has made its data stable. All from the first write it does not have must be written
    /// again, in order: a later one may lie over an earlier one.
    fn committed_by(&mut self, verf: WriteVerf) {
        let lost = self.writes.iter().position(|kept| kept.verf != verf);
        self.writes.drain(..lost.unwrap_or(self.writes.len()));
    }

    /// `count` bytes of the write at index `at` were written again.
    fn written_again(&mut self, at: usize, count: usize, verf: WriteVerf) {
        let kept = &mut self.writes[at];
        kept.verf = verf;
        let (rest, offset) = (kept.data.split_off(count), kept.offset + count as u64);
        if !rest.is_empty() {
            self.writes.insert(at + 1, Kept { offset, data: rest, verf });
        }
    }
}

impl Kept {
    fn overlaps(&self, offset: u64, data: &Bytes) -> bool {
        let end = |offset: u64, data: &Bytes| offset.saturating_add(data.len() as u64);
        self.offset < end(offset, data) && offset < end(self.offset, &self.data)
    }
}

/// Most bytes of one READ and one WRITE: ours, and from the mount on the server's too (RFC 1813 section 3.3.19).
#[derive(Debug)]
pub(crate) struct IoSizes {
    read: AtomicU32,
    write: AtomicU32,
}

impl Default for IoSizes {
    fn default() -> Self {
        let most = || AtomicU32::new(v3::MAX_IO as u32);
        Self { read: most(), write: most() }
    }
}

impl IoSizes {
    pub(crate) fn learn(&self, info: &v3::FsinfoOk) -> Result<()> {
        if info.rtmax == 0 || info.wtmax == 0 {
            return Err(Error::Server {
                procedure: "FSINFO",
                what: "no byte may be read or written at a time",
            });
        }
        self.read.fetch_min(info.rtmax, Relaxed);
        self.write.fetch_min(info.wtmax, Relaxed);
        Ok(())
    }
}

pub(crate) fn check<T, F>(procedure: &'static str, res: v3::Res<T, F>) -> Result<T> {
    res.into_result().map_err(|status| Error::Nfs { procedure, status })
}

/// What MNT granted for `path`.
pub(crate) fn granted(path: &str, res: mnt::MountRes) -> Result<mnt::MountOk> {
    res.0.map_err(|status| Error::Mount { path: path.to_owned(), status })
}

fn place(dir: &FileHandle, name: &[u8]) -> DirOp {
    DirOp { dir: dir.clone(), name: Bytes::copy_from_slice(name).into() }
}

impl Client {
    /// Attributes of an object.
    pub async fn getattr(&self, file: &FileHandle) -> Result<Fattr> {
        let res = self.call::<v3::Getattr>(v3::OnFile { file: file.clone() }).await?;
        check("GETATTR", res).map(|ok| ok.attr)
    }

    /// Finds `name` in `dir`.
    pub async fn lookup(&self, dir: &FileHandle, name: &[u8]) -> Result<Node> {
        let ok = check("LOOKUP", self.call::<v3::Lookup>(place(dir, name)).await?)?;
        Ok(Node { handle: ok.file, attr: ok.attr })
    }

    /// Creates a regular file; it must not exist.
    pub async fn create(&self, dir: &FileHandle, name: &[u8]) -> Result<Node> {
        let how = CreateHow::Guarded(Sattr { mode: Some(0o644), ..Sattr::default() });
        let args = v3::CreateArgs { place: place(dir, name), how };
        let ok = check("CREATE", self.call::<v3::Create>(args).await?)?;
        self.made(ok, dir, name).await
    }

    /// Makes a directory.
    pub async fn mkdir(&self, dir: &FileHandle, name: &[u8]) -> Result<Node> {
        let attr = Sattr { mode: Some(0o755), ..Sattr::default() };
        let args = v3::MkdirArgs { place: place(dir, name), attr };
        let ok = check("MKDIR", self.call::<v3::Mkdir>(args).await?)?;
        self.made(ok, dir, name).await
    }

    /// A server may leave the handle out of its reply; it is then looked up.
    async fn made(&self, ok: v3::CreateOk, dir: &FileHandle, name: &[u8]) -> Result<Node> {
        match ok.file {
            Some(handle) => Ok(Node { handle, attr: ok.attr }),
            None => self.lookup(dir, name).await,
        }
    }

    /// Reads at most `count` bytes, and never more than the server's `rtmax`, from `offset`; also tells whether the end was
    /// reached.
    pub async fn read(&self, file: &FileHandle, offset: u64, count: u32) -> Result<(Bytes, bool)> {
        let count = count.min(self.shared.sizes.read.load(Relaxed));
        let args = v3::ReadArgs { file: file.clone(), offset, count };
        let ok = check("READ", self.call::<v3::Read>(args).await?)?;
        if ok.data.0.len() > count as usize {
            return Err(Error::Server { procedure: "READ", what: "more bytes than were asked for" });
        }
        Ok((ok.data.0, ok.eof))
    }

    /// Writes all of `data` at `offset`; it is on stable storage when this returns.
    pub async fn write(&self, file: &FileHandle, offset: u64, data: Bytes) -> Result<()> {
        self.write_how(file, offset, data, StableHow::FileSync, &mut Unstable::default()).await
    }

    /// Writes all of `data` at `offset`; `unstable` keeps it until [`Client::commit`].
    pub async fn write_unstable(
        &self,
        file: &FileHandle,
        offset: u64,
        data: Bytes,
        unstable: &mut Unstable,
    ) -> Result<()> {
        self.write_how(file, offset, data, StableHow::Unstable, unstable).await
    }

    async fn write_how(
        &self,
        file: &FileHandle,
        mut offset: u64,
        mut data: Bytes,
        stable: StableHow,
        unstable: &mut Unstable,
    ) -> Result<()> {
        while !data.is_empty() {
            let most = self.shared.sizes.write.load(Relaxed) as usize;
            let part = data.slice(..data.len().min(most));
            let ok = self.write_once(file, offset, part, stable).await?;
            let done = data.split_to(ok.count as usize);
            if ok.committed < stable {
                return Err(Error::Server { procedure: "WRITE", what: "less stable than was asked for" });
            }
            unstable.add(offset, done, &ok);
            offset += u64::from(ok.count);
        }
        Ok(())
    }

    async fn write_once(
        &self,
        file: &FileHandle,
        offset: u64,
        data: Bytes,
        stable: StableHow,
    ) -> Result<v3::WriteOk> {
        let count = data.len() as u32;
        let args = v3::WriteArgs { file: file.clone(), offset, count, stable, data: data.into() };
        let ok = check("WRITE", self.call::<v3::Write>(args).await?)?;
        match ok.count {
            0 => Err(Error::Server { procedure: "WRITE", what: "nothing was written" }),
            n if n > count => {
                Err(Error::Server { procedure: "WRITE", what: "more was written than was sent" })
            }
            _ => Ok(ok),
        }
    }

    /// Makes what `unstable` keeps stable. Data written to another instance of the server than the one that answers
    /// COMMIT, as their write verifiers tell (RFC 1813 section 3.3.21), is written again. On an error `unstable` still
    /// keeps all that is not known to be stable, and a later commit goes on from there.
    pub async fn commit(&self, file: &FileHandle, unstable: &mut Unstable) -> Result<()> {
        for _ in 0..MAX_COMMIT_ROUNDS {
            if unstable.is_empty() {
                return Ok(());
            }
            let args = v3::CommitArgs { file: file.clone(), offset: 0, count: 0 };
            let verf = check("COMMIT", self.call::<v3::Commit>(args).await?)?.verf;
            unstable.committed_by(verf);
            self.write_again(file, unstable).await?;
        }
        Err(Error::Server { procedure: "COMMIT", what: "the write verifier changed at every COMMIT" })
    }

    async fn write_again(&self, file: &FileHandle, unstable: &mut Unstable) -> Result<()> {
        let mut at = 0;
        while let Some(Kept { offset, data, .. }) = unstable.writes.get(at) {
            let ok = self.write_once(file, *offset, data.clone(), StableHow::Unstable).await?;
            unstable.written_again(at, ok.count as usize, ok.verf);
            at += 1;
        }
        Ok(())
    }

    /// Gives an object another name, replacing what has it.
    pub async fn rename(&self, from: (&FileHandle, &[u8]), to: (&FileHandle, &[u8])) -> Result<()> {
        let args = v3::RenameArgs { from: place(from.0, from.1), to: place(to.0, to.1) };
        check("RENAME", self.call::<v3::Rename>(args).await?).map(drop)
    }

    /// Removes a name that is not a directory's.
    pub async fn remove(&self, dir: &FileHandle, name: &[u8]) -> Result<()> {
        check("REMOVE", self.call::<v3::Remove>(place(dir, name)).await?).map(drop)
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, dir: &FileHandle, name: &[u8]) -> Result<()> {
        check("RMDIR", self.call::<v3::Rmdir>(place(dir, name)).await?).map(drop)
    }

    /// All entries of a directory, at most 4194304, with attributes and handles where the server sends them. `.` and `..`
    /// are left out.
    pub async fn readdirplus(&self, dir: &FileHandle) -> Result<Vec<EntryPlus>> {
        let (mut entries, mut cookie, mut verf) = (Vec::new(), 0, [0; 8]);
        loop {
            let args = v3::ReaddirplusArgs {
                dir: dir.clone(),
                cookie,
                verf,
                dir_count: READDIR_BYTES / 4,
                max_count: READDIR_BYTES,
            };
            let ok = check("READDIRPLUS", self.call::<v3::Readdirplus>(args).await?)?;
            verf = ok.verf;
            let no_sense = |what| Err(Error::Server { procedure: "READDIRPLUS", what });
            match ok.entries.0.last() {
                Some(last) if last.cookie == cookie && !ok.eof => {
                    return no_sense("it goes on from the cookie it was asked to go on from");
                }
                Some(last) => cookie = last.cookie,
                None if ok.eof => return Ok(entries),
                None => return no_sense("neither entries nor the end"),
            }
            if entries.len() > MAX_ENTRIES {
                return no_sense("more entries than a directory may have here, 4194304");
            }
            entries.extend(ok.entries.0.into_iter().filter(|e| !matches!(&e.name.0[..], b"." | b"..")));
            if ok.eof {
                return Ok(entries);
            }
        }
    }
}
