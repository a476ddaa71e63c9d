//! File systems that are full or fail, mounted in a mount namespace of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use remoor_nfs::v3::{CreateHow, NfsStat, Sattr, StableHow};
use remoor_server::vfs::Vfs;
use remoor_server::vfs::local::{Durability, LocalOptions, LocalVfs};

use crate::served::{Served, file, own, schemes, skip};

/// Set for the part of a test that runs in its mount namespace.
const INSIDE: &str = "REMOOR_TEST_FULL";

/// Runs the test again in a mount namespace, made with these options of unshare(1); whether this is that run.
fn inside(test: &str, options: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let done = Command::new("unshare")
        .args(options)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&[done.stdout, done.stderr].concat()));
    false
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).status().is_ok_and(|status| status.success())
}

fn serve(served: &Served) -> LocalVfs {
    let options = LocalOptions { durability: Durability::Sync, ..served.options("a", Some(schemes()[0])) };
    LocalVfs::open(&served.dir(), &options).unwrap()
}

fn create(vfs: &LocalVfs, name: &str) -> Result<(), NfsStat> {
    let how = CreateHow::Guarded(Sattr { mode: Some(0o644), ..Sattr::default() });
    vfs.create(&own(), &vfs.root().unwrap(), name.as_bytes(), &how).map(drop)
}

#[test]
fn a_full_file_system_refuses_what_has_no_room() {
    if !inside("full::a_full_file_system_refuses_what_has_no_room", &["--user", "--map-root-user", "--mount"])
    {
        return;
    }
    let served = Served::new();
    let dir = served.dir().display().to_string();
    assert!(run("mount", &["-t", "tmpfs", "-o", "size=256k,nr_inodes=20", "none", &dir]));
    let vfs = serve(&served);
    let root = vfs.root().unwrap();
    let node = file(&vfs, &root, "file", "text");
    let big = Bytes::from(vec![1; 1 << 20]);
    let epoch = vfs.write_epoch();
    assert_eq!(vfs.write(&own(), &node.handle, 0, &big, StableHow::Unstable), Err(NfsStat::NoSpc));
    assert_eq!(vfs.write_epoch(), epoch, "what was refused was not lost");
    for stable in [StableHow::DataSync, StableHow::FileSync] {
        assert_eq!(vfs.write(&own(), &node.handle, 0, &big, stable), Err(NfsStat::NoSpc));
        assert_eq!(vfs.write_epoch(), epoch, "{stable:?}");
    }
    vfs.commit(&own(), &node.handle).unwrap();
    let full = (0..30).find_map(|n| create(&vfs, &n.to_string()).err());
    assert_eq!(full, Some(NfsStat::NoSpc));
    vfs.remove(&own(), &root, b"file").unwrap();
    let node = file(&vfs, &root, "again", "");
    let room = Bytes::from(vec![1; 128 << 10]);
    vfs.write(&own(), &node.handle, 0, &room, StableHow::FileSync).expect("the removed file's room is free");
}

/// A disk that is smaller than it says: what is written fits until it is written back.
#[test]
fn lost_data_changes_the_epoch_and_fails_the_commit() {
    const NAME: &str = "full::lost_data_changes_the_epoch_and_fails_the_commit";
    let may = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !may || !crate::served::owns_every_user() {
        return skip(
            "lost_data_changes_the_epoch_and_fails_the_commit",
            "loop devices need root outside containers",
        );
    }
    if !inside(NAME, &["--mount"]) {
        return;
    }
    let served = Served::new();
    let dir = served.dir().display().to_string();
    let small = tempfile::tempdir().unwrap();
    let at = small.path().display().to_string();
    assert!(run("mount", &["-t", "tmpfs", "-o", "size=4m", "none", &at]));
    let image = format!("{at}/disk");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let made = run("mkfs.ext4", &["-q", "-F", "-O", "^has_journal", "-E", "nodiscard", &image]);
    if !made || !run("mount", &["-o", "loop", &image, &dir]) {
        return skip(
            "lost_data_changes_the_epoch_and_fails_the_commit",
            "no mkfs.ext4, or no loop device is free",
        );
    }
    fs::set_permissions(served.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let vfs = serve(&served);
    let root = vfs.root().unwrap();
    let (lost, other) = (file(&vfs, &root, "lost", ""), file(&vfs, &root, "other", ""));
    let epoch = vfs.write_epoch();
    let data = Bytes::from(vec![7; 1 << 20]);
    for n in 0..16 {
        vfs.write(&own(), &lost.handle, n << 20, &data, StableHow::Unstable).unwrap();
    }
    vfs.write(&own(), &other.handle, 0, &Bytes::from_static(b"x"), StableHow::Unstable).unwrap();
    assert_eq!(vfs.write_epoch(), epoch);
    assert!(matches!(vfs.commit(&own(), &lost.handle), Err(NfsStat::Io | NfsStat::NoSpc)));
    assert_ne!(vfs.write_epoch(), epoch, "who wrote to another file must send again, too");
    drop(vfs);
    assert!(run("umount", &["--lazy", &dir]));
}
