//! On whose behalf calls run, and what is stable when.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use bytes::Bytes;
use remoor_nfs::v3::{CreateHow, NfsStat, Sattr, SetTime, StableHow, Time, access};
use remoor_server::vfs::local::{Durability, LocalOptions, LocalVfs};
use remoor_server::vfs::{Caller, Vfs};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::served::{Served, file, own, owns_every_user, schemes, skip};

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

/// A Linux client opens a file with O_TRUNC by setting its size to 0 and its mtime to now, and leaves atime alone.
#[test]
fn who_may_write_may_truncate_and_touch() {
    let Some((served, vfs)) = per_call() else { return assert!(!own().is_root() || in_container()) };
    let node = file(&vfs, &vfs.root().unwrap(), "shared", "text").handle;
    chown(served.dir().join("shared"), Some(1), Some(50)).unwrap();
    let set = |caller, attr: &Sattr| vfs.setattr(&caller, &node, attr, None).map(|wcc| wcc.after.unwrap());
    let (writer, other) = (|| user(1000, &[50]), || user(1001, &[]));
    let touch = Sattr { mtime: SetTime::Server, ..Sattr::default() };
    let truncate = Sattr { size: Some(0), ..touch.clone() };
    let both = Sattr { atime: SetTime::Server, ..touch.clone() };
    let past = SetTime::Client(Time { seconds: 1, nanos: 0 });
    for (mode, allowed) in [(0o664, true), (0o644, false)] {
        fs::set_permissions(served.dir().join("shared"), fs::Permissions::from_mode(mode)).unwrap();
        set(own(), &Sattr { atime: past, mtime: past, ..Sattr::default() }).unwrap();
        assert_eq!(set(other(), &touch), Err(NfsStat::Acces));
        assert_eq!(set(other(), &both), Err(NfsStat::Acces));
        assert_eq!(set(writer(), &Sattr { mtime: past, ..Sattr::default() }), Err(NfsStat::Perm));
        let touched = set(writer(), &touch).map(|attr| (attr.atime.seconds, attr.mtime.seconds > 1));
        assert_eq!(touched, if allowed { Ok((1, true)) } else { Err(NfsStat::Acces) });
        let size = set(writer(), &truncate).map(|attr| attr.size);
        assert_eq!(size, if allowed { Ok(0) } else { Err(NfsStat::Acces) });
    }
    assert_eq!(
        vfs.mkdir(&user(1000, &[]), &vfs.root().unwrap(), b"dir", &Sattr::default()).unwrap().node.attr.uid,
        1000
    );
}

/// An access control list that lets one user read and write, as `setfacl -m u:UID:rw` makes it (linux/posix_acl_xattr.h).
fn let_in(path: &std::path::Path, uid: u32) {
    const NOBODY: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, NOBODY), (2, 6, uid), (4, 0, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY)];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permission, id) in entries {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&permission.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    rustix::fs::setxattr(path, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty()).unwrap();
}

/// Both lists have the same mode, 0660: only the kernel knows whom they let in.
#[test]
fn access_control_lists_count_at_once() {
    let Some((served, vfs)) = per_call() else { return assert!(!own().is_root() || in_container()) };
    let node = file(&vfs, &vfs.root().unwrap(), "file", "text").handle;
    let path = served.dir().join("file");
    if rustix::fs::setxattr(&path, "system.posix_acl_access", &[2, 0, 0, 0], rustix::fs::XattrFlags::empty())
        .is_err()
    {
        return skip("access_control_lists_count_at_once", "the file system has none");
    }
    let may = |uid| {
        let write = vfs.write(&user(uid, &[]), &node, 0, &Bytes::from_static(b"x"), StableHow::Unstable);
        let read = vfs.read(&user(uid, &[]), &node, 0, 1).is_ok();
        let access = vfs.access(&user(uid, &[]), &node, access::READ | access::MODIFY).unwrap().0;
        assert_eq!((write.is_ok(), read), (access & access::MODIFY != 0, access & access::READ != 0));
        read
    };
    for uid in [1000, 1001, 1000, 1001] {
        let_in(&path, uid);
        assert_eq!((may(1000), may(1001)), (uid == 1000, uid == 1001));
        assert!(may(1000) == (uid == 1000) && may(0), "asked again, it is the same");
    }
}

