//! What clients' caches rely on: attributes around a change, guards, and handles that belong to their attributes.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use remoor_nfs::v3::{CreateHow, NfsStat, Sattr, SetTime, Time, WccData};
use remoor_server::vfs::{Vfs, memory};
use rustix::fs::fstatfs;

use crate::served::{Served, directory, file, own, schemes, skip};

const THREADS: u32 = 4;
/// Changes of each thread.
const CHANGES: u32 = 500;
/// What an entry adds to the size of a directory of tmpfs (`BOGO_DIRENT_SIZE` in mm/shmem.c).
const TMPFS_ENTRY: u64 = 20;
const TMPFS_MAGIC: i64 = 0x0102_1994;

fn guarded() -> CreateHow {
    CreateHow::Guarded(Sattr { mode: Some(0o644), ..Sattr::default() })
}

/// By how much a change made its object larger, if that is known.
fn growth(wcc: &WccData) -> Option<i64> {
    let after = wcc.after.as_ref().expect("the object is there");
    wcc.before.as_ref().map(|before| after.size as i64 - before.size as i64)
}

#[test]
fn one_client_is_told_what_was_before_each_change() {
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        let root = vfs.root().unwrap();
        let sub = directory(&vfs, &root, "sub").handle;
        let known = |wcc: WccData| wcc.before.unwrap().ctime;
        let ctime = |node| vfs.getattr(&own(), node).unwrap().ctime;
        let before = ctime(&root);
        let made = vfs.create(&own(), &root, b"file", &guarded()).unwrap();
        assert_eq!(known(made.dir), before);
        let (left, entered) = (ctime(&root), ctime(&sub));
        let (from, to) = vfs.rename(&own(), (&root, b"file"), (&sub, b"file")).unwrap();
        assert_eq!((known(from), known(to)), (left, entered));
        let before = ctime(&root);
        let (attr, wcc) = vfs.link(&own(), &made.node.handle, &root, b"second").unwrap();
        assert_eq!((attr.nlink, known(wcc)), (2, before));
        let before = ctime(&root);
        assert_eq!(known(vfs.remove(&own(), &root, b"second").unwrap()), before);
        let chmod = Sattr { mode: Some(0o600), ..Sattr::default() };
        let before = ctime(&made.node.handle);
        assert_eq!(known(vfs.setattr(&own(), &made.node.handle, &chmod, None).unwrap()), before);
    }
}

/// Sizes of directories tell how many changes lie between two attributes.
fn nothing_is_between(vfs: &dyn Vfs, entry: i64) {
    let root = vfs.root().unwrap();
    let (start, told) = (Barrier::new(THREADS as usize), AtomicU32::new(0));
    let one = |thread: u32| {
        start.wait();
        for n in 0..CHANGES {
            let name = format!("{thread}.{n}").into_bytes();
            let made = vfs.create(&own(), &root, &name, &guarded()).unwrap();
            let removed = vfs.remove(&own(), &root, &name).unwrap();
            for (wcc, expected) in [(made.dir, entry), (removed, -entry)] {
                if let Some(growth) = growth(&wcc) {
                    assert_eq!(growth, expected, "another change is hidden");
                    told.fetch_add(1, SeqCst);
                }
            }
        }
    };
    let one = &one;
    std::thread::scope(|scope| (0..THREADS).for_each(|thread| drop(scope.spawn(move || one(thread)))));
    let alone = vfs.create(&own(), &root, b"alone", &guarded()).unwrap();
    assert_eq!(growth(&alone.dir), Some(entry), "told again when nobody else is at work");
}

#[test]
fn a_change_of_another_client_is_never_hidden() {
    let Ok(place) = tempfile::tempdir_in("/dev/shm") else {
        return skip("a_change_of_another_client_is_never_hidden", "/dev/shm cannot be written to");
    };
    if fstatfs(fs::File::open(place.path()).unwrap().as_fd()).unwrap().f_type != TMPFS_MAGIC {
        return skip("a_change_of_another_client_is_never_hidden", "/dev/shm is not tmpfs");
    }
    for &scheme in schemes() {
        let served = Served::at(tempfile::tempdir_in(place.path()).unwrap());
        nothing_is_between(&served.node("a", scheme), TMPFS_ENTRY as i64);
    }
}

/// Seconds of mtime count what guarded changes did; each reads, adds one and is refused if somebody else was faster.
fn guards_lose_no_change(vfs: &dyn Vfs) {
    let node = file(vfs, &vfs.root().unwrap(), "counter", "").handle;
    let count = |seconds| Sattr { mtime: SetTime::Client(Time { seconds, nanos: 0 }), ..Sattr::default() };
    vfs.setattr(&own(), &node, &count(0), None).unwrap();
    let one = || {
        for _ in 0..CHANGES {
            loop {
                let attr = vfs.getattr(&own(), &node).unwrap();
                match vfs.setattr(&own(), &node, &count(attr.mtime.seconds + 1), Some(attr.ctime)) {
                    Ok(_) => break,
                    Err(status) => assert_eq!(status, NfsStat::NotSync),
                }
            }
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(one))));
    assert_eq!(vfs.getattr(&own(), &node).unwrap().mtime.seconds, THREADS * CHANGES);
}

