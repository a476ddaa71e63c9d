//! Names and directories.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

use crate::Test;
use crate::site::{Site, eventually, names};

pub(crate) const TESTS: &[Test] = &[
    ("a_removed_open_file_lives_until_it_is_closed", a_removed_open_file_lives_until_it_is_closed),
    ("a_directory_is_empty_after_the_last_close", a_directory_is_empty_after_the_last_close),
    ("a_replaced_open_file_lives_until_it_is_closed", a_replaced_open_file_lives_until_it_is_closed),
    ("hidden_files_of_a_crashed_mount_are_removed", hidden_files_of_a_crashed_mount_are_removed),
    ("hard_links_are_one_file", hard_links_are_one_file),
    ("symbolic_links_hold_any_text", symbolic_links_hold_any_text),
    ("special_files_are_made", special_files_are_made),
    ("names_are_bytes", names_are_bytes),
    ("long_names_are_refused", long_names_are_refused),
    ("large_directories_are_listed_whole", large_directories_are_listed_whole),
    ("a_directory_may_be_emptied_while_it_is_read", a_directory_may_be_emptied_while_it_is_read),
    ("renaming_replaces_and_moves", renaming_replaces_and_moves),
    ("a_file_system_tells_the_servers_space", a_file_system_tells_the_servers_space),
    ("a_handle_that_is_gone_is_looked_up_again", a_handle_that_is_gone_is_looked_up_again),
    ("extended_attributes_are_not_supported", extended_attributes_are_not_supported),
];

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn is(expected: Errno) -> Option<i32> {
    Some(expected.raw_os_error())
}

fn a_removed_open_file_lives_until_it_is_closed() {
    let site = Site::plain();
    let mount = site.mount("");
    fs::write(mount.path("f"), "still here").unwrap();
    let mut file = fs::OpenOptions::new().read(true).write(true).open(mount.path("f")).unwrap();
    fs::remove_file(mount.path("f")).unwrap();
    assert!(!mount.path("f").exists());
    file.write_all_at(b"STILL", 0).unwrap();
    file.sync_all().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "STILL here");
    fs::write(mount.path("f"), "another").unwrap();
    assert!(names(&site.native()).iter().any(|name| name.starts_with(".nfs")));
    drop(file);
    eventually("the hidden file is removed", || names(&site.native()) == ["f"]);
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"another");
}

fn a_replaced_open_file_lives_until_it_is_closed() {
    let site = Site::plain();
    let mount = site.mount("");
    fs::write(mount.path("f"), "old").unwrap();
    fs::write(mount.path("new"), "new").unwrap();
    let mut file = File::open(mount.path("f")).unwrap();
    fs::rename(mount.path("new"), mount.path("f")).unwrap();
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"new");
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    drop(file);
    eventually("the hidden file is removed", || names(&site.native()) == ["f"]);
}

fn hidden_files_of_a_crashed_mount_are_removed() {
    let site = Site::plain();
    let mount = site.mount("");
    fs::write(mount.path("f"), "x").unwrap();
    let _open = File::open(mount.path("f")).unwrap();
    fs::remove_file(mount.path("f")).unwrap();
    assert_eq!(names(&site.native()).len(), 1);
    kill_process(mount.daemon(), Signal::KILL).unwrap();
    drop(mount);
    let other = site.mount("");
    eventually("what the crash left is removed", || names(&site.native()).is_empty());
    drop(other);
}

fn hard_links_are_one_file() {
    let site = Site::plain();
    let mount = site.mount("");
    fs::write(mount.path("a"), "text").unwrap();
    fs::hard_link(mount.path("a"), mount.path("b")).unwrap();
    let (a, b) = (fs::metadata(mount.path("a")).unwrap(), fs::metadata(mount.path("b")).unwrap());
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    fs::write(mount.path("b"), "changed").unwrap();
    assert_eq!(fs::read(mount.path("a")).unwrap(), b"changed");
    fs::remove_file(mount.path("a")).unwrap();
    assert_eq!(fs::metadata(mount.path("b")).unwrap().nlink(), 1);
}

fn symbolic_links_hold_any_text() {
    let site = Site::plain();
    let mount = site.mount("");
    let long = "x/".repeat(500);
    for (n, target) in ["nowhere", "../up", "/", long.as_str()].into_iter().enumerate() {
        let link = mount.path(&format!("link{n}"));
        symlink(target, &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap().as_os_str(), target);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
    symlink(OsStr::from_bytes(b"\xff\xfe"), mount.path("bytes")).unwrap();
    assert_eq!(fs::read_link(mount.path("bytes")).unwrap().as_os_str().as_bytes(), b"\xff\xfe");
}

fn special_files_are_made() {
    let site = Site::plain();
    let mount = site.mount("dev");
    let make =
        |name: &str, kind, device| mknodat(CWD, mount.path(name), kind, Mode::from_raw_mode(0o600), device);
    make("fifo", FileType::Fifo, 0).unwrap();
    make("socket", FileType::Socket, 0).unwrap();
    make("char", FileType::CharacterDevice, makedev(1, 3)).unwrap();
    make("block", FileType::BlockDevice, makedev(7, 300)).unwrap();
    let kind = |name: &str| fs::symlink_metadata(mount.path(name)).unwrap().file_type();
    assert!(kind("fifo").is_fifo() && kind("socket").is_socket());
    assert!(kind("char").is_char_device() && kind("block").is_block_device());
    assert_eq!(fs::metadata(mount.path("block")).unwrap().rdev(), makedev(7, 300));
    assert_eq!(fs::metadata(site.native().join("char")).unwrap().rdev(), makedev(1, 3));
    let writer = std::thread::spawn({
        let path = mount.path("fifo");
        move || fs::write(path, "through the fifo").unwrap()
    });
    assert_eq!(fs::read(mount.path("fifo")).unwrap(), b"through the fifo");
    writer.join().unwrap();
}

fn names_are_bytes() {
    let site = Site::plain();
    let mount = site.mount("");
    for name in [&b"\xff\xfe bytes"[..], "grün".as_bytes(), b" ", b"new\nline", b"back\\slash", b"-rf"] {
        let path = mount.dir.join(OsStr::from_bytes(name));
        fs::write(&path, name).unwrap();
        assert_eq!(fs::read(site.native().join(OsStr::from_bytes(name))).unwrap(), name);
        let listed = fs::read_dir(&mount.dir).unwrap().any(|e| e.unwrap().file_name().as_bytes() == name);
        assert!(listed, "{name:?}");
        fs::remove_file(&path).unwrap();
    }
}

fn a_directory_is_empty_after_the_last_close() {
    const ROUNDS: usize = 200;
    let site = Site::plain();
    let mount = site.mount("");
    for n in 0..ROUNDS {
        let dir = mount.path("d");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("f"), "f").unwrap();
        let open = File::open(dir.join("f")).unwrap();
        fs::remove_file(dir.join("f")).unwrap();
        drop(open);
        if n % 2 == 0 {
            assert!(names(&dir).is_empty(), "round {n}");
        }
        fs::remove_dir(&dir).unwrap_or_else(|e| panic!("round {n}: {e}"));
    }
}

