//! Nothing outside the export is reached.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use remoor_nfs::v3::{CreateHow, FileType, NfsStat, Sattr};
use remoor_server::vfs::Vfs;
use remoor_server::vfs::local::LocalVfs;

use crate::served::{Served, directory, file, names, own, schemes};

#[test]
fn dots_end_at_the_root() {
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        let root = vfs.root().unwrap();
        for name in [&b".."[..], b"."] {
            assert_eq!(vfs.lookup(&own(), &root, name).unwrap().handle, root);
            assert_eq!(
                vfs.create(&own(), &root, name, &CreateHow::Unchecked(Sattr::default())),
                Err(NfsStat::Exist)
            );
            assert_eq!(vfs.mkdir(&own(), &root, name, &Sattr::default()), Err(NfsStat::Exist));
            assert_eq!(vfs.remove(&own(), &root, name), Err(NfsStat::Inval));
            assert_eq!(vfs.rmdir(&own(), &root, name), Err(NfsStat::Inval));
            assert_eq!(vfs.rename(&own(), (&root, name), (&root, b"x")), Err(NfsStat::Inval));
        }
    }
}

#[test]
fn links_lead_nowhere() {
    for &scheme in schemes() {
        let served = Served::new();
        symlink("/etc", served.dir().join("etc")).unwrap();
        symlink("/etc/passwd", served.dir().join("passwd")).unwrap();
        let vfs = served.node("a", scheme);
        let root = vfs.root().unwrap();
        let etc = vfs.lookup(&own(), &root, b"etc").unwrap();
        let passwd = vfs.lookup(&own(), &root, b"passwd").unwrap();
        assert_eq!((etc.attr.kind, passwd.attr.kind), (FileType::Symlink, FileType::Symlink));
        assert_eq!(vfs.lookup(&own(), &etc.handle, b"passwd"), Err(NfsStat::NotDir));
        assert_eq!(vfs.read(&own(), &passwd.handle, 0, 10).err(), Some(NfsStat::Inval));
        assert_eq!(vfs.readlink(&own(), &passwd.handle).unwrap().0, "/etc/passwd");
        let size = Sattr { size: Some(0), ..Sattr::default() };
        assert_eq!(vfs.setattr(&own(), &passwd.handle, &size, None), Err(NfsStat::Inval));
        let create = vfs.create(&own(), &root, b"passwd", &CreateHow::Unchecked(size));
        assert_eq!(create, Err(NfsStat::Exist));
        let mode = Sattr { mode: Some(0o777), ..Sattr::default() };
        assert_eq!(vfs.setattr(&own(), &passwd.handle, &mode, None), Err(NfsStat::NotSupp));
        vfs.link(&own(), &passwd.handle, &root, b"second").unwrap();
        assert_eq!(
            vfs.lookup(&own(), &root, b"second").unwrap().handle,
            passwd.handle,
            "the link, not its target"
        );
    }
}

#[test]
fn a_handle_of_the_directory_above_is_not_one_of_the_export() {
    for &scheme in schemes() {
        let served = Served::new();
        let outer = served.node("a", scheme);
        let (dir, secret) = (
            directory(&outer, &outer.root().unwrap(), "dir"),
            file(&outer, &outer.root().unwrap(), "secret", ""),
        );
        let inner = LocalVfs::open(&served.dir().join("dir"), &served.options("a", Some(scheme))).unwrap();
        for handle in [&outer.root().unwrap(), &dir.handle, &secret.handle] {
            assert_eq!(inner.getattr(&own(), handle), Err(NfsStat::Stale));
        }
        assert_eq!(
            inner.lookup(&own(), &inner.root().unwrap(), b"..").unwrap().handle,
            inner.root().unwrap()
        );
    }
}

#[test]
fn flipped_bits_never_panic_and_never_reach_another_file_by_accident() {
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        let root = vfs.root().unwrap();
        let node = file(&vfs, &root, "file", "text");
        for bit in 0..node.handle.len() * 8 {
            let mut forged = node.handle.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            let forged = forged.into();
            if let Ok(attr) = vfs.getattr(&own(), &forged) {
                let found = vfs.lookup(&own(), &root, b"file").unwrap();
                assert_ne!(found.handle, forged);
                assert_ne!(attr.fileid, found.attr.fileid, "two handles of one file");
            }
        }
        for len in 0..node.handle.len() {
            assert!(vfs.getattr(&own(), &node.handle.slice(..len)).is_err());
        }
    }
}

#[test]
fn a_directory_moved_out_has_nothing_above_it() {
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        let dir = directory(&vfs, &vfs.root().unwrap(), "dir");
        let sub = directory(&vfs, &dir.handle, "sub");
        fs::rename(served.dir().join("dir"), served.dir().join("../outside")).unwrap();
        assert_eq!(vfs.lookup(&own(), &dir.handle, b".."), Err(NfsStat::Stale));
        assert_eq!(vfs.lookup(&own(), &sub.handle, b".."), Err(NfsStat::Stale));
    }
}

/// Runs in a mount namespace of its own, to have something mounted.
#[test]
fn mount_points_are_not_crossed() {
    const INSIDE: &str = "REMOOR_TEST_MOUNTS";
    if std::env::var_os(INSIDE).is_none() {
        let done = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "escape::mount_points_are_not_crossed", "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&[done.stdout, done.stderr].concat()));
        return;
    }
    let served = Served::new();
    fs::create_dir(served.dir().join("mounted")).unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "none"]).arg(served.dir().join("mounted")).status();
    assert!(mount.unwrap().success());
    fs::write(served.dir().join("mounted/file"), b"").unwrap();
    let vfs = served.node("a", schemes()[0]);
    let root = vfs.root().unwrap();
    assert_eq!(vfs.lookup(&own(), &root, b"mounted"), Err(NfsStat::Acces));
    assert_eq!(names(&vfs, &root), ["mounted"]);
}
