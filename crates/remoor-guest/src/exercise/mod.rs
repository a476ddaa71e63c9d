//! What applications do with files. Each check is a function and a row of [`CHECKS`].

mod bytes;
mod identity;
mod large;
mod names;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;

pub(crate) use identity::as_user;

/// What to exercise.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A directory; a new one in it is worked in, and removed at the end.
    dir: PathBuf,
    /// Size of the file that is copied.
    #[arg(long, default_value_t = 64)]
    copy_mib: u64,
    /// Entries of the large directory.
    #[arg(long, default_value_t = 20_000)]
    entries: usize,
    /// Only the checks whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// A place to work in, and how much of it.
#[derive(Debug)]
struct Site {
    dir: PathBuf,
    copy_mib: u64,
    entries: usize,
    /// Whether there is a server: dropping caches is felt by the whole machine.
    is_nfs: bool,
}

impl Site {
    /// A path in the directory.
    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the next read come from the server. Without permission to, what was read may come from the cache.
    fn drop_caches(&self) {
        if self.is_nfs {
            // 3: pages, and directory entries and inodes (Documentation/admin-guide/sysctl/vm.rst).
            let _ = fs::write("/proc/sys/vm/drop_caches", "3");
        }
    }
}

/// The type of file system that statfs(2) gives for NFS: linux/magic.h.
const NFS_SUPER_MAGIC: u64 = 0x6969;

fn is_nfs(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|found| found.f_type as u64 == NFS_SUPER_MAGIC)
}

/// How a check went that did not fail.
enum Outcome {
    /// It passed; the text is a figure worth telling.
    Passed(String),
    /// It could not be made here, and why.
    Skipped(String),
}

/// The result of a check.
type Checked = anyhow::Result<Outcome>;

fn passed(figure: impl Into<String>) -> Checked {
    Ok(Outcome::Passed(figure.into()))
}

/// A check: its name, and what it does.
struct Check {
    name: &'static str,
    run: fn(&Site) -> Checked,
}

/// Every check, the quick ones first.
const CHECKS: &[Check] = &[
    Check { name: "exclusive-create", run: names::exclusive_create },
    Check { name: "rename-replaces", run: names::rename_replaces },
    Check { name: "hard-links", run: names::hard_links },
    Check { name: "symlinks", run: names::symlinks },
    Check { name: "directories", run: names::directories },
    Check { name: "any-name", run: names::any_name },
    Check { name: "fifo-and-socket", run: names::fifo_and_socket },
    Check { name: "attributes", run: names::attributes },
    Check { name: "append", run: bytes::append },
    Check { name: "mmap", run: bytes::mapped },
    Check { name: "holes", run: bytes::holes },
    Check { name: "truncate", run: bytes::truncate },
    Check { name: "unlinked-while-open", run: bytes::unlinked_while_open },
    Check { name: "fsync", run: bytes::fsync },
    Check { name: "direct-io", run: bytes::direct },
    Check { name: "random-writes", run: bytes::random_writes },
    Check { name: "user-read-only-create", run: identity::read_only_create },
    Check { name: "user-permissions", run: identity::permissions },
    Check { name: "user-git-clone", run: identity::git_clone },
    Check { name: "storm", run: names::storm },
    Check { name: "copy", run: large::copy },
    Check { name: "large-directory", run: large::directory },
];

/// Makes the checks and prints one line for each, then a summary.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let dir = options.dir.join(format!("exercise-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let is_nfs = is_nfs(&dir);
    let site = Site { dir, copy_mib: options.copy_mib, entries: options.entries, is_nfs };
    let began = Instant::now();
    let mut tally = Tally::default();
    for check in CHECKS.iter().filter(|check| check.name.contains(&options.only)) {
        tally.one(check, &site);
    }
    fs::remove_dir_all(&site.dir).with_context(|| format!("cannot remove {}", site.dir.display()))?;
    ensure!(tally.passed + tally.failed + tally.skipped > 0, "no check is named *{}*", options.only);
    let Tally { passed, failed, skipped } = tally;
    let secs = began.elapsed().as_secs_f64();
    println!("exercise: {passed} passed, {failed} failed, {skipped} skipped in {secs:.1} s");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    /// Makes a check in a directory of its own and tells how it went.
    fn one(&mut self, check: &Check, site: &Site) {
        let began = Instant::now();
        let outcome = own_directory(check.name, site).and_then(|site| (check.run)(&site));
        let secs = began.elapsed().as_secs_f64();
        let name = check.name;
        match outcome {
            Ok(Outcome::Passed(figure)) => {
                self.passed += 1;
                println!("ok {name} ({secs:.2} s) {figure}");
            }
            Ok(Outcome::Skipped(why)) => {
                self.skipped += 1;
                println!("skip {name}: because {why}");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAIL {name} ({secs:.2} s): {error:#}");
            }
        }
    }
}

fn own_directory(name: &str, site: &Site) -> anyhow::Result<Site> {
    let dir = site.at(name);
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(Site { dir, ..*site })
}

/// Fails unless `result` is an error of this kind.
fn refused<T>(what: &str, kind: ErrorKind, result: io::Result<T>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => bail!("{what}: {error}, and {kind} was expected"),
        Ok(_) => bail!("{what}: succeeded, and {kind} was expected"),
    }
}

/// Fails unless the file has these bytes.
fn holds(path: &Path, wanted: &[u8]) -> anyhow::Result<()> {
    let found = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let shown = path.display();
    ensure!(found.len() == wanted.len(), "{shown} has {} bytes instead of {}", found.len(), wanted.len());
    match found.iter().zip(wanted).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => bail!("{shown}: byte {at} is {:#04x} instead of {:#04x}", found[at], wanted[at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_local_file_system_passes_every_check() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let site = Site { dir: dir.path().to_owned(), copy_mib: 2, entries: 500, is_nfs: false };
        let mut tally = Tally::default();
        // The checks of a user start this program again, which is a test harness here.
        for check in CHECKS.iter().filter(|check| !check.name.starts_with("user-")) {
            tally.one(check, &site);
        }
        assert_eq!((tally.failed, tally.skipped), (0, 0), "see the lines above");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_check_that_finds_something_wrong_fails() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "abc").unwrap();
        assert!(holds(&dir.path().join("a"), b"abd").unwrap_err().to_string().contains("byte 2"));
        assert!(holds(&dir.path().join("a"), b"ab").is_err());
        assert!(refused("x", ErrorKind::NotFound, Ok(())).is_err());
        assert!(refused("x", ErrorKind::NotFound, fs::read("/")).is_err());
        let site = Site { dir: dir.path().to_owned(), copy_mib: 0, entries: 0, is_nfs: false };
        let mut tally = Tally::default();
        tally.one(&Check { name: "bad", run: |_| bail!("no") }, &site);
        assert_eq!(tally.failed, 1);
    }
}
