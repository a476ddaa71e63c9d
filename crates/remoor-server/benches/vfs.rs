//! The calls an NFS procedure makes of a served directory, on one thread. `REMOOR_BENCH_DIR` names where the directory is
//! made; without it the system's temporary directory is used.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::OnceLock;

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use remoor_nfs::v3::{CreateHow, FileHandle, Sattr, StableHow};
use remoor_server::handle::Signer;
use remoor_server::vfs::local::{Durability, LocalOptions, LocalVfs, be_server, keep_identity};
use remoor_server::vfs::{Caller, NodeHandle, Vfs};
use tempfile::TempDir;

/// Entries of the directory that is listed, unless `REMOOR_BENCH_ENTRIES` says otherwise.
const ENTRIES: usize = 1000;
/// Entries of one READDIRPLUS: what fits into 64 KiB.
const PER_CALL: usize = 300;

static PLACE: OnceLock<Place> = OnceLock::new();

struct Place {
    vfs: LocalVfs,
    root: NodeHandle,
    file: NodeHandle,
    dir: TempDir,
}

fn main() {
    keep_identity();
    divan::main();
    be_server();
    if let Some(place) = PLACE.get() {
        std::fs::remove_dir_all(place.dir.path()).unwrap();
    }
}

fn mode(mode: u32) -> Sattr {
    Sattr { mode: Some(mode), ..Sattr::default() }
}

/// A user who owns what the benches use, and one who does not.
fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, gids: vec![uid] }
}

fn place() -> &'static Place {
    PLACE.get_or_init(|| {
        let dir = match std::env::var_os("REMOOR_BENCH_DIR") {
            Some(at) => tempfile::tempdir_in(PathBuf::from(at)).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(dir.path().join("export")).unwrap();
        let options = LocalOptions {
            durability: Durability::Async,
            state_dir: dir.path().join("state"),
            node: "a".to_owned(),
            max_open: None,
            scheme: None,
        };
        let vfs = LocalVfs::open(&dir.path().join("export"), &options).unwrap();
        let root = vfs.root().unwrap();
        let own = Caller { uid: 0, gid: 0, gids: vec![] };
        vfs.setattr(&own, &root, &mode(0o777), None).unwrap();
        let how = CreateHow::Guarded(mode(0o666));
        let file = vfs.create(&user(1000), &root, b"file", &how).unwrap().node.handle;
        vfs.write(&user(1000), &file, 0, &vec![7; 1 << 20].into(), StableHow::Unstable).unwrap();
        Place { vfs, root, file, dir }
    })
}

/// LOOKUP, READ and so on, each with the attributes that its reply carries.
#[divan::bench]
fn getattr(bencher: Bencher<'_, '_>) {
    let Place { vfs, file, .. } = place();
    bencher.bench(|| vfs.getattr(&user(1000), file));
}

#[divan::bench(args = [0, 1000, 1001])]
fn access(bencher: Bencher<'_, '_>, uid: u32) {
    let Place { vfs, file, .. } = place();
    let caller = user(uid);
    bencher.bench(|| vfs.access(&caller, file, 0x3f));
}

#[divan::bench(args = [0, 1000])]
fn lookup(bencher: Bencher<'_, '_>, uid: u32) {
    let Place { vfs, root, .. } = place();
    let caller = user(uid);
    bencher.bench(|| (vfs.lookup(&caller, root, b"file"), vfs.getattr(&caller, root)));
}

#[divan::bench(args = [4096, 1 << 20])]
fn read(bencher: Bencher<'_, '_>, count: u32) {
    let Place { vfs, file, .. } = place();
    let caller = user(1000);
    bencher.bench(|| vfs.read(&caller, file, 0, count));
}

#[divan::bench(args = [4096, 1 << 20])]
fn write(bencher: Bencher<'_, '_>, count: usize) {
    let Place { vfs, file, .. } = place();
    let (caller, data) = (user(1000), Bytes::from(vec![7; count]));
    bencher.bench(|| vfs.write(&caller, file, 0, &data, StableHow::Unstable));
}

#[divan::bench(args = [0, 1000])]
fn create_and_remove(bencher: Bencher<'_, '_>, uid: u32) {
    let Place { vfs, root, .. } = place();
    let (caller, how) = (user(uid), CreateHow::Unchecked(mode(0o644)));
    bencher.bench(|| {
        vfs.create(&caller, root, b"new", &how).unwrap();
        vfs.remove(&caller, root, b"new").unwrap();
    });
}

#[divan::bench(args = [0, 1000])]
fn mkdir_and_rmdir(bencher: Bencher<'_, '_>, uid: u32) {
    let Place { vfs, root, .. } = place();
    let (caller, attr) = (user(uid), mode(0o755));
    bencher.bench(|| {
        vfs.mkdir(&caller, root, b"newdir", &attr).unwrap();
        vfs.rmdir(&caller, root, b"newdir").unwrap();
    });
}

/// READDIRPLUS of a directory whose files are not held open.
#[divan::bench(sample_size = 1, sample_count = 20)]
fn readdirplus(bencher: Bencher<'_, '_>) {
    let Place { vfs, root, dir, .. } = place();
    let (caller, many) = (user(1000), dir.path().join("export/many"));
    let count = std::env::var("REMOOR_BENCH_ENTRIES").map_or(ENTRIES, |count| count.parse().unwrap());
    be_server();
    if std::fs::create_dir(&many).is_ok() {
        (0..count).for_each(|n| drop(std::fs::File::create(many.join(n.to_string())).unwrap()));
    }
    let dir = vfs.lookup(&caller, root, b"many").unwrap().handle;
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let (mut cookie, mut listed) = (0, 0);
        while list(vfs, &caller, &dir, &mut cookie, &mut listed) {}
        assert_eq!(listed, count + 2);
    });
}

/// One call; whether there is more.
fn list(vfs: &LocalVfs, caller: &Caller, dir: &NodeHandle, cookie: &mut u64, listed: &mut usize) -> bool {
    let mut names = Vec::with_capacity(PER_CALL);
    let end = vfs.readdir(caller, dir, *cookie, &mut |entry| {
        *cookie = entry.cookie;
        names.push(entry.name);
        if names.len() < PER_CALL { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    *listed += names.len();
    for name in names.iter().filter(|name| !matches!(&name[..], b"." | b"..")) {
        black_box(vfs.look_at(caller, dir, name).unwrap());
    }
    !end.unwrap()
}

#[divan::bench]
fn handle_verified(bencher: Bencher<'_, '_>) {
    let signer = Signer::new([7; 32]);
    let sealed: FileHandle = signer.seal(1, &vec![5; 21].into()).unwrap();
    bencher.bench(|| signer.open(black_box(&sealed)));
}

#[divan::bench]
fn handle_sealed(bencher: Bencher<'_, '_>) {
    let signer = Signer::new([7; 32]);
    let node = NodeHandle::from(vec![5; 21]);
    bencher.bench(|| signer.seal(1, black_box(&node)));
}
