//! The table of loads: add a row here and it is measured.

/// Which program makes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// nfsload, on libnfs.
    Libnfs,
    /// remoor-load, on this project's own client.
    Own,
}

/// One run of a load generator. It tells one line for each of `rows`.
#[derive(Debug)]
pub(crate) struct Load {
    /// As nfsload takes it: OP:DEPTH.
    pub(crate) spec: &'static str,
    /// WRITE with FILE_SYNC.
    pub(crate) stable: bool,
    pub(crate) client: Client,
    pub(crate) rows: &'static [Row],
}

/// One line of the tables.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
}

/// What a rate is told in, and what CPU time is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// MiB/s; CPU seconds per GiB.
    Bytes,
    /// Thousand calls/s; CPU seconds per million calls. These are the small calls of the goals.
    Calls,
    /// Thousand entries of a directory per second; CPU seconds per million.
    Entries,
}

const fn load(spec: &'static str, rows: &'static [Row]) -> Load {
    Load { spec, stable: false, client: Client::Libnfs, rows }
}

const fn own(spec: &'static str, rows: &'static [Row]) -> Load {
    Load { spec, stable: false, client: Client::Own, rows }
}

const fn bytes(name: &'static str) -> Row {
    Row { name, unit: Unit::Bytes }
}

const fn calls(name: &'static str) -> Row {
    Row { name, unit: Unit::Calls }
}

/// Every load, in the order of the tables.
pub(crate) const LOADS: &[Load] = &[
    load("read:1", &[bytes("read 1 MiB d1")]),
    load("read:8", &[bytes("read 1 MiB d8")]),
    load("write:1", &[bytes("write 1 MiB d1")]),
    load("write:8", &[bytes("write 1 MiB d8")]),
    load("randread:1", &[calls("rand read 4 KiB d1")]),
    load("randread:8", &[calls("rand read 4 KiB d8")]),
    load("randread:32", &[calls("rand read 4 KiB d32")]),
    load("randwrite:1", &[calls("rand write 4 KiB d1")]),
    load("randwrite:8", &[calls("rand write 4 KiB d8")]),
    load("randwrite:32", &[calls("rand write 4 KiB d32")]),
    Load {
        spec: "randwrite:8",
        stable: true,
        client: Client::Libnfs,
        rows: &[calls("rand write 4 KiB sync d8")],
    },
    load("null:1", &[calls("NULL d1")]),
    load("null:16", &[calls("NULL d16")]),
    load("getattr:1", &[calls("GETATTR d1")]),
    load("getattr:16", &[calls("GETATTR d16")]),
    load("access:1", &[calls("ACCESS d1")]),
    load("access:16", &[calls("ACCESS d16")]),
    load("lookup:1", &[calls("LOOKUP d1")]),
    load("lookup:16", &[calls("LOOKUP d16")]),
    load("create:1", &[calls("CREATE d1"), calls("REMOVE d1")]),
    load("create:16", &[calls("CREATE d16"), calls("REMOVE d16")]),
    load("mkdir:1", &[calls("MKDIR d1"), calls("RMDIR d1")]),
    load("mkdir:16", &[calls("MKDIR d16"), calls("RMDIR d16")]),
    load("readdirplus:1", &[Row { name: "READDIRPLUS 100 k", unit: Unit::Entries }]),
    own("read:8", &[bytes("own: read 1 MiB d8")]),
    own("write:8", &[bytes("own: write 1 MiB d8")]),
    own("randread:8", &[calls("own: rand read 4 KiB d8")]),
    own("getattr:16", &[calls("own: GETATTR d16")]),
];

/// The row of this name.
#[cfg(test)]
pub(crate) fn row(name: &str) -> Option<&'static Row> {
    LOADS.iter().flat_map(|load| load.rows).find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_name_stands_for_one_row_and_fits_its_column() {
        let names: Vec<&str> = LOADS.iter().flat_map(|load| load.rows).map(|row| row.name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| name.len() <= 24));
        assert!(row("GETATTR d16").is_some_and(|row| row.unit == Unit::Calls));
        assert!(row("GETATTR").is_none());
    }
}
