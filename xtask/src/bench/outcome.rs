//! What was measured, and what follows from it.

use serde::Serialize;

use super::load::Sample;
use super::rows::{Row, Unit};
use super::server::{Peer, Role};

/// The peer that the goals of small calls and of CPU name.
const MEASURE: &str = "ganesha";
/// At least so many times its rate of small calls.
const SMALL_CALLS: f64 = 1.5;
/// At most so much of its CPU time.
const CPU: f64 = 0.5;

/// One load on one server in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cell {
    pub(crate) row: &'static str,
    pub(crate) sample: Sample,
}

/// The clients that do not use the slow disk, without and with the one that waits for it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Slow {
    pub(crate) without: Sample,
    pub(crate) with: Sample,
}

/// Everything that a run found. Lists by server have the order of `servers`.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) servers: Vec<Peer>,
    pub(crate) file_system: String,
    pub(crate) rounds: u16,
    /// In the order they were taken.
    pub(crate) cells: Vec<Vec<Cell>>,
    /// Resident memory after all loads, KiB.
    pub(crate) rss: Vec<Option<u64>>,
    pub(crate) idle_connections: usize,
    /// By how much memory grew with them, KiB.
    pub(crate) idle_kib: Vec<Option<u64>>,
    pub(crate) slow: Vec<Option<Slow>>,
    /// What could not be measured, and why.
    pub(crate) notes: Vec<String>,
}

/// What is told of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Rate,
    Cpu,
}

impl Figure {
    /// MiB/s or thousands per second; CPU seconds per GiB or per million.
    pub(crate) fn of(self, sample: &Sample, unit: Unit) -> f64 {
        let (bytes, calls) = (sample.bytes as f64, sample.calls as f64);
        match (self, unit) {
            (Self::Rate, Unit::Bytes) => bytes / sample.seconds / f64::from(1 << 20),
            (Self::Rate, _) => calls / sample.seconds / 1e3,
            (Self::Cpu, Unit::Bytes) => sample.server_cpu_seconds / (bytes / f64::from(1 << 30)),
            (Self::Cpu, _) => sample.server_cpu_seconds / (calls / 1e6),
        }
    }
}

/// How this server stands beside a peer, or a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Goal {
    /// Ours by theirs.
    pub(crate) ratio: f64,
    pub(crate) met: bool,
}

impl Outcome {
    /// Every sample of a row on a server, one for each round that succeeded.
    fn figures(&self, server: usize, row: &Row, figure: Figure) -> Vec<f64> {
        let cells = self.cells.get(server).into_iter().flatten().filter(|cell| cell.row == row.name);
        cells.map(|cell| figure.of(&cell.sample, row.unit)).collect()
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, server: usize, row: &Row, figure: Figure) -> Option<f64> {
        median(self.figures(server, row, figure))
    }

