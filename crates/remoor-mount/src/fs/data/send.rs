//! WRITE and COMMIT, in tasks of their own: a caller that is killed leaves nothing half done.

use std::sync::Arc;

use bytes::Bytes;
use remoor_nfs::v3::{self, FileHandle, MAX_IO, Res, StableHow, WccData, WriteOk, WriteVerf};
use remoor_nfs::writeback::{Write, Wrote};
use remoor_rpc::program::Procedure;
use remoor_rpc::xdr::{self, Reader, Writer, Xdr};

use super::super::call::now;
use super::super::{Credential, Fs, Node};
use super::file::{Held, Job};
use crate::errno::Errno;

/// WRITE with its data in several parts, which are not copied together.
#[derive(Debug, Clone, Copy)]
enum GatheredWrite {}

impl Procedure for GatheredWrite {
    const PROGRAM: u32 = v3::Write::PROGRAM;
    const VERSION: u32 = v3::Write::VERSION;
    const NUMBER: u32 = v3::Write::NUMBER;
    const NAME: &'static str = v3::Write::NAME;
    const IDEMPOTENT: bool = v3::Write::IDEMPOTENT;
    type Args = GatheredArgs;
    type Res = Res<WriteOk, WccData>;
}

/// As [`v3::WriteArgs`].
#[derive(Debug, Clone)]
struct GatheredArgs {
    file: FileHandle,
    offset: u64,
    stable: StableHow,
    parts: Vec<Bytes>,
}

impl Xdr for GatheredArgs {
    fn encode(&self, w: &mut Writer) {
        let count = self.parts.iter().map(Bytes::len).sum::<usize>();
        self.file.encode(w);
        w.u64(self.offset);
        w.u32(count as u32);
        self.stable.encode(w);
        w.u32(count as u32);
        self.parts.iter().for_each(|part| w.encoded(part.clone()));
        w.encoded(Bytes::from_static(&[0; 3][..count.next_multiple_of(4) - count]));
    }

    fn decode(r: &mut Reader) -> xdr::Result<Self> {
        let args = v3::WriteArgs::decode(r)?;
        Ok(Self { file: args.file, offset: args.offset, stable: args.stable, parts: vec![args.data.0] })
    }
}

const _: () = assert!(MAX_IO <= u32::MAX as usize);

impl Fs {
    /// Sends what is to be sent of a file now.
    pub(super) fn pump(&self, node: &Arc<Node>) {
        let Some(fs) = self.data.fs() else { return };
        loop {
            let Some((job, who)) = self.update(node, Held::next_job) else { return };
            tokio::spawn(run(fs.clone(), node.clone(), who, job));
        }
    }

    async fn send_write(&self, node: &Node, who: &Credential, write: &Write) -> Result<Wrote, Errno> {
        let change = self.change(node);
        let args = GatheredArgs {
            file: node.handle.clone(),
            offset: write.offset,
            stable: write.stable,
            parts: write.segments.clone(),
        };
        match self.call::<GatheredWrite, _, _>(who, args).await? {
            Res::Ok(ok) => {
                change.end(&ok.wcc);
                let sense = (1..=write.count()).contains(&(ok.count as usize));
                let wrote = Wrote { count: ok.count, committed: ok.committed, verf: ok.verf };
                if sense { Ok(wrote) } else { Err(no_sense(&ok, write)) }
            }
            Res::Fail(status, wcc) => {
                change.end(&wcc);
                Err(self.refused(node, status))
            }
        }
    }

    async fn send_commit(&self, node: &Node, who: &Credential) -> Result<WriteVerf, Errno> {
        let change = self.change(node);
        let args = v3::CommitArgs { file: node.handle.clone(), offset: 0, count: 0 };
        match self.call::<v3::Commit, _, _>(who, args).await? {
            Res::Ok(ok) => {
                change.end(&ok.wcc);
                Ok(ok.verf)
            }
            Res::Fail(status, wcc) => {
                change.end(&wcc);
                Err(self.refused(node, status))
            }
        }
    }

    /// Data that cannot be written is dropped: the kernel must not show it any longer either. It is logged because nobody
    /// may ever ask for the error: fsync and close do, and a process may end without either.
    fn lost(&self, node: &Node, what: &str, error: Option<&Errno>) {
        if let Some(error) = error {
            tracing::warn!("{what} of file {} failed, its data is lost: {error}", node.fileid);
            self.kernel.invalidate_data(node.id);
        }
    }
}

fn no_sense(ok: &WriteOk, write: &Write) -> Errno {
    tracing::warn!("WRITE of {} bytes: the server says it wrote {}", write.count(), ok.count);
    Errno::IO
}

async fn run(fs: Arc<Fs>, node: Arc<Node>, who: Arc<Credential>, job: Job) {
    // It is never closed.
    let permit = fs.data.calls.acquire().await;
    match job {
        Job::Write(write) => {
            let result = fs.send_write(&node, &who, &write).await;
            fs.lost(&node, "WRITE", result.as_ref().err());
            fs.update(&node, |held| held.wrote(write.id, result, now()));
        }
        Job::Commit(id) => {
            let result = fs.send_commit(&node, &who).await;
            fs.lost(&node, "COMMIT", result.as_ref().err());
            fs.update(&node, |held| held.committed(id, result, now()));
        }
    }
    drop(permit);
    fs.pump(&node);
    node.data().progress.notify_waiters();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_encoded_as_one_write() {
        for len in [0, 1, 2, 3, 4, 3000] {
            let data: Bytes = (0..len).map(|n| n as u8).collect();
            let parts = vec![data.slice(..len / 2), data.slice(len / 2..)];
            let file = FileHandle::from(Bytes::from_static(b"handle"));
            let gathered = GatheredArgs { file: file.clone(), offset: 7, stable: StableHow::Unstable, parts };
            let args = v3::WriteArgs {
                file,
                offset: 7,
                count: len as u32,
                stable: StableHow::Unstable,
                data: data.into(),
            };
            let encoded = |args: &dyn Fn(&mut Writer)| {
                let mut writer = Writer::new();
                args(&mut writer);
                writer.into_bytes()
            };
            assert_eq!(encoded(&|w| gathered.encode(w)), encoded(&|w| args.encode(w)), "{len}");
        }
    }
}
