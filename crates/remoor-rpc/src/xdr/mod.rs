//! XDR, RFC 4506: a reader that shares its buffer and a writer that keeps payloads as separate segments.
//!
//! Decoding never allocates by a length it has not checked against both the type's bound and the bytes
//! that are there; opaque data is a slice of the received buffer. Encoding cannot fail.

mod macros;

use std::any::Any;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

/// What a decoder met, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("XDR: {what} at byte {at}: {kind}")]
pub struct Error {
    /// The field or type that was being decoded.
    pub what: &'static str,
    /// Offset from the start of the message, in bytes.
    pub at: usize,
    /// What is wrong with it.
    pub kind: ErrorKind,
}

/// The ways in which bytes can fail to be XDR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum ErrorKind {
    #[error("needs {need} bytes but only {have} are left")]
    Truncated { need: usize, have: usize },
    #[error("length {len} is over the limit of {max}")]
    TooLong { len: usize, max: usize },
    #[error("{value} is not one of its values")]
    BadValue { value: u32 },
    #[error("padding is not zero")]
    BadPadding,
    #[error("{left} bytes follow the end of the message")]
    Trailing { left: usize },
}

/// Result of decoding.
pub type Result<T> = std::result::Result<T, Error>;

/// A type with an XDR form.
pub trait Xdr: Sized {
    /// Appends the XDR form.
    fn encode(&self, w: &mut Writer);
    /// Reads the XDR form, advancing the reader; on error the reader's position is unspecified.
    fn decode(r: &mut Reader) -> Result<Self>;
}

/// Reads XDR from a shared buffer. Cloning shares the buffer and copies the position.
#[derive(Debug, Clone)]
pub struct Reader {
    buf: Bytes,
    at: usize,
}

impl Reader {
    /// Starts at the first byte of `buf`.
    pub fn new(buf: Bytes) -> Self {
        Self { buf, at: 0 }
    }

    /// Offset of the next byte to be read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.at
    }

    /// The unread bytes, shared.
    pub fn rest(&self) -> Bytes {
        self.buf.slice(self.at..)
    }

    /// An error at the current position.
    pub fn error(&self, what: &'static str, kind: ErrorKind) -> Error {
        Error { what, at: self.at, kind }
    }

    fn need(&self, need: usize, what: &'static str) -> Result<()> {
        let have = self.remaining();
        if need > have { Err(self.error(what, ErrorKind::Truncated { need, have })) } else { Ok(()) }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        self.need(N, what)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.buf[self.at..self.at + N]);
        self.at += N;
        Ok(out)
    }

    /// Unsigned integer, RFC 4506 section 4.2.
    pub fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// Unsigned hyper integer, RFC 4506 section 4.5.
    pub fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// Fixed-length opaque of `N` bytes with its padding, RFC 4506 section 4.9.
    pub fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let out = self.array(what)?;
        self.padding(N, what)?;
        Ok(out)
    }

    /// Variable-length opaque of at most `max` bytes, shared with the buffer, RFC 4506 section 4.10.
    pub fn opaque(&mut self, max: usize, what: &'static str) -> Result<Bytes> {
        let len = self.length(max, what)?;
        self.need(len, what)?;
        let out = self.buf.slice(self.at..self.at + len);
        self.at += len;
        self.padding(len, what)?;
        Ok(out)
    }

    /// A count of elements of at least `each` bytes: bounded by `max` and by what the buffer can hold.
    pub fn count(&mut self, max: usize, each: usize, what: &'static str) -> Result<usize> {
        let len = self.length(max, what)?;
        self.need(len.saturating_mul(each), what)?;
        Ok(len)
    }

    /// Ends the message: bytes left over are an error.
    pub fn finish(&self, what: &'static str) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error(what, ErrorKind::Trailing { left })),
        }
    }

    fn length(&mut self, max: usize, what: &'static str) -> Result<usize> {
        let len = self.u32(what)? as usize;
        if len > max { Err(self.error(what, ErrorKind::TooLong { len, max })) } else { Ok(len) }
    }

    fn padding(&mut self, len: usize, what: &'static str) -> Result<()> {
        let pad = pad_of(len);
        self.need(pad, what)?;
        if self.buf[self.at..self.at + pad].iter().any(|b| *b != 0) {
            return Err(self.error(what, ErrorKind::BadPadding));
        }
        self.at += pad;
        Ok(())
    }
}

