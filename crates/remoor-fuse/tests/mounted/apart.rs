//! A test that runs again in a mount namespace of its own, with what a usual host has: `/dev/fuse` for everyone, fusectl.

use std::env;
use std::fs;
use std::process::Command;

/// Set for the part of a test that runs apart: a directory that it may write to.
const DIR: &str = "REMOOR_FUSE_TEST_DIR";

/// The directory is the first argument, the user the second; the rest is the test.
const SCRIPT: &str = r#"
    set -e
    dir=$1 user=$2
    shift 2
    mount -t tmpfs tmpfs "$dir"
    mknod "$dir/fuse" c 10 229
    chmod 666 "$dir/fuse"
    mount --bind "$dir/fuse" /dev/fuse
    mountpoint -q /sys/fs/fuse/connections || mount -t fusectl none /sys/fs/fuse/connections
    cp "$1" "$dir/test"
    mkdir "$dir/own"
    chown "$user:$user" "$dir/own"
    shift
    export REMOOR_FUSE_TEST_DIR="$dir/own"
    exec setpriv --reuid "$user" --regid "$user" --clear-groups "$dir/test" "$@"
"#;

/// The directory, in the part that runs apart.
pub(crate) fn dir() -> Option<String> {
    env::var_os(DIR).map(|dir| dir.into_string().unwrap())
}

/// Runs the test of this name again, as `user`. Without root it is left out.
pub(crate) fn run(test: &str, user: u32) {
    if !rustix::process::geteuid().is_root() {
        return remoor_skip::skip(test, "only root can make a mount namespace with a device");
    }
    if fs::metadata("/dev/fuse").is_err() {
        return remoor_skip::skip(test, "there is no /dev/fuse");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", SCRIPT, "sh"]).arg(dir.path()).arg(user.to_string());
    command.arg(env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    // The user cannot append to root's log: its skips are shown, and said again from here.
    let output = command.env_remove("REMOOR_SKIP_LOG").current_dir("/").output().unwrap();
    let said = [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    if let Some((_, why)) = said.split_once("SKIPPED ") {
        remoor_skip::skip(test, why.lines().next().unwrap_or_default());
    }
}
