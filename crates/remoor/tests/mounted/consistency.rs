//! What one client sees of another's changes.

use std::fs;
use std::time::{Duration, Instant};

use crate::Test;
use crate::site::{Site, eventually, names};

pub(crate) const TESTS: &[Test] = &[
    ("an_open_after_a_close_elsewhere_sees_its_data", an_open_after_a_close_elsewhere_sees_its_data),
    ("a_shorter_file_is_seen_shorter", a_shorter_file_is_seen_shorter),
    (
        "an_open_file_sees_changes_after_the_attribute_time",
        an_open_file_sees_changes_after_the_attribute_time,
    ),
    ("attributes_are_asked_again_after_their_time", attributes_are_asked_again_after_their_time),
    ("noac_sees_every_change_at_once", noac_sees_every_change_at_once),
    ("names_that_do_not_exist_are_remembered", names_that_do_not_exist_are_remembered),
    ("lookupcache_positive_asks_for_what_was_not_there", lookupcache_positive_asks_for_what_was_not_there),
    ("a_file_replaced_elsewhere_is_the_new_file_at_open", a_file_replaced_elsewhere_is_the_new_file_at_open),
    ("listings_are_new_after_a_change_elsewhere", listings_are_new_after_a_change_elsewhere),
    ("unchanged_files_are_read_from_memory", unchanged_files_are_read_from_memory),
];

fn an_open_after_a_close_elsewhere_sees_its_data() {
    let site = Site::plain();
    let (a, b) = (site.mount(""), site.mount(""));
    fs::write(a.path("f"), "one").unwrap();
    assert_eq!(fs::read(b.path("f")).unwrap(), b"one");
    for n in 0..20 {
        let text = format!("version {n}");
        fs::write(a.path("f"), &text).unwrap();
        assert_eq!(fs::read_to_string(b.path("f")).unwrap(), text);
        assert_eq!(fs::read_to_string(a.path("f")).unwrap(), text);
    }
}

fn a_shorter_file_is_seen_shorter() {
    let site = Site::plain();
    let (a, b) = (site.mount(""), site.mount(""));
    fs::write(a.path("f"), vec![b'x'; 100_000]).unwrap();
    assert_eq!(fs::read(b.path("f")).unwrap().len(), 100_000);
    fs::write(a.path("f"), "short").unwrap();
    assert_eq!(fs::read(b.path("f")).unwrap(), b"short");
}

fn an_open_file_sees_changes_after_the_attribute_time() {
    use std::os::unix::fs::FileExt;
    let site = Site::plain();
    let (a, b) = (site.mount(""), site.mount("actimeo=1"));
    fs::write(a.path("f"), "old").unwrap();
    let file = fs::File::open(b.path("f")).unwrap();
    let read = || {
        let mut bytes = [0; 3];
        file.read_at(&mut bytes, 0).unwrap();
        // Whoever wants to know whether a file changed asks for its attributes.
        file.metadata().unwrap();
        bytes
    };
    assert_eq!(&read(), b"old");
    fs::write(a.path("f"), "new").unwrap();
    eventually("the open file has the new data", || &read() == b"new");
}

fn attributes_are_asked_again_after_their_time() {
    let site = Site::plain();
    let mount = site.mount("actimeo=1");
    fs::write(site.native().join("f"), "1").unwrap();
    assert_eq!(fs::metadata(mount.path("f")).unwrap().len(), 1);
    fs::write(site.native().join("f"), "22").unwrap();
    let changed = Instant::now();
    eventually("the new size", || fs::metadata(mount.path("f")).unwrap().len() == 2);
    assert!(changed.elapsed() < Duration::from_secs(20));
}

fn noac_sees_every_change_at_once() {
    let site = Site::plain();
    let mount = site.mount("noac");
    for size in 1..20 {
        fs::write(site.native().join("f"), vec![b'x'; size]).unwrap();
        assert_eq!(fs::metadata(mount.path("f")).unwrap().len(), size as u64);
    }
}

fn names_that_do_not_exist_are_remembered() {
    let site = Site::plain();
    let mount = site.mount("actimeo=2");
    assert!(!mount.path("late").exists());
    fs::write(site.native().join("late"), "").unwrap();
    eventually("the name is found when the directory's time is over", || mount.path("late").exists());
}

fn lookupcache_positive_asks_for_what_was_not_there() {
    let site = Site::plain();
    for options in ["lookupcache=pos,actimeo=600", "lookupcache=none,actimeo=600"] {
        let mount = site.mount(options);
        let name = format!("late-{}", options.len());
        assert!(!mount.path(&name).exists());
        fs::write(site.native().join(&name), "").unwrap();
        assert!(mount.path(&name).exists(), "{options}");
    }
}

fn a_file_replaced_elsewhere_is_the_new_file_at_open() {
    let site = Site::plain();
    let mount = site.mount("");
    let native = site.native().join("f");
    for n in 0..10 {
        let text = format!("file {n}");
        let other = site.native().join("other");
        fs::write(&other, &text).unwrap();
        fs::rename(&other, &native).unwrap();
        let seen = || fs::read_to_string(mount.path("f")).is_ok_and(|seen| seen == text);
        if n == 0 { eventually("the first file", seen) } else { eventually("the directory's change", seen) }
    }
}

fn listings_are_new_after_a_change_elsewhere() {
    let site = Site::plain();
    let (a, b) = (site.mount(""), site.mount("actimeo=1"));
    assert!(names(&b.dir).is_empty());
    fs::write(a.path("x"), "").unwrap();
    eventually("the name is listed", || names(&b.dir) == ["x"]);
    fs::remove_file(a.path("x")).unwrap();
    eventually("the name is listed no more", || names(&b.dir).is_empty());
}

fn unchanged_files_are_read_from_memory() {
    let site = Site::plain();
    let mount = site.mount("");
    fs::write(site.native().join("f"), vec![7; 1 << 20]).unwrap();
    let reads = || {
        let status = mount.status();
        let read = status["procedures"].as_array().unwrap().iter().find(|row| row["name"] == "READ");
        read.map_or(0, |read| read["calls"].as_u64().unwrap())
    };
    assert_eq!(fs::read(mount.path("f")).unwrap().len(), 1 << 20);
    let first = reads();
    assert!(first > 0);
    for _ in 0..5 {
        assert_eq!(fs::read(mount.path("f")).unwrap().len(), 1 << 20);
    }
    assert_eq!(reads(), first, "an unchanged file is not read again");
}