const fn pad_of(len: usize) -> usize {
    (4 - len % 4) % 4
}

/// Opaque data at least this long is kept as a segment of its own instead of being copied.
pub const SHARE_FROM: usize = 1024;

/// Bytes of a message that are not in its segments: whoever sends the message knows what `source` is, and where they are.
#[derive(Debug, Clone)]
pub struct External {
    /// Segments that come before.
    pub after: usize,
    /// How many bytes.
    pub len: usize,
    /// Where they are.
    pub source: Arc<dyn Any + Send + Sync>,
}

/// Writes XDR as a list of segments, so that a payload travels from file to socket without being copied.
#[derive(Debug, Default)]
pub struct Writer {
    done: Vec<Bytes>,
    done_len: usize,
    tail: BytesMut,
    external: Option<External>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::with_capacity(256)
    }

    /// An empty writer that holds `capacity` bytes before it allocates again.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { done: Vec::new(), done_len: 0, tail: BytesMut::with_capacity(capacity), external: None }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.done_len + self.tail.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Unsigned integer.
    pub fn u32(&mut self, v: u32) {
        self.tail.put_u32(v);
    }

    /// Unsigned hyper integer.
    pub fn u64(&mut self, v: u64) {
        self.tail.put_u64(v);
    }

    /// Fixed-length opaque with its padding.
    pub fn fixed(&mut self, v: &[u8]) {
        self.tail.put_slice(v);
        self.tail.put_bytes(0, pad_of(v.len()));
    }

    /// Variable-length opaque: length, bytes, padding. From [`SHARE_FROM`] bytes on the data is shared.
    pub fn opaque(&mut self, v: &Bytes) {
        if v.len() < SHARE_FROM {
            return self.slice(v);
        }
        self.u32(v.len() as u32);
        self.share(v.clone());
        self.tail.put_bytes(0, pad_of(v.len()));
    }

    /// Variable-length opaque, copied.
    pub fn slice(&mut self, v: &[u8]) {
        self.u32(v.len() as u32);
        self.fixed(v);
    }

    /// Bytes that are XDR already.
    pub fn encoded(&mut self, v: Bytes) {
        if v.len() < SHARE_FROM { self.tail.put_slice(&v) } else { self.share(v) }
    }

    /// Variable-length opaque data of `len` bytes that are elsewhere. A message has this at most once.
    pub fn external(&mut self, len: usize, source: Arc<dyn Any + Send + Sync>) {
        debug_assert!(self.external.is_none(), "a message has one external part");
        self.u32(len as u32);
        self.end_segment();
        self.done_len += len;
        self.external = Some(External { after: self.done.len(), len, source });
        self.tail.put_bytes(0, pad_of(len));
    }

    fn share(&mut self, v: Bytes) {
        self.end_segment();
        self.done_len += v.len();
        self.done.push(v);
    }

    fn end_segment(&mut self) {
        let head = self.tail.split().freeze();
        if !head.is_empty() {
            self.done_len += head.len();
            self.done.push(head);
        }
    }

    /// Drops what was written and keeps the memory for the next message.
    pub fn clear(&mut self) {
        self.done.clear();
        self.done_len = 0;
        self.tail.clear();
        self.external = None;
    }

    /// The message as it stands: shared segments, and what follows the last of them. [`Writer::external_part`] is not among
    /// them.
    pub fn parts(&self) -> (&[Bytes], &[u8]) {
        (&self.done, &self.tail)
    }

    /// The part of the message that is not in its segments.
    pub fn external_part(&self) -> Option<&External> {
        self.external.as_ref()
    }

    /// The segments in order. Their concatenation is the message, which must have no external part.
    pub fn finish(mut self) -> Vec<Bytes> {
        debug_assert!(self.external.is_none(), "an external part has no bytes here");
        if !self.tail.is_empty() {
            self.done.push(self.tail.freeze());
        }
        self.done
    }

    /// The message in one piece; copies only if there is more than one segment.
    pub fn into_bytes(self) -> Bytes {
        contiguous(self.finish())
    }
}

