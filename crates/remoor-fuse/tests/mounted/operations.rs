//! Every operation, by the system call that leads to it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use remoor_fuse::{NodeId, mounted, set_read_ahead};
use rustix::fs::{
    CWD, FallocateFlags, FileType, Mode, RenameFlags, SeekFrom as Position, Timespec, Timestamps, UTIME_OMIT,
    XattrFlags,
};

use crate::served::{Served, eventually};

#[test]
fn files_are_written_and_read() {
    let Some(served) = Served::with("files_are_written_and_read", 1) else { return };
    let path = served.path("file");
    let data: Vec<u8> = (0..(5 << 20) + 1234).map(|i: u32| (i / 7) as u8).collect();
    fs::write(&path, &data).unwrap();
    assert!(served.memory.has_seen("WRITE of 1 MiB"), "big writes");
    let node = served.memory.change("file", &data);
    served.notifier.invalidate_data(node, 0, 0);
    eventually("reads are not from the cache", || {
        assert!(fs::read(&path).unwrap() == data);
        served.memory.has_seen("READ")
    });
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"hello", 3 << 20).unwrap();
    file.set_len((3 << 20) + 5).unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    let mut tail = [0; 5];
    file.read_exact_at(&mut tail, 3 << 20).unwrap();
    assert_eq!((&tail, fs::metadata(&path).unwrap().len()), (b"hello", (3 << 20) + 5));
    drop(File::create(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn attributes_are_set() {
    let Some(served) = Served::with("attributes_are_set", 1) else { return };
    let path = served.path("file");
    fs::write(&path, "abc").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
    let old = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: -5, tv_nsec: 7 },
    };
    rustix::fs::utimensat(CWD, &path, &old, rustix::fs::AtFlags::empty()).unwrap();
    let m = fs::metadata(&path).unwrap();
    assert_eq!((m.mode(), m.uid(), m.gid(), m.mtime(), m.mtime_nsec()), (0o100_640, 12, 34, -5, 7));
    rustix::fs::access(&path, rustix::fs::Access::READ_OK).unwrap();
    assert_eq!(rustix::fs::statvfs(&path).unwrap().f_blocks, 1000);
}

#[test]
fn names_come_and_go() {
    let Some(served) = Served::with("names_come_and_go", 1) else { return };
    let path = |name: &str| served.path(name);
    fs::create_dir(path("dir")).unwrap();
    fs::write(path("dir/file"), "abc").unwrap();
    fs::hard_link(path("dir/file"), path("link")).unwrap();
    assert_eq!(fs::metadata(path("link")).unwrap().nlink(), 2);
    symlink("dir/file", path("symlink")).unwrap();
    assert_eq!(fs::read_link(path("symlink")).unwrap().to_str(), Some("dir/file"));
    assert_eq!(fs::read(path("symlink")).unwrap(), b"abc");
    rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert_eq!(fs::metadata(path("fifo")).unwrap().mode(), 0o010_600);
    fs::rename(path("link"), path("dir/renamed")).unwrap();
    let refused = rustix::fs::renameat_with(CWD, path("fifo"), CWD, path("dir/file"), RenameFlags::NOREPLACE);
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::EXIST);
    assert!(fs::remove_dir(path("dir")).is_err());
    for name in ["dir/file", "dir/renamed", "fifo", "symlink"] {
        fs::remove_file(path(name)).unwrap();
    }
    fs::remove_dir(path("dir")).unwrap();
    assert_eq!(fs::read_dir(&served.root).unwrap().count(), 0);
    assert!(fs::metadata(path("dir")).is_err());
}

#[test]
fn large_directories_are_listed_with_attributes() {
    let Some(served) = Served::with("large_directories_are_listed_with_attributes", 1) else { return };
    let names: BTreeSet<_> = (0..2000).map(|i| format!("a-rather-long-name-of-a-file-{i}")).collect();
    names.iter().for_each(|name| drop(File::create(served.path(name)).unwrap()));
    for _ in 0..2 {
        let entries = fs::read_dir(&served.root).unwrap().map(Result::unwrap);
        let listed: BTreeSet<_> = entries
            .inspect(|e| assert!(e.metadata().unwrap().is_file()))
            .collect::<Vec<_>>()
            .iter()
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        assert!(listed == names);
    }
    assert!(served.memory.has_seen("READDIRPLUS"));
    eventually("RELEASEDIR, which nobody waits for", || served.memory.has_seen("RELEASEDIR"));
}

