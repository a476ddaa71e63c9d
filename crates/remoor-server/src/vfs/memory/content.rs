//! A file's bytes in pages, so that a hole costs nothing.

use std::collections::BTreeMap;

/// Bytes of one page.
pub(super) const PAGE: u64 = 4096;

/// Pages by number; what is missing reads as zeros. Never holds bytes at or beyond the file's size that are not zero.
#[derive(Debug, Default)]
pub(super) struct Content(BTreeMap<u64, Box<[u8]>>);

impl Content {
    /// Bytes of memory that are used.
    pub(super) fn used(&self) -> u64 {
        self.0.len() as u64 * PAGE
    }

    /// Bytes of memory that writing `len` bytes at `offset` adds.
    pub(super) fn growth(&self, offset: u64, len: u64) -> u64 {
        let Some(last) = len.checked_sub(1).map(|n| (offset + n) / PAGE) else { return 0 };
        let range = offset / PAGE..=last;
        let have = self.0.range(range.clone()).count() as u64;
        (range.end() - range.start() + 1 - have) * PAGE
    }

    /// Writes `data` at `offset`.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let within = (at % PAGE) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE as usize - within));
            let page = self.0.entry(at / PAGE).or_insert_with(|| vec![0; PAGE as usize].into());
            page[within..within + now.len()].copy_from_slice(now);
            at += now.len() as u64;
            rest = later;
        }
    }

    /// The `len` bytes from `offset`.
    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            let at = offset + out.len() as u64;
            let within = (at % PAGE) as usize;
            let n = (len - out.len()).min(PAGE as usize - within);
            match self.0.get(&(at / PAGE)) {
                Some(page) => out.extend_from_slice(&page[within..within + n]),
                None => out.resize(out.len() + n, 0),
            }
        }
        out
    }

    /// Forgets everything from `size` on.
    pub(super) fn truncate(&mut self, size: u64) {
        drop(self.0.split_off(&size.div_ceil(PAGE)));
        if let Some(page) = self.0.get_mut(&(size / PAGE)) {
            page[(size % PAGE) as usize..].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_read_as_zeros_and_cost_nothing() {
        let mut content = Content::default();
        content.write(3 * PAGE - 1, b"ab");
        assert_eq!(content.used(), 2 * PAGE);
        assert_eq!(content.read(3 * PAGE - 2, 4), [0, b'a', b'b', 0]);
        assert_eq!(content.read(0, 10), [0; 10]);
    }

    #[test]
    fn growth_counts_only_missing_pages() {
        let mut content = Content::default();
        assert_eq!(content.growth(PAGE - 1, 2), 2 * PAGE);
        content.write(0, b"x");
        assert_eq!(content.growth(PAGE - 1, 2), PAGE);
        assert_eq!(content.growth(5, 0), 0);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = Content::default();
        content.write(0, &[7; 2 * PAGE as usize]);
        content.truncate(10);
        assert_eq!(content.used(), PAGE);
        assert_eq!(content.read(8, 4), [7, 7, 0, 0]);
        content.truncate(0);
        assert_eq!(content.used(), 0);
    }
}
