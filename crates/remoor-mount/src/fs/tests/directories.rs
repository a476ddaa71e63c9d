//! Reading directories.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use remoor_nfs::v3::{self, NfsStat};

use super::host::{Host, Mount, user};
use super::relay::{Deed, is, reply};
use crate::errno::Errno;
use crate::fs::directory::DirEntry;
use crate::fs::open::OpenId;
use crate::fs::{Config, ROOT};

/// More than one chunk.
const MANY: usize = 1500;

async fn fill(mount: &Mount, count: usize) -> BTreeSet<Bytes> {
    let mut names = BTreeSet::from([Bytes::from_static(b"."), Bytes::from_static(b"..")]);
    for n in 0..count {
        let mut name = format!("{n:06}-").into_bytes();
        name.resize(60, 0xff);
        let made = mount.fs.symlink(&user(0), ROOT, &name, b"x").await.unwrap();
        mount.fs.forget(made.node, 1);
        names.insert(name.into());
    }
    names
}

/// One call that takes up to `room` entries.
async fn some(mount: &Mount, id: OpenId, offset: u64, room: usize, plus: bool) -> Vec<DirEntry> {
    let mut entries = Vec::new();
    let mut take = |entry: &DirEntry| {
        let fits = entries.len() < room;
        if fits {
            entries.push(entry.clone());
        }
        fits
    };
    match plus {
        true => mount.fs.readdirplus(id, offset, &mut take).await.unwrap(),
        false => mount.fs.readdir(id, offset, &mut take).await.unwrap(),
    }
    entries
}

async fn all(mount: &Mount, id: OpenId, room: usize, plus: bool) -> Vec<DirEntry> {
    let mut entries: Vec<DirEntry> = Vec::new();
    loop {
        let offset = entries.last().map_or(0, |entry| entry.offset);
        match some(mount, id, offset, room, plus).await {
            more if more.is_empty() => return entries,
            more => entries.extend(more),
        }
    }
}

fn names(entries: &[DirEntry]) -> BTreeSet<Bytes> {
    let names: BTreeSet<Bytes> = entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names.len(), entries.len(), "a name was given twice");
    names
}

#[tokio::test]
async fn every_entry_is_given_once_in_either_way() {
    for host in [Host::memory(), Host::directory()] {
        let mount = host.mount().await;
        let made = fill(&mount, MANY).await;
        for (room, plus) in [(37, false), (37, true), (usize::MAX, true)] {
            let id = mount.fs.opendir(&user(0), ROOT).await.unwrap();
            let entries = all(&mount, id, room, plus).await;
            assert_eq!(names(&entries), made, "{room} {plus}");
            for entry in entries.iter().filter(|entry| !entry.name.starts_with(b".")) {
                assert_eq!(entry.found.is_some(), plus);
                if let Some(found) = &entry.found {
                    assert_eq!(found.attr.attr.fileid, entry.fileid);
                    mount.fs.forget(found.node, 1);
                }
            }
            assert_eq!(mount.fs.nodes.len(), 1, "what was not taken is not counted either");
            mount.fs.releasedir(id).unwrap();
        }
    }
}

#[tokio::test]
async fn a_listing_makes_names_known_without_asking() {
    let host = Host::memory();
    let mount = host.mount().await;
    fill(&mount, 3).await;
    let id = mount.fs.opendir(&user(0), ROOT).await.unwrap();
    let entries = all(&mount, id, usize::MAX, true).await;
    let before = host.calls("LOOKUP") + host.calls("GETATTR");
    for entry in entries.iter().filter(|entry| entry.found.is_some()) {
        mount.fs.lookup(&user(0), ROOT, &entry.name).await.unwrap();
    }
    assert_eq!(host.calls("LOOKUP") + host.calls("GETATTR"), before);
}

#[tokio::test]
async fn seekdir_goes_back_to_any_entry_and_rewinddir_sees_what_is_new() {
    let host = Host::memory();
    let mount = host.mount().await;
    fill(&mount, MANY).await;
    let id = mount.fs.opendir(&user(0), ROOT).await.unwrap();
    let entries = all(&mount, id, 100, false).await;
    for at in [0, 1, 2, 700, MANY] {
        let after = some(&mount, id, entries[at].offset, 2, false).await;
        let expected: Vec<_> = entries[at + 1..].iter().take(2).collect();
        assert_eq!(after.iter().collect::<Vec<_>>(), expected, "after entry {at}");
    }
    mount.make(ROOT, "zzz").await;
    let again = all(&mount, id, usize::MAX, false).await;
    assert!(again.iter().any(|entry| &entry.name[..] == b"zzz"));
}

#[tokio::test]
async fn dots_have_the_numbers_of_the_directory_and_its_parent() {
    let host = Host::directory();
    let mount = host.mount().await;
    let dir = mount.mkdir(ROOT, "d").await;
    let id = mount.fs.opendir(&user(0), dir.node).await.unwrap();
    let dots = all(&mount, id, 1, true).await;
    let root = mount.attr(ROOT).await.unwrap().fileid;
    let seen: Vec<_> = dots.iter().map(|dot| (&dot.name[..], dot.fileid)).collect();
    assert_eq!(seen, [(&b"."[..], dir.attr.attr.fileid), (&b".."[..], root)]);
}

