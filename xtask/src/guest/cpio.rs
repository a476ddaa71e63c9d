//! The archive that a kernel unpacks as its first root: cpio's `newc` format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::io;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
/// Headers with their name, and data, are filled up to this.
const ALIGN: usize = 4;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory,
    File { mode: u32, data: Vec<u8> },
    Link(String),
    Device { major: u32, minor: u32 },
}

/// A tree to be unpacked by a kernel. Everything belongs to root, and the order is that of the paths, so that a
/// directory comes before what is in it and equal trees make equal archives.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Entry>);

impl Tree {
    /// Adds a directory, and those it is in.
    pub(super) fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        if !path.is_empty() {
            self.0.entry(path.to_owned()).or_insert(Entry::Directory);
        }
    }

    /// Adds a file with its permissions.
    pub(super) fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) {
        self.add(path, Entry::File { mode, data: data.into() });
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.add(path, Entry::Link(target.to_owned()));
    }

    /// Adds a character device that its owner may use.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, Entry::Device { major, minor });
    }

    /// Whether a path was added.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path.trim_matches('/'))
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// Writes the archive.
    pub(super) fn write(&self, to: &mut impl io::Write) -> io::Result<()> {
        for (n, (path, entry)) in self.0.iter().enumerate() {
            write_entry(to, n + 1, path, entry)?;
        }
        write_entry(to, 0, TRAILER, &Entry::File { mode: 0, data: Vec::new() })
    }
}

fn write_entry(to: &mut impl io::Write, inode: usize, path: &str, entry: &Entry) -> io::Result<()> {
    let (mode, data, device) = match entry {
        Entry::Directory => (S_IFDIR | 0o755, &[][..], (0, 0)),
        Entry::File { mode, data } => (S_IFREG | mode, &data[..], (0, 0)),
        Entry::Link(target) => (S_IFLNK | 0o777, target.as_bytes(), (0, 0)),
        Entry::Device { major, minor } => (S_IFCHR | 0o600, &[][..], (*major, *minor)),
    };
    // Inode, mode, uid, gid, links, mtime, size, device, rdevice, length of the name with its NUL, checksum.
    let fields = [
        inode as u32,
        mode,
        0,
        0,
        1,
        0,
        data.len() as u32,
        0,
        0,
        device.0,
        device.1,
        path.len() as u32 + 1,
        0,
    ];
    let mut head = MAGIC.to_owned();
    head.extend(fields.iter().map(|field| format!("{field:08X}")));
    head.push_str(path);
    head.push('\0');
    write_aligned(to, head.as_bytes())?;
    write_aligned(to, data)
}

fn write_aligned(to: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.write_all(&[0; ALIGN][..bytes.len().next_multiple_of(ALIGN) - bytes.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut tree = Tree::default();
        tree.file("/usr/lib/libc.so.6", 0o755, "ELF");
        tree.link("lib", "usr/lib");
        let paths: Vec<_> = tree.0.keys().map(String::as_str).collect();
        assert_eq!(paths, ["lib", "usr", "usr/lib", "usr/lib/libc.so.6"]);
        assert!(tree.has("/usr/lib") && !tree.has("bin"));
    }

    #[test]
    fn an_entry_has_the_documented_form() {
        let mut tree = Tree::default();
        tree.file("a", 0o644, "hello");
        let bytes = archive(&tree);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000081A4"), "{text}");
        // A header of 110 bytes and the name with its NUL make 112; five bytes of data are filled up to eight.
        assert_eq!(&bytes[110..120], b"a\0hello\0\0\0");
        assert!(text[120..].starts_with("070701") && text.contains(TRAILER));
        assert_eq!(bytes.len() % ALIGN, 0);
    }

    #[test]
    fn a_device_has_its_numbers() {
        let mut tree = Tree::default();
        tree.device("dev/console", 5, 1);
        let text = String::from_utf8_lossy(&archive(&tree)).into_owned();
        let at = text.find("dev/console").unwrap();
        assert_eq!(&text[at - 32..at - 16], "0000000500000001");
        assert!(text.contains("00002180"), "{text}");
    }
}
