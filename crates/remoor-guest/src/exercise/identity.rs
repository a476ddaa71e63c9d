//! What an ordinary user may do. The server decides by the caller's uid and gid, with the exceptions every NFS server
//! makes for the owner of a file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{Checked, Outcome, Site, holds, passed, refused};

/// The user, and the group of the same number.
const USER: u32 = 1000;

pub(super) fn read_only_create(site: &Site) -> Checked {
    run_as_user(site, "read-only-create")
}

pub(super) fn permissions(site: &Site) -> Checked {
    fs::write(site.at("readable"), "r")?;
    fs::write(site.at("private"), "p")?;
    fs::set_permissions(site.at("private"), Permissions::from_mode(0o600))?;
    DirBuilder::new().mode(0o755).create(site.at("theirs"))?;
    fs::write(site.at("theirs/file"), "")?;
    run_as_user(site, "permissions")
}

pub(super) fn git_clone(site: &Site) -> Checked {
    if Command::new("git").arg("--version").output().is_err() {
        return Ok(Outcome::Skipped("there is no git".into()));
    }
    run_as_user(site, "git-clone")
}

/// Makes a check as the user, in a directory that is open to all.
fn run_as_user(site: &Site, check: &str) -> Checked {
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::Skipped("only root can become another user".into()));
    }
    fs::set_permissions(&site.dir, Permissions::from_mode(0o777))?;
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    // Also gives up root's supplementary groups.
    command.arg("as-user").arg(check).arg(&site.dir).uid(USER).gid(USER).env("HOME", &site.dir);
    let output = command.output().context("cannot start this program again")?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "as uid {USER}: {}", told.trim());
    passed(format!("as uid {USER}"))
}

/// What the user does.
pub(crate) fn as_user(check: &str, dir: &Path) -> anyhow::Result<()> {
    match check {
        "read-only-create" => user_creates(dir),
        "permissions" => user_is_refused(dir),
        "git-clone" => user_clones(dir),
        other => bail!("no check of a user is named {other}"),
    }
}

/// git(1) and tar(1) write to files they create without write permission.
fn user_creates(dir: &Path) -> anyhow::Result<()> {
    for mode in [0o444, 0] {
        let path = dir.join(format!("mode-{mode:o}"));
        let create = || OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let mut file = create().with_context(|| format!("creating with mode {mode:o}"))?;
        file.write_all(b"written").with_context(|| format!("writing with mode {mode:o}"))?;
        file.set_len(5).with_context(|| format!("truncating with mode {mode:o}"))?;
        file.sync_all()?;
        drop(file);
        let metadata = fs::metadata(&path)?;
        ensure!(metadata.len() == 5, "it has {} bytes", metadata.len());
        ensure!((metadata.uid(), metadata.gid()) == (USER, USER), "it belongs to {}", metadata.uid());
        let write = OpenOptions::new().write(true).open(&path);
        refused("opening it to write", ErrorKind::PermissionDenied, write)?;
    }
    holds(&dir.join("mode-444"), b"writt")?;
    refused("reading mode 0", ErrorKind::PermissionDenied, File::open(dir.join("mode-0")))
}

fn user_is_refused(dir: &Path) -> anyhow::Result<()> {
    let denied = ErrorKind::PermissionDenied;
    holds(&dir.join("readable"), b"r")?;
    let write = OpenOptions::new().write(true).open(dir.join("readable"));
    refused("writing what others own", denied, write)?;
    refused("reading what is private", denied, File::open(dir.join("private")))?;
    refused("creating in root's directory", denied, File::create(dir.join("theirs/new")))?;
    refused("removing from root's directory", denied, fs::remove_file(dir.join("theirs/file")))?;
    let mode = Permissions::from_mode(0o777);
    refused("chmod of root's file", denied, fs::set_permissions(dir.join("readable"), mode))?;
    let chown = std::os::unix::fs::chown(dir.join("readable"), Some(USER), None);
    refused("chown of root's file", denied, chown)
}

fn user_clones(dir: &Path) -> anyhow::Result<()> {
    let (from, to) = (dir.join("from"), dir.join("to"));
    git(dir, &["init", "--quiet", "from"])?;
    for n in 0..20 {
        fs::write(from.join(format!("file{n}")), format!("content {n}\n").repeat(100))?;
    }
    git(&from, &["add", "."])?;
    git(&from, &["commit", "--quiet", "--message", "all"])?;
    git(dir, &["clone", "--quiet", "--no-local", "from", "to"])?;
    git(&to, &["fsck", "--strict"])?;
    git(&to, &["gc", "--quiet"])?;
    holds(&to.join("file7"), "content 7\n".repeat(100).as_bytes())
}

fn git(dir: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    const SETTINGS: [&str; 6] =
        ["-c", "user.name=tester", "-c", "user.email=tester@example.com", "-c", "safe.directory=*"];
    let output = Command::new("git").current_dir(dir).args(SETTINGS).args(arguments).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {} ended with {}: {}", arguments[0], output.status, told.trim());
    Ok(())
}
