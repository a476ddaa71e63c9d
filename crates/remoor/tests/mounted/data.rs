//! Bytes of files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::Command;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::Test;
use crate::site::{Site, eventually};

pub(crate) const TESTS: &[Test] = &[
    ("what_fsync_acknowledged_is_on_the_server", what_fsync_acknowledged_is_on_the_server),
    ("what_was_closed_is_on_the_server", what_was_closed_is_on_the_server),
    ("a_reader_of_the_same_mount_sees_unwritten_data", a_reader_of_the_same_mount_sees_unwritten_data),
    ("sync_writes_are_on_the_server_when_they_return", sync_writes_are_on_the_server_when_they_return),
    ("a_full_disk_is_told_at_fsync_or_close", a_full_disk_is_told_at_fsync_or_close),
    ("appending_processes_do_not_overwrite_each_other", appending_processes_do_not_overwrite_each_other),
    ("an_append_goes_to_the_end_that_the_server_has", an_append_goes_to_the_end_that_the_server_has),
    ("exclusive_creation_succeeds_once", exclusive_creation_succeeds_once),
    ("truncating_open_empties_the_file", truncating_open_empties_the_file),
    ("a_shared_mapping_is_written_back", a_shared_mapping_is_written_back),
    ("holes_read_as_zeros", holes_read_as_zeros),
    ("a_file_may_be_truncated_while_it_is_open", a_file_may_be_truncated_while_it_is_open),
    ("offsets_beyond_four_gibibytes", offsets_beyond_four_gibibytes),
    ("direct_io_bypasses_memory", direct_io_bypasses_memory),
    ("times_change_with_data_and_stay", times_change_with_data_and_stay),
    ("large_files_arrive_intact", large_files_arrive_intact),
    ("fallocate_is_not_supported", fallocate_is_not_supported),
];

/// Bytes that differ at every place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

fn what_fsync_acknowledged_is_on_the_server() {
    let site = Site::plain();
    let mount = site.mount("");
    let mut file = File::create(mount.path("f")).unwrap();
    for n in 1..=10 {
        file.write_all(&pattern(10_000)).unwrap();
        file.sync_all().unwrap();
        assert_eq!(fs::read(site.native().join("f")).unwrap().len(), n * 10_000);
    }
}

fn what_was_closed_is_on_the_server() {
    let site = Site::plain();
    let mount = site.mount("");
    for n in [0, 1, 4096, 100_000, 5_000_000] {
        fs::write(mount.path("f"), pattern(n)).unwrap();
        assert!(fs::read(site.native().join("f")).unwrap() == pattern(n), "{n} bytes");
    }
}

fn a_reader_of_the_same_mount_sees_unwritten_data() {
    let site = Site::plain();
    let mount = site.mount("");
    let writer = File::create(mount.path("f")).unwrap();
    let reader = File::open(mount.path("f")).unwrap();
    for n in 0..50_u64 {
        let record = format!("{n:06}").into_bytes();
        writer.write_all_at(&record, n * 1000).unwrap();
        let mut seen = vec![0; 6];
        reader.read_exact_at(&mut seen, n * 1000).unwrap();
        assert_eq!(seen, record);
    }
    assert_eq!(reader.metadata().unwrap().len(), 49 * 1000 + 6);
}

fn sync_writes_are_on_the_server_when_they_return() {
    let site = Site::plain();
    let native = site.native().join("f");
    let check = |file: &File, what: &str| {
        for n in 0..5_u64 {
            file.write_all_at(b"record", n * 6).unwrap();
            assert_eq!(fs::read(&native).unwrap().len() as u64, (n + 1) * 6, "{what}");
        }
    };
    let synchronous = site.mount("sync");
    check(&File::create(synchronous.path("f")).unwrap(), "the option sync");
    let mount = site.mount("");
    for (flag, what) in [(OFlags::SYNC, "O_SYNC"), (OFlags::DSYNC, "O_DSYNC")] {
        let flags = flag.bits() as i32;
        let file =
            OpenOptions::new().write(true).truncate(true).custom_flags(flags).open(mount.path("f")).unwrap();
        check(&file, what);
    }
}