#[tokio::test]
async fn a_server_without_readdirplus_is_asked_once() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let made = fill(&mount, 10).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    relay.rule(move |call| {
        if !is::<v3::Readdirplus>(call) {
            return Deed::Pass;
        }
        count.fetch_add(1, Relaxed);
        reply::<v3::Readdirplus>(call, &v3::Res::Fail(NfsStat::NotSupp, None))
    });
    for _ in 0..2 {
        let id = mount.fs.opendir(&user(0), ROOT).await.unwrap();
        assert_eq!(names(&all(&mount, id, 4, true).await), made);
    }
    assert_eq!(asked.load(Relaxed), 1);
}

#[tokio::test]
async fn entries_without_handle_or_attributes_are_given_all_the_same() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    relay.rule(|call| {
        if !is::<v3::Readdirplus>(call) {
            return Deed::Pass;
        }
        let entry = |n: u64, file: Option<v3::FileHandle>| v3::EntryPlus {
            fileid: n,
            name: Bytes::from(n.to_string()).into(),
            cookie: n,
            attr: None,
            file,
        };
        let entries = remoor_rpc::xdr::List(vec![entry(3, None), entry(4, Some("handle".into()))]);
        let ok = v3::ReaddirplusOk { dir_attr: None, verf: [0; 8], entries, eof: true };
        reply::<v3::Readdirplus>(call, &v3::Res::Ok(ok))
    });
    let id = mount.fs.opendir(&user(0), ROOT).await.unwrap();
    let entries = all(&mount, id, 1, true).await;
    assert_eq!(entries.len(), 4);
    assert!(entries.iter().all(|entry| entry.found.is_none()));
}

/// Answers BAD_COOKIE to the next READDIRPLUS that does not begin at the start.
fn lose_a_cookie() -> impl FnMut(&remoor_rpc::message::Call) -> Deed + Send {
    let mut lost = false;
    move |call| {
        if !is::<v3::Readdirplus>(call) || lost {
            return Deed::Pass;
        }
        let args: v3::ReaddirplusArgs = remoor_rpc::xdr::from_bytes(call.args.rest(), "args").unwrap();
        lost = args.cookie != 0;
        match lost {
            true => reply::<v3::Readdirplus>(call, &v3::Res::Fail(NfsStat::BadCookie, None)),
            false => Deed::Pass,
        }
    }
}

#[tokio::test]
async fn a_lost_cookie_is_found_again() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let made = fill(&mount, MANY).await;
    relay.rule(lose_a_cookie());
    let id = mount.fs.opendir(&user(0), ROOT).await.unwrap();
    assert_eq!(names(&all(&mount, id, 64, true).await), made);
}

#[tokio::test]
async fn a_directory_emptied_while_it_is_read_ends_empty() {
    for host in [Host::memory(), Host::directory()] {
        let (mount, relay) = host.mount_relayed(Config::default()).await;
        fill(&mount, MANY).await;
        relay.rule(lose_a_cookie());
        let id = mount.fs.opendir(&user(0), ROOT).await.unwrap();
        let mut offset = 0;
        loop {
            let entries = some(&mount, id, offset, 50, true).await;
            let Some(last) = entries.last() else { break };
            offset = last.offset;
            for entry in entries.iter().filter(|entry| !entry.name.starts_with(b".")) {
                match mount.fs.unlink(&user(0), ROOT, &entry.name).await {
                    Ok(()) | Err(Errno::NOENT) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(mount.names(ROOT).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_server_that_gets_nowhere_is_found_out() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    relay.rule(|call| {
        if !is::<v3::Readdir>(call) {
            return Deed::Pass;
        }
        let ok = v3::ReaddirOk {
            dir_attr: None,
            verf: [0; 8],
            entries: remoor_rpc::xdr::List(Vec::new()),
            eof: false,
        };
        reply::<v3::Readdir>(call, &v3::Res::Ok(ok))
    });
    let id = mount.fs.opendir(&user(0), ROOT).await.unwrap();
    assert_eq!(mount.fs.readdir(id, 0, &mut |_| true).await, Err(Errno::IO));
}

#[tokio::test]
async fn a_directory_must_be_readable_to_be_opened() {
    let host = Host::memory();
    let mount = host.mount().await;
    let dir = mount.fs.mkdir(&user(0), ROOT, b"d", 0o711).await.unwrap().node;
    assert_eq!(mount.fs.opendir(&user(1000), dir).await, Err(Errno::ACCES));
    let file = mount.make(ROOT, "f").await.node;
    assert_eq!(mount.fs.opendir(&user(0), file).await, Err(Errno::NOTDIR));
    assert_eq!(mount.fs.readdir(OpenId(99), 0, &mut |_| true).await, Err(Errno::BADF));
}
