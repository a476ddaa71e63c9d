//! Steps, their counts, and the table at the end.

use std::fmt;
use std::ops::AddAssign;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How many tests, or steps that are no tests, passed, failed and were skipped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Counts {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    pub(crate) fn of(passed: bool) -> Self {
        if passed { Self::PASSED } else { Self::FAILED }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

struct Step {
    name: &'static str,
    took: Duration,
    counts: Counts,
}

/// What has been done so far.
pub(crate) struct Report {
    started: Instant,
    steps: Vec<Step>,
    skips: Vec<String>,
    missing: Vec<String>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), steps: Vec::new(), skips: Vec::new(), missing: Vec::new() }
    }

    /// Runs a step; an error is a failure, and the next step runs all the same.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<Counts>) {
        println!("\n==> [{:5.0?} s] {name}", self.started.elapsed().as_secs_f64());
        let began = Instant::now();
        let counts = work().unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Counts::FAILED
        });
        let took = began.elapsed();
        println!("<== {name}: {counts} in {:.1} s", took.as_secs_f64());
        self.steps.push(Step { name, took, counts });
    }

    /// Notes a step that cannot run here.
    pub(crate) fn skip(&mut self, name: &'static str, reason: &str) {
        self.steps.push(Step { name, took: Duration::ZERO, counts: Counts::SKIPPED });
        self.skips.push(format!("{name}: {reason}"));
    }

    /// Notes why tests, already counted as skipped, were skipped.
    pub(crate) fn note_skips(&mut self, reasons: Vec<String>) {
        self.skips.extend(reasons);
    }

    /// Notes a package that is not there, and what cannot run without it.
    pub(crate) fn note_missing(&mut self, package: String) {
        self.missing.push(package);
    }

    /// Prints the table, the skips and the total, the total last. With `strict`, skips fail.
    pub(crate) fn finish(self, strict: bool) -> ExitCode {
        println!("\n{self}");
        let total = self.total();
        self.missing.iter().for_each(|package| println!("missing: {package}"));
        self.skips.iter().for_each(|skip| println!("skipped: {skip}"));
        let refused = strict && total.skipped > 0;
        if refused {
            println!("failed: as root, or with CI=true, nothing may be skipped");
        }
        println!("{total}");
        if refused { ExitCode::FAILURE } else { total.exit_code() }
    }

    fn total(&self) -> Counts {
        self.steps.iter().fold(Counts::default(), |mut total, step| {
            total += step.counts;
            total
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {:>8} {:>8} {:>8} {:>9}", "step", "passed", "failed", "skipped", "time")?;
        for Step { name, took, counts: c } in &self.steps {
            let secs = took.as_secs_f64();
            writeln!(f, "{name:<12} {:>8} {:>8} {:>8} {secs:>7.1} s", c.passed, c.failed, c.skipped)?;
        }
        writeln!(f, "{:<12} {:>36.1} s", "together", self.started.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_failure_and_the_next_step_runs() {
        let mut report = Report::new();
        report.step("first", || anyhow::bail!("no"));
        report.step("second", || Ok(Counts { passed: 2, failed: 0, skipped: 1 }));
        assert_eq!(report.total().to_string(), "2 passed, 1 failed, 1 skipped");
        assert_eq!(report.finish(false), ExitCode::FAILURE);
    }

    #[test]
    fn a_skip_fails_only_when_strict() {
        let skipping = || {
            let mut report = Report::new();
            report.skip("deny", "because package x is missing");
            report
        };
        assert_eq!(skipping().finish(false), ExitCode::SUCCESS);
        assert_eq!(skipping().finish(true), ExitCode::FAILURE);
    }
}
