//! Files that are open while their name is removed or replaced.

use std::pin::pin;
use std::task::{Context, Waker};

use remoor_nfs::v3::{self, NfsStat, Sattr};
use tempfile::tempdir;

use super::host::{Host, Mount, WRITE, user};
use super::relay::{Deed, is, reply};
use crate::errno::Errno;
use crate::fs::open::OpenFlags;
use crate::fs::silly::{Journal, clean_up};
use crate::fs::{Config, NodeId, ROOT};

async fn silly_names(mount: &Mount) -> Vec<String> {
    let mut names = mount.names(ROOT).await;
    names.retain(|name| name.starts_with(".nfs"));
    names
}

async fn size_of(mount: &Mount, node: NodeId, size: u64) {
    let set = Sattr { size: Some(size), ..Sattr::default() };
    mount.fs.setattr(&user(0), node, None, set).await.unwrap();
}

#[tokio::test]
async fn a_file_removed_while_open_lives_until_it_is_closed() {
    let host = Host::directory();
    let mount = host.mount().await;
    let (entry, first) = mount.create("f", WRITE).await.unwrap();
    let second = mount.open(entry.node, WRITE).await.unwrap();
    mount.unlink(ROOT, "f").await.unwrap();
    assert_eq!(mount.find(ROOT, "f").await, Err(Errno::NOENT));
    assert_eq!(mount.attr(entry.node).await.unwrap().nlink, 0);
    let names = silly_names(&mount).await;
    assert!(names.len() == 1 && names[0].len() == 28, "{names:?}");
    assert_eq!(&names[0][4..20], format!("{:016x}", entry.attr.attr.fileid));
    mount.make(ROOT, "f").await;
    mount.fs.release(first).await.unwrap();
    size_of(&mount, entry.node, 3).await;
    assert_eq!(mount.attr(entry.node).await.unwrap().size, 3);
    mount.fs.release(second).await.unwrap();
    assert_eq!(mount.names(ROOT).await, ["f"]);
    assert_eq!(mount.told(), []);
}

#[tokio::test]
async fn a_file_with_another_name_needs_none() {
    let host = Host::memory();
    let mount = host.mount().await;
    let (entry, id) = mount.create("f", WRITE).await.unwrap();
    mount.fs.link(&user(0), entry.node, ROOT, b"g").await.unwrap();
    mount.unlink(ROOT, "f").await.unwrap();
    assert_eq!(mount.names(ROOT).await, ["g"]);
    mount.unlink(ROOT, "g").await.unwrap();
    assert_eq!(silly_names(&mount).await.len(), 1, "the last one");
    mount.fs.release(id).await.unwrap();
    assert_eq!(mount.names(ROOT).await, [""; 0]);
}

#[tokio::test]
async fn a_file_replaced_while_open_lives_until_it_is_closed() {
    let host = Host::directory();
    let mount = host.mount().await;
    let (old, id) = mount.create("f", WRITE).await.unwrap();
    size_of(&mount, old.node, 5).await;
    let new = mount.make(ROOT, "new").await.node;
    mount.rename("new", "f").await.unwrap();
    assert_eq!(mount.find(ROOT, "f").await.unwrap().node, new);
    let attr = mount.attr(old.node).await.unwrap();
    assert_eq!((attr.size, attr.nlink), (5, 0));
    assert_eq!(silly_names(&mount).await.len(), 1);
    mount.fs.release(id).await.unwrap();
    assert_eq!(mount.names(ROOT).await, ["f"]);
}

#[tokio::test]
async fn a_name_replaced_is_never_absent() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let (_, id) = mount.create("f", WRITE).await.unwrap();
    mount.make(ROOT, "new").await;
    let held = relay.hold::<v3::Link>();
    let fs = mount.fs.clone();
    let renaming = tokio::spawn(async move { fs.rename(&user(0), (ROOT, b"new"), (ROOT, b"f"), 0).await });
    let other = host.mount().await;
    while host.calls("LINK") == 0 {
        tokio::task::yield_now().await;
    }
    other.find(ROOT, "f").await.unwrap();
    held.add_permits(1);
    renaming.await.unwrap().unwrap();
    assert_eq!(host.calls("RENAME"), 1);
    mount.fs.release(id).await.unwrap();
}

