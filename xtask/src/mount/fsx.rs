//! `cargo xtask mount fsx`: random operations on one file, each of whose bytes is known. Reads, writes and truncations by
//! system call and by mapped memory, with closes and flushes between.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::value_parser;
use xtask::architecture::root;

use super::build;
use super::client::Mounted;
use super::place::{Places, Servers};
use super::tools::FSX;
use crate::bench::load::Tools;
use crate::bench::progress;
use crate::report::Counts;

/// Lines of its log that are shown of a run that failed.
const SHOWN: usize = 12;
/// Operations of the run in `cargo xtask test`.
const SUITE_OPS: u32 = 10_000;
/// A run that takes longer has hung.
const PATIENCE: Duration = Duration::from_mins(20);

/// What an NFSv3 mount has: neither holes by fallocate(2) nor its other modes. Sizes are not aligned, so that pages are
/// shared by what was written in several ways.
const CONFIGURATION: &str = "\
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 2.0
invalidate = 2.0
mapread = 10.0
mapwrite = 10.0
read = 10.0
write = 10.0
truncate = 5.0
fsync = 1.0
fdatasync = 1.0
sendfile = 2.0
posix_fadvise = 2.0
copy_file_range = 2.0
";

/// How much, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    places: Places,
    /// Operations of each run
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u32).range(1..))]
    ops: u32,
    /// Runs, each from a seed of its own
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    seeds: u32,
    /// The first seed; the others follow it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u32,
}

impl Options {
    /// What `cargo xtask test` runs: one short run.
    pub(super) fn suite() -> Self {
        Self { places: Places::ours(), ops: SUITE_OPS, seeds: 1, seed: 1 }
    }
}

/// Installs it and builds what it runs on.
pub(super) fn prepare(options: &Options) -> anyhow::Result<()> {
    build(options.places.want_ceiling())?;
    FSX.provide()
}

/// Runs every seed with every client on every server.
pub(super) fn run(options: &Options) -> anyhow::Result<Counts> {
    let tools = Tools::built()?;
    let clients = options.places.clients(&tools)?;
    let servers = Servers::start(&options.places.servers, &tools)?;
    let mut counts = Counts::default();
    for client in &clients {
        for (n, server) in servers.names().iter().enumerate() {
            let mounted = servers.mount(n, client)?;
            counts += every_seed(&servers, &mounted, &format!("{} on {server}", client.name), options);
            mounted.unmount()?;
        }
    }
    Ok(counts)
}

fn every_seed(servers: &Servers, mounted: &Mounted, place: &str, options: &Options) -> Counts {
    let mut counts = Counts::default();
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        progress(&format!("fsx: {} operations of seed {seed}, {place}", options.ops));
        let began = Instant::now();
        let result = mounted.guarded(PATIENCE, || one_seed(servers.work(), &mounted.dir, seed, options.ops));
        counts += Counts::of(result.is_ok());
        let told = result.map_or_else(|error| format!("FAILED: {error:#}"), |()| "ok".into());
        println!("fsx {place}, seed {seed}: {told} ({:.1} s)", began.elapsed().as_secs_f64());
    }
    counts
}

/// One run on a file of its own in `dir`; `work` is for its configuration.
fn one_seed(work: &Path, dir: &Path, seed: u32, ops: u32) -> anyhow::Result<()> {
    let configuration = work.join("fsx.toml");
    fs::write(&configuration, CONFIGURATION).context("cannot write fsx's configuration")?;
    let artifacts = artifacts()?;
    let file = dir.join(format!("fsx-{seed}"));
    let mut command = command(seed, ops, &artifacts, &file);
    let output = command.arg("-f").arg(&configuration).output();
    let output = output.with_context(|| format!("cannot run {}", FSX.program().display()))?;
    if output.status.success() {
        return fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()));
    }
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    let from = told.lines().count().saturating_sub(SHOWN);
    let last = told.lines().skip(from).collect::<Vec<_>>().join("\n  ");
    bail!("{}; what the file should hold is in {}:\n  {last}", output.status, artifacts.display())
}

/// fsx with a seed, for a number of operations.
pub(super) fn command(seed: u32, ops: u32, artifacts: &Path, file: &Path) -> Command {
    let mut command = Command::new(FSX.program());
    command.args(["-S", &seed.to_string(), "-N", &ops.to_string(), "-P"]).arg(artifacts).arg(file);
    command.stdin(Stdio::null());
    command
}

/// Where a run that fails leaves what the file should hold, and its log.
fn artifacts() -> anyhow::Result<PathBuf> {
    let dir = root().join("target/fsx");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_with_mapped_memory_in_it() {
        let told: toml::Table = CONFIGURATION.parse().unwrap();
        assert!(told["weights"]["mapwrite"].as_float().is_some_and(|weight| weight > 0.0));
        assert!(told["flen"].as_integer() > told["opsize"]["max"].as_integer());
    }

    #[test]
    fn a_run_is_told_its_seed_and_length() {
        let command = command(7, 100, Path::new("/a"), Path::new("/f"));
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert_eq!(arguments, ["-S", "7", "-N", "100", "-P", "/a", "/f"]);
    }
}
