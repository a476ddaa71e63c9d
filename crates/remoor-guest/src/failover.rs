//! Failovers under applications: the drill's four hosts, `remoor mount` on the client, processes that write, rename,
//! remove and read back on the mount, and nodes that break in turn.

mod crew;
mod scene;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use remoor_drill::fault::Fault;
use remoor_drill::namespace::enter_private;

use crate::content::mix;
use scene::Scene;

/// Faults, in turn.
const FAULTS: [&str; 3] = ["silent", "kill", "stop"];
/// Shortest and longest time of undisturbed work before a fault.
const WORK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(400));

/// What to do how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The program under test.
    #[arg(long, value_name = "PROGRAM")]
    remoor: PathBuf,
    /// Failovers; each goes to the node that does not serve, and back with the next.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Processes that write.
    #[arg(long, default_value_t = 8)]
    writers: u16,
    /// Options of the mount beside its ports.
    #[arg(short, default_value = "noresvport")]
    options: String,
    /// The balancer: a preset of the flow-table model.
    #[arg(long, default_value = "azure-standard")]
    balancer: String,
    /// Seed of the moments at which nodes break.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    enter_private()?;
    let began = Instant::now();
    let dir = tempfile::tempdir().context("cannot make a directory")?;
    let mut scene = Scene::build(dir.path(), options)?;
    let mut outcome = Outcome::default();
    for round in 0..options.rounds {
        thread::sleep(moment(options.seed, round));
        let fault = Fault::named(FAULTS[round as usize % FAULTS.len()]).context("the drill lost a fault")?;
        let told = scene.fail_over(fault)?;
        println!(
            "round {:>2} {:<6} to node {} gap {:>5} ms",
            round + 1,
            fault.name,
            scene.active(),
            told.gap_ms
        );
        outcome.add(&told);
        if !outcome.is_good() {
            break;
        }
    }
    scene.unmount()?;
    println!("{outcome}, in {:.0} s", began.elapsed().as_secs_f64());
    ensure!(outcome.is_good(), "something was lost or failed");
    Ok(ExitCode::SUCCESS)
}

fn moment(seed: u64, round: u32) -> Duration {
    let span = (WORK.1 - WORK.0).as_millis() as u64;
    WORK.0 + Duration::from_millis(mix(seed ^ mix(u64::from(round))) % span)
}

/// What all writers told after one failover, and what was compared.
#[derive(Debug, Default)]
struct Told {
    gap_ms: u64,
    acknowledged: u64,
    repeated: u64,
    problems: Vec<String>,
}

/// Every round together. Counts of writers are totals already.
#[derive(Debug, Default)]
struct Outcome {
    gaps: Vec<u64>,
    acknowledged: u64,
    repeated: u64,
    problems: Vec<String>,
}

impl Outcome {
    fn add(&mut self, told: &Told) {
        self.gaps.push(told.gap_ms);
        (self.acknowledged, self.repeated) = (told.acknowledged, told.repeated);
        self.problems.extend(told.problems.iter().cloned());
    }

    fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "PROBLEM {problem}")?;
        }
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        let at = |part: usize| gaps.get((gaps.len() * part / 100).min(gaps.len().saturating_sub(1))).copied();
        write!(
            f,
            "{} failovers: {} calls acknowledged, {} answered as repeated, {} problems; gap median {} ms, worst {} ms",
            gaps.len(),
            self.acknowledged,
            self.repeated,
            self.problems.len(),
            at(50).unwrap_or_default(),
            gaps.last().copied().unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_tells_median_and_worst() {
        let mut outcome = Outcome::default();
        for gap_ms in [300, 100, 900] {
            outcome.add(&Told { gap_ms, acknowledged: 10, ..Told::default() });
        }
        assert!(outcome.is_good());
        let text = outcome.to_string();
        assert!(
            text.contains("3 failovers: 10 calls") && text.contains("median 300 ms, worst 900 ms"),
            "{text}"
        );
        outcome.add(&Told { problems: vec!["a.dat: lost".into()], ..Told::default() });
        assert!(!outcome.is_good() && outcome.to_string().starts_with("PROBLEM a.dat: lost"));
    }

    #[test]
    fn moments_differ_and_are_bounded() {
        let moments: Vec<Duration> = (0..20).map(|round| moment(1, round)).collect();
        assert!(moments.iter().all(|m| (WORK.0..WORK.1).contains(m)));
        assert!(moments.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
