//! A large directory and a large file.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::fs::Dir;

use super::{Checked, Site, passed};
use crate::content::content;

/// Bytes of a read or write of the copy.
const CHUNK: usize = 1 << 20;

/// Every entry is listed once, also from a place kept with telldir(3), and while others are removed.
pub(super) fn directory(site: &Site) -> Checked {
    let name = |n| format!("an-entry-of-a-large-directory-{n:06}");
    for n in 0..site.entries {
        File::create_new(site.at(name(n))).with_context(|| name(n))?;
    }
    site.drop_caches();
    let began = Instant::now();
    let all = list(&mut Dir::read_from(File::open(&site.dir)?)?, usize::MAX)?;
    let secs = began.elapsed().as_secs_f64();
    complete(&all, site.entries)?;
    seek(site, &all)?;
    remove_while_listing(site)?;
    passed(format!("{} entries listed in {secs:.2} s", site.entries))
}

/// An entry's name, and the place after it as telldir(3) says it.
type Entry = (Vec<u8>, i64);

fn list(dir: &mut Dir, most: usize) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    while entries.len() < most {
        let Some(entry) = dir.read() else { break };
        let entry = entry.context("reading the directory")?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            entries.push((name.to_owned(), entry.offset()));
        }
    }
    Ok(entries)
}

fn complete(entries: &[Entry], wanted: usize) -> anyhow::Result<()> {
    let unique: HashSet<_> = entries.iter().map(|(name, _)| name).collect();
    ensure!(unique.len() == entries.len(), "{} entries came twice", entries.len() - unique.len());
    ensure!(entries.len() == wanted, "{} entries of {wanted} came", entries.len());
    Ok(())
}

/// seekdir(3) to some places: the same entries follow as before.
fn seek(site: &Site, all: &[Entry]) -> anyhow::Result<()> {
    let mut dir = Dir::read_from(File::open(&site.dir)?)?;
    for part in [2, 7, 1, 5] {
        let at = all.len() * part / 8;
        dir.seek(all[at].1).with_context(|| format!("seeking behind entry {at}"))?;
        let found = list(&mut dir, 100)?;
        let wanted = &all[at + 1..all.len().min(at + 101)];
        ensure!(found == wanted, "behind entry {at} other entries follow than before");
    }
    Ok(())
}

/// As `rm -r` does.
fn remove_while_listing(site: &Site) -> anyhow::Result<()> {
    site.drop_caches();
    let mut removed = 0;
    for entry in fs::read_dir(&site.dir)? {
        let entry = entry.context("reading the directory while it shrinks")?;
        let shown = || String::from_utf8_lossy(entry.file_name().as_bytes()).into_owned();
        fs::remove_file(entry.path()).with_context(|| format!("removing {}", shown()))?;
        removed += 1;
    }
    ensure!(removed == site.entries, "{removed} of {} entries were listed while removing", site.entries);
    ensure!(fs::read_dir(&site.dir)?.next().is_none(), "entries are left");
    Ok(())
}

/// Writes a file, copies it as cp(1) does, and compares the copy, each time from the server.
pub(super) fn copy(site: &Site) -> Checked {
    let (from, to) = (site.at("from"), site.at("to"));
    let bytes = site.copy_mib * CHUNK as u64;
    let wrote = timed(|| write(&from, bytes))?;
    site.drop_caches();
    let copied = timed(|| copy_file(&from, &to))?;
    site.drop_caches();
    let read = timed(|| compare(&to, bytes))?;
    let rate = |secs: f64| site.copy_mib as f64 / secs;
    passed(format!(
        "{} MiB: written at {:.0}, copied at {:.0}, compared at {:.0} MiB/s",
        site.copy_mib,
        rate(wrote),
        rate(copied),
        rate(read)
    ))
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

fn write(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = File::create_new(path)?;
    for at in (0..bytes).step_by(CHUNK) {
        file.write_all(&content(3, at, CHUNK as u64))?;
    }
    Ok(file.sync_all()?)
}

fn copy_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create_new(to)?);
    let mut chunk = vec![0; CHUNK];
    // Not std::io::copy: it lets the file system copy by itself where it can.
    loop {
        let n = from.read(&mut chunk)?;
        if n == 0 {
            return Ok(to.sync_all()?);
        }
        to.write_all(&chunk[..n])?;
    }
}

fn compare(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; CHUNK];
    for at in (0..bytes).step_by(CHUNK) {
        file.read_exact(&mut chunk).with_context(|| format!("the copy ends near byte {at}"))?;
        ensure!(chunk == content(3, at, CHUNK as u64), "the copy differs in the MiB at byte {at}");
    }
    ensure!(file.read(&mut chunk)? == 0, "the copy is too long");
    Ok(())
}
