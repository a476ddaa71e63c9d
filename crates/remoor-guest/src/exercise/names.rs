//! Names and attributes: creating, renaming, linking, removing.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink,
};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Checked, Site, holds, passed, refused};

/// Writers of the storm, and the files of each.
const STORM: (usize, usize) = (4, 250);

pub(super) fn exclusive_create(site: &Site) -> Checked {
    let path = site.at("new");
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path);
    create()?.write_all(b"first")?;
    refused("O_EXCL on a file that exists", ErrorKind::AlreadyExists, create())?;
    site.drop_caches();
    let metadata = fs::metadata(&path)?;
    ensure!(metadata.mode() & 0o7777 == 0o640, "the mode is {:o}", metadata.mode());
    // RFC 1813 section 3.3.8: a server may keep the verifier of an exclusive create in the times, and the client sets
    // them right.
    let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    ensure!(age < Duration::from_secs(120), "it was modified {} s ago", age.as_secs());
    holds(&path, b"first")?;
    passed("")
}

pub(super) fn rename_replaces(site: &Site) -> Checked {
    let (old, new, target) = (site.at("old"), site.at("new"), site.at("target"));
    fs::write(&old, "old")?;
    fs::write(&target, "target")?;
    let mut open = File::open(&target)?;
    fs::rename(&old, &target)?;
    holds(&target, b"old")?;
    let mut still = String::new();
    open.read_to_string(&mut still)?;
    ensure!(still == "target", "the file that was replaced while open reads `{still}`");
    refused("renaming what is gone", ErrorKind::NotFound, fs::rename(&old, &new))?;
    fs::create_dir(site.at("d"))?;
    fs::rename(&target, site.at("d/inside"))?;
    site.drop_caches();
    holds(&site.at("d/inside"), b"old")?;
    passed("")
}

pub(super) fn hard_links(site: &Site) -> Checked {
    let (a, b) = (site.at("a"), site.at("b"));
    fs::write(&a, "shared")?;
    fs::hard_link(&a, &b)?;
    refused("a link over a name", ErrorKind::AlreadyExists, fs::hard_link(&a, &b))?;
    ensure!(fs::metadata(&a)?.nlink() == 2, "it has {} links", fs::metadata(&a)?.nlink());
    ensure!(fs::metadata(&a)?.ino() == fs::metadata(&b)?.ino(), "the links have different fileids");
    fs::remove_file(&a)?;
    site.drop_caches();
    holds(&b, b"shared")?;
    ensure!(fs::metadata(&b)?.nlink() == 1, "it has {} links left", fs::metadata(&b)?.nlink());
    passed("")
}

pub(super) fn symlinks(site: &Site) -> Checked {
    fs::write(site.at("file"), "through")?;
    symlink("file", site.at("link"))?;
    holds(&site.at("link"), b"through")?;
    symlink("nowhere", site.at("dangling"))?;
    refused("opening a dangling link", ErrorKind::NotFound, File::open(site.at("dangling")))?;
    let bytes = OsStr::from_bytes(b"\xff\xfe/../\x01");
    symlink(bytes, site.at("bytes"))?;
    site.drop_caches();
    ensure!(fs::read_link(site.at("bytes"))?.as_os_str() == bytes, "a target came back changed");
    let long = "x".repeat(1000);
    symlink(&long, site.at("long"))?;
    ensure!(fs::read_link(site.at("long"))?.as_os_str() == long.as_str(), "a long target came back changed");
    ensure!(fs::symlink_metadata(site.at("long"))?.len() == 1000, "its length is not its target's");
    passed("")
}

pub(super) fn directories(site: &Site) -> Checked {
    let (dir, inner) = (site.at("d"), site.at("d/e"));
    DirBuilder::new().mode(0o750).create(&dir)?;
    refused("making it again", ErrorKind::AlreadyExists, fs::create_dir(&dir))?;
    fs::create_dir(&inner)?;
    refused("removing it full", ErrorKind::DirectoryNotEmpty, fs::remove_dir(&dir))?;
    refused("moving it into itself", ErrorKind::InvalidInput, fs::rename(&dir, inner.join("f")))?;
    fs::write(site.at("file"), "")?;
    refused("a file as a directory", ErrorKind::NotADirectory, File::open(site.at("file/x")))?;
    refused("removing a file as one", ErrorKind::NotADirectory, fs::remove_dir(site.at("file")))?;
    fs::rename(&inner, site.at("e"))?;
    fs::remove_dir(&dir)?;
    site.drop_caches();
    refused("what was removed", ErrorKind::NotFound, fs::metadata(&dir))?;
    ensure!(fs::metadata(site.at("e"))?.is_dir(), "what was moved is no directory");
    deep(site)
}