#[test]
fn a_guard_and_its_change_are_one() {
    let root_user = remoor_server::vfs::Caller { uid: 0, gid: 0, gids: Vec::new() };
    let vfs = memory::MemoryVfs::new(memory::DEFAULT_LIMIT_BYTES, 1);
    let open = Sattr { mode: Some(0o777), ..Sattr::default() };
    vfs.setattr(&root_user, &vfs.root().unwrap(), &open, None).unwrap();
    guards_lose_no_change(&vfs);
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        if !tells_changes_apart(&vfs) {
            return skip("a_guard_and_its_change_are_one", "changes within a clock tick have one ctime here");
        }
        guards_lose_no_change(&vfs);
    }
}

/// Whether ctime changes with every change, as it does since Linux 6.13 where the file system has multigrain timestamps.
fn tells_changes_apart(vfs: &dyn Vfs) -> bool {
    let node = file(vfs, &vfs.root().unwrap(), "probe", "").handle;
    let chmod = |mode| {
        vfs.setattr(&own(), &node, &Sattr { mode: Some(mode), ..Sattr::default() }, None).unwrap();
        vfs.getattr(&own(), &node).unwrap().ctime
    };
    let times: Vec<Time> = (0..20).map(|n| chmod(0o600 + n)).collect();
    times.windows(2).all(|pair| pair[0] != pair[1])
}

/// A name means one file after the other, some with numbers used before, while others look it up.
#[test]
fn a_handle_belongs_to_the_attributes_it_comes_with() {
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        let root = vfs.root().unwrap();
        let done = AtomicBool::new(false);
        let look = || {
            while !done.load(SeqCst) {
                for look in [Vfs::lookup, Vfs::look_at] {
                    let Ok(node) = look(&vfs as &dyn Vfs, &own(), &root, b"name") else { continue };
                    match vfs.getattr(&own(), &node.handle) {
                        Ok(attr) => assert_eq!(attr.fileid, node.attr.fileid),
                        Err(status) => assert_eq!(status, NfsStat::Stale),
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            (0..2).for_each(|_| drop(scope.spawn(look)));
            for n in 0..CHANGES {
                file(&vfs, &root, "name", "");
                fs::write(served.dir().join("other"), b"").unwrap();
                if n % 2 == 0 {
                    fs::rename(served.dir().join("other"), served.dir().join("name")).unwrap();
                }
                vfs.remove(&own(), &root, b"name").unwrap();
            }
            done.store(true, SeqCst);
        });
    }
}

#[test]
fn a_listed_entry_has_the_handle_that_lookup_gives() {
    for &scheme in schemes() {
        let served = Served::new();
        fs::write(served.dir().join("file"), b"").unwrap();
        fs::create_dir(served.dir().join("dir")).unwrap();
        std::os::unix::fs::symlink("nowhere", served.dir().join("link")).unwrap();
        for held in [false, true] {
            let vfs = served.node("a", scheme);
            let root = vfs.root().unwrap();
            for name in [&b"file"[..], b"dir", b"link"] {
                let first = held.then(|| vfs.lookup(&own(), &root, name).unwrap());
                let listed = vfs.look_at(&own(), &root, name).unwrap();
                let later = vfs.lookup(&own(), &root, name).unwrap();
                assert_eq!(listed, first.unwrap_or_else(|| later.clone()));
                assert_eq!(listed, later);
                assert_eq!(vfs.getattr(&own(), &listed.handle), Ok(listed.attr));
            }
            assert_eq!(vfs.look_at(&own(), &root, b"none"), Err(NfsStat::NoEnt));
        }
    }
}

/// Whoever finds the file finds it with its verifier: a create that was cut off by a crash is known again.
#[test]
fn an_exclusive_file_is_never_seen_without_its_verifier() {
    let served = Served::new();
    let vfs = served.node("a", schemes()[0]);
    let root = vfs.root().unwrap();
    let done = AtomicBool::new(false);
    let watch = || {
        let mut seen = 0;
        loop {
            let last = done.load(SeqCst);
            for entry in fs::read_dir(served.dir()).unwrap() {
                let Ok(meta) = entry.unwrap().metadata() else { continue };
                assert_eq!(meta.mtime(), 0x7665_7269, "the verifier's first half");
                seen += 1;
            }
            if last {
                return seen;
            }
        }
    };
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(watch);
        for n in 0..CHANGES {
            let name = n.to_string().into_bytes();
            let made = vfs.create(&own(), &root, &name, &CreateHow::Exclusive(*b"verifier")).unwrap();
            let again = vfs.create(&own(), &root, &name, &CreateHow::Exclusive(*b"verifier")).unwrap();
            assert_eq!(made.node, again.node);
            vfs.remove(&own(), &root, &name).unwrap();
        }
        vfs.create(&own(), &root, b"last", &CreateHow::Exclusive(*b"verifier")).unwrap();
        done.store(true, SeqCst);
        watcher.join().unwrap()
    });
    assert!(seen > 0, "the last one is there");
}
