//! Ends of a mount, also while it is in use.

use std::fs::{self, File};
use std::io::Read;
use std::sync::Arc;
use std::thread;

use remoor_fuse::{
    Ended, MountError, MountFlags, MountPlan, Unmount, abort, mount, mounted, remount, unmount,
};

use crate::apart;
use crate::served::{Served, eventually};

/// Opens a gated file and reads it on another thread.
fn read_gated(served: &Served) -> thread::JoinHandle<std::io::Result<usize>> {
    let path = served.path("direct gated");
    fs::write(&path, "abc").unwrap();
    let mut file = File::open(&path).unwrap();
    let reading = thread::spawn(move || file.read(&mut [0; 10]));
    served.wait_for_read();
    reading
}

#[test]
fn a_mount_in_use_is_busy_and_a_lazy_unmount_lets_it_end() {
    let Some(mut served) = Served::with("a_mount_in_use_is_busy_and_a_lazy_unmount_lets_it_end", 2) else {
        return;
    };
    let reading = read_gated(&served);
    let told = unmount(&served.root, Unmount::Plain).unwrap_err().to_string();
    assert!(told.contains("umount -l") || told.contains("busy"), "{told}");
    unmount(&served.root, Unmount::Lazy).unwrap();
    assert_eq!(mounted(&served.root).unwrap(), None);
    assert_eq!(served.memory.waiting.now(), 1, "what is in use goes on");
    served.memory.gate.add_permits(1);
    assert_eq!(reading.join().unwrap().unwrap(), 3);
    assert_eq!(served.ended(), [Ended::Unmounted; 2]);
}

#[test]
fn a_forced_unmount_ends_what_waits() {
    let Some(mut served) = Served::with("a_forced_unmount_ends_what_waits", 2) else { return };
    let reading = read_gated(&served);
    // In use, so that the mount stays; its connection is cut all the same.
    let _ = unmount(&served.root, Unmount::Force);
    assert!(reading.join().unwrap().is_err());
    let ended = served.ended();
    assert!(ended.iter().all(|e| [Ended::Unmounted, Ended::Aborted].contains(e)), "{ended:?}");
    eventually("its request is dropped", || served.memory.waiting.now() == 0);
    let _ = unmount(&served.root, Unmount::Lazy);
    assert_eq!(mounted(&served.root).unwrap(), None);
}

#[test]
fn an_abort_ends_the_session() {
    const TEST: &str = "unmounts::an_abort_ends_the_session";
    if apart::dir().is_none() {
        return apart::run(TEST, 0);
    }
    let Some(mut served) = Served::with(TEST, 1) else { return };
    fs::write(served.path("file"), "abc").unwrap();
    abort(&served.root).unwrap();
    assert_eq!(served.ended(), [Ended::Aborted]);
    assert!(fs::metadata(served.path("file")).is_err());
    let again = mount(&MountPlan::new("x", &served.root)).unwrap_err();
    assert!(matches!(again, MountError::Stale { .. }), "{again}");
}

#[test]
fn options_are_changed() {
    const TEST: &str = "options_are_changed";
    let Some(served) = Served::with(TEST, 1) else { return };
    if !rustix::process::geteuid().is_root() {
        return remoor_skip::skip(TEST, "this is not root");
    }
    let flags = MountFlags { read_only: true, nosuid: true, ..MountFlags::default() };
    remount(&served.root, flags).unwrap();
    let options = mounted(&served.root).unwrap().unwrap().options;
    assert!(options.starts_with("ro,nosuid"), "{options}");
    assert!(fs::write(served.path("file"), "").is_err());
    remount(&served.root, MountFlags::default()).unwrap();
    fs::write(served.path("file"), "").unwrap();
}

#[test]
fn nothing_is_left_after_many_mounts() {
    const TEST: &str = "nothing_is_left_after_many_mounts";
    for _ in 0..20 {
        let Some(mut served) = Served::with(TEST, 2) else { return };
        fs::write(served.path("file"), "abc").unwrap();
        served.unmount();
        assert_eq!(served.ended(), [Ended::Unmounted; 2]);
        assert_eq!(mounted(&served.root).unwrap(), None);
        assert_eq!(Arc::strong_count(&served.memory), 1, "the session holds nothing any more");
    }
}
