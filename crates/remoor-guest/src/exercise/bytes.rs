//! The bytes of files: appending, mapping, holes, truncating.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use rustix::fs::OFlags;

use super::{Checked, Outcome, Site, holds, passed, refused};
use crate::content::{content, mix};
use crate::sys::Mapped;

/// Appends of each of two descriptors.
const APPENDS: usize = 200;
/// Bytes of the file that is mapped, and of the one that is written at random.
const FILE_BYTES: usize = 1 << 20;
const PAGE: usize = 4096;
const RANDOM_WRITES: u64 = 500;
/// Beyond what 32 bits can say.
const FAR: u64 = 5 << 30;

pub(super) fn append(site: &Site) -> Checked {
    let path = site.at("log");
    let open = || OpenOptions::new().append(true).create(true).open(&path);
    let (mut a, mut b) = (open()?, open()?);
    for _ in 0..APPENDS {
        a.write_all(b"a")?;
        b.write_all(b"b")?;
    }
    drop((a, b));
    site.drop_caches();
    holds(&path, &b"ab".repeat(APPENDS))?;
    passed(format!("{} appends by two descriptors", 2 * APPENDS))
}

pub(super) fn mapped(site: &Site) -> Checked {
    let path = site.at("mapped");
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = open()?;
    file.set_len(FILE_BYTES as u64)?;
    let mut map = Mapped::new(&file, FILE_BYTES)?;
    (0..FILE_BYTES).step_by(PAGE).for_each(|at| map.set(at, (at / PAGE) as u8));
    map.sync()?;
    drop((map, file));
    site.drop_caches();
    let wanted: Vec<u8> =
        (0..FILE_BYTES).map(|at| if at % PAGE == 0 { (at / PAGE) as u8 } else { 0 }).collect();
    holds(&path, &wanted)?;
    let file = open()?;
    let map = Mapped::new(&file, FILE_BYTES)?;
    let wrong = (0..FILE_BYTES).find(|at| map.get(*at) != wanted[*at]);
    ensure!(wrong.is_none(), "byte {wrong:?} differs when it is mapped again");
    // What is written beside a mapping is seen through it.
    file.write_all_at(b"Z", 1)?;
    ensure!(map.get(1) == b'Z', "a write is not seen through the mapping");
    passed("")
}

pub(super) fn holes(site: &Site) -> Checked {
    let path = site.at("sparse");
    let file = File::create_new(&path)?;
    file.write_all_at(b"start", 0)?;
    file.write_all_at(b"end", FAR)?;
    file.sync_all()?;
    drop(file);
    site.drop_caches();
    let file = File::open(&path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.len() == FAR + 3, "it has {} bytes", metadata.len());
    ensure!(metadata.blocks() < 4096, "it takes {} blocks", metadata.blocks());
    let mut bytes = [1; PAGE];
    file.read_exact_at(&mut bytes, 1 << 30)?;
    ensure!(bytes == [0; PAGE], "the hole is not zero");
    file.read_exact_at(&mut bytes[..3], FAR)?;
    ensure!(bytes[..3] == *b"end", "what was written at 5 GiB reads {:?}", &bytes[..3]);
    passed("")
}

pub(super) fn truncate(site: &Site) -> Checked {
    let path = site.at("file");
    fs::write(&path, "0123456789")?;
    let file = OpenOptions::new().write(true).open(&path)?;
    file.set_len(4)?;
    file.set_len(8)?;
    drop(file);
    site.drop_caches();
    holds(&path, b"0123\0\0\0\0")?;
    OpenOptions::new().write(true).truncate(true).open(&path)?;
    site.drop_caches();
    holds(&path, b"")?;
    passed("")
}

/// The client gives the file another name until it is closed: nfs_sillyrename.
pub(super) fn unlinked_while_open(site: &Site) -> Checked {
    let path = site.at("file");
    fs::write(&path, "still here")?;
    let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
    fs::remove_file(&path)?;
    refused("opening it by name", ErrorKind::NotFound, File::open(&path))?;
    file.write_all_at(b"STILL", 0)?;
    file.sync_all()?;
    site.drop_caches();
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    ensure!(text == "STILL here", "it reads `{text}`");
    drop(file);
    let left: Vec<_> = fs::read_dir(&site.dir)?.collect();
    ensure!(left.is_empty(), "it left {left:?}");
    passed("")
}

pub(super) fn fsync(site: &Site) -> Checked {
    let ways = [OFlags::empty(), OFlags::SYNC, OFlags::DSYNC];
    for (n, flags) in ways.into_iter().enumerate() {
        let path = site.at(n.to_string());
        let mut file =
            OpenOptions::new().write(true).create_new(true).custom_flags(flags.bits() as i32).open(&path)?;
        file.write_all(&content(1, 0, 10_000))?;
        file.sync_data()?;
        file.write_all(&content(1, 10_000, 10_000))?;
        file.sync_all()?;
        holds(&path, &content(1, 0, 20_000))?;
    }
    File::open(&site.dir)?.sync_all().context("fsync of the directory")?;
    passed("")
}

/// O_DIRECT wants aligned memory, which dd(1) has.
pub(super) fn direct(site: &Site) -> Checked {
    let (from, to) = (site.at("from"), site.at("to"));
    fs::write(&from, content(2, 0, 1 << 18))?;
    let operands = [
        format!("if={}", from.display()),
        format!("of={}", to.display()),
        "bs=65536".into(),
        "iflag=direct".into(),
        "oflag=direct".into(),
    ];
    let status = Command::new("dd").args(operands).stderr(Stdio::null()).status();
    let Ok(status) = status else { return Ok(Outcome::Skipped("there is no dd".into())) };
    ensure!(status.success(), "dd ended with {status}");
    holds(&to, &content(2, 0, 1 << 18))?;
    passed("")
}

pub(super) fn random_writes(site: &Site) -> Checked {
    let path = site.at("file");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let mut model = vec![0; FILE_BYTES];
    file.set_len(FILE_BYTES as u64)?;
    for n in 0..RANDOM_WRITES {
        let (at, len) = (mix(n) as usize % (FILE_BYTES - 5000), mix(!n) as usize % 5000);
        let bytes = &content(n, 0, 5000)[..len];
        file.write_all_at(bytes, at as u64)?;
        model[at..at + len].copy_from_slice(bytes);
        if n % 100 == 0 {
            file.sync_all()?;
            site.drop_caches();
        }
    }
    drop(file);
    site.drop_caches();
    holds(&path, &model)?;
    passed(format!("{RANDOM_WRITES} writes"))
}
