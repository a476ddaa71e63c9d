//! Reading.

use std::sync::Arc;

use bytes::Bytes;

use super::super::Fs;
use super::super::call::now;
use super::super::node::lock;
use super::super::open::{OpenFile, OpenFlags, OpenId};
use super::ahead::{Ask, Part};
use super::file::Overlay;
use super::layers;
use crate::errno::Errno;

impl Fs {
    /// Reads `size` bytes at `offset` of an open file, whose flags are `flags` now; fewer only at the end of the file.
    /// The bytes are in parts, in order.
    ///
    /// What is held here and not known to be stable on the server lies over what the server says. With O_DIRECT,
    /// `noac` and `actimeo=0` nothing is read ahead.
    pub async fn read(
        self: &Arc<Self>,
        open: OpenId,
        offset: u64,
        size: u32,
        flags: OpenFlags,
    ) -> Result<Vec<Bytes>, Errno> {
        let open = self.opens.get(open)?;
        let size = u64::from(size).min(u64::MAX - offset);
        let overlay = || open.node.data().lock().overlay(offset, size);
        let before = overlay();
        let stop = offset + size;
        if layers::cover(&before.pieces, offset, stop) {
            return Ok(layers::fill(before.pieces, offset, stop));
        }
        let server = self.read_server(&open, (offset, stop), before.generation, flags.direct()).await?;
        // A READ may have been executed before a WRITE that was acknowledged before the read began, and been overtaken by
        // that WRITE's reply: what was held then counts although it may not be held now.
        Ok(merge((offset, stop), server, before, overlay()))
    }

    /// What the server has.
    async fn read_server(
        self: &Arc<Self>,
        open: &OpenFile,
        (start, end): (u64, u64),
        generation: u64,
        direct: bool,
    ) -> Result<Vec<Bytes>, Errno> {
        let mut bytes = Vec::new();
        let mut at = start;
        for part in self.parts(open, (start, end), generation, direct) {
            let to = match part {
                Part::Now(from, to) => {
                    let read = append(&mut bytes, self.read_now(open, from, to).await?);
                    self.counters.read_bytes.miss(read);
                    at += read;
                    to
                }
                Part::Ahead(fetch, from, to) => {
                    let fetched = fetch.get().await.unwrap_or_default();
                    let read = append(&mut bytes, slice(fetched, from - fetch.start, to - fetch.start));
                    self.counters.read_bytes.hit(read);
                    at += read;
                    if at < to {
                        // It failed, or the file ended there then: what holds now is asked now.
                        lock(&open.data.ahead).remove(&fetch);
                        at += append(&mut bytes, self.read_now(open, at, to).await?);
                    }
                    to
                }
            };
            if at < to {
                break;
            }
        }
        Ok(bytes)
    }

    /// Where the parts come from; begins to read ahead.
    fn parts(
        self: &Arc<Self>,
        open: &OpenFile,
        (start, end): (u64, u64),
        generation: u64,
        direct: bool,
    ) -> Vec<Part> {
        let keep = self.config().acregmax;
        if direct || !self.config().attribute_cache || keep.is_zero() {
            return vec![Part::Now(start, end)];
        }
        let file_end = open.node.state().attributes.held().map_or(0, |attr| attr.size);
        let rsize = u64::from(self.limits.read);
        let ask = Ask { start, end, generation, now: now(), keep, file_end, rsize };
        let mut ahead = lock(&open.data.ahead);
        let parts = ahead.parts(&ask);
        for range in ahead.wanted(&ask) {
            let Some(memory) = self.data.reserve((range.1 - range.0) as usize) else { break };
            ahead.add(self.fetch(&open.node, &open.who, range, Some(memory)));
        }
        parts
    }

    /// Reads a range with as many READs at once as it takes.
    async fn read_now(self: &Arc<Self>, open: &OpenFile, start: u64, end: u64) -> Result<Vec<Bytes>, Errno> {
        let rsize = u64::from(self.limits.read);
        if end - start <= rsize {
            return self.read_range(&open.node, &open.who, start, end).await;
        }
        let ranges = (start..end).step_by(rsize as usize).map(|from| (from, end.min(from + rsize)));
        let fetches: Vec<_> = ranges.map(|range| self.fetch(&open.node, &open.who, range, None)).collect();
        let mut bytes = Vec::new();
        for fetch in fetches {
            let got = append(&mut bytes, fetch.get().await?);
            if got < fetch.end - fetch.start {
                break;
            }
        }
        Ok(bytes)
    }
}

/// Returns how many bytes were appended.
fn append(bytes: &mut Vec<Bytes>, more: Vec<Bytes>) -> u64 {
    let len: usize = more.iter().map(Bytes::len).sum();
    bytes.extend(more.into_iter().filter(|part| !part.is_empty()));
    len as u64
}

/// The bytes from `from` to `to`, as far as there are any.
fn slice(parts: Vec<Bytes>, from: u64, to: u64) -> Vec<Bytes> {
    let mut at = 0;
    let cut = |part: Bytes| {
        let (start, len) = (at, part.len() as u64);
        at += len;
        let inside = |place: u64| place.clamp(start, start + len) - start;
        part.slice(inside(from) as usize..inside(to) as usize)
    };
    parts.into_iter().map(cut).filter(|part| !part.is_empty()).collect()
}

fn merge((start, stop): (u64, u64), server: Vec<Bytes>, before: Overlay, after: Overlay) -> Vec<Bytes> {
    if before.pieces.is_empty() && after.pieces.is_empty() && before.end.max(after.end) <= start {
        return server;
    }
    let mut at = start;
    let place = |data: Bytes| {
        let offset = at;
        at += data.len() as u64;
        (offset, data)
    };
    let server: Vec<_> = server.into_iter().map(place).collect();
    let end = at.max(before.end).max(after.end).min(stop);
    layers::fill(layers::over(after.pieces, layers::over(before.pieces, server)), start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_slice_may_lie_over_several_parts() {
        let parts = vec![bytes("abc"), bytes("def"), bytes("ghi")];
        assert_eq!(slice(parts.clone(), 2, 7).concat(), b"cdefg");
        assert_eq!(slice(parts.clone(), 3, 6), [bytes("def")]);
        assert_eq!(slice(parts, 8, 20).concat(), b"i");
    }

    #[test]
    fn what_is_held_lies_over_what_was_read_and_beyond_its_end() {
        let held = |pieces: Vec<(u64, Bytes)>, end| Overlay { pieces, end, generation: 0 };
        let before = held(vec![(1, bytes("B")), (8, bytes("B"))], 9);
        let after = held(vec![(1, bytes("A"))], 2);
        let read = merge((0, 20), vec![bytes("ser"), bytes("ver")], before, after);
        assert_eq!(read.concat(), b"sArver\0\0B");
    }
}
