//! Record marking: the records that a plain reading of RFC 5531 section 11 gives come out, however the stream is split,
//! and none is over the limit.

use bytes::Bytes;
use remoor_rpc::record::{Error, MAX_FRAGMENTS, Record, RecordReader};

use crate::pieces::Pieces;

/// A small limit, so that inputs reach it.
const MAX_RECORD: usize = 512;

/// Inputs to start from: one byte that chooses the splits, then a stream.
pub fn seeds() -> Vec<Vec<u8>> {
    let record = |len: usize| Record::new(vec![Bytes::from(vec![b'x'; len])]).segments().concat();
    let streams = [
        record(0),
        [record(3), record(40), record(1)].concat(),
        [&b"\0\0\0\x02ab\0\0\0\0"[..], &record(5)].concat(),
        record(MAX_RECORD),
        record(MAX_RECORD + 1),
        vec![0; 64],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    streams.iter().flat_map(|s| [0, 1, 0x5a].map(|split| [&[split], &s[..]].concat())).collect()
}

/// Reads the stream in one piece and in pieces, and compares.
pub fn run(data: &[u8]) {
    let Some((split, stream)) = data.split_first() else { return };
    let whole = read([stream]);
    let pieces = read(Pieces::new(stream, *split));
    assert_eq!(whole, pieces, "the records depend on how the stream was split");
    assert!(whole.0.iter().all(|record| record.len() <= MAX_RECORD));
    assert_eq!(whole, plain_reading(stream), "the records are not those of the stream");
}

/// The records of a whole stream, without any thought for memory or speed.
fn plain_reading(mut stream: &[u8]) -> (Vec<Bytes>, Option<Error>) {
    let (mut records, mut record, mut fragments) = (Vec::new(), Vec::new(), 0);
    while let Some((mark, rest)) = stream.split_first_chunk() {
        let mark = u32::from_be_bytes(*mark);
        let (last, len) = (mark >> 31 == 1, (mark & 0x7fff_ffff) as usize);
        if record.len() + len > MAX_RECORD {
            return (records, Some(Error::TooLong { len: record.len() + len, max: MAX_RECORD }));
        }
        let Some((fragment, rest)) = rest.split_at_checked(len) else { break };
        stream = rest;
        record.extend_from_slice(fragment);
        fragments += 1;
        if last {
            records.push(Bytes::from(std::mem::take(&mut record)));
            fragments = 0;
        } else if fragments > MAX_FRAGMENTS {
            return (records, Some(Error::TooManyFragments));
        }
    }
    (records, None)
}

/// The records of a stream that arrives in `pieces`, and the error that ended it.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Bytes>, Option<Error>) {
    let mut reader = RecordReader::new(MAX_RECORD);
    let mut records = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
        }
        assert!(reader.wanted() > 0, "a reader that wants nothing would wait for ever");
        assert!(reader.wanted() <= MAX_RECORD + 4);
    }
    (records, None)
}
