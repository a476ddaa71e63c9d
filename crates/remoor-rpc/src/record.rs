//! Record marking, RFC 5531 section 11: a record is fragments, each preceded by its length and a last-fragment bit.

use bytes::{Buf, Bytes, BytesMut};

use crate::xdr;

const LAST: u32 = 1 << 31;
/// Bytes of a fragment header.
pub const HEADER: usize = 4;
/// Fragments a record may come in. No implementation is known to send more than a few hundred.
pub const MAX_FRAGMENTS: usize = 4096;
/// Records up to this long are copied out of the read buffer. A slice of it would keep it from being used again as long
/// as anything decoded from the record lives: a file handle, for example.
pub const COPY_UP_TO: usize = 4096;
/// Default limit of a record: 1 MiB of payload and room for headers.
pub const DEFAULT_MAX_RECORD: usize = (1 << 20) + (64 << 10);

/// A message with its record mark, ready for a vectored write. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    segments: Vec<Bytes>,
    len: usize,
}

/// The mark of a record in one fragment of `len` bytes.
///
/// # Panics
/// Never for messages this program makes: they are far below the 2 GiB a fragment may have.
pub fn mark(len: usize) -> [u8; HEADER] {
    debug_assert!(len < LAST as usize);
    (LAST | len as u32).to_be_bytes()
}

impl Record {
    /// Marks `message` as one last fragment.
    pub fn new(message: Vec<Bytes>) -> Self {
        let len: usize = message.iter().map(Bytes::len).sum();
        let mut segments = Vec::with_capacity(message.len() + 1);
        segments.push(Bytes::copy_from_slice(&mark(len)));
        segments.extend(message);
        Self { segments, len: len + HEADER }
    }

    /// The segments to write, in order, header first.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// Bytes on the wire, header included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: a record has at least its header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The message without its record mark, joined.
    pub fn message(&self) -> Bytes {
        xdr::contiguous(self.segments[1..].to_vec())
    }
}

/// Why a byte stream is not a sequence of records. The connection cannot be used further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum Error {
    #[error(
        "a record of at least {len} bytes is over the limit of {max}: the peer does not speak RPC, or the limit is too low"
    )]
    TooLong { len: usize, max: usize },
    #[error("a record in more than {MAX_FRAGMENTS} fragments")]
    TooManyFragments,
}

/// Takes bytes as they arrive and gives back whole records.
///
/// Memory is bounded by twice the record limit plus one read; a length in a header allocates nothing. A record in one
/// fragment over [`COPY_UP_TO`] bytes is a slice of the read buffer.
#[derive(Debug)]
pub struct RecordReader {
    buf: BytesMut,
    max: usize,
    /// Fragments of the record in progress, and their bytes.
    fragments: usize,
    joined: BytesMut,
}

