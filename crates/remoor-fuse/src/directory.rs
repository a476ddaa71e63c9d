//! The entries of a directory, as READDIR and READDIRPLUS take them.

use bytes::Bytes;

use crate::Entry;
use crate::abi::{DIRENT, ENTRY_OUT, Out};

/// One entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryEntry<'a> {
    /// The number that readdir(3) shows.
    pub ino: u64,
    /// Where the next entry begins: what READDIR is called with to go on after this one. Never 0.
    pub offset: u64,
    /// The type bits (`S_IFMT`) of a mode, or 0 if not known.
    pub mode: u32,
    /// The name, not longer than the kernel's 1024 bytes for an entry's.
    pub name: &'a [u8],
}

/// Entries up to the length that was asked for.
#[derive(Clone, Debug)]
pub struct DirectoryBuffer {
    bytes: Vec<u8>,
    size: usize,
}

/// The buffer grows as it is filled, so that a `size` that is never used is never allocated.
const FIRST_CAPACITY: usize = 4096;

impl DirectoryBuffer {
    /// An empty buffer for an operation that asked for `size` bytes.
    pub fn new(size: u32) -> Self {
        Self { bytes: Vec::with_capacity(FIRST_CAPACITY.min(size as usize)), size: size as usize }
    }

    /// Adds an entry for READDIR; false, and nothing is added, if there is no room.
    #[must_use]
    pub fn push(&mut self, entry: &DirectoryEntry<'_>) -> bool {
        self.fits(0, entry) && self.append(|out| dirent(out, entry))
    }

    /// Adds an entry with attributes for READDIRPLUS; false, and nothing is added, if there is no room. One with a node
    /// counts as a lookup of it, except for `.` and `..`, which should be given [`Entry::negative`].
    #[must_use]
    pub fn push_plus(&mut self, entry: &DirectoryEntry<'_>, plus: &Entry) -> bool {
        let both = |out: &mut Out| {
            out.entry(plus);
            dirent(out, entry);
        };
        self.fits(ENTRY_OUT, entry) && self.append(both)
    }

    /// Whether nothing was added: the end of the directory, when it is the reply.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is filled, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    fn fits(&self, before: usize, entry: &DirectoryEntry<'_>) -> bool {
        self.bytes.len() + (before + DIRENT + entry.name.len()).next_multiple_of(8) <= self.size
    }

    fn append(&mut self, encode: impl FnOnce(&mut Out)) -> bool {
        let mut out = Out::from(std::mem::take(&mut self.bytes));
        encode(&mut out);
        self.bytes = out.into_bytes();
        true
    }
}

/// `struct fuse_dirent`, its name and padding.
fn dirent(out: &mut Out, entry: &DirectoryEntry<'_>) {
    out.u64(entry.ino);
    out.u64(entry.offset);
    out.u32(entry.name.len() as u32);
    out.u32((entry.mode >> 12) & 0xf);
    out.raw(entry.name);
    out.align();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: DirectoryEntry<'static> =
        DirectoryEntry { ino: 3, offset: 1, mode: 0o040755, name: b"abcdefghi" };

    #[test]
    fn entries_are_padded_and_end_at_the_size() {
        let mut buffer = DirectoryBuffer::new(24 + 16 + 39);
        assert!(buffer.is_empty());
        assert!(buffer.push(&A));
        assert_eq!(buffer.len(), 40);
        assert!(!buffer.push(&A));
        let bytes = buffer.into_bytes();
        assert_eq!(bytes[20..24], 4_u32.to_ne_bytes());
        assert_eq!(&bytes[24..33], b"abcdefghi");
        assert_eq!(bytes[33..], [0; 7]);
    }

    #[test]
    fn an_exact_fit_is_taken() {
        let mut buffer = DirectoryBuffer::new(80);
        assert!(buffer.push(&A) && buffer.push(&A));
        assert!(!buffer.push(&DirectoryEntry { name: b"", ..A }));
    }

    #[test]
    fn an_entry_with_attributes_has_them_before_it() {
        let mut buffer = DirectoryBuffer::new(168);
        let plus = Entry::negative(Duration::ZERO);
        assert!(buffer.push_plus(&A, &plus));
        assert!(!buffer.push_plus(&A, &plus));
        assert_eq!(buffer.into_bytes()[128 + 24..][..9], *b"abcdefghi");
    }
}