/// A change on the host counts for the next WRITE: a kernel's server asks each time, too.
#[test]
fn who_lost_the_right_to_write_on_the_host_loses_it_at_once() {
    let Some((served, vfs)) = per_call() else { return assert!(!own().is_root() || in_container()) };
    let node = file(&vfs, &vfs.root().unwrap(), "file", "text").handle;
    let path = served.dir().join("file");
    let write =
        || vfs.write(&user(1000, &[]), &node, 0, &Bytes::from_static(b"x"), StableHow::Unstable).map(drop);
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    for _ in 0..3 {
        mode(0o666);
        assert_eq!(write(), Ok(()));
        mode(0o644);
        assert_eq!(write(), Err(NfsStat::Acces));
        chown(&path, Some(1000), None).unwrap();
        assert_eq!(write(), Ok(()));
        chown(&path, Some(0), None).unwrap();
        assert_eq!(write(), Err(NfsStat::Acces));
    }
}

/// The file is held open for writing, which open(2) would not allow any more.
#[test]
fn what_is_immutable_or_append_only_is_not_overwritten() {
    let Some((served, vfs)) = per_call() else { return assert!(!own().is_root() || in_container()) };
    let node = file(&vfs, &vfs.root().unwrap(), "log", "text").handle;
    let path = served.dir().join("log");
    let open = fs::File::open(&path).unwrap();
    let write = || vfs.write(&own(), &node, 0, &Bytes::from_static(b"x"), StableHow::Unstable).map(drop);
    let access = || vfs.access(&own(), &node, access::READ | access::MODIFY).unwrap().0;
    for flag in [IFlags::APPEND, IFlags::IMMUTABLE] {
        let flags = ioctl_getflags(&open).unwrap_or(IFlags::empty());
        if ioctl_setflags(&open, flags | flag).is_err() {
            return skip(
                "what_is_immutable_or_append_only_is_not_overwritten",
                "the file system has no such flags",
            );
        }
        let (refused, granted) = (write(), access());
        ioctl_setflags(&open, flags).unwrap();
        assert_eq!(refused, Err(NfsStat::Perm));
        let modify = if flag == IFlags::IMMUTABLE { 0 } else { access::MODIFY };
        assert_eq!(granted, access::READ | modify);
        assert_eq!(write(), Ok(()));
    }
}

/// What its maker may not read is made stable by the server.
#[test]
fn a_directory_may_be_closed_to_its_maker() {
    let served = Served::new();
    let options = LocalOptions { durability: Durability::Sync, ..served.options("a", None) };
    let vfs = LocalVfs::open(&served.dir(), &options).unwrap();
    fs::set_permissions(served.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let root = vfs.root().unwrap();
    for mode in [0, 0o300, 0o500, 0o700] {
        let attr = Sattr { mode: Some(mode), ..Sattr::default() };
        let name = mode.to_string();
        let made = vfs.mkdir(&user(1000, &[]), &root, name.as_bytes(), &attr).unwrap().node;
        assert_eq!(made.attr.mode, mode);
        let how = CreateHow::Guarded(Sattr::default());
        let inside = vfs.create(&user(1000, &[]), &made.handle, b"file", &how).map(drop);
        let writable = mode & 0o300 == 0o300 || vfs.is_single_user() && own().is_root();
        assert_eq!(inside, if writable { Ok(()) } else { Err(NfsStat::Acces) });
        let listed =
            vfs.readdir(&user(1000, &[]), &made.handle, 0, &mut |_| std::ops::ControlFlow::Continue(()));
        let readable = mode & 0o400 != 0 || vfs.is_single_user() && own().is_root();
        assert_eq!(listed, if readable { Ok(true) } else { Err(NfsStat::Acces) });
    }
}

/// Root whose users are not all mapped is in single-user mode.
fn in_container() -> bool {
    !owns_every_user()
}