/// Paths far longer than any name.
fn deep(site: &Site) -> Checked {
    const LEVELS: usize = 40;
    let mut path = site.dir.clone();
    for _ in 0..LEVELS {
        path.push("a-directory-in-a-directory-in-a-directory");
        fs::create_dir(&path)?;
    }
    fs::write(path.join("file"), "deep")?;
    site.drop_caches();
    holds(&path.join("file"), b"deep")?;
    passed(format!("{LEVELS} levels"))
}

pub(super) fn any_name(site: &Site) -> Checked {
    let longest = "n".repeat(255);
    let names: [&[u8]; 7] =
        [b"\xff\xfe not UTF-8", b"new\nline", b" ", b"...", b"*?[", b"caf\xc3\xa9", longest.as_bytes()];
    for name in names {
        fs::write(site.at(OsStr::from_bytes(name)), name)?;
    }
    let too_long = File::create(site.at("n".repeat(256)));
    refused("a name of 256 bytes", ErrorKind::InvalidFilename, too_long)?;
    site.drop_caches();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for entry in fs::read_dir(&site.dir)? {
        let entry = entry?;
        holds(&entry.path(), entry.file_name().as_bytes())?;
        found.push(entry.file_name().as_bytes().to_owned());
    }
    found.sort();
    let mut wanted = names.map(<[u8]>::to_owned).to_vec();
    wanted.sort();
    ensure!(found == wanted, "the directory lists {found:?}");
    passed("")
}

pub(super) fn fifo_and_socket(site: &Site) -> Checked {
    let fifo = site.at("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    ensure!(fs::metadata(&fifo)?.file_type().is_fifo(), "it is no fifo");
    let writer = thread::spawn({
        let fifo = fifo.clone();
        move || fs::write(fifo, "through the fifo")
    });
    let read = fs::read(&fifo)?;
    writer.join().ok().context("the fifo's writer panicked")??;
    ensure!(read == b"through the fifo", "the fifo passed {read:?}");
    // A path of sun_path's 108 bytes at most: bind in the directory itself.
    let short = Path::new("/proc/self/fd").join(format!("{}/s", raw(&File::open(&site.dir)?)?));
    let _listener = UnixListener::bind(short).context("cannot bind a socket")?;
    ensure!(fs::metadata(site.at("s"))?.file_type().is_socket(), "it is no socket");
    passed("")
}

/// A descriptor of the same directory that stays open, by its number.
fn raw(dir: &File) -> anyhow::Result<i32> {
    use std::os::fd::IntoRawFd;
    Ok(dir.try_clone()?.into_raw_fd())
}

pub(super) fn attributes(site: &Site) -> Checked {
    let path = site.at("file");
    fs::write(&path, "12345678")?;
    for mode in [0o600, 0o4755, 0o2755, 0o1777, 0] {
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        let found = fs::metadata(&path)?.mode() & 0o7777;
        ensure!(found == mode, "the mode is {found:o} and not {mode:o}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    chown(&path, Some(4_000_000_000), Some(2000))?;
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_100_000_000, 987_654_321);
    File::open(&path)?.set_modified(time)?;
    site.drop_caches();
    let metadata = fs::metadata(&path)?;
    ensure!((metadata.uid(), metadata.gid()) == (4_000_000_000, 2000), "the owner is {}", metadata.uid());
    ensure!(metadata.modified()? == time, "the time of modification lost something");
    ensure!(metadata.len() == 8, "its size is {}", metadata.len());
    passed("")
}

/// Files created, renamed, read and removed by several at once.
pub(super) fn storm(site: &Site) -> Checked {
    let (writers, files) = STORM;
    let results: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = (0..writers).map(|w| scope.spawn(move || storm_of(site, w, files))).collect();
        started.into_iter().map(|writer| writer.join()).collect()
    });
    for result in results {
        result.ok().context("a writer panicked")??;
    }
    site.drop_caches();
    let left = fs::read_dir(&site.dir)?.count();
    ensure!(left == writers * files.div_ceil(4), "{left} files are left");
    passed(format!("{} files", writers * files))
}

/// Keeps every fourth file.
fn storm_of(site: &Site, writer: usize, files: usize) -> anyhow::Result<()> {
    for n in 0..files {
        let (from, to) = (format!("w{writer}.{n}.tmp"), format!("w{writer}.{n}"));
        fs::write(site.at(&from), &to).with_context(|| format!("creating {from}"))?;
        fs::rename(site.at(&from), site.at(&to)).with_context(|| format!("renaming {from}"))?;
        holds(&site.at(&to), to.as_bytes())?;
        if n % 4 != 0 {
            fs::remove_file(site.at(&to)).with_context(|| format!("removing {to}"))?;
        }
    }
    Ok(())
}
