//! What was measured on mounts, and what follows from it.

use serde::Serialize;

use super::rows::{Class, Row, Unit};
use crate::bench::outcome::median;
use crate::bench::server::Role;

/// The peer that the goals name.
pub(crate) const MEASURE: &str = "fuse-nfs";
/// At least so many times its rate of metadata and small transfers, and of streams.
const SMALL: f64 = 2.0;
const STREAM: f64 = 1.5;
/// At least so much of the passthrough's rate of warm reads.
const WARM: f64 = 0.7;

/// One row on one mount in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cell {
    pub(crate) row: &'static str,
    pub(crate) round: u16,
    /// Bytes, files or runs.
    pub(crate) done: u64,
    pub(crate) seconds: f64,
    /// CPU time of the client's processes.
    pub(crate) cpu_seconds: f64,
}

/// A client on one server.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) cells: Vec<Cell>,
}

/// Everything that was found on one server.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) server: String,
    pub(crate) rounds: u16,
    pub(crate) columns: Vec<Column>,
    /// What could not be measured, and why.
    pub(crate) notes: Vec<String>,
}

/// What is told of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// MiB/s, thousands per second, or seconds.
    Rate,
    /// CPU seconds per GiB, per 100 000, or for each.
    Cpu,
}

impl Figure {
    fn of(self, cell: &Cell, unit: Unit) -> f64 {
        let done = cell.done as f64;
        match (self, unit) {
            (Self::Rate, Unit::Bytes) => done / cell.seconds / f64::from(1 << 20),
            (Self::Rate, Unit::Thousands) => done / cell.seconds / 1e3,
            (Self::Rate, Unit::Seconds) => cell.seconds / done,
            (Self::Cpu, Unit::Bytes) => cell.cpu_seconds / (done / f64::from(1 << 30)),
            (Self::Cpu, Unit::Thousands) => cell.cpu_seconds / (done / 1e5),
            (Self::Cpu, Unit::Seconds) => cell.cpu_seconds / done,
        }
    }
}

/// How the subject stands beside another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Goal {
    /// How many times as fast.
    pub(crate) ratio: f64,
    /// The least that is wanted, where something is.
    pub(crate) wanted: Option<f64>,
}

impl Goal {
    /// Whether it is reached.
    pub(crate) fn met(&self) -> Option<bool> {
        self.wanted.map(|wanted| self.ratio >= wanted)
    }
}

impl Outcome {
    /// The median over the rounds.
    pub(crate) fn median(&self, column: usize, row: &Row, figure: Figure) -> Option<f64> {
        median(self.cells(column, row).map(|cell| figure.of(cell, row.unit)).collect())
    }

    fn cells<'a>(&'a self, column: usize, row: &'a Row) -> impl Iterator<Item = &'a Cell> {
        self.columns
            .get(column)
            .into_iter()
            .flat_map(|column| &column.cells)
            .filter(|cell| cell.row == row.name)
    }

    /// How many times as fast as another: the median over the rounds that both have, because noise that lasts for a
    /// round is in both.
    fn ratio(&self, ours: usize, theirs: usize, row: &Row) -> Option<f64> {
        let speed = |cell: &Cell| cell.done as f64 / cell.seconds;
        let both = |cell: &Cell| {
            let other = self.cells(theirs, row).find(|other| other.round == cell.round)?;
            Some(speed(cell) / speed(other))
        };
        median(self.cells(ours, row).filter_map(both).collect())
    }

    fn position(&self, is_it: impl Fn(&Column) -> bool) -> Option<usize> {
        self.columns.iter().position(is_it)
    }

    fn subject(&self) -> Option<usize> {
        self.position(|column| column.role == Role::Subject)
    }

    /// Beside the peer that goals name.
    pub(crate) fn of_peer(&self, row: &Row) -> Option<Goal> {
        let ratio = self.ratio(self.subject()?, self.position(|column| column.name == MEASURE)?, row)?;
        let wanted = match row.class {
            Class::Stream => Some(STREAM),
            Class::Small => Some(SMALL),
            Class::Warm => Some(if row.unit == Unit::Bytes { STREAM } else { SMALL }),
            Class::Job => None,
        };
        Some(Goal { ratio, wanted })
    }