fn a_full_disk_is_told_at_fsync_or_close() {
    let site = Site::small(1 << 20);
    let mount = site.mount("");
    let mut file = File::create(mount.path("f")).unwrap();
    let written = file.write_all(&pattern(4 << 20));
    let error = written.and_then(|()| file.sync_all()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()), "{error}");
    drop(file);
    fs::remove_file(mount.path("f")).unwrap();
    fs::write(mount.path("g"), pattern(1000)).unwrap();
    assert_eq!(fs::read(mount.path("g")).unwrap(), pattern(1000), "the mount goes on");
}

fn appending_processes_do_not_overwrite_each_other() {
    let site = Site::plain();
    let mount = site.mount("");
    let script = "for i in $(seq 200); do echo $0-line >> log; done";
    let children: Vec<_> = (0..4)
        .map(|n| {
            Command::new("sh").args(["-c", script, &n.to_string()]).current_dir(&mount.dir).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let text = fs::read_to_string(site.native().join("log")).unwrap();
    assert_eq!(text.lines().count(), 800);
    assert!(text.lines().all(|line| line.ends_with("-line")), "a line was overwritten");
}

fn an_append_goes_to_the_end_that_the_server_has() {
    let site = Site::plain();
    let (a, b) = (site.mount(""), site.mount(""));
    let append = |dir: &std::path::Path, text: &str| {
        let mut file = OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let mut expected = String::new();
    for n in 0..20 {
        let text = format!("{n:03}\n");
        append(if n % 2 == 0 { &a.dir } else { &b.dir }, &text);
        expected.push_str(&text);
        assert_eq!(fs::read_to_string(site.native().join("log")).unwrap(), expected);
        assert_eq!(fs::read_to_string(a.path("log")).unwrap(), expected);
    }
}

fn exclusive_creation_succeeds_once() {
    let site = Site::plain();
    let mounts: Vec<_> = (0..3).map(|_| site.mount("")).collect();
    for n in 0..20 {
        let created = |mount: &crate::site::Mount| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o640).open(mount.path(&format!("lock{n}"))).is_ok()
        };
        let winners = std::thread::scope(|scope| {
            let tries: Vec<_> = mounts.iter().map(|mount| scope.spawn(move || created(mount))).collect();
            tries.into_iter().map(|t| t.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(winners, 1);
        let made = fs::metadata(site.native().join(format!("lock{n}"))).unwrap();
        assert_eq!(made.mode() & 0o7777, 0o640 & !umask());
    }
}

fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(line.trim(), 8).unwrap()
}

fn truncating_open_empties_the_file() {
    let site = Site::plain();
    let mount = site.mount("");
    fs::write(mount.path("f"), pattern(50_000)).unwrap();
    let file = OpenOptions::new().write(true).truncate(true).open(mount.path("f")).unwrap();
    assert_eq!(fs::metadata(site.native().join("f")).unwrap().len(), 0);
    file.write_all_at(b"x", 10).unwrap();
    drop(file);
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"\0\0\0\0\0\0\0\0\0\0x");
}

fn a_shared_mapping_is_written_back() {
    let site = Site::plain();
    let mount = site.mount("");
    let len = 3 * 4096;
    fs::write(mount.path("f"), vec![b'.'; len]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(mount.path("f")).unwrap();
    crate::sys::map_shared(&file, len, |bytes| {
        assert!(bytes.iter().all(|byte| *byte == b'.'));
        bytes[5000..5005].copy_from_slice(b"hello");
    });
    drop(file);
    let native = fs::read(site.native().join("f")).unwrap();
    assert_eq!(&native[4998..5007], b"..hello..");
    assert_eq!(fs::read(mount.path("f")).unwrap(), native);
}

fn holes_read_as_zeros() {
    let site = Site::plain();
    let mount = site.mount("");
    let file = File::create(mount.path("f")).unwrap();
    file.write_all_at(b"end", 10 << 20).unwrap();
    file.set_len(20 << 20).unwrap();
    drop(file);
    let bytes = fs::read(mount.path("f")).unwrap();
    assert_eq!(bytes.len(), 20 << 20);
    assert_eq!(&bytes[10 << 20..(10 << 20) + 3], b"end");
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 3);
    let native = fs::metadata(site.native().join("f")).unwrap();
    assert!(native.blocks() * 512 < 1 << 20, "the hole takes {} blocks", native.blocks());
}

fn a_file_may_be_truncated_while_it_is_open() {
    let site = Site::plain();
    let mount = site.mount("");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(mount.path("f")).unwrap();
    file.write_all(&pattern(10_000)).unwrap();
    file.set_len(100).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, &pattern(10_000)[..100]);
    file.set_len(200).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    bytes.clear();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [&pattern(10_000)[..100], &[0; 100]].concat());
    fs::OpenOptions::new().write(true).open(mount.path("f")).unwrap().set_len(7).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 7);
    drop(file);
    assert_eq!(fs::read(site.native().join("f")).unwrap(), &pattern(10_000)[..7]);
}