#[tokio::test]
async fn where_nothing_can_be_linked_the_replaced_file_is_renamed() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let (old, id) = mount.create("f", WRITE).await.unwrap();
    size_of(&mount, old.node, 5).await;
    mount.make(ROOT, "new").await;
    relay.refuse::<v3::Link, _, _>(NfsStat::NotSupp, 1);
    mount.rename("new", "f").await.unwrap();
    assert_eq!(mount.attr(old.node).await.unwrap().size, 5);
    mount.fs.release(id).await.unwrap();
    assert_eq!(mount.names(ROOT).await, ["f"]);
}

#[tokio::test]
async fn a_rename_that_fails_is_undone() {
    let host = Host::memory();
    for linkable in [true, false] {
        let (mount, relay) = host.mount_relayed(Config::default()).await;
        let (old, id) = mount.create("f", WRITE).await.unwrap();
        mount.make(ROOT, "new").await;
        relay.rule(move |call| {
            if is::<v3::Link>(call) && !linkable {
                return reply::<v3::Link>(call, &v3::Res::Fail(NfsStat::NotSupp, Default::default()));
            }
            let new = call.args.rest().windows(3).any(|bytes| bytes == b"new");
            if !is::<v3::Rename>(call) || !new {
                return Deed::Pass;
            }
            reply::<v3::Rename>(call, &v3::Res::Fail(NfsStat::Io, Default::default()))
        });
        assert_eq!(mount.rename("new", "f").await, Err(Errno::IO));
        assert_eq!(mount.names(ROOT).await, ["f", "new"], "linkable: {linkable}");
        assert_eq!(mount.find(ROOT, "f").await.unwrap().node, old.node);
        mount.fs.release(id).await.unwrap();
        mount.unlink(ROOT, "f").await.unwrap();
        mount.unlink(ROOT, "new").await.unwrap();
    }
}

#[tokio::test]
async fn the_sticky_bit_keeps_what_others_have_open() {
    let host = Host::memory();
    let mount = host.mount().await;
    let sticky = Sattr { mode: Some(0o1777), ..Sattr::default() };
    mount.fs.setattr(&user(0), ROOT, None, sticky).await.unwrap();
    let (_, id) = mount.create("f", WRITE).await.unwrap();
    let (from, to) = ((ROOT, &b"mine"[..]), (ROOT, &b"f"[..]));
    mount.fs.mkdir(&user(1000), ROOT, b"dir", 0o755).await.unwrap();
    mount.fs.symlink(&user(1000), ROOT, b"mine", b"x").await.unwrap();
    assert_eq!(mount.fs.rename(&user(1000), from, to, 0).await, Err(Errno::PERM));
    assert_eq!(mount.fs.unlink(&user(1000), ROOT, b"f").await, Err(Errno::PERM));
    assert_eq!(mount.names(ROOT).await, ["dir", "f", "mine"]);
    mount.fs.release(id).await.unwrap();
}