impl RecordReader {
    /// A reader that refuses records over `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { buf: BytesMut::new(), max, fragments: 0, joined: BytesMut::new() }
    }

    /// The buffer to append received bytes to; then call [`RecordReader::next_record`] until it is `None`.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    /// Appends a copy of `data`.
    pub fn push(&mut self, data: &[u8]) {
        self.buf.extend_from_slice(data);
    }

    /// Bytes still missing from the current fragment, or of its header: what a reader should make room for.
    pub fn wanted(&self) -> usize {
        match self.header() {
            Ok(Some((len, _))) => (len + HEADER).saturating_sub(self.buf.len()),
            _ => HEADER.saturating_sub(self.buf.len()),
        }
    }

    /// Bytes that are kept, and those still missing that were announced.
    pub fn pending(&self) -> usize {
        if self.is_idle() { 0 } else { self.buf.len() + self.joined.len() + self.wanted() }
    }

    /// Whether the stream stands between two records.
    pub fn is_idle(&self) -> bool {
        self.buf.is_empty() && self.fragments == 0
    }

    /// The next whole record without its marks, if it has arrived.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some((len, last)) = self.header()? {
            if self.buf.len() < HEADER + len {
                return Ok(None);
            }
            self.buf.advance(HEADER);
            if last {
                return Ok(Some(self.end(len)));
            }
            self.keep(len)?;
        }
        Ok(None)
    }

    /// The next whole record of what was kept and `input`. At `None` all of `input` is kept.
    ///
    /// A record that lies in `input` whole, in one fragment of up to [`COPY_UP_TO`] bytes, is copied once, from there;
    /// nothing else of `input` is touched, so a reader between two records holds no buffer.
    pub fn next_record_in(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, Error> {
        if self.is_idle()
            && let Some(record) = self.whole(input)
        {
            return Ok(Some(record));
        }
        self.keep_all(input);
        self.next_record()
    }

    /// Keeps `input` without looking for records, which [`RecordReader::next_record`] then does.
    pub fn keep_all(&mut self, input: &mut &[u8]) {
        if !input.is_empty() {
            self.buf.extend_from_slice(input);
            *input = &[];
        }
    }

    /// The short record in one fragment that `input` begins with.
    fn whole(&self, input: &mut &[u8]) -> Option<Bytes> {
        let (header, rest) = input.split_first_chunk::<HEADER>()?;
        let mark = u32::from_be_bytes(*header);
        let len = (mark & !LAST) as usize;
        if mark & LAST == 0 || len > COPY_UP_TO.min(self.max) {
            return None;
        }
        let (record, rest) = rest.split_at_checked(len)?;
        *input = rest;
        Some(Bytes::copy_from_slice(record))
    }

    /// Gives back the memory of a buffer that holds nothing.
    pub fn shrink(&mut self) {
        if self.is_idle() {
            self.buf = BytesMut::new();
        }
    }

    fn header(&self) -> Result<Option<(usize, bool)>, Error> {
        let Some(bytes) = self.buf.first_chunk::<HEADER>() else { return Ok(None) };
        let mark = u32::from_be_bytes(*bytes);
        let len = (mark & !LAST) as usize;
        let total = self.joined.len() + len;
        if total > self.max {
            return Err(Error::TooLong { len: total, max: self.max });
        }
        Ok(Some((len, mark & LAST != 0)))
    }

    /// Takes a fragment of `len` bytes that is not the record's last.
    fn keep(&mut self, len: usize) -> Result<(), Error> {
        if self.fragments >= MAX_FRAGMENTS {
            return Err(Error::TooManyFragments);
        }
        self.fragments += 1;
        self.joined.extend_from_slice(&self.buf[..len]);
        self.buf.advance(len);
        Ok(())
    }

    /// The record that ends with a fragment of `len` bytes.
    fn end(&mut self, len: usize) -> Bytes {
        self.fragments = 0;
        if self.joined.is_empty() && len > COPY_UP_TO {
            return self.buf.split_to(len).freeze();
        }
        let mut record = std::mem::take(&mut self.joined);
        record.extend_from_slice(&self.buf[..len]);
        self.buf.advance(len);
        record.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(record: &Record) -> Vec<u8> {
        record.segments().concat()
    }

    #[test]
    fn byte_by_byte() {
        let record = Record::new(vec![Bytes::from_static(b"hello "), Bytes::from_static(b"world")]);
        assert_eq!(record.message(), &b"hello world"[..]);
        let mut reader = RecordReader::new(64);
        let mut got = Vec::new();
        for b in wire(&record).iter().chain(&wire(&record)) {
            assert!(reader.wanted() > 0);
            reader.push(&[*b]);
            got.extend(reader.next_record().unwrap());
        }
        assert_eq!(got, [&b"hello world"[..]; 2]);
        assert!(reader.is_idle());
    }

    #[test]
    fn fragments_are_joined() {
        let mut reader = RecordReader::new(64);
        reader.push(b"\0\0\0\x02ab\0\0\0\0\x80\0\0\x01c");
        assert_eq!(reader.next_record().unwrap().unwrap(), &b"abc"[..]);
        assert_eq!(reader.next_record().unwrap(), None);
    }

    #[test]
    fn a_record_over_the_limit_is_refused_by_its_header() {
        let mut reader = RecordReader::new(8);
        reader.push(b"\xff\xff\xff\xff");
        assert_eq!(reader.next_record(), Err(Error::TooLong { len: 0x7fff_ffff, max: 8 }));
        let mut reader = RecordReader::new(8);
        reader.push(b"\0\0\0\x05abcde\x80\0\0\x04");
        assert_eq!(reader.next_record(), Err(Error::TooLong { len: 9, max: 8 }));
    }

    #[test]
    fn records_are_taken_from_the_input_whatever_the_pieces() {
        let record = Record::new(vec![Bytes::from_static(b"hello")]);
        let stream = [&wire(&record)[..], b"\0\0\0\x02ab\x80\0\0\x01c", &wire(&record)].concat();
        for piece in 1..stream.len() {
            let (mut reader, mut got) = (RecordReader::new(64), Vec::new());
            for mut input in stream.chunks(piece) {
                while let Some(record) = reader.next_record_in(&mut input).unwrap() {
                    got.push(record);
                }
                assert!(input.is_empty(), "all is kept");
            }
            assert_eq!(got, [&b"hello"[..], b"abc", b"hello"], "in pieces of {piece}");
            assert!(reader.is_idle());
        }
    }

    #[test]
    fn a_reader_of_whole_short_records_holds_no_buffer() {
        let record = Record::new(vec![Bytes::from_static(b"hello")]);
        let (mut reader, stream) = (RecordReader::new(64), wire(&record).repeat(3));
        let mut input = &stream[..];
        while reader.next_record_in(&mut input).unwrap().is_some() {}
        assert_eq!(reader.buffer().capacity(), 0);
        let error = RecordReader::new(4).next_record_in(&mut &stream[..]).unwrap_err();
        assert_eq!(error, Error::TooLong { len: 5, max: 4 });
        reader.push(&stream[..2]);
        assert_eq!(reader.pending(), HEADER);
        reader.shrink();
        assert!(!reader.is_idle(), "what came is kept");
        reader.push(&stream[2..6]);
        assert_eq!(reader.pending(), HEADER + 5);
        reader.push(&stream[6..9]);
        assert_eq!(reader.next_record().unwrap().unwrap(), &b"hello"[..]);
        reader.shrink();
        assert_eq!((reader.buffer().capacity(), reader.pending()), (0, 0));
    }

    #[test]
    fn a_small_record_or_fragment_does_not_hold_the_read_buffer() {
        let mut reader = RecordReader::new(1 << 20);
        reader.buffer().reserve(1 << 18);
        let (small, fragment) = (b"\x80\0\0\x02ab", b"\0\0\0\x01c");
        let start = reader.buffer().as_ptr();
        for _ in 0..100 {
            reader.push(small);
            reader.push(fragment);
            let record = reader.next_record().unwrap();
            assert!(record.is_none_or(|record| record.is_unique()));
            assert_eq!(reader.next_record().unwrap(), None);
            reader.push(b"\x80\0\0\0");
            reader.next_record().unwrap().unwrap();
            reader.buffer().reserve(1 << 18);
        }
        assert_eq!(reader.buffer().as_ptr(), start, "the same buffer serves every read");
    }

    #[test]
    fn empty_fragments_end() {
        let mut reader = RecordReader::new(8);
        reader.push(&[0; HEADER].repeat(MAX_FRAGMENTS + 1));
        assert_eq!(reader.next_record(), Err(Error::TooManyFragments));
    }
}
