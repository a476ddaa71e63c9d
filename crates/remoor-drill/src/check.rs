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

/// Checks every fact of `record` against the files in `dir`; what clients found lost already counts too.
///
/// # Errors
/// Only if `dir` cannot be read; a missing or wrong file is a loss.
pub fn check(record: &Record, dir: &Path) -> io::Result<Losses> {
    fs::read_dir(dir)?;
    let mut losses = Losses::default();
    record.losses.iter().cloned().for_each(|loss| losses.add(loss));
    for (name, fact) in &record.facts {
        if let Err(what) = check_one(dir, name, fact) {
            losses.add(format!("{name}: {what}"));
        }
    }
    Ok(losses)
}

fn check_one(dir: &Path, name: &str, fact: &Fact) -> Result<(), String> {
    let found = read(&dir.join(name))?;
    match (fact, found) {
        (Fact::Absent | Fact::Creating | Fact::Removing(_), None) => Ok(()),
        (Fact::Absent, Some(_)) => Err("was removed or renamed, and is there again".to_owned()),
        (Fact::Creating, Some(found)) => compare(&[], &found),
        (Fact::Holds(wanted) | Fact::Removing(wanted), Some(found)) => compare(wanted, &found),
        (Fact::Begins(stable, following), Some(found)) => compare_start(stable, following, &found),
        (Fact::Holds(_) | Fact::Begins(..), None) => Err("was acknowledged and is not there".to_owned()),
        (Fact::Renaming(to, wanted), found) => compare_moved(wanted, found, read(&dir.join(to))?, to),
    }
}

/// The bytes of a file; `None` if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match fs::read(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("cannot be looked at: {e}")),
    }
}

fn compare_moved(
    wanted: &[u8],
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    name: &str,
) -> Result<(), String> {
    match (from, to) {
        (Some(found), None) => compare(wanted, &found),
        (None, Some(found)) => compare(wanted, &found).map_err(|what| format!("as {name}: {what}")),
        (None, None) => Err(format!("was acknowledged, and neither it nor {name} is there")),
        (Some(_), Some(_)) => Err(format!("is there beside {name}, which it was renamed to")),
    }
}

/// Tells whether `found` are the bytes `wanted` and no others.
pub(crate) fn compare(wanted: &[u8], found: &[u8]) -> Result<(), String> {
    compare_start(wanted, &[], found)
}

fn compare_start(stable: &[u8], following: &[u8], found: &[u8]) -> Result<(), String> {
    if found.len() < stable.len() {
        return Err(format!("has {} bytes of the {} that were acknowledged", found.len(), stable.len()));
    }
    let sent = stable.len() + following.len();
    if found.len() > sent {
        return Err(format!("has {} bytes, but only {sent} were written", found.len()));
    }
    let wanted = stable.iter().chain(following);
    match wanted.zip(found).position(|(a, b)| a != b) {
        Some(at) => Err(format!("byte {at} is {:#04x}, which was not written there", found[at])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn record(facts: Vec<(&str, Fact)>) -> Record {
        Record { facts: facts.into_iter().map(|(n, f)| (n.to_owned(), f)).collect(), ..Record::default() }
    }

    fn abcd() -> Bytes {
        Bytes::from_static(b"abcd")
    }

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    #[test]
    fn every_kind_of_loss_is_found_and_nothing_else() {
        let dir =
            dir(&[("good", "abcd"), ("short", "a"), ("wrong", "abxd"), ("long", "abcde"), ("back", "")]);
        let facts = ["good", "short", "wrong", "long", "missing"].map(|name| (name, Fact::Holds(abcd())));
        let mut facts = facts.to_vec();
        facts.extend([("gone", Fact::Absent), ("back", Fact::Absent)]);
        let record = Record { losses: vec!["removed unread".to_owned()], ..record(facts) };
        let losses = check(&record, dir.path()).unwrap();
        assert_eq!(losses.count, 6, "{losses:?}");
        let text = losses.named.join("\n");
        for part in [
            "removed unread",
            "short: has 1 bytes of the 4",
            "wrong: byte 2 is 0x78",
            "long: has 5 bytes, but only 4",
            "missing: was acknowledged and is not there",
            "back: was removed",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_call_in_flight_excuses_its_own_effect_and_no_other() {
        let begins = || Fact::Begins(Bytes::from_static(b"ab"), Bytes::from_static(b"cd"));
        let renaming = || Fact::Renaming("to".to_owned(), abcd());
        /// A fact about `x`, the files there are, and whether that is a loss.
        type Case<'a> = (Fact, &'a [(&'a str, &'a str)], bool);
        let cases: [Case<'_>; 16] = [
            (Fact::Creating, &[], false),
            (Fact::Creating, &[("x", "")], false),
            (Fact::Creating, &[("x", "?")], true),
            (Fact::Removing(abcd()), &[], false),
            (Fact::Removing(abcd()), &[("x", "abcd")], false),
            (Fact::Removing(abcd()), &[("x", "ab")], true),
            (renaming(), &[("x", "abcd")], false),
            (renaming(), &[("to", "abcd")], false),
            (renaming(), &[], true),
            (renaming(), &[("x", "abcd"), ("to", "abcd")], true),
            (renaming(), &[("to", "abxd")], true),
            (begins(), &[("x", "ab")], false),
            (begins(), &[("x", "abc")], false),
            (begins(), &[("x", "abx")], true),
            (begins(), &[("x", "a")], true),
            (begins(), &[], true),
        ];
        for (fact, files, lost) in cases {
            let losses = check(&record(vec![("x", fact.clone())]), dir(files).path()).unwrap();
            assert_eq!(losses.count > 0, lost, "{fact:?} {files:?}: {losses:?}");
        }
    }
}