#[tokio::test]
async fn what_a_crash_left_is_removed_by_the_next_mount() {
    let host = Host::directory();
    let journals = tempdir().unwrap();
    let (client, root) = host.client(host.address).await;
    let journal = Journal::create(journals.path(), &root).unwrap();
    let crashed = host.mount_through(host.address, Config::default(), journal).await;
    crashed.create("f", WRITE).await.unwrap();
    crashed.create("g", WRITE).await.unwrap();
    crashed.unlink(ROOT, "f").await.unwrap();
    crashed.unlink(ROOT, "g").await.unwrap();
    let left = silly_names(&crashed).await;
    assert_eq!(left.len(), 2);
    let other = host.mount().await;
    assert_eq!(clean_up(journals.path(), &root, &client).await.unwrap(), 0, "it lives");
    // Another file has taken one of the names.
    other.unlink(ROOT, &left[1]).await.unwrap();
    other.make(ROOT, &left[1]).await;
    drop(crashed);
    assert_eq!(clean_up(journals.path(), &root, &client).await.unwrap(), 1);
    assert_eq!(other.names(ROOT).await, [left[1].clone()], "not ours any more");
    assert_eq!(std::fs::read_dir(journals.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_unmount_leaves_nothing() {
    let host = Host::memory();
    let journals = tempdir().unwrap();
    let (_, root) = host.client(host.address).await;
    let journal = Journal::create(journals.path(), &root).unwrap();
    let mount = host.mount_through(host.address, Config::default(), journal).await;
    mount.create("f", WRITE).await.unwrap();
    mount.unlink(ROOT, "f").await.unwrap();
    mount.fs.remove_all_silly().await;
    assert_eq!(mount.names(ROOT).await, [""; 0]);
    drop(mount);
    assert_eq!(std::fs::read_dir(journals.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_was_not_written_of_a_removed_file_need_not_be() {
    let host = Host::memory();
    let mount = host.mount().await;
    let (_, id) = mount.create("f", WRITE).await.unwrap();
    mount.fs.write(id, 0, "data".into(), WRITE).await.unwrap();
    mount.unlink(ROOT, "f").await.unwrap();
    let before = host.calls("WRITE");
    mount.fs.release(id).await.unwrap();
    assert_eq!(mount.names(ROOT).await, [""; 0]);
    mount.fs.sync_all().await.unwrap();
    assert_eq!(host.calls("WRITE"), before);
}

#[tokio::test]
async fn an_answer_from_before_a_name_was_removed_does_not_make_the_last_one_look_spare() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let (entry, id) = mount.create("f", WRITE).await.unwrap();
    mount.fs.link(&user(0), entry.node, ROOT, b"g").await.unwrap();
    let (permits, before) = (relay.hold::<v3::Access>(), host.calls("ACCESS"));
    let fs = mount.fs.clone();
    let opening = tokio::spawn(async move { fs.open(&user(0), entry.node, WRITE).await });
    while host.calls("ACCESS") == before {
        tokio::task::yield_now().await;
    }
    mount.unlink(ROOT, "g").await.unwrap();
    permits.add_permits(1);
    opening.await.unwrap().unwrap();
    relay.rule(|_| Deed::Pass);
    assert_eq!(mount.attr(entry.node).await.unwrap().nlink, 1);
    mount.unlink(ROOT, "f").await.unwrap();
    mount.fs.fsync(id).await.unwrap();
    assert_eq!(silly_names(&mount).await.len(), 1, "it is open");
}

/// As the kernel does it: RELEASE is received, and is not waited for, before what comes next.
#[tokio::test]
async fn a_directory_is_empty_once_what_was_removed_in_it_is_closed() {
    let host = Host::directory();
    let mount = host.mount().await;
    for n in 0..4 {
        let dir = mount.mkdir(ROOT, "d").await.node;
        let flags = OpenFlags(libc::O_RDWR | libc::O_CREAT);
        let (_, opened) = mount.fs.create(&user(0), dir, b"f", 0o644, flags).await.unwrap();
        mount.unlink(dir, "f").await.unwrap();
        let mut release = pin!(mount.fs.release(opened.id));
        let polled = release.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        match n {
            0 => {}
            1 => assert_eq!(mount.names(dir).await, [""; 0]),
            2 => {
                // What is known of names may have been forgotten meanwhile.
                mount.fs.our_name(&mount.fs.nodes.get(ROOT).unwrap(), |names| names.remove(b"d"));
            }
            _ => {
                mount.mkdir(ROOT, "e").await;
                mount.rename("e", "d").await.unwrap();
            }
        }
        mount.fs.rmdir(&user(0), ROOT, b"d").await.unwrap();
        release.await.unwrap();
    }
}
