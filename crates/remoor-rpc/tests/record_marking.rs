//! Record marking on arbitrary streams: fragmentation by the sender and splits by the network change nothing.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use remoor_rpc::record::{Error, HEADER, MAX_FRAGMENTS, Record, RecordReader};

const MAX_RECORD: usize = 256;
const LAST: u32 = 1 << 31;

/// A record as the sizes of its fragments; together at most [`MAX_RECORD`].
fn fragment_sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(0..MAX_RECORD / 8, 1..8)
}

/// The records, filled with a running byte so that a misplaced one shows, and the stream that carries them.
fn stream(records: &[Vec<usize>]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut fill = (0u8..=255).cycle();
    let (mut bodies, mut wire) = (Vec::new(), Vec::new());
    for sizes in records {
        let body: Vec<u8> = fill.by_ref().take(sizes.iter().sum()).collect();
        let mut rest = &body[..];
        for (i, size) in sizes.iter().enumerate() {
            let (fragment, after) = rest.split_at(*size);
            let last = if i + 1 == sizes.len() { LAST } else { 0 };
            wire.extend((last | *size as u32).to_be_bytes());
            wire.extend(fragment);
            rest = after;
        }
        bodies.push(body);
    }
    (bodies, wire)
}

/// Reads `wire` in pieces of these sizes, repeated.
fn read(wire: &[u8], pieces: &[usize]) -> Result<Vec<Bytes>, Error> {
    let (mut reader, mut records, mut rest) = (RecordReader::new(MAX_RECORD), Vec::new(), wire);
    for size in pieces.iter().cycle() {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        reader.push(piece);
        while let Some(record) = reader.next_record()? {
            records.push(record);
        }
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    Ok(records)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_survive_any_fragments_and_any_splits(
        records in vec(fragment_sizes(), 0..6),
        pieces in vec(1usize..40, 1..8),
    ) {
        let (bodies, wire) = stream(&records);
        prop_assert_eq!(read(&wire, &pieces).unwrap(), bodies);
    }

    #[test]
    fn what_a_reader_wants_is_enough_to_go_on(records in vec(fragment_sizes(), 1..6)) {
        let (bodies, wire) = stream(&records);
        let (mut reader, mut got, mut rest) = (RecordReader::new(MAX_RECORD), Vec::new(), &wire[..]);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(reader.wanted());
            prop_assert!(!piece.is_empty() && piece.len() <= MAX_RECORD + HEADER);
            reader.push(piece);
            got.extend(reader.next_record().unwrap());
            rest = after;
        }
        prop_assert!(reader.is_idle());
        prop_assert_eq!(got, bodies);
    }

    #[test]
    fn a_record_is_read_as_it_was_made(parts in vec(vec(any::<u8>(), 0..40), 0..6), size in 1usize..300) {
        let record = Record::new(parts.iter().cloned().map(Bytes::from).collect());
        let wire = record.segments().concat();
        prop_assert_eq!(wire.len(), record.len());
        prop_assert_eq!(read(&wire, &[size]).unwrap(), [record.message()]);
    }

    #[test]
    fn any_bytes_end_in_records_within_the_limit_or_an_error(
        wire in vec(prop_oneof![3 => Just(0u8), 1 => Just(0x80), 1 => any::<u8>()], 0..2000),
        size in 1usize..300,
    ) {
        match read(&wire, &[size]) {
            Ok(records) => prop_assert!(records.iter().all(|r| r.len() <= MAX_RECORD)),
            Err(Error::TooLong { len, max }) => prop_assert!(len > max && max == MAX_RECORD),
            Err(Error::TooManyFragments) => prop_assert!(wire.len() > MAX_FRAGMENTS),
        }
    }
}
