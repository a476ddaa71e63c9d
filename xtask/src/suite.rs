//! `cargo xtask test`: every check, in the order of how soon it tells something.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use xtask::architecture::root;

use crate::report::{Counts, Report};
use crate::{cargo, fio, fuzz, guest, mount, packages};

/// Seconds that each fuzz target runs.
const FUZZ_SECS: u64 = 10;
/// Names the file that tests append their skips to.
const SKIP_LOG: &str = "REMOOR_SKIP_LOG";
/// Begins a line of output that tells of a skip.
const SKIPPED: &str = "SKIPPED";
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
    mounts(&mut report);
    guests(&mut report);
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
    let mut skips = Vec::new();
    report.step("test", || {
        let log = SkipLog::create()?;
        let mut command = cargo();
        command.args(["test", "--workspace", "--no-fail-fast"]).env(SKIP_LOG, &log.0);
        // Without it the tests that need it say that they are skipped.
        match fio::provide() {
            Ok(program) => _ = command.env(fio::VARIABLE, program),
            Err(error) => println!("warning: {error:#}"),
        }
        let (mut tally, success) = Tally::of(&mut command)?;
        log.lines()?.iter().for_each(|line| tally.skip(line));
        let counts = tally.counts(success);
        skips = tally.skips;
        Ok(counts)
    });
    report.note_skips(skips);
}

/// The file that tests append their skips to; removed when dropped.
struct SkipLog(PathBuf);

impl SkipLog {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("remoor-skips-{}", std::process::id()));
        fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path))
    }

    fn lines(&self) -> anyhow::Result<Vec<String>> {
        let text =
            fs::read_to_string(&self.0).with_context(|| format!("cannot read {}", self.0.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for SkipLog {
    fn drop(&mut self) {
        // A file that stays in the temporary directory does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

/// What the output of tests told so far.
#[derive(Default)]
struct Tally {
    counts: Counts,
    /// Skips of tests that returned, so that their harness says that they passed.
    returned: usize,
    skips: Vec<String>,
}

impl Tally {
    /// Runs a command, shows its output and adds up what it tells; also whether it ended well.
    fn of(command: &mut Command) -> anyhow::Result<(Self, bool)> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
        let mut tally = Self::default();
        let mut output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            tally.read(text.trim_end());
            line.clear();
        }
        Ok((tally, child.wait()?.success()))
    }

    /// The counts, of a command that ended well or not.
    fn counts(&self, success: bool) -> Counts {
        let Counts { passed, failed, skipped } = self.counts;
        // Without a verdict it did not build, or a test process died before it could say which test failed.
        let failed = if success { failed } else { failed.max(1) };
        Counts { passed: passed.saturating_sub(self.returned), failed, skipped }
    }

    /// Reads `test NAME ... VERDICT` and `SKIPPED: ...`. Verdicts are counted one by one because a harness of our own
    /// has no `test result:` line to go by.
    fn read(&mut self, line: &str) {
        if line.starts_with(SKIPPED) {
            return self.skip(line);
        }
        let verdict = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        match verdict.map(|(_, verdict)| verdict.split([' ', ':', ',']).next().unwrap_or_default()) {
            Some("ok") => self.counts += Counts::PASSED,
            Some("FAILED") => self.counts += Counts::FAILED,
            Some("ignored") => self.ignored(line),
            _ => {}
        }
    }

    fn ignored(&mut self, line: &str) {
        self.counts += Counts::SKIPPED;
        self.skips.push(format!("{line}: because it is marked so; a test says itself why it cannot run"));
    }

    fn skip(&mut self, line: &str) {
        self.returned += 1;
        self.counts += Counts::SKIPPED;
        self.skips.push(line.trim_start_matches(SKIPPED).trim_start_matches([':', ' ']).to_owned());
    }
}

/// Suites of file systems on the mount.
fn mounts(report: &mut Report) {
    match mount::impossible() {
        Some(reason) => report.skip("mount", &reason),
        None => report.step("mount", mount::run_suite),
    }
}

/// Real kernels as clients, and power loss.
fn guests(report: &mut Report) {
    let unfetched = || guest::fetch().err().map(|error| format!("because {error:#}"));
    match guest::impossible().or_else(unfetched) {
        Some(reason) => report.skip("guest", &reason),
        None => report.step("guest", guest::run_suite),
    }
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

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn output_is_read_to_its_end_and_the_exit_status_is_told() {
        let script =
            r"printf 'running 2 tests\ntest a ... ok\n\377\ntest b ... FAILED\ntest c ... ok'; exit 1";
        let (tally, success) = Tally::of(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(tally.counts(success), Counts { passed: 2, failed: 1, skipped: 0 });
        assert!(!success);
    }

    #[test]
    fn verdicts_of_every_harness_are_counted() {
        let told = tally(&[
            "test reconnect::tests::same_port ... ok",
            "test crates/remoor-rpc/src/program.rs - program::program (line 66) ... ok",
            "test refuses - should panic ... ok",
            "test a_killed_server_refuses ... ok (0.01 s)",
            "test new_flows_follow_health ... FAILED: azure-standard: [None] (0.10 s)",
            "test result: ok. 18 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "testing ... ok",
        ]);
        assert_eq!(told.counts(false), Counts { passed: 4, failed: 1, skipped: 0 });
    }

    #[test]
    fn an_end_without_a_verdict_is_a_failure() {
        assert_eq!(tally(&["test a ... ok"]).counts(false), Counts { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_skip_is_told_and_is_not_a_pass() {
        let mut told = tally(&["SKIPPED: b: because package x is missing", "test b ... ok", "test a ... ok"]);
        told.skip("c: because package y is missing");
        told.read("test c ... ok");
        told.read("test d ... ignored, too slow");
        assert_eq!(told.counts(true), Counts { passed: 1, failed: 0, skipped: 3 });
        assert_eq!(told.skips[..2], ["b: because package x is missing", "c: because package y is missing"]);
        assert!(told.skips[2].starts_with("test d"));
    }
}
