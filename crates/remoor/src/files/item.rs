//! What is copied: a file, directory or link, here or on a server.

use std::fs::{self, File, Metadata, ReadDir};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use remoor_nfs::v3::{FileType, Time};

use super::dir::Listing;
use super::name::escaped;
use super::read::Chunks;
use super::server::Object;

/// Entries of a local directory taken at a time.
const BATCH: usize = 256;

/// Something that can be copied.
#[derive(Debug)]
pub(crate) enum Item {
    Local { path: PathBuf, meta: Metadata },
    Remote(Object),
}

/// What a copy may take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attrs {
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) size: u64,
    /// It has holes: less space than bytes.
    pub(crate) sparse: bool,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
}

impl Item {
    /// A local object. A link at the end of `path` is followed if `follow`.
    pub(crate) fn local(path: &Path, follow: bool) -> Result<Self> {
        let meta = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
        let meta = meta.with_context(|| format!("cannot read {}", shown(path)))?;
        Ok(Self::Local { path: path.to_owned(), meta })
    }

    pub(crate) fn kind(&self) -> FileType {
        match self {
            Self::Remote(object) => object.attr.kind,
            Self::Local { meta, .. } => match meta.file_type() {
                kind if kind.is_dir() => FileType::Directory,
                kind if kind.is_symlink() => FileType::Symlink,
                kind if kind.is_fifo() => FileType::Fifo,
                kind if kind.is_socket() => FileType::Socket,
                kind if kind.is_block_device() => FileType::Block,
                kind if kind.is_char_device() => FileType::Character,
                _ => FileType::Regular,
            },
        }
    }

    pub(crate) fn attrs(&self) -> Attrs {
        match self {
            Self::Remote(Object { attr, .. }) => Attrs {
                mode: attr.mode,
                size: attr.size,
                sparse: attr.used < attr.size,
                atime: attr.atime,
                mtime: attr.mtime,
            },
            Self::Local { meta, .. } => Attrs {
                mode: meta.mode(),
                size: meta.size(),
                sparse: meta.blocks().saturating_mul(512) < meta.size(),
                atime: time(meta.atime(), meta.atime_nsec()),
                mtime: time(meta.mtime(), meta.mtime_nsec()),
            },
        }
    }

    /// The last component of its path; `None` if it has none.
    pub(crate) fn name(&self) -> Option<Vec<u8>> {
        let name = match self {
            Self::Remote(object) => object.url.name().to_vec(),
            Self::Local { path, .. } => match path.file_name() {
                Some(name) => name.as_bytes().to_vec(),
                // `.` and `..` have one, too.
                None => path.canonicalize().ok()?.file_name()?.as_bytes().to_vec(),
            },
        };
        Some(name).filter(|name| !name.is_empty())
    }

    /// As people are told.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Local { path, .. } => shown(path),
            Self::Remote(object) => object.url.to_string(),
        }
    }

    /// A symbolic link's text.
    pub(crate) async fn target(&self) -> Result<Vec<u8>> {
        match self {
            Self::Remote(object) => object.target().await,
            Self::Local { path, .. } => {
                let target =
                    fs::read_link(path).with_context(|| format!("cannot read the link {}", shown(path)));
                target.map(|target| target.as_os_str().as_bytes().to_vec())
            }
        }
    }

    /// The bytes of a regular file, or of whatever a local path leads to.
    pub(crate) fn open(&self) -> Result<Chunks> {
        match self {
            Self::Remote(object) => Ok(Chunks::remote(object, 0, None)),
            Self::Local { path, .. } => {
                let file = File::open(path).with_context(|| format!("cannot open {}", shown(path)))?;
                Ok(Chunks::local(file, self.attrs().size, shown(path)))
            }
        }
    }

    /// A directory's entries.
    pub(crate) fn entries(&self) -> Result<Entries> {
        match self {
            Self::Remote(object) => Ok(Entries::Remote(Listing::of(object))),
            Self::Local { path, .. } => {
                let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", shown(path)))?;
                Ok(Entries::Local(path.clone(), entries))
            }
        }
    }
}

/// Entries that are still to come.
#[derive(Debug)]
pub(crate) enum Entries {
    Local(PathBuf, ReadDir),
    Remote(Listing),
}

impl Entries {
    /// Some more, each of them or why it cannot be had; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Result<Item>>>> {
        match self {
            Self::Local(dir, entries) => {
                let item = |entry: std::io::Result<fs::DirEntry>| {
                    let entry = entry.with_context(|| format!("cannot list {}", shown(dir)))?;
                    Item::local(&entry.path(), false)
                };
                let batch: Vec<_> = entries.take(BATCH).map(item).collect();
                Ok(Some(batch).filter(|batch| !batch.is_empty()))
            }
            Self::Remote(listing) => {
                let Some(entries) = listing.next().await? else { return Ok(None) };
                let mut items = Vec::with_capacity(entries.len());
                for entry in entries {
                    items.push(listing.object(entry).await.map(Item::Remote));
                }
                Ok(Some(items))
            }
        }
    }
}

/// A local path as people are told.
pub(crate) fn shown(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes())
}

/// NFS version 3 counts seconds from 1970 on in 32 bits without a sign; what is outside becomes the nearest.
fn time(seconds: i64, nanos: i64) -> Time {
    let nanos = nanos.clamp(0, 999_999_999) as u32;
    match u32::try_from(seconds) {
        Ok(seconds) => Time { seconds, nanos },
        Err(_) if seconds < 0 => Time { seconds: 0, nanos: 0 },
        Err(_) => Time { seconds: u32::MAX, nanos: 999_999_999 },
    }
}

/// Why an object of this kind is not copied.
pub(crate) fn not_copied(item: &Item) -> anyhow::Error {
    let kind = match item.kind() {
        FileType::Block => "a block device",
        FileType::Character => "a character device",
        FileType::Socket => "a socket",
        FileType::Fifo => "a named pipe",
        _ => "not a regular file",
    };
    anyhow!("{} is {kind} and is not copied; use put to copy what can be read from one", item.shown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_the_protocol_become_the_nearest() {
        assert_eq!(time(-1, 5), Time { seconds: 0, nanos: 0 });
        assert_eq!(time(5, 7), Time { seconds: 5, nanos: 7 });
        assert_eq!(time(1 << 40, 7), Time { seconds: u32::MAX, nanos: 999_999_999 });
    }

    #[test]
    fn the_directory_one_is_in_has_a_name() {
        let dir = Item::local(Path::new("."), true).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(dir.name().as_deref(), Some(here.file_name().unwrap().as_bytes()));
        assert_eq!(Item::local(Path::new("/"), true).unwrap().name(), None);
    }
}