    /// Beside the ceiling.
    pub(crate) fn of_ceiling(&self, row: &Row) -> Option<Goal> {
        let ratio =
            self.ratio(self.subject()?, self.position(|column| column.role == Role::Ceiling)?, row)?;
        Some(Goal { ratio, wanted: (row.class == Class::Warm).then_some(WARM) })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::rows::ROWS;
    use super::*;

    pub(crate) fn row(name: &str) -> &'static Row {
        ROWS.iter().find(|row| row.name == name).unwrap()
    }

    /// Columns with a role, and for each round how much was done in a second.
    pub(crate) fn outcome(row: &'static str, columns: &[(&str, Role, &[u64])]) -> Outcome {
        let cell = |(n, done): (usize, &u64)| Cell {
            row,
            round: n as u16,
            done: *done,
            seconds: 1.0,
            cpu_seconds: 0.5,
        };
        let column = |(name, role, done): &(&str, Role, &[u64])| Column {
            name: (*name).into(),
            role: *role,
            cells: done.iter().enumerate().map(cell).collect(),
        };
        let columns = columns.iter().map(column).collect();
        Outcome { server: "ours".into(), rounds: 3, columns, notes: Vec::new() }
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_wanted_by_class() {
        let of = |name: &'static str| {
            outcome(
                row(name).name,
                &[
                    ("remoor", Role::Subject, &[10_000, 100_000, 30_000]),
                    (MEASURE, Role::Peer, &[5_000, 50_000, 15_000]),
                    ("passthrough", Role::Ceiling, &[20_000, 200_000, 60_000]),
                ],
            )
        };
        let stat = of("stat");
        assert_eq!(stat.of_peer(row("stat")), Some(Goal { ratio: 2.0, wanted: Some(2.0) }));
        assert_eq!(stat.of_ceiling(row("stat")), Some(Goal { ratio: 0.5, wanted: None }));
        assert_eq!(stat.median(0, row("stat"), Figure::Rate), Some(30.0));
        let warm = of("read 1 MiB warm");
        assert_eq!(warm.of_ceiling(row("read 1 MiB warm")).unwrap().met(), Some(false));
        assert_eq!(warm.of_peer(row("read 1 MiB warm")).unwrap().met(), Some(true));
        assert_eq!(of("git clone, s").of_peer(row("git clone, s")).unwrap().met(), None);
    }

    #[test]
    fn a_round_that_one_of_them_lacks_is_left_out() {
        let mut told =
            outcome("stat", &[("remoor", Role::Subject, &[9, 40]), (MEASURE, Role::Peer, &[1, 10])]);
        told.columns[1].cells.remove(0);
        assert_eq!(told.of_peer(row("stat")).map(|goal| goal.ratio), Some(4.0));
        told.columns[1].cells.clear();
        assert_eq!(told.of_peer(row("stat")), None);
    }

    #[test]
    fn each_unit_has_its_figures() {
        let cell = Cell { row: "x", round: 0, done: 1 << 30, seconds: 2.0, cpu_seconds: 0.5 };
        assert_eq!(Figure::Rate.of(&cell, Unit::Bytes), 512.0);
        assert_eq!(Figure::Cpu.of(&cell, Unit::Bytes), 0.5);
        let cell = Cell { done: 10_000, ..cell };
        assert_eq!(Figure::Rate.of(&cell, Unit::Thousands), 5.0);
        assert_eq!(Figure::Cpu.of(&cell, Unit::Thousands), 5.0);
        let cell = Cell { done: 1, ..cell };
        assert_eq!((Figure::Rate.of(&cell, Unit::Seconds), Figure::Cpu.of(&cell, Unit::Seconds)), (2.0, 0.5));
    }
}
