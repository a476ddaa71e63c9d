//! One record of the index's logs: `length, checksum, kind, ino, birth, parent, name`, numbers big-endian.

use super::stat::FileId;

/// Length and checksum, before the payload.
const HEAD_LEN: usize = 8;
/// Kind, ino, birth and parent, before the name.
const FIXED_LEN: usize = 1 + 3 * 8;
/// Longest name, in bytes.
const MAX_NAME: usize = 255;

/// What a log tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// `id` was seen in the directory with number `parent` under `name`.
    Seen { id: FileId, parent: u64, name: Box<[u8]> },
    /// `id` does not exist any more.
    Gone { id: FileId },
}

/// What the start of some bytes holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A record of so many bytes.
    Record(Record, usize),
    /// The start of a record, whose rest was not written yet, or never will be.
    Torn,
    /// No record: a write was interrupted here, and nothing behind can be trusted.
    Damaged,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, id, parent, name): (u8, _, _, &[u8]) = match self {
            Self::Seen { id, parent, name } => (1, id, *parent, name),
            Self::Gone { id } => (2, id, 0, &[]),
        };
        let mut payload = vec![kind];
        for number in [id.ino, id.birth, parent] {
            payload.extend_from_slice(&number.to_be_bytes());
        }
        payload.extend_from_slice(name);
        let head = [(payload.len() as u32).to_be_bytes(), crc32fast::hash(&payload).to_be_bytes()];
        [&head.concat()[..], &payload].concat()
    }

    pub(super) fn parse(raw: &[u8]) -> Parsed {
        let Some((head, rest)) = raw.split_at_checked(HEAD_LEN) else { return Parsed::Torn };
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let len = word(0) as usize;
        if !(FIXED_LEN..=FIXED_LEN + MAX_NAME).contains(&len) {
            return Parsed::Damaged;
        }
        let Some(payload) = rest.get(..len) else { return Parsed::Torn };
        if crc32fast::hash(payload) != word(4) {
            return Parsed::Damaged;
        }
        Self::decode(payload).map_or(Parsed::Damaged, |record| Parsed::Record(record, HEAD_LEN + len))
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (fixed, name) = payload.split_at_checked(FIXED_LEN)?;
        let number = |at: usize| Some(u64::from_be_bytes(fixed.get(at..at + 8)?.try_into().ok()?));
        let id = FileId { ino: number(1)?, birth: number(9)? };
        match fixed[0] {
            1 => Some(Self::Seen { id, parent: number(17)?, name: name.into() }),
            2 => Some(Self::Gone { id }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back(ino: u64, birth: u64, parent: u64, name in prop::collection::vec(any::<u8>(), 0..=255)) {
            let id = FileId { ino, birth };
            for record in [Record::Seen { id, parent, name: name.into() }, Record::Gone { id }] {
                let raw = record.encode();
                for cut in 0..raw.len() {
                    prop_assert_eq!(Record::parse(&raw[..cut]), Parsed::Torn);
                }
                prop_assert_eq!(Record::parse(&[&raw[..], b"next"].concat()), Parsed::Record(record, raw.len()));
            }
        }

        #[test]
        fn no_bytes_break_the_parser(raw in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Record::parse(&raw);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let raw = Record::Gone { id: FileId { ino: 1, birth: 2 } }.encode();
        for bit in 0..raw.len() * 8 {
            let mut bad = raw.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(Record::parse(&bad), Parsed::Record(..)), "bit {bit}");
        }
    }
}
