//! What is done on a mount, as plain system calls of this process or as the programs people run.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use xtask::architecture::root;

use crate::cargo;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// Bytes of a small file.
const SMALL: usize = 1024;
/// Parallel writers.
const WRITERS: usize = 8;
/// Files in one directory of the tree that is searched.
const TREE_DIR: usize = 1000;
/// The crate of this project that is built on the mount: a small one, and what it depends on.
const CRATE: &str = "remoor-rpc";

/// How much is done at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// MiB of a large file; a power of two.
    pub(crate) file_mib: usize,
    /// Small files.
    pub(crate) files: usize,
    /// Files of the tree that is searched.
    pub(crate) tree: usize,
    /// What can be ended early is, after this time.
    pub(crate) limit: Duration,
    /// What may take no time at all is done again and again for this long.
    pub(crate) again: Duration,
}

/// One directory, twice: through the mount, and where the server has it.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) mounted: PathBuf,
    pub(crate) native: PathBuf,
    pub(crate) scale: Scale,
}

impl Stage {
    fn large(&self, at: &Path) -> PathBuf {
        at.join("large")
    }

    fn small(&self, at: &Path, n: usize) -> PathBuf {
        at.join(format!("f{n:05}"))
    }

    /// Does something for each small file until the time is up; returns how many.
    fn each_small(&self, work: impl Fn(&Path) -> anyhow::Result<()>) -> anyhow::Result<u64> {
        let began = Instant::now();
        let mut done = 0;
        for n in 0..self.scale.files {
            let path = self.small(&self.mounted, n);
            work(&path).with_context(|| path.display().to_string())?;
            done += 1;
            if began.elapsed() > self.scale.limit {
                break;
            }
        }
        Ok(done)
    }
}

/// A large file, on the server.
pub(crate) fn make_large(stage: &Stage) -> anyhow::Result<()> {
    let mut file = File::create(stage.large(&stage.native))?;
    let block: Vec<u8> = (0..MIB).map(|n| (n % 251) as u8).collect();
    (0..stage.scale.file_mib)
        .try_for_each(|_| file.write_all(&block))
        .context("cannot prepare the large file")
}

/// All small files, on the server.
pub(crate) fn make_small(stage: &Stage) -> anyhow::Result<()> {
    let make = |n| fs::write(stage.small(&stage.native, n), [7; SMALL]);
    (0..stage.scale.files).try_for_each(make).context("cannot prepare small files")
}

/// A tree to search, which every row and client shares: it is only read.
pub(crate) fn make_tree(stage: &Stage) -> anyhow::Result<()> {
    let tree = tree_beside(&stage.native)?;
    if tree.exists() {
        return Ok(());
    }
    for n in 0..stage.scale.tree {
        let dir = tree.join(format!("d{:03}", n / TREE_DIR));
        if n % TREE_DIR == 0 {
            fs::create_dir_all(&dir)?;
        }
        fs::write(dir.join(format!("f{n:06}")), b"x")?;
    }
    Ok(())
}

fn tree_beside(dir: &Path) -> anyhow::Result<PathBuf> {
    Ok(dir.parent().context("a stage has a parent")?.join("tree"))
}

/// Reads the whole file once, 1 MiB a call. Also what warms the caches.
pub(crate) fn read_once(stage: &Stage) -> anyhow::Result<u64> {
    let mut file = File::open(stage.large(&stage.mounted))?;
    let (mut block, mut bytes) = (vec![0; MIB], 0);
    loop {
        match file.read(&mut block)? {
            0 => break,
            n => bytes += n as u64,
        }
    }
    let all = (stage.scale.file_mib * MIB) as u64;
    ensure!(bytes == all, "read {bytes} bytes of a file of {all}");
    Ok(bytes)
}