    /// The median over the rounds of ours by theirs: noise that lasted for a round is in both.
    fn ratio(&self, ours: usize, theirs: usize, row: &Row, figure: Figure) -> Option<f64> {
        let (ours, theirs) = (self.figures(ours, row, figure), self.figures(theirs, row, figure));
        if ours.len() != theirs.len() {
            return Some(median(ours)? / median(theirs)?);
        }
        median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect())
    }

    fn all_of(&self, role: Role) -> impl Iterator<Item = usize> {
        self.servers.iter().enumerate().filter(move |(_, peer)| peer.role == role).map(|(n, _)| n)
    }

    fn subject(&self) -> Option<usize> {
        self.all_of(Role::Subject).next()
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.servers.iter().position(|peer| peer.name == name)
    }

    /// At least as fast as the best peer.
    pub(crate) fn best_peer(&self, row: &Row) -> Option<Goal> {
        let ours = self.subject()?;
        let ratios = self.all_of(Role::Peer).filter_map(|peer| self.ratio(ours, peer, row, Figure::Rate));
        let ratio = ratios.min_by(f64::total_cmp)?;
        Some(Goal { ratio, met: ratio >= 1.0 })
    }

    /// At least 1.5 times ganesha's rate; for small calls only.
    pub(crate) fn small_calls(&self, row: &Row) -> Option<Goal> {
        let ratio = self.ratio(self.subject()?, self.named(MEASURE)?, row, Figure::Rate)?;
        (row.unit == Unit::Calls).then_some(Goal { ratio, met: ratio >= SMALL_CALLS })
    }

    /// At most half of ganesha's CPU time.
    pub(crate) fn cpu(&self, row: &Row) -> Option<Goal> {
        let ratio = self.ratio(self.subject()?, self.named(MEASURE)?, row, Figure::Cpu)?;
        ratio.is_finite().then_some(Goal { ratio, met: ratio <= CPU })
    }

    /// Our part of what is possible here; nothing to reach.
    pub(crate) fn of_ceiling(&self, row: &Row) -> Option<f64> {
        self.ratio(self.subject()?, self.all_of(Role::Ceiling).next()?, row, Figure::Rate)
    }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::rows::row;
    use super::super::server::parse_peer;
    use super::*;

    /// A server, its role, and for each round a rate in thousand calls/s and a CPU time.
    pub(crate) type Told<'a> = (&'a str, Role, &'a [(f64, f64)]);

    pub(crate) fn outcome(name: &'static str, rounds: &[Told<'_>]) -> Outcome {
        let mut outcome = Outcome { rounds: 1, ..Outcome::default() };
        for (server, role, samples) in rounds {
            let mut peer = parse_peer(&format!("{server}={{port}}")).unwrap();
            peer.role = *role;
            outcome.servers.push(peer);
            outcome.cells.push(samples.iter().map(|s| Cell { row: name, sample: sample(*s) }).collect());
        }
        outcome
    }

    fn sample((rate, cpu): (f64, f64)) -> Sample {
        let calls = (rate * 2000.0) as u64;
        Sample { calls, seconds: 2.0, server_cpu_seconds: cpu, ..Sample::default() }
    }

    #[test]
    fn the_middle_of_the_rounds_is_told() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let row = row("NULL d16").unwrap();
        let noisy = outcome(
            row.name,
            &[
                ("remoor", Role::Subject, &[(10.0, 1.0), (100.0, 1.0), (30.0, 1.0)]),
                ("ganesha", Role::Peer, &[(5.0, 1.0), (50.0, 1.0), (15.0, 1.0)]),
            ],
        );
        assert_eq!(noisy.best_peer(row), Some(Goal { ratio: 2.0, met: true }));
        assert_eq!(noisy.median(0, row, Figure::Rate), Some(30.0));
    }

    #[test]
    fn each_goal_has_its_own_measure() {
        let row = row("GETATTR d16").unwrap();
        let told = outcome(
            row.name,
            &[
                ("remoor", Role::Subject, &[(60.0, 0.6)]),
                ("ganesha", Role::Peer, &[(40.0, 1.0)]),
                ("other", Role::Peer, &[(80.0, 1.0)]),
                ("ceiling", Role::Ceiling, &[(120.0, 0.1)]),
            ],
        );
        assert_eq!(told.best_peer(row), Some(Goal { ratio: 0.75, met: false }));
        assert_eq!(told.small_calls(row), Some(Goal { ratio: 1.5, met: true }));
        assert_eq!(told.of_ceiling(row), Some(0.5));
        let cpu = told.cpu(row).unwrap();
        assert!((cpu.ratio - 0.4).abs() < 1e-9 && cpu.met, "{cpu:?}");
    }

    #[test]
    fn without_a_peer_there_is_no_goal() {
        let row = row("NULL d1").unwrap();
        let alone = outcome(row.name, &[("remoor", Role::Subject, &[(60.0, 1.0)])]);
        assert_eq!((alone.best_peer(row), alone.small_calls(row), alone.cpu(row)), (None, None, None));
    }

    #[test]
    fn streams_are_told_by_bytes() {
        let sample = Sample { bytes: 1 << 30, seconds: 2.0, server_cpu_seconds: 0.5, ..Sample::default() };
        assert_eq!(Figure::Rate.of(&sample, Unit::Bytes), 512.0);
        assert_eq!(Figure::Cpu.of(&sample, Unit::Bytes), 0.5);
    }
}
