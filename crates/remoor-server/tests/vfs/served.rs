//! A temporary directory and the vfs instances that serve it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::OnceLock;

use bytes::Bytes;
use remoor_nfs::v3::{CreateHow, Sattr, StableHow};
use remoor_server::vfs::local::{Durability, LocalOptions, LocalVfs, Scheme};
use remoor_server::vfs::{Caller, DirEntry, Node, NodeHandle, Vfs};
pub(crate) use remoor_skip::skip;
use rustix::process::{getegid, geteuid};
use tempfile::TempDir;

/// An export and a state directory, side by side.
pub(crate) struct Served {
    place: TempDir,
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    pub(crate) fn at(place: TempDir) -> Self {
        std::fs::create_dir(place.path().join("export")).unwrap();
        Self { place }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.place.path().join("export")
    }

    pub(crate) fn options(&self, node: &str, scheme: Option<Scheme>) -> LocalOptions {
        LocalOptions {
            durability: Durability::Async,
            state_dir: self.place.path().join("state"),
            node: node.to_owned(),
            max_open: None,
            scheme,
        }
    }

    pub(crate) fn node(&self, node: &str, scheme: Scheme) -> LocalVfs {
        LocalVfs::open(&self.dir(), &self.options(node, Some(scheme))).unwrap()
    }
}

/// The schemes this process can use.
pub(crate) fn schemes() -> &'static [Scheme] {
    match probed().0 {
        Scheme::Kernel => &[Scheme::Kernel, Scheme::Fileid],
        Scheme::Fileid => &[Scheme::Fileid],
    }
}

/// Whether calls run as the user of the tests, whoever calls.
pub(crate) fn is_single_user() -> bool {
    probed().1
}

/// Tried once: making an export waits for the disk.
fn probed() -> (Scheme, bool) {
    static PROBED: OnceLock<(Scheme, bool)> = OnceLock::new();
    *PROBED.get_or_init(|| {
        let served = Served::new();
        let vfs = LocalVfs::open(&served.dir(), &served.options("probe", None)).unwrap();
        (vfs.scheme().0, vfs.is_single_user())
    })
}

/// The user who runs the tests.
pub(crate) fn own() -> Caller {
    Caller { uid: geteuid().as_raw(), gid: getegid().as_raw(), gids: Vec::new() }
}

/// A new file with this text.
pub(crate) fn file(vfs: &dyn Vfs, dir: &NodeHandle, name: &str, text: &str) -> Node {
    let how = CreateHow::Guarded(Sattr { mode: Some(0o644), ..Sattr::default() });
    let node = vfs.create(&own(), dir, name.as_bytes(), &how).unwrap().node;
    let data = Bytes::copy_from_slice(text.as_bytes());
    vfs.write(&own(), &node.handle, 0, &data, StableHow::FileSync).unwrap();
    node
}

pub(crate) fn directory(vfs: &dyn Vfs, dir: &NodeHandle, name: &str) -> Node {
    let attr = Sattr { mode: Some(0o755), ..Sattr::default() };
    vfs.mkdir(&own(), dir, name.as_bytes(), &attr).unwrap().node
}

pub(crate) fn text(vfs: &dyn Vfs, node: &NodeHandle) -> String {
    let read = vfs.read(&own(), node, 0, 1 << 16).unwrap();
    String::from_utf8(read.data.into_bytes().unwrap().to_vec()).unwrap()
}

/// Every entry from the start, in the order they are offered.
pub(crate) fn entries(vfs: &dyn Vfs, dir: &NodeHandle) -> Vec<DirEntry> {
    let mut entries = Vec::new();
    let mut keep = |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    };
    assert!(vfs.readdir(&own(), dir, 0, &mut keep).unwrap());
    entries
}

/// Every name from the start, in the order they are offered, without `.` and `..`.
pub(crate) fn names(vfs: &dyn Vfs, dir: &NodeHandle) -> Vec<Bytes> {
    let names = entries(vfs, dir).into_iter().map(|entry| entry.name);
    names.filter(|name| !matches!(&name[..], b"." | b"..")).collect()
}

/// Whether this is the host's own user namespace; in another one some users are not mapped.
pub(crate) fn owns_every_user() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").unwrap().split_ascii_whitespace().eq([
        "0",
        "0",
        "4294967295",
    ])
}
