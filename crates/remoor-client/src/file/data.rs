//! Data: reading, writing, and what the server may still lose of it.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use remoor_nfs::v3::{self, FileHandle, StableHow, WriteVerf};

use super::{Error, Result};
use crate::call::Client;

/// How often unstable data is sent again because the server changed under it, before that is an error.
const MAX_COMMIT_ROUNDS: usize = 100;

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

impl Client {
    /// Reads at most `count` bytes, and never more than the server's `rtmax`, from `offset`; also tells whether the end was
    /// reached.
    pub async fn read(&self, file: &FileHandle, offset: u64, count: u32) -> Result<(Bytes, bool)> {
        let count = count.min(self.shared.sizes.read.load(Relaxed));
        let args = v3::ReadArgs { file: file.clone(), offset, count };
        let ok = self.ask::<v3::Read, _, _>(args).await?;
        if ok.data.0.len() > count as usize {
            return Err(Error::Server { procedure: "READ", what: "more bytes than were asked for" });
        }
        Ok((ok.data.0, ok.eof))
    }

    /// Most bytes of one READ: the server's `rtmax`, once it is known.
    pub fn max_read(&self) -> u32 {
        self.shared.sizes.read.load(Relaxed)
    }

    /// Most bytes of one WRITE: the server's `wtmax`, once it is known.
    pub fn max_write(&self) -> u32 {
        self.shared.sizes.write.load(Relaxed)
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
        let ok = self.ask::<v3::Write, _, _>(args).await?;
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
            let verf = self.ask::<v3::Commit, _, _>(args).await?.verf;
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
}
