//! `cargo xtask test`: every check, in the order of how soon it tells something.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use xtask::architecture::root;

use crate::report::{Counts, Report};
use crate::{cargo, fuzz, packages};

/// Seconds that each fuzz target runs.
const FUZZ_SECS: u64 = 10;
/// Names the file that tests append their skips to.
const SKIP_LOG: &str = "REMOOR_SKIP_LOG";
const CLIPPY: &[&str] = &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
/// Not the advisories, which need the network.
const DENY: &[&str] = &["deny", "check", "bans", "licenses", "sources"];
/// The fuzz targets are a workspace of their own.
const FUZZ_FMT: &[&str] = &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];

/// Runs everything and reports. With `strict`, skips fail.
pub(crate) fn run(strict: bool) -> ExitCode {
    let mut report = Report::new();
    report.step("packages", || packages::provide().map(|()| Counts::default()));
    for package in packages::missing() {
        println!("missing: {package}");
        report.note_missing(package.to_string());
    }
    component(&mut report, "fmt", "rustfmt", &[&["fmt", "--all", "--check"], FUZZ_FMT]);
    component(&mut report, "clippy", "clippy", &[CLIPPY]);
    tests(&mut report);
    fuzz_targets(&mut report);
    // The licence test of this package needs no cargo-deny; where that is installed it checks the sources too.
    if has_cargo("deny") {
        report.step("deny", || status(&[DENY]));
    }
    report.finish(strict)
}

/// Cargo commands that need a component of the toolchain.
fn component(report: &mut Report, name: &'static str, component: &str, commands: &[&[&str]]) {
    if has_cargo(name) {
        report.step(name, || status(commands));
    } else {
        report.skip(name, &format!("because {component} is missing (rustup component add {component})"));
    }
}

fn has_cargo(subcommand: &str) -> bool {
    let output = cargo().args([subcommand, "--version"]).output();
    output.is_ok_and(|o| o.status.success())
}

fn status(commands: &[&[&str]]) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for arguments in commands {
        let status = cargo().args(*arguments).status();
        let status = status.with_context(|| format!("cannot run cargo {}", arguments.join(" ")))?;
        counts += Counts::of(status.success());
    }
    Ok(counts)
}

fn tests(report: &mut Report) {
    let log = skip_log();
    let mut reasons = Vec::new();
    report.step("test", || {
        std::fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let mut counts = cargo_test(&log)?;
        reasons = std::fs::read_to_string(&log)?.lines().map(str::to_owned).collect();
        count_skips(&mut counts, reasons.len());
        Ok(counts)
    });
    report.note_skips(reasons);
}

fn skip_log() -> PathBuf {
    std::env::temp_dir().join(format!("remoor-skips-{}", std::process::id()))
}

/// A skipping test returns, so its harness counts it as passed.
fn count_skips(counts: &mut Counts, skips: usize) {
    counts.passed = counts.passed.saturating_sub(skips);
    counts.skipped += skips;
}

fn cargo_test(skip_log: &Path) -> anyhow::Result<Counts> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).env(SKIP_LOG, skip_log);
    let (mut counts, success) = count_results(&mut command)?;
    if !success && counts.failed == 0 {
        // It did not build, or a test process died before it could count.
        counts.failed = 1;
    }
    Ok(counts)
}

/// Runs a command, shows its output, and adds up its `test result:` lines.
fn count_results(command: &mut Command) -> anyhow::Result<(Counts, bool)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("no standard output")?).lines() {
        let line = line?;
        println!("{line}");
        counts += result_line(&line).unwrap_or_default();
    }
    Ok((counts, child.wait()?.success()))
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; ...`.
fn result_line(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let mut parts = numbers.split("; ");
        parts.find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
}

fn fuzz_targets(report: &mut Report) {
    if !root().join("fuzz").exists() {
        return;
    }
    if packages::has_program("c++") {
        report.step("fuzz", || fuzz::run(FUZZ_SECS, None));
    } else {
        report.skip("fuzz", "because package g++ is missing");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let text = "running 2 tests\ntest result: ok. 18 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                    test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        let (counts, success) = count_results(Command::new("echo").arg(text)).unwrap();
        assert_eq!(counts, Counts { passed: 20, failed: 3, skipped: 1 });
        assert!(success);
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(result_line("test reconnect ... ok"), None);
        assert_eq!(result_line("test result: ok"), None);
    }

    #[test]
    fn a_skip_is_not_a_pass() {
        let mut counts = Counts { passed: 3, failed: 0, skipped: 0 };
        count_skips(&mut counts, 2);
        assert_eq!(counts, Counts { passed: 1, failed: 0, skipped: 2 });
    }
}
