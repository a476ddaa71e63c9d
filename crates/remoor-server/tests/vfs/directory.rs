//! READDIR over directories that change.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::ops::ControlFlow;

use remoor_nfs::v3::NfsStat;
use remoor_server::vfs::{Vfs, memory};

use crate::served::{Served, directory, entries, file, names, own, schemes};

const ENTRIES: usize = 50_000;
/// Entries a call takes; not a divisor of what a system call gives.
const PER_CALL: usize = 997;

/// Lists the directory in many calls; meanwhile removes every third name, ahead of the listing and behind it, and makes new
/// ones.
fn list_while_removing(vfs: &dyn Vfs, restart: &dyn Fn() -> Option<Box<dyn Vfs>>) {
    let root = vfs.root().unwrap();
    let all: BTreeSet<String> =
        names(vfs, &root).iter().map(|name| String::from_utf8_lossy(name).into()).collect();
    let mut doomed = all.iter().filter(|name| name.as_bytes()[name.len() - 1].is_multiple_of(3));
    let (mut seen, mut cookie, mut end) = (HashMap::new(), 0, false);
    while !end {
        let other = restart();
        let vfs = other.as_deref().unwrap_or(vfs);
        let (from, mut left) = (cookie, PER_CALL);
        let mut take = |entry: remoor_server::vfs::DirEntry| {
            *seen.entry(String::from_utf8(entry.name.to_vec()).unwrap()).or_insert(0) += 1;
            assert_ne!(entry.cookie, 0);
            cookie = entry.cookie;
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        end = vfs.readdir(&own(), &root, from, &mut take).unwrap();
        for name in doomed.by_ref().take(PER_CALL / 2) {
            vfs.remove(&own(), &root, name.as_bytes()).unwrap();
            file(vfs, &root, &format!("new {name}"), "");
        }
    }
    assert!(seen.values().all(|times| *times == 1), "an entry came twice");
    let left: BTreeSet<String> =
        names(vfs, &root).iter().map(|name| String::from_utf8_lossy(name).into()).collect();
    let mut stayed = left.iter().filter(|name| !name.starts_with("new "));
    assert!(left != all && stayed.all(|name| seen.contains_key(name)), "an entry was lost");
}

#[test]
fn nothing_comes_twice_and_nothing_that_stays_is_lost() {
    for &scheme in schemes() {
        let served = Served::new();
        (0..ENTRIES)
            .for_each(|n| fs::write(served.dir().join(format!("a rather long name {n}")), b"").unwrap());
        list_while_removing(&served.node("a", scheme), &|| None);
    }
}

#[test]
fn cookies_hold_across_restarts() {
    for &scheme in schemes() {
        let served = Served::new();
        (0..ENTRIES / 10).for_each(|n| fs::write(served.dir().join(format!("{n}")), b"").unwrap());
        list_while_removing(&served.node("a", scheme), &|| Some(Box::new(served.node("a", scheme))));
    }
}

/// An empty memory file system whose root everybody may write to.
fn own_memory() -> memory::MemoryVfs {
    let vfs = memory::MemoryVfs::new(memory::DEFAULT_LIMIT_BYTES, 1);
    let root_user = remoor_server::vfs::Caller { uid: 0, gid: 0, gids: Vec::new() };
    let open = remoor_nfs::v3::Sattr { mode: Some(0o777), ..Default::default() };
    vfs.setattr(&root_user, &vfs.root().unwrap(), &open, None).unwrap();
    vfs
}

#[test]
fn memory_lists_like_a_disk() {
    let vfs = own_memory();
    let root = vfs.root().unwrap();
    (0..ENTRIES).for_each(|n| drop(file(&vfs, &root, &n.to_string(), "")));
    list_while_removing(&vfs, &|| None);
}

/// Both dots, with the numbers that GETATTR gives.
fn has_dots(vfs: &dyn Vfs) {
    let root = vfs.root().unwrap();
    let sub = directory(vfs, &root, "sub");
    let fileid = |node| vfs.getattr(&own(), node).unwrap().fileid;
    let dots = |dir| {
        let dots = entries(vfs, dir).into_iter().filter(|entry| entry.name.starts_with(b"."));
        dots.map(|entry| (entry.name, entry.fileid)).collect::<BTreeSet<_>>()
    };
    let expected = [(".".into(), fileid(&sub.handle)), ("..".into(), fileid(&root))];
    assert_eq!(dots(&sub.handle), BTreeSet::from(expected));
    let of_root: Vec<_> = dots(&root).into_iter().collect();
    assert_eq!(of_root[0], (".".into(), fileid(&root)));
    assert_eq!(&of_root[1].0[..], b"..");
}

#[test]
fn dot_and_dot_dot_are_listed() {
    for &scheme in schemes() {
        let served = Served::new();
        has_dots(&served.node("a", scheme));
    }
    has_dots(&own_memory());
}

#[test]
fn a_file_is_not_listed() {
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        let node = file(&vfs, &vfs.root().unwrap(), "file", "");
        let listed = vfs.readdir(&own(), &node.handle, 0, &mut |_| ControlFlow::Continue(()));
        assert_eq!(listed, Err(NfsStat::NotDir));
    }
}
