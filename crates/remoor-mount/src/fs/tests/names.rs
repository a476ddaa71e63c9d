//! Making, removing, renaming and linking.

use remoor_nfs::v3::{self, Device, FileType, NfsStat, Sattr};

use super::host::{Host, Invalid, Mount, user};
use super::relay::{Deed, is, reply};
use crate::errno::Errno;
use crate::fs::{Config, MAX_NAME, ROOT};

#[tokio::test]
async fn every_type_is_made_with_its_mode() {
    let host = Host::memory();
    let mount = host.mount().await;
    let device = Device { major: 8, minor: 1 };
    for (name, kind) in [
        ("fifo", FileType::Fifo),
        ("socket", FileType::Socket),
        ("block", FileType::Block),
        ("char", FileType::Character),
        ("file", FileType::Regular),
    ] {
        let made = mount.fs.mknod(&user(0), ROOT, name.as_bytes(), kind, 0o640, device).await.unwrap();
        let attr = made.attr.attr;
        assert_eq!((attr.kind, attr.mode & 0o7777), (kind, 0o640), "{name}");
        if matches!(kind, FileType::Block | FileType::Character) {
            assert_eq!(attr.rdev, device);
        }
    }
    let link = mount.fs.symlink(&user(0), ROOT, b"link", b"to/\xff").await.unwrap();
    assert_eq!(&mount.fs.readlink(&user(0), link.node).await.unwrap()[..], b"to/\xff");
    assert_eq!(mount.mkdir(ROOT, "dir").await.attr.attr.kind, FileType::Directory);
}

#[tokio::test]
async fn names_are_bytes_of_at_most_255() {
    let host = Host::memory();
    let mount = host.mount().await;
    let long = vec![0xfe; MAX_NAME];
    let made = mount.fs.mkdir(&user(0), ROOT, &long, 0o755).await.unwrap().node;
    let crate::fs::Lookup::Found(found) = mount.fs.lookup(&user(0), ROOT, &long).await.unwrap() else {
        panic!("missing")
    };
    assert_eq!(found.node, made);
    let longer = vec![b'a'; MAX_NAME + 1];
    assert_eq!(mount.fs.mkdir(&user(0), ROOT, &longer, 0o755).await, Err(Errno::NAMETOOLONG));
    assert_eq!(mount.fs.lookup(&user(0), ROOT, &longer).await, Err(Errno::NAMETOOLONG));
}

#[tokio::test]
async fn what_we_make_and_remove_is_known_without_asking() {
    let host = Host::memory();
    let mount = host.mount().await;
    let dir = mount.mkdir(ROOT, "d").await.node;
    let before = host.calls("LOOKUP") + host.calls("GETATTR");
    let file = mount.make(dir, "f").await.node;
    assert_eq!(mount.find(dir, "f").await.unwrap().node, file);
    mount.unlink(dir, "f").await.unwrap();
    assert_eq!(mount.find(dir, "f").await, Err(Errno::NOENT));
    mount.make(dir, "g").await;
    mount.fs.rename(&user(0), (dir, b"g"), (ROOT, b"h"), 0).await.unwrap();
    assert_eq!(mount.find(dir, "g").await, Err(Errno::NOENT));
    assert_eq!(host.calls("LOOKUP") + host.calls("GETATTR"), before);
    mount.find(ROOT, "h").await.unwrap();
    assert_eq!(mount.attr(dir).await.unwrap().nlink, 2);
}

#[tokio::test]
async fn errors_are_those_of_the_server() {
    let host = Host::memory();
    let mount = host.mount().await;
    let dir = mount.mkdir(ROOT, "d").await.node;
    mount.make(dir, "f").await;
    assert_eq!(mount.fs.mkdir(&user(0), ROOT, b"d", 0o755).await, Err(Errno::EXIST));
    assert_eq!(mount.fs.rmdir(&user(0), ROOT, b"d").await, Err(Errno::NOTEMPTY));
    assert_eq!(mount.unlink(ROOT, "none").await, Err(Errno::NOENT));
    assert_eq!(mount.rename("none", "d").await, Err(Errno::NOENT));
    assert_eq!(mount.fs.rmdir(&user(1000), dir, b"f").await, Err(Errno::ACCES));
    let (from, to) = ((ROOT, &b"d"[..]), (ROOT, &b"e"[..]));
    assert_eq!(mount.fs.rename(&user(0), from, to, 1).await, Err(Errno::INVAL), "RENAME_NOREPLACE");
    let (kind, device) = (FileType::Directory, Device { major: 0, minor: 0 });
    let made = mount.fs.mknod(&user(0), ROOT, b"x", kind, 0, device).await;
    assert_eq!(made, Err(Errno::INVAL));
}

#[tokio::test]
async fn a_rename_replaces_and_the_replaced_file_loses_a_link() {
    let host = Host::memory();
    let mount = host.mount().await;
    let (a, b) = (mount.make(ROOT, "a").await.node, mount.make(ROOT, "b").await.node);
    mount.fs.link(&user(0), b, ROOT, b"c").await.unwrap();
    mount.rename("a", "b").await.unwrap();
    assert_eq!(mount.find(ROOT, "b").await.unwrap().node, a);
    assert_eq!(mount.attr(b).await.unwrap().nlink, 1);
    assert_eq!(mount.names(ROOT).await, ["b", "c"]);
}