/// Joins segments; a single one is returned as it is.
pub fn contiguous(mut segments: Vec<Bytes>) -> Bytes {
    if segments.len() == 1 {
        return segments.remove(0);
    }
    let mut out = BytesMut::with_capacity(segments.iter().map(Bytes::len).sum());
    segments.iter().for_each(|s| out.put_slice(s));
    out.freeze()
}

/// Encodes one value in one piece.
pub fn to_bytes(v: &impl Xdr) -> Bytes {
    let mut w = Writer::new();
    v.encode(&mut w);
    w.into_bytes()
}

/// Decodes one value that must fill `buf`.
pub fn from_bytes<T: Xdr>(buf: Bytes, what: &'static str) -> Result<T> {
    let mut r = Reader::new(buf);
    let v = T::decode(&mut r)?;
    r.finish(what)?;
    Ok(v)
}

/// Decodes a field; an error that its primitive type named is named by the field instead.
#[doc(hidden)]
pub fn decode_field<T: Xdr>(r: &mut Reader, what: &'static str) -> Result<T> {
    T::decode(r).map_err(|e| if e.what.contains('.') { e } else { Error { what, ..e } })
}

impl Xdr for () {
    fn encode(&self, _: &mut Writer) {}
    fn decode(_: &mut Reader) -> Result<Self> {
        Ok(())
    }
}

impl Xdr for u32 {
    fn encode(&self, w: &mut Writer) {
        w.u32(*self);
    }
    fn decode(r: &mut Reader) -> Result<Self> {
        r.u32("unsigned int")
    }
}

impl Xdr for u64 {
    fn encode(&self, w: &mut Writer) {
        w.u64(*self);
    }
    fn decode(r: &mut Reader) -> Result<Self> {
        r.u64("unsigned hyper")
    }
}

impl Xdr for bool {
    fn encode(&self, w: &mut Writer) {
        w.u32(u32::from(*self));
    }
    fn decode(r: &mut Reader) -> Result<Self> {
        match r.u32("bool")? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(r.error("bool", ErrorKind::BadValue { value })),
        }
    }
}

/// Fixed-length opaque data.
impl<const N: usize> Xdr for [u8; N] {
    fn encode(&self, w: &mut Writer) {
        w.fixed(self);
    }
    fn decode(r: &mut Reader) -> Result<Self> {
        r.fixed("opaque")
    }
}

/// Two values in order: the discriminant and the arm of a union, for example.
impl<A: Xdr, B: Xdr> Xdr for (A, B) {
    fn encode(&self, w: &mut Writer) {
        self.0.encode(w);
        self.1.encode(w);
    }
    fn decode(r: &mut Reader) -> Result<Self> {
        Ok((A::decode(r)?, B::decode(r)?))
    }
}

/// Optional data, RFC 4506 section 4.19; also any union of a bool with a void arm.
impl<T: Xdr> Xdr for Option<T> {
    fn encode(&self, w: &mut Writer) {
        self.is_some().encode(w);
        if let Some(v) = self {
            v.encode(w);
        }
    }
    fn decode(r: &mut Reader) -> Result<Self> {
        if bool::decode(r)? { T::decode(r).map(Some) } else { Ok(None) }
    }
}

/// Variable-length opaque data or string of at most `MAX` bytes, shared with the buffer it came from.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Opaque<const MAX: usize>(pub Bytes);

impl<const MAX: usize> std::fmt::Debug for Opaque<MAX> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.len() <= 256 { self.0.fmt(f) } else { write!(f, "({} bytes)", self.0.len()) }
    }
}

impl<const MAX: usize> From<&str> for Opaque<MAX> {
    fn from(v: &str) -> Self {
        Self(Bytes::copy_from_slice(v.as_bytes()))
    }
}

impl<const MAX: usize> From<Bytes> for Opaque<MAX> {
    fn from(v: Bytes) -> Self {
        Self(v)
    }
}

impl<const MAX: usize> Xdr for Opaque<MAX> {
    fn encode(&self, w: &mut Writer) {
        w.opaque(&self.0);
    }
    fn decode(r: &mut Reader) -> Result<Self> {
        r.opaque(MAX, "opaque<>").map(Self)
    }
}

