//! Compares what clients were told with what is on the disk the nodes export.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::journal::{Fact, Record};

/// Differences named in a report; more are only counted.
const MAX_NAMED: usize = 20;

/// What a case lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Acknowledged changes that are not on disk.
    pub count: usize,
    /// The first of them, in words.
    pub named: Vec<String>,
}

impl Losses {
    fn add(&mut self, what: String) {
        self.count += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(what);
        }
    }
}

/// Checks every fact of `record` against the files in `dir`.
///
/// # Errors
/// Only if `dir` cannot be read; a missing or wrong file is a loss.
pub fn check(record: &Record, dir: &Path) -> io::Result<Losses> {
    fs::read_dir(dir)?;
    let mut losses = Losses::default();
    for (name, fact) in &record.facts {
        if let Err(what) = check_one(&dir.join(name), fact) {
            losses.add(format!("{name}: {what}"));
        }
    }
    Ok(losses)
}

fn check_one(path: &Path, fact: &Fact) -> Result<(), String> {
    let found = fs::read(path);
    match (fact, found) {
        (Fact::InDoubt, _) => Ok(()),
        (Fact::Absent, Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        (Fact::Absent, Ok(_)) => Err("was removed or renamed, and is there again".to_owned()),
        (Fact::Holds(_), Err(e)) => Err(format!("was written and cannot be read: {e}")),
        (_, Err(e)) => Err(format!("cannot be looked at: {e}")),
        (Fact::Holds(wanted), Ok(found)) => compare(wanted, &found),
    }
}

fn compare(wanted: &[u8], found: &[u8]) -> Result<(), String> {
    if found.len() < wanted.len() {
        return Err(format!("has {} bytes of the {} that were acknowledged", found.len(), wanted.len()));
    }
    match wanted.iter().zip(found).position(|(a, b)| a != b) {
        Some(at) => Err(format!("byte {at} is {:#04x}, not {:#04x}", found[at], wanted[at])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn record(facts: &[(&str, Fact)]) -> Record {
        Record {
            facts: facts.iter().map(|(n, f)| ((*n).to_owned(), f.clone())).collect(),
            ..Record::default()
        }
    }

    #[test]
    fn every_kind_of_loss_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in
            [("good", "abcd"), ("short", "a"), ("wrong", "abxd"), ("back", ""), ("doubt", "?")]
        {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let abc = Fact::Holds(Bytes::from_static(b"abcd"));
        let facts = [
            ("good", abc.clone()),
            ("gone", Fact::Absent),
            ("doubt", Fact::InDoubt),
            ("short", abc.clone()),
            ("wrong", abc.clone()),
            ("missing", abc),
            ("back", Fact::Absent),
        ];
        let losses = check(&record(&facts), dir.path()).unwrap();
        assert_eq!(losses.count, 4, "{losses:?}");
        let text = losses.named.join("\n");
        for part in [
            "short: has 1 bytes of the 4",
            "wrong: byte 2 is 0x78, not 0x63",
            "missing: ",
            "back: was removed",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