/// The same, until it is done or the time is up.
pub(crate) fn read_stream(stage: &Stage) -> anyhow::Result<u64> {
    let file = File::open(stage.large(&stage.mounted))?;
    let (mut block, mut bytes, began) = (vec![0; MIB], 0, Instant::now());
    while bytes < (stage.scale.file_mib * MIB) as u64 && began.elapsed() < stage.scale.limit {
        file.read_exact_at(&mut block, bytes)?;
        bytes += MIB as u64;
    }
    Ok(bytes)
}

/// Opens and reads the whole file, again and again.
pub(crate) fn read_again(stage: &Stage) -> anyhow::Result<u64> {
    let (mut bytes, began) = (0, Instant::now());
    while bytes == 0 || began.elapsed() < stage.scale.again {
        bytes += read_once(stage)?;
    }
    Ok(bytes)
}

/// Writes a new file, 1 MiB a call, with fsync at its end.
pub(crate) fn write_new(stage: &Stage) -> anyhow::Result<u64> {
    stream(File::create_new(stage.large(&stage.mounted))?, stage)
}

/// Writes over a file that is there.
pub(crate) fn write_over(stage: &Stage) -> anyhow::Result<u64> {
    stream(File::options().write(true).open(stage.large(&stage.mounted))?, stage)
}

fn stream(mut file: File, stage: &Stage) -> anyhow::Result<u64> {
    let (block, mut bytes, began) = (vec![b'w'; MIB], 0, Instant::now());
    file.seek(SeekFrom::Start(0))?;
    while bytes < (stage.scale.file_mib * MIB) as u64 && began.elapsed() < stage.scale.limit {
        file.write_all(&block)?;
        bytes += MIB as u64;
    }
    file.sync_all()?;
    Ok(bytes)
}

/// Several streams at a time, each to a file of its own.
pub(crate) fn write_parallel(stage: &Stage) -> anyhow::Result<u64> {
    let each = Scale { file_mib: (stage.scale.file_mib / WRITERS).max(1), ..stage.scale };
    let writer = |n: usize| {
        let file = File::create_new(stage.mounted.join(format!("w{n}")))?;
        stream(file, &Stage { scale: each, ..stage.clone() })
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..WRITERS).map(|n| scope.spawn(move || writer(n))).collect();
        all.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a writer panicked"))).sum()
    })
}

/// Pages of the file in an order without pattern, none twice: a full-period generator modulo a power of two (Hull and
/// Dobell, 1962).
fn pages(stage: &Stage) -> impl Iterator<Item = u64> + use<> {
    let count = (stage.scale.file_mib * MIB / PAGE) as u64;
    let next = move |page: &u64| Some((page.wrapping_mul(1_664_525) + 1_013_904_223) % count);
    let mut left = count;
    std::iter::successors(Some(count / 3), next).take_while(move |_| {
        left = left.saturating_sub(1);
        left > 0
    })
}

/// Reads pages, none twice.
pub(crate) fn read_random(stage: &Stage) -> anyhow::Result<u64> {
    let file = File::open(stage.large(&stage.mounted))?;
    let mut page = [0; PAGE];
    at_random(stage, |offset| file.read_exact_at(&mut page, offset))
}

/// Writes pages, none twice, and ends with fsync.
pub(crate) fn write_random(stage: &Stage) -> anyhow::Result<u64> {
    let file = File::options().write(true).open(stage.large(&stage.mounted))?;
    let done = at_random(stage, |offset| file.write_all_at(&[b'r'; PAGE], offset))?;
    file.sync_all()?;
    Ok(done)
}

fn at_random(stage: &Stage, mut work: impl FnMut(u64) -> std::io::Result<()>) -> anyhow::Result<u64> {
    let (mut done, began) = (0, Instant::now());
    for page in pages(stage) {
        work(page * PAGE as u64)?;
        done += 1;
        if began.elapsed() > stage.scale.limit / 2 {
            break;
        }
    }
    Ok(done)
}

/// Creates, writes and closes small files.
pub(crate) fn create_small(stage: &Stage) -> anyhow::Result<u64> {
    stage.each_small(|path| Ok(File::create_new(path)?.write_all(&[7; SMALL])?))
}

