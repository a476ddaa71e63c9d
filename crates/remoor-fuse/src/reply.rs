//! Replies, and their bytes.

use std::time::Duration;

use bytes::Bytes;

use crate::abi::Out;
use crate::{Attributes, DirectoryBuffer, Entry, OpenFlags, Statfs};

/// What an operation answers; which, is told at each [`crate::Operation`]. A reply of another kind than asked for is
/// refused by the kernel, and the caller sees EIO.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Done.
    Empty,
    /// What a name stands for.
    Entry(Entry),
    /// Attributes, and how long the kernel may use them without asking.
    Attributes(Attributes, Duration),
    /// Bytes: the pieces one after the other. They are not copied.
    Data(Vec<Bytes>),
    /// An open file or directory: its `fh`, any number the file system likes.
    #[allow(missing_docs, reason = "told above")]
    Opened { fh: u64, flags: OpenFlags },
    /// A file that was made and opened.
    Created(Entry, u64, OpenFlags),
    /// Number of bytes written or copied.
    Written(u32),
    /// Space.
    Statfs(Statfs),
    /// Entries of a directory.
    Directory(DirectoryBuffer),
    /// A position in a file.
    Offset(u64),
    /// Length of an extended attribute or of the list of them.
    Length(u32),
}

impl Reply {
    /// The bytes after the header of the reply: what is encoded, and pieces that follow it.
    pub(crate) fn encode(self, out: &mut Out) -> Vec<Bytes> {
        match self {
            Self::Empty => {}
            Self::Entry(entry) => out.entry(&entry),
            Self::Attributes(attributes, valid) => out.attributes_valid(&attributes, valid),
            Self::Data(pieces) => return pieces,
            Self::Opened { fh, flags } => out.opened(fh, flags),
            Self::Created(entry, fh, flags) => {
                out.entry(&entry);
                out.opened(fh, flags);
            }
            Self::Written(length) | Self::Length(length) => {
                out.u32(length);
                out.u32(0);
            }
            Self::Statfs(statfs) => out.statfs(&statfs),
            Self::Directory(buffer) => return vec![buffer.into_bytes()],
            Self::Offset(offset) => out.u64(offset),
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    fn bytes_of(reply: Reply) -> Vec<u8> {
        let mut out = Out::default();
        let pieces = reply.encode(&mut out);
        pieces.iter().fold(out.bytes().to_vec(), |all, piece| [&all, &piece[..]].concat())
    }

    fn entry() -> Entry {
        Entry {
            node: NodeId(7),
            generation: 8,
            attributes: Attributes { ino: 9, size: 10, mode: 0o100644, nlink: 1, ..Attributes::default() },
            attributes_valid: Duration::new(3, 4),
            entry_valid: Duration::new(5, 6),
        }
    }

    #[test]
    fn lengths_are_those_of_the_structures() {
        let opened = Reply::Opened { fh: 1, flags: OpenFlags::default() };
        let lengths = [
            (Reply::Empty, 0),
            (Reply::Entry(entry()), 128),
            (Reply::Attributes(Attributes::default(), Duration::ZERO), 104),
            (opened, 16),
            (Reply::Created(entry(), 1, OpenFlags::default()), 144),
            (Reply::Written(1), 8),
            (Reply::Statfs(Statfs::default()), 80),
            (Reply::Offset(1), 8),
            (Reply::Data(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]), 3),
        ];
        for (reply, length) in lengths {
            let shown = format!("{reply:?}");
            assert_eq!(bytes_of(reply).len(), length, "{shown}");
        }
    }

    #[test]
    fn an_entry_is_laid_out_as_fuse_entry_out() {
        let bytes = bytes_of(Reply::Entry(entry()));
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!([u64_at(0), u64_at(8), u64_at(16), u64_at(24)], [7, 8, 5, 3]);
        assert_eq!([u32_at(32), u32_at(36)], [6, 4]);
        assert_eq!([u64_at(40), u64_at(48)], [9, 10]);
        assert_eq!(u32_at(40 + 60), 0o100644);
    }

    #[test]
    fn open_flags_are_the_bits_of_fopen() {
        let flags = OpenFlags { keep_cache: true, parallel_direct_writes: true, ..OpenFlags::default() };
        let bytes = bytes_of(Reply::Opened { fh: 5, flags });
        assert_eq!(bytes[8..12], (2_u32 | 64).to_ne_bytes());
    }
}
