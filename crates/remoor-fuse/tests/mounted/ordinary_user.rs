//! An ordinary user mounts through fusermount3.

use std::fs;

use remoor_fuse::{Ended, MountError, MountPlan, Unmount, mount, mounted, unmount};

use crate::apart;
use crate::served::Served;

const TEST: &str = "ordinary_user::an_ordinary_user_mounts";
const NOBODY: u32 = 65_534;

#[test]
fn an_ordinary_user_mounts() {
    match apart::dir() {
        Some(dir) => as_the_user(&dir),
        None => apart::run(TEST, NOBODY),
    }
}

fn as_the_user(dir: &str) {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let Some(mut served) = Served::on(TEST, dir, 2, |plan| plan) else { return };
    fs::write(served.path("file"), "abc").unwrap();
    assert_eq!(fs::read(served.path("file")).unwrap(), b"abc");
    let found = mounted(&served.root).unwrap().unwrap();
    assert!(found.options.contains("nosuid,nodev"), "{found:?}");
    assert_eq!((found.fstype.as_str(), found.source.to_str()), ("fuse.remoor", Some("server:/a,b c")));
    let open = fs::File::open(served.path("file")).unwrap();
    let told = unmount(&served.root, Unmount::Plain).unwrap_err().to_string();
    assert!(told.contains("busy"), "{told}");
    drop(open);
    unmount(&served.root, Unmount::Plain).unwrap();
    assert_eq!(served.ended(), [Ended::Unmounted; 2]);
    check_forced();
    let refused = mount(&MountPlan::new("x", "/usr")).unwrap_err();
    assert!(matches!(refused, MountError::NotOwned { .. }), "{refused}");
    check_allow_other(&served.root);
}

/// The kernel lets the user who mounted cut the connection, where umount(2) with MNT_FORCE is root's.
fn check_forced() {
    let dir = tempfile::tempdir_in(apart::dir().unwrap()).unwrap();
    let Some(mut served) = Served::on(TEST, dir, 1, |plan| plan) else { return };
    fs::write(served.path("file"), "abc").unwrap();
    unmount(&served.root, Unmount::Force).unwrap();
    assert_eq!(served.ended(), [Ended::Aborted]);
    assert_eq!(mounted(&served.root).unwrap(), None);
}

fn check_allow_other(root: &std::path::Path) {
    let config = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !config.lines().any(|line| line.trim() == "user_allow_other") {
        let plan = MountPlan { allow_other: true, ..MountPlan::new("x", root) };
        let refused = mount(&plan).unwrap_err();
        assert!(matches!(refused, MountError::AllowOther { .. }), "{refused}");
    }
}
