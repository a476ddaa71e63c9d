//! On whose behalf calls run, and what is stable when.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use bytes::Bytes;
use remoor_nfs::v3::{CreateHow, NfsStat, Sattr, StableHow, access};
use remoor_server::vfs::local::{Durability, LocalOptions, LocalVfs};
use remoor_server::vfs::{Caller, Vfs};

use crate::served::{Served, file, own, owns_every_user, schemes};

fn user(uid: u32, gids: &[u32]) -> Caller {
    Caller { uid, gid: uid, gids: gids.to_vec() }
}

/// The export with mode 0777, where calls run as their callers; or none if this process may not do that.
fn per_call() -> Option<(Served, LocalVfs)> {
    let served = Served::new();
    let vfs = served.node("a", schemes()[0]);
    fs::set_permissions(served.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    if vfs.is_single_user() { None } else { Some((served, vfs)) }
}

#[test]
fn the_owner_writes_and_reads_whatever_the_mode() {
    let served = Served::new();
    let vfs = served.node("a", schemes()[0]);
    let root = vfs.root().unwrap();
    let caller = if vfs.is_single_user() { own() } else { user(1000, &[]) };
    fs::set_permissions(served.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let how = CreateHow::Guarded(Sattr { mode: Some(0o444), ..Sattr::default() });
    let node = vfs.create(&caller, &root, b"object", &how).unwrap().node;
    assert_eq!((node.attr.mode, node.attr.uid), (0o444, caller.uid));
    let data = Bytes::from_static(b"content");
    let written = vfs.write(&caller, &node.handle, 0, &data, StableHow::Unstable).unwrap();
    assert_eq!(written.committed, StableHow::Unstable);
    let read = vfs.read(&caller, &node.handle, 0, 100).unwrap();
    assert_eq!((read.data.into_bytes().unwrap(), read.eof), (data, true));
}

/// As git and cp do: a read-only file is made, and then filled through the descriptor of its making.
#[test]
fn the_owner_truncates_whatever_the_mode_and_others_do_not() {
    let Some((_served, vfs)) = per_call() else { return assert!(!own().is_root() || in_container()) };
    let root = vfs.root().unwrap();
    let how = CreateHow::Exclusive(*b"verifier");
    let node = vfs.create(&user(1000, &[]), &root, b"object", &how).unwrap().node;
    let set = |caller, attr: Sattr| vfs.setattr(&caller, &node.handle, &attr, None);
    set(user(1000, &[]), Sattr { mode: Some(0o444), ..Sattr::default() }).unwrap();
    let write = |caller, text: &'static str| {
        vfs.write(&caller, &node.handle, 0, &Bytes::from_static(text.as_bytes()), StableHow::Unstable)
    };
    write(user(1000, &[]), "content").unwrap();
    let size = |size| Sattr { size: Some(size), ..Sattr::default() };
    assert_eq!(set(user(1000, &[]), size(3)).unwrap().after.unwrap().size, 3);
    assert_eq!(set(user(1001, &[1000]), size(0)), Err(NfsStat::Acces));
    assert_eq!(write(user(1001, &[1000]), "x"), Err(NfsStat::Acces));
    vfs.commit(&user(1000, &[]), &node.handle).unwrap();
    assert_eq!(vfs.commit(&user(1001, &[]), &node.handle), Err(NfsStat::Acces));
}

/// What was granted is not remembered beyond the change that takes it away.
#[test]
fn who_lost_the_right_to_write_loses_it_at_once() {
    let Some((served, vfs)) = per_call() else { return assert!(!own().is_root() || in_container()) };
    let node = file(&vfs, &vfs.root().unwrap(), "file", "text");
    let chmod = |mode| Sattr { mode: Some(mode), ..Sattr::default() };
    let write = || {
        let data = Bytes::from_static(b"x");
        vfs.write(&user(1000, &[]), &node.handle, 0, &data, StableHow::Unstable).map(drop)
    };
    let access = || vfs.access(&user(1000, &[]), &node.handle, access::MODIFY).unwrap().0;
    vfs.setattr(&own(), &node.handle, &chmod(0o666), None).unwrap();
    assert_eq!((write(), access()), (Ok(()), access::MODIFY));
    vfs.setattr(&own(), &node.handle, &chmod(0o644), None).unwrap();
    assert_eq!((write(), access()), (Err(NfsStat::Acces), 0));
    fs::set_permissions(served.dir().join("file"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(access(), access::MODIFY, "a change on the host counts at once, too");
}

#[test]
fn others_have_what_the_mode_gives_them() {
    let Some((served, vfs)) = per_call() else { return assert!(!own().is_root() || in_container()) };
    let root = vfs.root().unwrap();
    for (name, mode) in [("secret", 0o600), ("program", 0o711), ("group", 0o640)] {
        fs::write(served.dir().join(name), b"text").unwrap();
        chown(served.dir().join(name), Some(1), Some(50)).unwrap();
        fs::set_permissions(served.dir().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let handle = |name: &str| vfs.lookup(&own(), &root, name.as_bytes()).unwrap().handle;
    let read =
        |caller, name| vfs.read(&caller, &handle(name), 0, 4).map(|read| read.data.into_bytes().unwrap());
    assert_eq!(read(user(1000, &[]), "secret"), Err(NfsStat::Acces));
    assert_eq!(read(user(1000, &[]), "program"), Ok(Bytes::from_static(b"text")));
    assert_eq!(read(user(1000, &[]), "group"), Err(NfsStat::Acces));
    assert_eq!(read(user(1000, &[7, 50]), "group"), Ok(Bytes::from_static(b"text")));
    assert_eq!(read(user(u32::MAX, &[]), "secret"), Err(NfsStat::Acces));
    let write =
        vfs.write(&user(1000, &[50]), &handle("group"), 0, &Bytes::from_static(b"x"), StableHow::Unstable);
    assert_eq!(write, Err(NfsStat::Acces));
    let access_of = |caller| vfs.access(&caller, &handle("group"), 0x3f).unwrap().0;
    assert_eq!(access_of(user(1000, &[50])), access::READ);
    assert_eq!(access_of(user(1, &[])), access::READ | access::MODIFY | access::EXTEND);
}

#[test]
fn set_id_bits_do_not_survive_a_write() {
    let Some((served, vfs)) = per_call() else { return assert!(!own().is_root() || in_container()) };
    let node = file(&vfs, &vfs.root().unwrap(), "program", "");
    let path = served.dir().join("program");
    chown(&path, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    vfs.write(&user(1000, &[]), &node.handle, 0, &Bytes::from_static(b"x"), StableHow::Unstable).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn the_thread_is_itself_again_after_each_call() {
    let Some((served, vfs)) = per_call() else { return assert!(!own().is_root() || in_container()) };
    let made = vfs.mkdir(&user(1000, &[]), &vfs.root().unwrap(), b"dir", &Sattr::default()).unwrap().node;
    assert_eq!(made.attr.uid, 1000);
    fs::write(served.dir().join("dir/own"), b"").unwrap();
    assert_eq!(fs::metadata(served.dir().join("dir/own")).unwrap().uid(), 0);
}

#[test]
fn both_kinds_of_durability_do_the_same() {
    for durability in [Durability::Sync, Durability::Async] {
        let served = Served::new();
        let options = LocalOptions { durability, ..served.options("a", None) };
        let vfs = LocalVfs::open(&served.dir(), &options).unwrap();
        let root = vfs.root().unwrap();
        let node = file(&vfs, &root, "file", "text");
        for stable in [StableHow::Unstable, StableHow::DataSync, StableHow::FileSync] {
            let written = vfs.write(&own(), &node.handle, 2, &Bytes::from_static(b"s"), stable);
            assert_eq!(written.unwrap().committed, stable);
        }
        vfs.commit(&own(), &node.handle).unwrap();
        vfs.symlink(&own(), &root, b"link", b"to", &Sattr::default()).unwrap();
        vfs.rename(&own(), (&root, b"link"), (&root, b"other")).unwrap();
        vfs.remove(&own(), &root, b"other").unwrap();
        let chmod = Sattr { mode: Some(0o600), size: Some(3), ..Sattr::default() };
        assert_eq!(vfs.setattr(&own(), &node.handle, &chmod, None).unwrap().after.unwrap().size, 3);
        assert_eq!(fs::read(served.dir().join("file")).unwrap(), b"tes");
    }
}

/// Root whose users are not all mapped is in single-user mode.
fn in_container() -> bool {
    !owns_every_user()
}
