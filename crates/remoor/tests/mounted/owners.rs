//! Users, permissions, options that restrict.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};

use rustix::io::Errno;

use crate::Test;
use crate::site::{Mount, Site};

pub(crate) const TESTS: &[Test] = &[
    ("the_server_squashes_root", the_server_squashes_root),
    ("files_belong_to_who_made_them", files_belong_to_who_made_them),
    ("what_root_has_cached_others_may_not_read", what_root_has_cached_others_may_not_read),
    ("search_permission_is_the_servers", search_permission_is_the_servers),
    ("additional_groups_count", additional_groups_count),
    ("only_root_comes_without_allow_other", only_root_comes_without_allow_other),
    ("owners_may_be_shown_otherwise", owners_may_be_shown_otherwise),
    ("modes_owners_and_times_are_set", modes_owners_and_times_are_set),
    ("a_read_only_mount_refuses_changes", a_read_only_mount_refuses_changes),
    ("locks_are_local_to_a_mount", locks_are_local_to_a_mount),
    ("an_ordinary_user_mounts_with_fusermount3", an_ordinary_user_mounts_with_fusermount3),
];

const USER: u32 = 1000;

/// Whether a shell line works on a mount for a user of these groups, and what it says.
fn as_user(mount: &Mount, uid: u32, groups: &str, line: &str) -> (bool, String) {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), &format!("--groups={groups}")]);
    command.args(["--", "sh", "-c", line]).current_dir("/").env("D", &mount.dir).stdin(Stdio::null());
    let output = command.output().unwrap();
    (output.status.success(), crate::site::said(&output))
}

fn by_user(mount: &Mount, line: &str) -> (bool, String) {
    as_user(mount, USER, "1000", line)
}

fn the_server_squashes_root() {
    let site = Site::new("");
    let mount = site.mount("");
    fs::write(mount.path("f"), "by root").unwrap();
    assert_eq!(fs::metadata(mount.path("f")).unwrap().uid(), 65534);
    fs::write(site.native().join("private"), "root's").unwrap();
    fs::set_permissions(site.native().join("private"), fs::Permissions::from_mode(0o600)).unwrap();
    let error = fs::read(mount.path("private")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ACCESS.raw_os_error()));
}

fn files_belong_to_who_made_them() {
    let site = Site::plain();
    let mount = site.mount("allow_other");
    let (good, said) =
        by_user(&mount, "umask 022; echo mine > $D/f && mkdir $D/d && ln -s x $D/l && cat $D/f");
    assert!(good && said == "mine\n", "{said}");
    for name in ["f", "d", "l"] {
        let native = fs::symlink_metadata(site.native().join(name)).unwrap();
        assert_eq!((native.uid(), native.gid()), (USER, USER), "{name}");
    }
    assert_eq!(fs::metadata(mount.path("f")).unwrap().mode() & 0o7777, 0o644);
}

fn what_root_has_cached_others_may_not_read() {
    let site = Site::plain();
    let mount = site.mount("allow_other");
    fs::write(mount.path("secret"), "secret").unwrap();
    fs::set_permissions(mount.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::read(mount.path("secret")).unwrap(), b"secret");
    let (good, said) = by_user(&mount, "cat $D/secret");
    assert!(!good && said.contains("Permission denied"), "{said}");
    let (good, said) = by_user(&mount, "echo x > $D/secret");
    assert!(!good && said.contains("Permission denied"), "{said}");
}

fn search_permission_is_the_servers() {
    let site = Site::plain();
    let mount = site.mount("allow_other");
    fs::create_dir(mount.path("closed")).unwrap();
    fs::write(mount.path("closed/open"), "text").unwrap();
    fs::set_permissions(mount.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::read(mount.path("closed/open")).unwrap(), b"text");
    for line in ["cat $D/closed/open", "stat $D/closed/open", "ls $D/closed", "echo x > $D/closed/new"] {
        let (good, said) = by_user(&mount, line);
        assert!(!good && said.contains("Permission denied"), "{line}: {said}");
    }
    fs::set_permissions(mount.path("closed"), fs::Permissions::from_mode(0o711)).unwrap();
    let (good, said) = by_user(&mount, "cat $D/closed/open");
    assert!(good && said == "text", "{said}");
}

