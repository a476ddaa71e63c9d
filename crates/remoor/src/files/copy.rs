//! Copying one file: bytes in order from a source, holes kept, stable at the end, compared if asked.

use anyhow::{Result, bail};
use bytes::Bytes;
use twox_hash::XxHash3_128;

use super::folder::Folder;
use super::item::{Attrs, Item};
use super::read::{CHUNK, Chunks};
use super::session::Session;
use super::sink::Sink;

/// A hole is kept if it is this long, and begins at a multiple of it: the usual block of a file system is no longer.
const HOLE: usize = 64 << 10;

/// How files are copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Take over permissions and times as they are.
    pub(crate) preserve: bool,
    /// Write over what is there instead of replacing it.
    pub(crate) inplace: bool,
    /// Read back what was written, and compare.
    pub(crate) verify: bool,
    /// Permission bits a new object does not get.
    pub(crate) umask: u32,
}

impl How {
    /// The mode of a new object. Set-uid and set-gid bits are not copied, because owners are not.
    pub(crate) fn mode(&self, attrs: &Attrs) -> u32 {
        if self.preserve { attrs.mode & 0o1777 } else { attrs.mode & 0o777 & !self.umask }
    }

    /// The times to take over.
    pub(crate) fn times(&self, attrs: &Attrs) -> Option<Attrs> {
        self.preserve.then_some(*attrs)
    }
}

/// What is to be written under a name.
pub(crate) struct Content {
    pub(crate) chunks: Chunks,
    pub(crate) attrs: Attrs,
    /// The size is known and is that of one chunk at most.
    pub(crate) small: bool,
}

impl Content {
    /// Of an object that is a file.
    pub(crate) fn of(item: &Item) -> Result<Self> {
        let attrs = item.attrs();
        Ok(Self { chunks: item.open()?, attrs, small: is_small(&attrs) })
    }
}

/// Whether a file is one chunk.
pub(crate) fn is_small(attrs: &Attrs) -> bool {
    attrs.size <= CHUNK as u64
}

/// Copies `content` to the name `name` of `folder`. On an error nothing is left under a temporary name.
pub(crate) async fn copy(
    session: &Session,
    content: Content,
    folder: &Folder,
    name: &[u8],
    how: &How,
) -> Result<()> {
    let existing = folder.existing(name).await?;
    if existing.is_some_and(|existing| existing.directory) {
        bail!("{} is a directory; a file cannot replace it", folder.shown(name));
    }
    let attrs = content.attrs;
    let mode = match existing {
        Some(_) if how.inplace && !how.preserve => None,
        Some(existing) if !how.preserve => Some(existing.mode),
        _ => Some(how.mode(&attrs)),
    };
    session.progress.about(folder.shown(name));
    let mut sink = Sink::create(session, folder, name, how.inplace, content.small).await?;
    match fill(session, content, &mut sink, how).await {
        Ok(()) => sink.publish(session, mode, how.times(&attrs)).await,
        Err(error) => {
            sink.discard(session).await;
            Err(error)
        }
    }
}

/// Writes everything and makes it stable.
async fn fill(session: &Session, mut content: Content, sink: &mut Sink, how: &How) -> Result<()> {
    let (mut offset, mut sum) = (0, XxHash3_128::new());
    while let Some(chunk) = content.chunks.next().await? {
        if how.verify {
            sum.write(&chunk);
        }
        for (at, data) in data_of(&chunk, content.attrs.sparse) {
            sink.write(offset + at as u64, data).await?;
        }
        offset += chunk.len() as u64;
        session.progress.advance(chunk.len() as u64);
    }
    sink.finish(content.attrs.sparse.then_some(offset)).await?;
    if how.verify { compare(sink, offset, sum.finish_128()).await } else { Ok(()) }
}

/// The parts of a chunk that are to be written; all of it unless the file has holes.
fn data_of(chunk: &Bytes, sparse: bool) -> Vec<(usize, Bytes)> {
    if !sparse {
        return vec![(0, chunk.clone())];
    }
    let mut parts: Vec<(usize, Bytes)> = Vec::new();
    for (n, block) in chunk.chunks(HOLE).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0))
    {
        let at = n * HOLE;
        match parts.last_mut() {
            Some((start, data)) if *start + data.len() == at => *data = chunk.slice(*start..at + block.len()),
            _ => parts.push((at, chunk.slice(at..at + block.len()))),
        }
    }
    parts
}

/// Reads back what was written.
async fn compare(sink: &Sink, size: u64, expected: u128) -> Result<()> {
    let (mut chunks, mut sum, mut read) = (sink.read_back(size)?, XxHash3_128::new(), 0);
    while let Some(chunk) = chunks.next().await? {
        sum.write(&chunk);
        read += chunk.len() as u64;
    }
    if read != size || sum.finish_128() != expected {
        bail!(
            "the copy differs from what was read: {size} bytes were written, {read} read back, with another checksum; \
             something else writes to it, or the server or its disk is faulty"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn owners_bits_are_not_copied_without_their_owner() {
        let time = remoor_nfs::v3::Time { seconds: 0, nanos: 0 };
        let attrs = Attrs { mode: 0o7777, size: 0, sparse: false, atime: time, mtime: time };
        let how = |preserve| How { preserve, inplace: false, verify: false, umask: 0o027 };
        assert_eq!((how(true).mode(&attrs), how(false).mode(&attrs)), (0o1777, 0o750));
    }

    proptest! {
        #[test]
        fn holes_and_data_make_the_chunk(blocks in prop::collection::vec(0u8..3, 0..20), tail in 0usize..HOLE) {
            let mut bytes: Vec<u8> = blocks.iter().flat_map(|byte| vec![*byte; HOLE]).collect();
            bytes.extend(vec![0; tail]);
            let chunk = Bytes::from(bytes);
            let parts = data_of(&chunk, true);
            let mut made = vec![0; chunk.len()];
            for (at, data) in &parts {
                made[*at..at + data.len()].copy_from_slice(data);
            }
            prop_assert_eq!(&made[..], &chunk[..]);
            let written: usize = parts.iter().map(|(_, data)| data.len()).sum();
            prop_assert_eq!(written, HOLE * blocks.iter().filter(|byte| **byte != 0).count());
        }
    }
}
