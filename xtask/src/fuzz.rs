//! `cargo xtask fuzz`: builds the targets in `fuzz/` with coverage instrumentation and runs them.
//!
//! Only sanitizers need a nightly toolchain. Coverage is a pass of LLVM that the stable compiler can be asked for;
//! these are the flags of cargo-fuzz without its `-Zsanitizer`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use xtask::architecture::root;

use crate::cargo;
use crate::report::Counts;

const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";
/// Longest input, bytes; the allocation limit in fuzz/src/lib.rs is chosen for it.
const MAX_INPUT: usize = 4096;
/// Most memory a target may have.
const RSS_LIMIT_MIB: u32 = 512;
/// The same on every run.
const SEED: u32 = 1;
/// Lines of a failed target's output that are shown.
const SHOWN_LINES: usize = 40;

/// Builds and runs all targets, or one, for `secs` seconds each.
pub(crate) fn run(secs: u64, only: Option<&str>) -> anyhow::Result<Counts> {
    let targets = choose(targets()?, only)?;
    build()?;
    let mut counts = Counts::default();
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    for batch in targets.chunks(at_once) {
        for passed in run_batch(batch, secs) {
            counts += Counts::of(passed?);
        }
    }
    Ok(counts)
}

fn folder() -> PathBuf {
    root().join("fuzz")
}

/// Names of all targets: the files in fuzz/fuzz_targets.
fn targets() -> anyhow::Result<Vec<String>> {
    let dir = folder().join("fuzz_targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<String> =
        paths.iter().filter_map(|p| p.file_stem()).map(|s| s.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn choose(all: Vec<String>, only: Option<&str>) -> anyhow::Result<Vec<String>> {
    let Some(only) = only else { return Ok(all) };
    if !all.iter().any(|t| t == only) {
        bail!("there is no fuzz target {only}: choose one of {}", all.join(", "));
    }
    Ok(vec![only.to_owned()])
}

/// Named in the build, so that the flags are not given to build scripts.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn build() -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(["build", "--release", "--bins", "--target", &triple()]);
    command.arg("--manifest-path").arg(folder().join("Cargo.toml"));
    command.arg("--target-dir").arg(folder().join("target"));
    command.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = command.status().context("cannot run cargo build")?;
    ensure!(status.success(), "the fuzz targets do not build: see above");
    Ok(())
}

fn run_batch(targets: &[String], secs: u64) -> Vec<anyhow::Result<bool>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = targets.iter().map(|t| scope.spawn(|| run_target(t, secs))).collect();
        let died = || bail!("the thread that ran a fuzz target died");
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| died())).collect()
    })
}

/// Runs one target; false if it found something.
fn run_target(target: &str, secs: u64) -> anyhow::Result<bool> {
    let corpus = made_dir("corpus", target)?;
    let artifacts = made_dir("artifacts", target)?;
    let began = Instant::now();
    let output = libfuzzer(target, secs, &corpus, &artifacts).output();
    let output = output.with_context(|| format!("cannot run the fuzz target {target}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let runs = executions(&log);
    // Zero runs in the given time would be a target that tests nothing.
    let passed = output.status.success() && runs.is_some_and(|n| n > 0);
    println!("fuzz {target}: {} runs in {:.0} s", runs.unwrap_or(0), began.elapsed().as_secs_f64());
    if !passed {
        tell(target, &output, &log, &artifacts);
    }
    Ok(passed)
}

fn made_dir(kind: &str, target: &str) -> anyhow::Result<PathBuf> {
    let dir = folder().join(kind).join(target);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn libfuzzer(target: &str, secs: u64, corpus: &Path, artifacts: &Path) -> Command {
    let mut command = Command::new(folder().join("target").join(triple()).join("release").join(target));
    command.arg(format!("-max_total_time={secs}"));
    command.arg(format!("-max_len={MAX_INPUT}"));
    command.arg(format!("-rss_limit_mb={RSS_LIMIT_MIB}"));
    command.arg(format!("-seed={SEED}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-print_final_stats=1", "-timeout=10"]).arg(corpus);
    command.env("REMOOR_FUZZ_SEEDS", corpus).env("RUST_BACKTRACE", "1");
    command
}

/// How many inputs were run, from libFuzzer's `Done N runs in S second(s)`.
fn executions(log: &str) -> Option<u64> {
    let done = log.lines().find_map(|line| line.strip_prefix("Done "))?;
    done.split(' ').next()?.parse().ok()
}

fn tell(target: &str, output: &Output, log: &str, artifacts: &Path) {
    let lines: Vec<&str> = log.lines().collect();
    println!(
        "{}",
        lines[first_to_show(&lines)..].iter().take(SHOWN_LINES).copied().collect::<Vec<_>>().join("\n")
    );
    println!("fuzz {target} ended with {}; what it found is in {}", output.status, artifacts.display());
}

/// Where a log begins to tell of a failure: after it come a backtrace and the input.
fn first_to_show(lines: &[&str]) -> usize {
    let tells =
        |line: &&str| ["panicked at", "memory allocation of", "ERROR:"].iter().any(|w| line.contains(w));
    lines.iter().position(tells).unwrap_or(lines.len().saturating_sub(SHOWN_LINES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_the_log() {
        let log = "#8 pulse\nDone 452611 runs in 5 second(s)\nstat::number_of_executed_units: 452611";
        assert_eq!(executions(log), Some(452_611));
        assert_eq!(executions("==1== ERROR: libFuzzer: deadly signal"), None);
    }

    #[test]
    fn a_log_is_shown_from_its_failure_on() {
        assert_eq!(
            first_to_show(&["#1 NEW", "thread 'x' panicked at src/record.rs:40:5:", "why", "trace"]),
            1
        );
        assert_eq!(first_to_show(&["#1"; SHOWN_LINES + 3]), 3);
    }

    #[test]
    fn an_unknown_target_is_refused_with_those_there_are() {
        let all = || targets().unwrap();
        assert!(all().contains(&"record".to_string()));
        assert_eq!(choose(all(), Some("record")).unwrap(), ["record"]);
        let error = choose(all(), Some("recrod")).unwrap_err().to_string();
        assert!(error.contains("message, mnt"), "{error}");
    }

    #[test]
    fn the_input_limit_is_the_one_the_allocation_limit_is_chosen_for() {
        let text = fs::read_to_string(folder().join("src/lib.rs")).unwrap();
        assert!(text.contains(&format!("MAX_INPUT: usize = {MAX_INPUT};")), "fuzz/src/lib.rs says otherwise");
    }
}