fn offsets_beyond_four_gibibytes() {
    let site = Site::plain();
    let mount = site.mount("");
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(mount.path("f")).unwrap();
    for offset in [(4_u64 << 30) - 3, 5 << 30, 1 << 40] {
        file.write_all_at(b"beyond", offset).unwrap();
        let mut bytes = [0; 6];
        file.read_exact_at(&mut bytes, offset).unwrap();
        assert_eq!(&bytes, b"beyond");
    }
    drop(file);
    assert_eq!(fs::metadata(site.native().join("f")).unwrap().len(), (1 << 40) + 6);
}

fn direct_io_bypasses_memory() {
    let site = Site::plain();
    let mount = site.mount("");
    let direct = OFlags::DIRECT.bits() as i32;
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(direct)
        .open(mount.path("f"))
        .unwrap();
    let block = pattern(8192);
    file.write_all_at(&block, 0).unwrap();
    assert_eq!(fs::read(site.native().join("f")).unwrap(), block, "stable when write returns");
    fs::write(site.native().join("f"), vec![b'n'; 8192]).unwrap();
    let mut bytes = vec![0; 8192];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == b'n'), "read from the server");
}

fn times_change_with_data_and_stay() {
    let site = Site::plain();
    let mount = site.mount("");
    let file = File::create(mount.path("f")).unwrap();
    let times = || {
        let meta = fs::metadata(mount.path("f")).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    file.write_all_at(b"data", 0).unwrap();
    let written = times();
    drop(file);
    assert_eq!(times(), written, "a close does not change it");
    let native = fs::metadata(site.native().join("f")).unwrap();
    assert_eq!((native.mtime(), native.mtime_nsec()), written);
    let stamp = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let file = OpenOptions::new().write(true).open(mount.path("f")).unwrap();
    file.write_all_at(b"more", 4).unwrap();
    file.set_modified(stamp).unwrap();
    drop(file);
    assert_eq!(
        times(),
        (1_000_000_000, 123_456_789),
        "a time that was set is not changed by data written before"
    );
}

fn large_files_arrive_intact() {
    let site = Site::plain();
    let (a, b) = (site.mount(""), site.mount("rsize=65536,wsize=65536"));
    let bytes = pattern((20 << 20) + 12_345);
    fs::write(a.path("f"), &bytes).unwrap();
    assert!(fs::read(site.native().join("f")).unwrap() == bytes);
    assert!(fs::read(b.path("f")).unwrap() == bytes);
    fs::write(b.path("g"), &bytes).unwrap();
    assert!(fs::read(a.path("g")).unwrap() == bytes);
}

fn fallocate_is_not_supported() {
    let site = Site::plain();
    let mount = site.mount("");
    let file = File::create(mount.path("f")).unwrap();
    let error = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 100).unwrap_err();
    assert_eq!(error, Errno::OPNOTSUPP);
    eventually("nothing is left behind", || fs::metadata(site.native().join("f")).unwrap().len() == 0);
}
