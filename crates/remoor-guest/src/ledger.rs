//! What was acknowledged: the truth that is compared with what is there after a crash.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};

use crate::content::content;
use crate::store::Store;

/// Losses that are told; more are only counted by their number of lines.
const MAX_LOSSES: usize = 50;

/// What must be true of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// It names a file of the first `len` bytes of the content of `seed`, and no more.
    Holds {
        /// See [`content`].
        seed: u64,
        /// Bytes.
        len: u64,
    },
    /// It names nothing.
    Absent,
}

/// The facts, and what happened on the way. Its text has one item a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// What must be true, by name.
    pub(crate) facts: BTreeMap<String, Fact>,
    /// Calls that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Calls whose answer said that they had been carried out before: they were sent again after a crash.
    pub(crate) repeated: u64,
    /// Calls that failed, in words.
    pub(crate) failures: Vec<String>,
    /// Longest time between two acknowledgements to one writer since the last pause, in milliseconds.
    pub(crate) gap_ms: u64,
    /// The server's write verifier, where the store can see it.
    pub(crate) verifier: Option<u64>,
}

impl Ledger {
    /// Adds what another writer noted; names belong to one writer.
    pub(crate) fn merge(&mut self, other: Self) {
        self.facts.extend(other.facts);
        self.acknowledged += other.acknowledged;
        self.repeated += other.repeated;
        self.failures.extend(other.failures);
        self.gap_ms = self.gap_ms.max(other.gap_ms);
        self.verifier = other.verifier.or(self.verifier);
    }

    /// Every name that is not as it must be, in words.
    ///
    /// # Errors
    /// If the store itself does not answer; a missing or wrong file is a loss.
    pub(crate) fn losses(&self, store: &impl Store) -> anyhow::Result<Vec<String>> {
        let mut losses = Vec::new();
        for (name, fact) in &self.facts {
            let found = store.read(name).with_context(|| format!("cannot read {name}"))?;
            losses.extend(judge(*fact, found).map(|what| format!("{name}: {what}")));
            if losses.len() == MAX_LOSSES {
                break;
            }
        }
        Ok(losses)
    }
}

fn judge(fact: Fact, found: Option<Vec<u8>>) -> Option<String> {
    match (fact, found) {
        (Fact::Absent, None) => None,
        (Fact::Absent, Some(_)) => Some("was removed or renamed, and is there again".into()),
        (Fact::Holds { len, .. }, None) => Some(format!("is not there; {len} bytes were acknowledged")),
        (Fact::Holds { seed, len }, Some(found)) => differs(&content(seed, 0, len), &found),
    }
}

fn differs(wanted: &[u8], found: &[u8]) -> Option<String> {
    if wanted.len() != found.len() {
        return Some(format!("has {} bytes, and {} were acknowledged", found.len(), wanted.len()));
    }
    let at = wanted.iter().zip(found).position(|(a, b)| a != b)?;
    Some(format!("byte {at} of {} is {:#04x} and was written as {:#04x}", found.len(), found[at], wanted[at]))
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, fact) in &self.facts {
            match fact {
                Fact::Holds { seed, len } => writeln!(f, "holds {name} {seed} {len}")?,
                Fact::Absent => writeln!(f, "absent {name}")?,
            }
        }
        self.failures.iter().try_for_each(|failure| writeln!(f, "failed {failure}"))?;
        writeln!(f, "acknowledged {}", self.acknowledged)?;
        writeln!(f, "repeated {}", self.repeated)?;
        writeln!(f, "gap_ms {}", self.gap_ms)?;
        self.verifier.map_or(Ok(()), |verifier| writeln!(f, "verifier {verifier:016x}"))
    }
}

impl FromStr for Ledger {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut ledger = Self::default();
        for line in text.lines() {
            ledger.read_line(line).with_context(|| format!("`{line}` is no line of a ledger"))?;
        }
        Ok(ledger)
    }
}

impl Ledger {
    fn read_line(&mut self, line: &str) -> anyhow::Result<()> {
        let (key, rest) = line.split_once(' ').context("it has one word")?;
        match key {
            "holds" => {
                let mut words = rest.split(' ');
                let mut word = || words.next().context("it is too short");
                let (name, seed, len) = (word()?, word()?.parse()?, word()?.parse()?);
                self.facts.insert(name.into(), Fact::Holds { seed, len });
            }
            "absent" => drop(self.facts.insert(rest.into(), Fact::Absent)),
            "failed" => self.failures.push(rest.into()),
            "acknowledged" => self.acknowledged = rest.parse()?,
            "repeated" => self.repeated = rest.parse()?,
            "gap_ms" => self.gap_ms = rest.parse()?,
            "verifier" => self.verifier = Some(u64::from_str_radix(rest, 16)?),
            _ => bail!("its first word is unknown"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Mounted;

    fn ledger() -> Ledger {
        let holds = Fact::Holds { seed: 5, len: 64 };
        Ledger {
            facts: [("a".into(), holds), ("b".into(), Fact::Absent)].into(),
            acknowledged: 12,
            repeated: 1,
            failures: vec!["c: no space".into()],
            gap_ms: 0,
            verifier: Some(0xabc),
        }
    }

    #[test]
    fn its_text_is_read_back() {
        assert_eq!(ledger().to_string().parse::<Ledger>().unwrap(), ledger());
        assert!("holds a 5".parse::<Ledger>().is_err());
        assert!("kept a".parse::<Ledger>().is_err());
    }

    #[test]
    fn every_kind_of_loss_is_told_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Mounted::new(dir.path()).unwrap();
        let losses = |files: &[(&str, &[u8])]| {
            for name in ["a", "b"] {
                drop(std::fs::remove_file(dir.path().join(name)));
            }
            for (name, bytes) in files {
                std::fs::write(dir.path().join(name), bytes).unwrap();
            }
            ledger().losses(&store).unwrap().join("; ")
        };
        let right = content(5, 0, 64);
        let mut wrong = right.clone();
        wrong[9] ^= 1;
        assert_eq!(losses(&[("a", &right)]), "");
        assert!(losses(&[]).starts_with("a: is not there"));
        assert!(losses(&[("a", &right[..32])]).contains("has 32 bytes, and 64 were"));
        assert!(losses(&[("a", &wrong)]).contains("byte 9 of 64"));
        assert_eq!(losses(&[("a", &right), ("b", b"")]), "b: was removed or renamed, and is there again");
    }

    #[test]
    fn merging_keeps_both() {
        let mut both = ledger();
        both.merge(Ledger { facts: [("z".into(), Fact::Absent)].into(), repeated: 2, ..Ledger::default() });
        assert_eq!((both.facts.len(), both.repeated, both.verifier), (3, 3, Some(0xabc)));
    }
}