#[test]
fn the_rarer_calls() {
    let Some(served) = Served::with("the_rarer_calls", 1) else { return };
    let path = served.path("file");
    let mut file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.write_all(b"0123456789").unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 100).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100);
    assert_eq!(rustix::fs::seek(&file, Position::Data(7)).unwrap(), 7);
    assert_eq!(rustix::fs::seek(&file, Position::Data(100)).unwrap_err(), rustix::io::Errno::NXIO);
    let copy = File::create(served.path("copy")).unwrap();
    let (mut from, mut to) = (2, 1);
    assert_eq!(rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 3).unwrap(), 3);
    assert_eq!(fs::read(served.path("copy")).unwrap(), b"\x00234");
    let dir = File::open(&served.root).unwrap();
    dir.sync_all().unwrap();
    file.seek(SeekFrom::Start(4)).unwrap();
    let mut two = [0; 2];
    file.read_exact(&mut two).unwrap();
    assert_eq!(&two, b"45");
    for operation in ["FALLOCATE", "LSEEK", "COPY_FILE_RANGE", "FSYNCDIR", "CREATE", "FLUSH"] {
        assert!(served.memory.has_seen(operation), "{operation}");
    }
}

#[test]
fn extended_attributes() {
    let Some(served) = Served::with("extended_attributes", 1) else { return };
    let path = served.path("file");
    fs::write(&path, "").unwrap();
    rustix::fs::setxattr(&path, "user.a", b"value", XattrFlags::empty()).unwrap();
    let mut value = [0; 100];
    let length = rustix::fs::getxattr(&path, "user.a", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"value");
    assert_eq!(rustix::fs::getxattr_query(&path, "user.a").unwrap(), 5);
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut [0_u8; 2]).unwrap_err(), rustix::io::Errno::RANGE);
    let length = rustix::fs::listxattr(&path, &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"user.a\0");
    rustix::fs::removexattr(&path, "user.a").unwrap();
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut value[..]).unwrap_err(), rustix::io::Errno::NODATA);
}

#[test]
fn changes_elsewhere_are_told_to_the_kernel() {
    let Some(served) = Served::with("changes_elsewhere_are_told_to_the_kernel", 1) else { return };
    let path = served.path("file");
    fs::write(&path, "before").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert_eq!(fs::metadata(&path).unwrap().len(), 6);
    let node = served.memory.change("file", b"longer than before");
    assert_eq!(fs::metadata(&path).unwrap().len(), 6, "the attributes are valid for an hour");
    served.notifier.invalidate_attributes(node);
    assert_eq!(fs::metadata(&path).unwrap().len(), 18);
    served.notifier.invalidate_data(node, 0, 0);
    eventually("the data is dropped", || fs::read(&path).unwrap() == b"longer than before");
    let new = served.path("new");
    assert!(fs::metadata(&new).is_err());
    served.memory.rename("file", "new");
    assert!(fs::metadata(&path).is_ok() && fs::metadata(&new).is_err(), "the names are valid for an hour");
    served.notifier.invalidate_entry(NodeId::ROOT, b"new");
    served.notifier.delete(NodeId::ROOT, node, b"file");
    eventually("the names are looked up", || fs::metadata(&path).is_err() && fs::metadata(&new).is_ok());
    served.notifier.invalidate_attributes(NodeId(12_345));
}

#[test]
fn read_ahead_is_set_at_the_bdi() {
    const TEST: &str = "read_ahead_is_set_at_the_bdi";
    let Some(served) = Served::with(TEST, 1) else { return };
    assert!(fs::metadata(&served.root).is_ok());
    if !rustix::process::geteuid().is_root() {
        return remoor_skip::skip(TEST, "this is not root");
    }
    let found = mounted(&served.root).unwrap().unwrap();
    assert_eq!((found.fstype.as_str(), found.source.to_str()), ("fuse.remoor", Some("server:/a,b c")));
    match set_read_ahead(&served.root, 4096) {
        Ok(()) => {
            let file = format!("/sys/class/bdi/{}:{}/read_ahead_kb", found.major, found.minor);
            assert_eq!(fs::read_to_string(file).unwrap().trim(), "4096");
        }
        Err(e) => remoor_skip::skip(TEST, e),
    }
}

#[test]
fn a_panic_is_eio_and_not_the_end() {
    let Some(served) = Served::with("a_panic_is_eio_and_not_the_end", 1) else { return };
    let at_once = fs::metadata(served.path("panics")).unwrap_err();
    let later = fs::metadata(served.path("panics later")).unwrap_err();
    let eio = rustix::io::Errno::IO.raw_os_error();
    assert_eq!((at_once.raw_os_error(), later.raw_os_error()), (Some(eio), Some(eio)));
    fs::write(served.path("file"), "abc").unwrap();
}