#[tokio::test]
async fn a_directory_renamed_keeps_what_is_known_below() {
    let host = Host::memory();
    let mount = host.mount().await;
    let (d, e) = (mount.mkdir(ROOT, "d").await.node, mount.mkdir(ROOT, "e").await.node);
    let file = mount.make(d, "f").await.node;
    mount.fs.rename(&user(0), (ROOT, b"d"), (e, b"d"), 0).await.unwrap();
    assert_eq!(mount.find(e, "d").await.unwrap().node, d);
    assert_eq!(mount.find(d, "f").await.unwrap().node, file);
    assert_eq!((mount.attr(ROOT).await.unwrap().nlink, mount.attr(e).await.unwrap().nlink), (3, 3));
}

#[tokio::test]
async fn setattr_sets_what_is_given_and_no_more() {
    let host = Host::memory();
    let mount = host.mount().await;
    let file = mount.make(ROOT, "f").await.node;
    let before = mount.attr(file).await.unwrap();
    let set = Sattr { uid: Some(5), size: Some(100), ..Sattr::default() };
    let after = mount.fs.setattr(&user(0), file, None, set).await.unwrap().attr;
    assert_eq!((after.uid, after.gid, after.size, after.mode), (5, before.gid, 100, before.mode));
    let calls = host.calls("SETATTR");
    mount.fs.setattr(&user(0), file, None, Sattr::default()).await.unwrap();
    assert_eq!(host.calls("SETATTR"), calls, "nothing to set");
    let too_large = Sattr { size: Some(u64::MAX), ..Sattr::default() };
    assert_eq!(mount.fs.setattr(&user(0), file, None, too_large).await, Err(Errno::FBIG));
}

#[tokio::test]
async fn statfs_tells_the_servers_space() {
    let host = Host::memory();
    let mount = host.mount().await;
    let told = mount.fs.statfs(&user(0), ROOT).await.unwrap();
    assert!(told.total_bytes == 256 << 20 && told.free_bytes <= told.total_bytes);
}

async fn refused_once<P, T, F>(status: NfsStat) -> (Host, Mount)
where
    P: remoor_rpc::program::Procedure<Res = v3::Res<T, F>>,
    T: remoor_rpc::xdr::Xdr,
    F: remoor_rpc::xdr::Xdr + Default,
{
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    relay.refuse::<P, T, F>(status, 1);
    (host, mount)
}

#[tokio::test]
async fn what_was_known_of_a_name_is_in_doubt_after_an_error() {
    let (host, mount) = refused_once::<v3::Remove, _, _>(NfsStat::Io).await;
    mount.make(ROOT, "f").await;
    assert_eq!(mount.unlink(ROOT, "f").await, Err(Errno::IO));
    let before = host.calls("LOOKUP");
    mount.find(ROOT, "f").await.unwrap();
    assert_eq!(host.calls("LOOKUP"), before + 1);
}

#[tokio::test]
async fn renaming_between_two_names_of_a_file_does_nothing() {
    let host = Host::memory();
    let mount = host.mount().await;
    let file = mount.make(ROOT, "a").await.node;
    mount.fs.link(&user(0), file, ROOT, b"b").await.unwrap();
    mount.rename("a", "b").await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(mount.find(ROOT, name).await.unwrap().node, file, "{name}");
    }
    assert_eq!(mount.attr(file).await.unwrap().nlink, 2);
}

#[tokio::test]
async fn renaming_to_a_name_nothing_is_known_of_may_do_nothing() {
    let host = Host::memory();
    let mount = host.mount().await;
    let file = mount.make(ROOT, "a").await.node;
    mount.fs.link(&user(0), file, ROOT, b"b").await.unwrap();
    let other = host.mount().await;
    other.find(ROOT, "a").await.unwrap();
    other.rename("a", "b").await.unwrap();
    assert!(other.find(ROOT, "a").await.is_ok() && other.find(ROOT, "b").await.is_ok());
}

/// A mount whose first RENAME meets `first` and is not answered, and whose second finds nothing to rename.
async fn rename_sent_twice(host: &Host, mut first: impl FnMut() -> Deed + Send + 'static) -> Mount {
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let quick = "noresvport,timeo=1".parse().unwrap();
    mount.fs.client.reconfigure(&quick).await.unwrap();
    let mut times = 0;
    relay.rule(move |call| {
        times += usize::from(is::<v3::Rename>(call));
        match times {
            _ if !is::<v3::Rename>(call) => Deed::Pass,
            1 => first(),
            _ => reply::<v3::Rename>(call, &v3::Res::Fail(NfsStat::NoEnt, v3::RenameWcc::default())),
        }
    });
    mount
}

#[tokio::test]
async fn a_rename_whose_reply_was_lost_and_that_another_node_is_asked_for_has_been_done() {
    let host = Host::memory();
    let never = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let mount = rename_sent_twice(&host, move || Deed::Hold(never.clone())).await;
    let file = mount.make(ROOT, "a").await.node;
    assert_eq!(mount.find(ROOT, "b").await, Err(Errno::NOENT));
    mount.rename("a", "b").await.unwrap();
    assert_eq!(mount.find(ROOT, "b").await.unwrap().node, file);
    assert_eq!(mount.find(ROOT, "a").await, Err(Errno::NOENT));
}

#[tokio::test]
async fn a_rename_sent_twice_that_was_not_done_is_none_and_the_kernel_asks_for_its_target() {
    let host = Host::memory();
    let mount = rename_sent_twice(&host, || Deed::Drop).await;
    mount.make(ROOT, "a").await;
    mount.told();
    assert_eq!(mount.rename("a", "b").await, Err(Errno::NOENT));
    assert!(mount.told().contains(&Invalid::Entry(ROOT, "b".into())));
}
