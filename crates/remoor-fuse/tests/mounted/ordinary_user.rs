//! An ordinary user mounts through fusermount3.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use remoor_fuse::{Ended, MountError, MountPlan, Unmount, mount, mounted, unmount};

use crate::served::Served;

/// Set for the part of the test that runs as the user; its directory.
const DIR: &str = "REMOOR_FUSE_TEST_DIR";
const TEST: &str = "ordinary_user::an_ordinary_user_mounts";
const NOBODY: u32 = 65_534;

#[test]
fn an_ordinary_user_mounts() {
    match env::var_os(DIR) {
        Some(dir) => as_the_user(&dir.into_string().unwrap()),
        None if rustix::process::geteuid().is_root() => start_as_the_user(),
        None => as_the_user(env::temp_dir().to_str().unwrap()),
    }
}

/// Starts this test again, as nobody.
fn start_as_the_user() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // The test may be in a directory that others cannot enter.
    let program = dir.path().join("test");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command.args([TEST, "--exact", "--nocapture"]).env(DIR, dir.path()).uid(NOBODY).gid(NOBODY);
    let output = command.current_dir("/").output().unwrap();
    let said = [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    if let Some(skipped) = said.lines().find(|line| line.contains("SKIPPED")) {
        remoor_skip::skip(TEST, skipped);
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
    let refused = mount(&MountPlan::new("x", "/usr")).unwrap_err();
    assert!(matches!(refused, MountError::NotOwned { .. }), "{refused}");
    check_allow_other(&served.root);
}

fn check_allow_other(root: &std::path::Path) {
    let config = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !config.lines().any(|line| line.trim() == "user_allow_other") {
        let plan = MountPlan { allow_other: true, ..MountPlan::new("x", root) };
        let refused = mount(&plan).unwrap_err();
        assert!(matches!(refused, MountError::AllowOther { .. }), "{refused}");
    }
}