fn long_names_are_refused() {
    let site = Site::plain();
    let mount = site.mount("");
    let longest = "n".repeat(255);
    fs::write(mount.path(&longest), "").unwrap();
    assert_eq!(names(&mount.dir), [longest]);
    assert_eq!(errno(fs::write(mount.path(&"n".repeat(256)), "")), is(Errno::NAMETOOLONG));
}

fn large_directories_are_listed_whole() {
    const ENTRIES: usize = 20_000;
    let site = Site::plain();
    let mount = site.mount("");
    for n in 0..ENTRIES {
        File::create(site.native().join(format!("entry-{n:05}"))).unwrap();
    }
    let listed: BTreeSet<_> = fs::read_dir(&mount.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(listed.len(), ENTRIES);
    let sizes = fs::read_dir(&mount.dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert_eq!(sizes, 0);
}

fn a_directory_may_be_emptied_while_it_is_read() {
    let site = Site::plain();
    let mount = site.mount("");
    for n in 0..3000 {
        File::create(site.native().join(format!("{n}"))).unwrap();
    }
    for entry in fs::read_dir(&mount.dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(names(&site.native()).is_empty());
    fs::create_dir_all(mount.path("a/b/c")).unwrap();
    fs::write(mount.path("a/b/c/d"), "").unwrap();
    assert_eq!(errno(fs::remove_dir(mount.path("a"))), is(Errno::NOTEMPTY));
    fs::remove_dir_all(mount.path("a")).unwrap();
    assert!(names(&site.native()).is_empty());
}

fn renaming_replaces_and_moves() {
    let site = Site::plain();
    let mount = site.mount("");
    fs::create_dir_all(mount.path("x/deep")).unwrap();
    fs::create_dir(mount.path("y")).unwrap();
    fs::write(mount.path("x/deep/f"), "f").unwrap();
    fs::rename(mount.path("x/deep"), mount.path("y/moved")).unwrap();
    assert_eq!(fs::read(mount.path("y/moved/f")).unwrap(), b"f");
    assert!(!mount.path("x/deep").exists());
    fs::write(mount.path("g"), "g").unwrap();
    fs::rename(mount.path("g"), mount.path("y/moved/f")).unwrap();
    assert_eq!(fs::read(mount.path("y/moved/f")).unwrap(), b"g");
    assert_eq!(errno(fs::rename(mount.path("y"), mount.path("y/moved/in"))), is(Errno::INVAL));
    assert_eq!(errno(fs::rename(mount.path("nothing"), mount.path("z"))), is(Errno::NOENT));
    let moved = fs::metadata(mount.path("y/moved")).unwrap();
    let up = fs::metadata(mount.path("y/moved/..")).unwrap();
    assert_eq!(up.ino(), fs::metadata(mount.path("y")).unwrap().ino());
    assert!(moved.is_dir());
}

fn a_file_system_tells_the_servers_space() {
    let site = Site::small(8 << 20);
    let mount = site.mount("");
    let (ours, theirs) =
        (rustix::fs::statvfs(&mount.dir).unwrap(), rustix::fs::statvfs(site.native()).unwrap());
    assert_eq!(ours.f_blocks * ours.f_frsize, theirs.f_blocks * theirs.f_frsize);
    assert_eq!(ours.f_bavail * ours.f_frsize, theirs.f_bavail * theirs.f_frsize);
    assert_eq!((ours.f_files, ours.f_namemax), (theirs.f_files, 255));
}

fn a_handle_that_is_gone_is_looked_up_again() {
    let site = Site::plain();
    let mount = site.mount("actimeo=600");
    fs::write(mount.path("f"), "first").unwrap();
    let old = File::open(mount.path("f")).unwrap();
    fs::remove_file(site.native().join("f")).unwrap();
    fs::write(site.native().join("f"), "second").unwrap();
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"second");
    assert_eq!(errno(old.set_permissions(fs::Permissions::from_mode(0o600))), is(Errno::STALE));
}

fn extended_attributes_are_not_supported() {
    let site = Site::plain();
    let mount = site.mount("");
    fs::write(mount.path("f"), "").unwrap();
    let set = rustix::fs::setxattr(mount.path("f"), "user.a", b"1", rustix::fs::XattrFlags::empty());
    assert_eq!(set.unwrap_err(), Errno::OPNOTSUPP);
}