/// lstat(2) of each.
pub(crate) fn stat_small(stage: &Stage) -> anyhow::Result<u64> {
    stage.each_small(|path| {
        let size = fs::symlink_metadata(path)?.len();
        ensure!(size == SMALL as u64, "it has {size} bytes, not {SMALL}");
        Ok(())
    })
}

/// Opens, reads and closes each.
pub(crate) fn read_small(stage: &Stage) -> anyhow::Result<u64> {
    stage.each_small(|path| {
        let read = fs::read(path)?;
        ensure!(read == [7; SMALL], "it does not hold what was written");
        Ok(())
    })
}

/// Removes each.
pub(crate) fn unlink_small(stage: &Stage) -> anyhow::Result<u64> {
    stage.each_small(|path| Ok(fs::remove_file(path)?))
}

/// find(1) for files of the tree.
pub(crate) fn find(stage: &Stage) -> anyhow::Result<u64> {
    let found = output(Command::new("find").arg(tree_beside(&stage.mounted)?).args(["-type", "f"]))?;
    let count = found.lines().count();
    ensure!(count == stage.scale.tree, "find told {count} files of {}", stage.scale.tree);
    Ok(count as u64)
}

/// du(1) over the tree, which takes the attributes of every file.
pub(crate) fn du(stage: &Stage) -> anyhow::Result<u64> {
    let told = output(Command::new("du").args(["-s", "--inodes"]).arg(tree_beside(&stage.mounted)?))?;
    let count: usize = told.split_whitespace().next().unwrap_or_default().parse()?;
    ensure!(count > stage.scale.tree, "du told {count} inodes of a tree of {} files", stage.scale.tree);
    Ok(stage.scale.tree as u64)
}

/// Clones this project.
pub(crate) fn clone(stage: &Stage) -> anyhow::Result<u64> {
    clone_to(&stage.mounted).map(|()| 1)
}

/// A clone, on the server.
pub(crate) fn make_clone(stage: &Stage) -> anyhow::Result<()> {
    clone_to(&stage.native)
}

fn clone_to(dir: &Path) -> anyhow::Result<()> {
    let url = format!("file://{}", root().display());
    let mut command = Command::new("git");
    output(command.args(["clone", "--quiet", "--single-branch", &url]).arg(dir.join("clone"))).map(drop)
}

/// Builds a crate of the clone, with everything it writes on the mount too.
pub(crate) fn build(stage: &Stage) -> anyhow::Result<u64> {
    let dir = stage.mounted.join("clone");
    let mut command = cargo();
    command.current_dir(&dir).args(["build", "--quiet", "--offline", "--package", CRATE]);
    output(command.env("CARGO_TARGET_DIR", dir.join("target"))).map(|_| 1)
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let last = || told.lines().last().unwrap_or("nothing").to_owned();
    ensure!(output.status.success(), "{:?} said: {}", command.get_program(), last());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A stage in a new directory, with nothing between the two sides.
    pub(crate) fn stage(name: &str) -> Stage {
        // A tmpfs (shm_open(3)), where fsync waits for nothing.
        let dir = PathBuf::from(format!("/dev/shm/remoor-xtask-{}-{name}/stage", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let scale = Scale {
            file_mib: 2,
            files: 20,
            tree: 1100,
            limit: Duration::from_secs(60),
            again: Duration::ZERO,
        };
        Stage { mounted: dir.clone(), native: dir, scale }
    }

    #[test]
    fn every_page_is_met_once() {
        let stage = stage("pages");
        let all: Vec<u64> = pages(&stage).collect();
        assert_eq!(all.len(), 511);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert!(all.iter().all(|page| *page < 512));
        fs::remove_dir_all(stage.native.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_program_that_fails_tells_why() {
        let error = output(Command::new("sh").args(["-c", "echo no space >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("no space"), "{error}");
    }
}
