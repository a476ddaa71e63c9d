//! A file's bytes, in order, with several reads in flight.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use remoor_nfs::v3;
use tokio::task::{JoinHandle, spawn_blocking};

use super::server::{Object, checked};

/// Bytes of one chunk, and of one READ if the server takes as many.
pub(crate) const CHUNK: usize = v3::MAX_IO;
/// Chunks read ahead.
const IN_FLIGHT: usize = 8;

type Fetch = Box<dyn Fn(u64, usize) -> JoinHandle<Result<Bytes>> + Send + Sync>;

/// The chunks of a file, from a first byte on. A chunk that is shorter than asked for is the last.
pub(crate) struct Chunks {
    fetch: Fetch,
    in_flight: VecDeque<(usize, JoinHandle<Result<Bytes>>)>,
    /// Most chunks in flight.
    most: usize,
    /// Where the next chunk to be asked for begins.
    next: u64,
    /// Up to here chunks are asked for ahead; beyond, one at a time, in case the file grew.
    expected: u64,
    /// No byte from here on.
    limit: u64,
    ended: bool,
}

impl Chunks {
    fn new(fetch: Fetch, most: usize, start: u64, expected: u64, length: Option<u64>) -> Self {
        let limit = length.map_or(u64::MAX, |length| start.saturating_add(length));
        Self { fetch, in_flight: VecDeque::new(), most, next: start, expected, limit, ended: start >= limit }
    }

    /// An object of a server, which must be a regular file.
    pub(crate) fn remote(file: &Object, start: u64, length: Option<u64>) -> Self {
        let expected = file.attr.size;
        let file = Arc::new(file.clone());
        let fetch = move |offset, len| tokio::spawn(read(file.clone(), offset, len));
        Self::new(Box::new(fetch), IN_FLIGHT, start, expected, length)
    }

    /// A local regular file of `size` bytes, called `shown` in errors.
    pub(crate) fn local(file: File, size: u64, shown: String) -> Self {
        let (file, shown) = (Arc::new(file), Arc::<str>::from(shown));
        let fetch = move |offset, len| {
            let (file, shown) = (file.clone(), shown.clone());
            spawn_blocking(move || {
                let filled = fill(len, |bytes, done| file.read_at(bytes, offset + done));
                filled.with_context(|| format!("cannot read {shown}"))
            })
        };
        Self::new(Box::new(fetch), IN_FLIGHT, 0, size, None)
    }

    /// What can only be read in order.
    pub(crate) fn stream(source: impl Read + Send + 'static, shown: &'static str) -> Self {
        let source = Arc::new(Mutex::new(source));
        let fetch = move |_, len| {
            let source = source.clone();
            spawn_blocking(move || {
                let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
                fill(len, |bytes, _| source.read(bytes)).with_context(|| format!("cannot read {shown}"))
            })
        };
        Self::new(Box::new(fetch), 1, 0, u64::MAX, None)
    }

    /// The next chunk, never empty; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        self.ask_ahead();
        let Some((len, first)) = self.in_flight.pop_front() else { return Ok(None) };
        let chunk = first.await.context("a read was given up")??;
        self.ended = chunk.len() < len || (self.in_flight.is_empty() && self.next >= self.limit);
        if self.ended {
            self.in_flight.clear();
        } else {
            self.ask_ahead();
        }
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    fn ask_ahead(&mut self) {
        while self.in_flight.len() < self.most
            && self.next < self.limit
            && (self.in_flight.is_empty() || self.next < self.expected)
        {
            let len = (self.limit - self.next).min(CHUNK as u64) as usize;
            self.in_flight.push_back((len, (self.fetch)(self.next, len)));
            self.next += len as u64;
        }
    }
}

/// Reads `len` bytes, or to the end.
fn fill(len: usize, mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>) -> io::Result<Bytes> {
    let (mut bytes, mut done) = (vec![0; len], 0);
    while done < len {
        match read(&mut bytes[done..], done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(done);
    Ok(bytes.into())
}

/// Reads `len` bytes, or to the end, in as many READs as the server needs.
async fn read(file: Arc<Object>, offset: u64, len: usize) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    loop {
        let count = ((len - bytes.len()) as u32).min(file.export.sizes.0);
        let args = v3::ReadArgs { file: file.handle.clone(), offset: offset + bytes.len() as u64, count };
        let res = file.client().call::<v3::Read>(args).await?;
        let ok = checked("cannot read", &file.url, res)?;
        let got = ok.data.0;
        if got.len() > count as usize || (got.is_empty() && !ok.eof) {
            bail!("cannot read {}: {} bytes came for {count}, without the end", file.url, got.len());
        }
        if bytes.is_empty() && (ok.eof || got.len() == len) {
            return Ok(got);
        }
        bytes.extend_from_slice(&got);
        if ok.eof || bytes.len() == len {
            return Ok(bytes.freeze());
        }
    }
}