fn additional_groups_count() {
    let site = Site::plain();
    let mount = site.mount("allow_other");
    fs::write(mount.path("f"), "group").unwrap();
    chown(mount.path("f"), Some(0), Some(2345)).unwrap();
    fs::set_permissions(mount.path("f"), fs::Permissions::from_mode(0o640)).unwrap();
    let (good, said) = as_user(&mount, USER, "1000,2345", "cat $D/f");
    assert!(good && said == "group", "{said}");
    let (good, said) = as_user(&mount, USER, "1000", "cat $D/f");
    assert!(!good && said.contains("Permission denied"), "{said}");
}

fn only_root_comes_without_allow_other() {
    let site = Site::plain();
    let mount = site.mount("noallow_other");
    let (good, said) = by_user(&mount, "ls $D");
    assert!(!good && said.contains("Permission denied"), "{said}");
}

fn owners_may_be_shown_otherwise() {
    let site = Site::plain();
    fs::write(site.native().join("f"), "").unwrap();
    let mount = site.mount("uid=1234,gid=2345");
    let meta = fs::metadata(mount.path("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1234, 2345));
}

fn modes_owners_and_times_are_set() {
    let site = Site::plain();
    let mount = site.mount("");
    fs::write(mount.path("f"), "").unwrap();
    fs::set_permissions(mount.path("f"), fs::Permissions::from_mode(0o6751)).unwrap();
    chown(mount.path("f"), Some(7), Some(8)).unwrap();
    let native = fs::metadata(site.native().join("f")).unwrap();
    assert_eq!((native.uid(), native.gid()), (7, 8));
    let seen = fs::metadata(mount.path("f")).unwrap();
    assert_eq!((seen.uid(), seen.gid(), seen.mode()), (7, 8, native.mode()));
}

fn a_read_only_mount_refuses_changes() {
    let site = Site::plain();
    fs::write(site.native().join("f"), "text").unwrap();
    let mount = site.mount("ro");
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"text");
    for result in
        [fs::write(mount.path("f"), ""), fs::create_dir(mount.path("d")), fs::remove_file(mount.path("f"))]
    {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(Errno::ROFS.raw_os_error()));
    }
}

fn locks_are_local_to_a_mount() {
    let site = Site::plain();
    let (a, b) = (site.mount(""), site.mount(""));
    fs::write(a.path("f"), "").unwrap();
    let held = fs::File::open(a.path("f")).unwrap();
    held.lock().unwrap();
    let lock = |mount: &Mount| fs::File::open(mount.path("f")).unwrap().try_lock().is_ok();
    assert!(!lock(&a), "another opener of the same mount is kept out");
    assert!(lock(&b), "another mount does not know of it");
    held.unlock().unwrap();
    assert!(lock(&a));
}

fn an_ordinary_user_mounts_with_fusermount3() {
    if !["/usr/bin/fusermount3", "/bin/fusermount3"].iter().any(|path| fs::exists(path).unwrap_or(false)) {
        return remoor_skip::skip(
            "an_ordinary_user_mounts_with_fusermount3",
            "fusermount3 is missing (apt-get install fuse3)",
        );
    }
    let site = Site::new("");
    let dir = site.dir.path().join("user");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(USER), Some(USER)).unwrap();
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(USER), Some(USER)).unwrap();
    let run = |command: &Command| {
        let mut other = Command::new("setpriv");
        other.args(["--reuid=1000", "--regid=1000", "--clear-groups", "--"]);
        other.arg(command.get_program()).args(command.get_args()).current_dir("/").stdin(Stdio::null());
        other.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path());
        let output = other.output().unwrap();
        (output.status.success(), crate::site::said(&output))
    };
    let mount = Mount { dir: dir.clone() };
    let (good, said) = run(&site.mounting("", &dir));
    assert!(good, "{said}");
    let (good, said) = by_user(&mount, "echo mine > $D/f && cat $D/f");
    assert!(good && said == "mine\n", "{said}");
    assert_eq!(fs::metadata(site.native().join("f")).unwrap().uid(), USER);
    assert!(fs::read_dir(&dir).is_err(), "not even root may look into a user's mount");
    let (good, said) = run(Command::new("fusermount3").arg("-u").arg(&dir));
    assert!(good, "{said}");
    assert!(!mount.is_mounted());
}
