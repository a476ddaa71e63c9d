//! The table of what is done on each mount: add a row here and it is measured.

use super::work::{self, Stage};

/// What a row's goal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Large transfers.
    Stream,
    /// Metadata and small transfers.
    Small,
    /// Reads of what the kernel could still have.
    Warm,
    /// Programs at work, whose own work is most of it: shown, without a goal.
    Job,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// MiB/s; CPU seconds per GiB.
    Bytes,
    /// Thousands per second; CPU seconds per 100 000.
    Thousands,
    /// Seconds for each; CPU seconds for each.
    Seconds,
}

/// One line of the tables.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    pub(crate) unit: Unit,
    /// Done on the server, before the mount.
    pub(crate) prepare: Option<fn(&Stage) -> anyhow::Result<()>>,
    /// Done on the mount, before the clock runs.
    pub(crate) warm: Option<fn(&Stage) -> anyhow::Result<u64>>,
    /// Returns bytes, or how many.
    pub(crate) run: fn(&Stage) -> anyhow::Result<u64>,
}

const fn stream(name: &'static str, run: fn(&Stage) -> anyhow::Result<u64>) -> Row {
    Row { name, class: Class::Stream, unit: Unit::Bytes, prepare: Some(work::make_large), warm: None, run }
}

const fn small(name: &'static str, run: fn(&Stage) -> anyhow::Result<u64>) -> Row {
    Row { name, class: Class::Small, unit: Unit::Thousands, prepare: Some(work::make_small), warm: None, run }
}

const fn warmed(row: Row) -> Row {
    Row { warm: Some(work::read_once), ..row }
}

const fn job(
    name: &'static str,
    prepare: Option<fn(&Stage) -> anyhow::Result<()>>,
    run: fn(&Stage) -> anyhow::Result<u64>,
) -> Row {
    Row { name, class: Class::Job, unit: Unit::Seconds, prepare, warm: None, run }
}

/// Every row, in the order of the tables. Each begins on a fresh mount, so that a row without `warm` is cold.
pub(crate) const ROWS: &[Row] = &[
    stream("read 1 MiB cold", work::read_stream),
    Row { class: Class::Warm, ..warmed(stream("read 1 MiB warm", work::read_again)) },
    Row { prepare: None, ..stream("write 1 MiB new file", work::write_new) },
    warmed(stream("write 1 MiB warm", work::write_over)),
    Row { prepare: None, ..stream("write 8 parallel", work::write_parallel) },
    Row { prepare: Some(work::make_large), ..small("rand read 4 KiB cold", work::read_random) },
    Row {
        class: Class::Warm,
        prepare: Some(work::make_large),
        ..warmed(small("rand read 4 KiB warm", work::read_random))
    },
    Row { prepare: Some(work::make_large), ..small("rand write 4 KiB", work::write_random) },
    Row { prepare: None, ..small("create 1 KiB files", work::create_small) },
    small("stat", work::stat_small),
    small("open and read 1 KiB", work::read_small),
    small("unlink", work::unlink_small),
    Row { prepare: Some(work::make_tree), ..small("find", work::find) },
    Row { prepare: Some(work::make_tree), ..small("du", work::du) },
    job("git clone, s", None, work::clone),
    job("cargo build, s", Some(work::make_clone), work::build),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::work::tests::stage;
    use super::*;

    #[test]
    fn a_name_stands_for_one_row_and_fits_its_column() {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| name.len() <= 21));
    }

    #[test]
    fn every_row_does_what_it_says_on_a_plain_directory() {
        let kept = stage("rows");
        // Jobs run programs for longer than a test may.
        for (n, row) in ROWS.iter().enumerate().filter(|(_, row)| row.class != Class::Job) {
            let dir = kept.native.with_file_name(format!("row{n}"));
            std::fs::create_dir(&dir).unwrap();
            let stage = Stage { mounted: dir.clone(), native: dir, scale: kept.scale };
            row.prepare.map_or(Ok(()), |prepare| prepare(&stage)).unwrap();
            row.warm.map_or(Ok(0), |warm| warm(&stage)).unwrap();
            let done = (row.run)(&stage).unwrap();
            let least = if row.unit == Unit::Bytes { 2 << 20 } else { 20 };
            assert!(done >= least, "{}: {done}", row.name);
        }
        std::fs::remove_dir_all(kept.native.parent().unwrap()).unwrap();
    }
}
