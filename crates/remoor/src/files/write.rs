//! Bytes on their way to a server: several WRITEs in flight, stable before it is said that they are written.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use remoor_nfs::v3::{self, FileHandle, StableHow, WriteVerf};
use tokio::task::JoinSet;

use super::server::{Export, checked};
use super::url::Url;

/// WRITEs in flight.
const IN_FLIGHT: usize = 8;
/// Bytes kept until a COMMIT, in case the server loses them.
const MOST_UNSTABLE: usize = 64 << 20;
/// How often data is sent again because the server changed under it, before that is an error.
const MAX_ROUNDS: usize = 100;

/// Where bytes go.
#[derive(Debug)]
struct Target {
    export: Arc<Export>,
    file: FileHandle,
    url: Url,
}

/// Bytes that an instance of the server has.
#[derive(Debug)]
struct Written {
    offset: u64,
    data: Bytes,
    verf: WriteVerf,
    stable: bool,
}

/// Writes one file. Writes may not overlap: they are executed in any order, and again if the server loses them
/// (RFC 1813 section 3.3.21).
#[derive(Debug)]
pub(crate) struct Writer {
    target: Arc<Target>,
    in_flight: JoinSet<Result<Vec<Written>>>,
    unstable: Vec<Written>,
    kept: usize,
    how: StableHow,
}

impl Writer {
    /// A writer that asks for stable data at each WRITE if `stable`: one round trip less for a file of one chunk.
    pub(crate) fn new(export: Arc<Export>, file: FileHandle, url: Url, stable: bool) -> Self {
        let how = if stable { StableHow::FileSync } else { StableHow::Unstable };
        let target = Arc::new(Target { export, file, url });
        Self { target, in_flight: JoinSet::new(), unstable: Vec::new(), kept: 0, how }
    }

    /// Sends `data`; waits only where too much is in flight or unstable.
    pub(crate) async fn write(&mut self, offset: u64, data: Bytes) -> Result<()> {
        while self.in_flight.len() >= IN_FLIGHT {
            self.reap().await?;
        }
        if self.kept >= MOST_UNSTABLE {
            self.commit().await?;
        }
        self.send(offset, data);
        Ok(())
    }

    /// Returns when everything is on stable storage.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        for _ in 0..MAX_ROUNDS {
            while !self.in_flight.is_empty() {
                self.reap().await?;
            }
            if self.unstable.is_empty() {
                return Ok(());
            }
            self.commit().await?;
        }
        bail!("cannot write {}: the server lost its data {MAX_ROUNDS} times in a row", self.target.url)
    }

    fn send(&mut self, offset: u64, data: Bytes) {
        self.in_flight.spawn(write(self.target.clone(), offset, data, self.how));
    }

    /// Waits for one WRITE.
    async fn reap(&mut self) -> Result<()> {
        if let Some(written) = self.in_flight.join_next().await {
            let written = written.context("a write was given up")??;
            self.unstable.extend(written.into_iter().filter(|written| !written.stable));
            self.kept = self.unstable.iter().map(|written| written.data.len()).sum();
        }
        Ok(())
    }

    /// Makes what was answered stable. What another instance of the server had than the one that commits is sent again.
    async fn commit(&mut self) -> Result<()> {
        let Target { export, file, url } = &*self.target;
        let args = v3::CommitArgs { file: file.clone(), offset: 0, count: 0 };
        let res = export.server.client.call::<v3::Commit>(args).await?;
        let verf = checked("cannot commit", url, res)?.verf;
        self.kept = 0;
        for lost in std::mem::take(&mut self.unstable).into_iter().filter(|written| written.verf != verf) {
            self.send(lost.offset, lost.data);
        }
        Ok(())
    }
}

/// Writes all of `data`, in as many WRITEs as the server needs.
async fn write(
    target: Arc<Target>,
    mut offset: u64,
    mut data: Bytes,
    how: StableHow,
) -> Result<Vec<Written>> {
    let Target { export, file, url } = &*target;
    let mut written = Vec::with_capacity(1);
    while !data.is_empty() {
        let part = data.slice(..data.len().min(export.sizes.1 as usize));
        let count = part.len() as u32;
        let args = v3::WriteArgs { file: file.clone(), offset, count, stable: how, data: part.into() };
        let ok = checked("cannot write", url, export.server.client.call::<v3::Write>(args).await?)?;
        if ok.count == 0 || ok.count > count || ok.committed < how {
            bail!("cannot write {url}: for {count} bytes the server says {} {:?}", ok.count, ok.committed);
        }
        let (data, stable) = (data.split_to(ok.count as usize), ok.committed != StableHow::Unstable);
        written.push(Written { offset, data, verf: ok.verf, stable });
        offset += u64::from(ok.count);
    }
    Ok(written)
}