/// Variable-length array of at most `MAX` elements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Array<T, const MAX: usize>(pub Vec<T>);

impl<T: Xdr, const MAX: usize> Xdr for Array<T, MAX> {
    fn encode(&self, w: &mut Writer) {
        w.u32(self.0.len() as u32);
        self.0.iter().for_each(|v| v.encode(w));
    }
    fn decode(r: &mut Reader) -> Result<Self> {
        let n = r.count(MAX, 4, "array<>")?;
        (0..n).map(|_| T::decode(r)).collect::<Result<Vec<T>>>().map(Self)
    }
}

/// A linked list of optional data: each element preceded by true, the last followed by false.
/// It cannot hold more elements than the message has bytes for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct List<T>(pub Vec<T>);

impl<T: Xdr> Xdr for List<T> {
    fn encode(&self, w: &mut Writer) {
        for v in &self.0 {
            true.encode(w);
            v.encode(w);
        }
        false.encode(w);
    }
    fn decode(r: &mut Reader) -> Result<Self> {
        let mut out = Vec::new();
        while bool::decode(r)? {
            out.push(T::decode(r)?);
        }
        Ok(Self(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_is_padded_and_shared() {
        let v = Opaque::<8>::from("abcde");
        let bytes = to_bytes(&v);
        assert_eq!(&bytes[..], b"\0\0\0\x05abcde\0\0\0");
        let back: Opaque<8> = from_bytes(bytes.clone(), "name").unwrap();
        assert_eq!(back, v);
        assert_eq!(back.0.as_ptr(), bytes[4..].as_ptr(), "decoded data is a slice of the message");
    }

    #[test]
    fn long_payload_is_a_segment_of_its_own() {
        let payload = Bytes::from(vec![7; SHARE_FROM + 1]);
        let mut w = Writer::new();
        w.u32(1);
        w.opaque(&payload);
        let len = w.len();
        let segments = w.finish();
        assert_eq!(segments[1].as_ptr(), payload.as_ptr());
        assert_eq!(segments.iter().map(Bytes::len).sum::<usize>(), len);
        assert_eq!(len % 4, 0);
    }

    #[test]
    fn a_cleared_writer_writes_again_in_the_same_memory() {
        let mut w = Writer::with_capacity(64);
        w.u32(1);
        let memory = w.parts().1.as_ptr();
        w.clear();
        assert!(w.is_empty());
        w.u32(2);
        assert_eq!(w.parts(), (&[][..], &[0, 0, 0, 2][..]));
        assert_eq!(w.parts().1.as_ptr(), memory);
        w.opaque(&Bytes::from(vec![7; SHARE_FROM]));
        assert_eq!(w.parts().0.iter().map(Bytes::len).sum::<usize>(), w.len());
        w.clear();
        assert!(w.is_empty() && w.finish().is_empty());
    }

    #[test]
    fn errors_name_the_field_the_place_and_the_value() {
        let e = from_bytes::<Opaque<4>>(Bytes::from_static(b"\0\0\0\x09"), "x").unwrap_err();
        assert_eq!(e.to_string(), "XDR: opaque<> at byte 4: length 9 is over the limit of 4");
        let e = from_bytes::<Opaque<4>>(Bytes::from_static(b"\0\0\0\x01a\0\x01\0"), "x").unwrap_err();
        assert_eq!(e.kind, ErrorKind::BadPadding);
        let e = from_bytes::<bool>(Bytes::from_static(b"\0\0\0\x02"), "x").unwrap_err();
        assert_eq!(e.kind, ErrorKind::BadValue { value: 2 });
        let e = from_bytes::<u32>(Bytes::from_static(b"\0\0\0\x02!"), "x").unwrap_err();
        assert_eq!(e.kind, ErrorKind::Trailing { left: 1 });
    }

    #[test]
    fn a_huge_count_is_refused_before_anything_is_allocated() {
        let e = from_bytes::<Array<u32, { u32::MAX as usize }>>(Bytes::from_static(b"\xff\xff\xff\xff"), "x");
        assert!(matches!(e.unwrap_err().kind, ErrorKind::Truncated { have: 0, .. }));
    }
}
