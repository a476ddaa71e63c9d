//! The PROXY protocol, version 2: what a relay says of the client before the client's own first byte.
//! <https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>
//!
//! Crate `ppp` reads the form; here are the rules of a server. A header is believed from listed peers only, and those
//! must send one: a peer that may leave it out lets every client of its forge one. It comes first and once, so what
//! follows it is the client's, another header included. LOCAL names nobody: it is the relay's own connection, a health
//! check for example, and must not be taken for a client at the relay's address.

use std::net::SocketAddr;

use ppp::v2::{AddressFamily, Addresses, Header, PROTOCOL_PREFIX, ParseError, Protocol};

use super::canonical;

/// Bytes up to and with the length field.
const FIXED: usize = 16;
/// Version 2 and command LOCAL.
const LOCAL: u8 = 0x20;
/// How a header of version 1 begins.
const VERSION_1: &[u8] = b"PROXY ";
/// Longest header taken, in bytes. One with IPv6 addresses has 52 and TLVs of some hundred, those of TLS included;
/// HAProxy takes no more than its buffer has either.
pub(crate) const MAX_HEADER: usize = 4096;

/// A header that stood first in a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// Bytes of the header: the client's own begin after them.
    pub(crate) consumed: usize,
    /// The client; `None` if the relay names nobody (LOCAL, or a family without IP addresses).
    pub(crate) source: Option<SocketAddr>,
    /// What else the relay says, in order.
    pub(crate) tlvs: Vec<Tlv>,
}

/// One of the relay's remarks: a type (`PP2_TYPE_*`) and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tlv {
    /// Its type.
    pub(crate) kind: u8,
    /// Its value.
    pub(crate) value: Vec<u8>,
}

/// Why there is no header, yet or at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub(crate) enum NoHeader {
    /// What is there is the beginning of one. Never for [`MAX_HEADER`] bytes or more.
    #[error("the PROXY header is not complete")]
    NeedMore,
    #[error(
        "the connection does not begin with a PROXY version 2 header: set send-proxy-v2 at the relay, or take it off --proxy-from"
    )]
    Missing,
    #[error(
        "the relay sends a PROXY header of version 1: set send-proxy-v2 there, in the place of send-proxy"
    )]
    Version1,
    #[error("a PROXY header from a peer that is not listed: if it is a relay, add it to --proxy-from")]
    Unlisted,
    #[error("a PROXY header of {0} bytes is over the limit of {MAX_HEADER}: let the relay send fewer TLVs")]
    TooLong(usize),
    #[error("a PROXY header for datagrams on a TCP connection")]
    Datagram,
    #[error("PROXY header: {0}")]
    Form(String),
}

/// Reads the header at the beginning of `buf`. Looks at no more than [`MAX_HEADER`] bytes of it.
///
/// # Errors
/// [`NoHeader::NeedMore`] asks for more bytes; every other error ends the connection.
pub(crate) fn parse(buf: &[u8]) -> Result<Parsed, NoHeader> {
    let len = length(buf)?;
    // The rest of such a header is to be discarded, its family included (section 2.2).
    if buf[PROTOCOL_PREFIX.len()] == LOCAL {
        return Ok(Parsed { consumed: len, source: None, tlvs: Vec::new() });
    }
    let header = Header::try_from(&buf[..len]).map_err(told)?;
    // Families with transports are named together, and other pairs are to be rejected (section 2.2).
    match (header.address_family(), header.protocol) {
        (AddressFamily::Unspecified, Protocol::Unspecified) => {}
        (AddressFamily::Unspecified, _) | (_, Protocol::Unspecified) => {
            return Err(NoHeader::Form("address family without transport, or the reverse".to_owned()));
        }
        (_, Protocol::Datagram) => return Err(NoHeader::Datagram),
        (_, Protocol::Stream) => {}
    }
    let tlv = |tlv: ppp::v2::TypeLengthValue<'_>| Tlv { kind: tlv.kind, value: tlv.value.to_vec() };
    let tlvs = header.tlvs().map(|read| read.map(tlv)).collect::<Result<_, _>>().map_err(told)?;
    Ok(Parsed { consumed: len, source: source(&header), tlvs })
}

/// Bytes of the whole header, if they are all there.
fn length(buf: &[u8]) -> Result<usize, NoHeader> {
    if buf.starts_with(VERSION_1) {
        return Err(NoHeader::Version1);
    }
    let seen = buf.len().min(PROTOCOL_PREFIX.len());
    if buf[..seen] != PROTOCOL_PREFIX[..seen] {
        return Err(NoHeader::Missing);
    }
    let Some(&[high, low]) = buf.get(FIXED - 2..FIXED) else { return Err(NoHeader::NeedMore) };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_HEADER {
        return Err(NoHeader::TooLong(len));
    }
    if buf.len() < len { Err(NoHeader::NeedMore) } else { Ok(len) }
}

/// Whether what a connection begins with is a header, for a peer that may send none: as a record it would be far too
/// long, which does not tell what to change.
pub(crate) fn is_header(buf: &[u8]) -> bool {
    buf.starts_with(PROTOCOL_PREFIX) || buf.starts_with(VERSION_1)
}

fn told(error: ParseError) -> NoHeader {
    NoHeader::Form(error.to_string().trim_end_matches('.').to_owned())
}

fn source(header: &Header<'_>) -> Option<SocketAddr> {
    match &header.addresses {
        Addresses::IPv4(v4) => Some((v4.source_address, v4.source_port).into()),
        // A relay that listens on a socket of both families writes IPv4 clients so.
        Addresses::IPv6(v6) => Some(canonical((v6.source_address, v6.source_port).into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: &[u8] = &[192, 0, 2, 7, 192, 0, 2, 1, 0x03, 0x20, 0x08, 0x01];

    /// A header of this command, family and payload, then the client's first bytes.
    fn header(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16).to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, payload].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    #[test]
    fn the_client_is_told_with_its_port_and_what_follows_is_left() {
        let bytes = [&header(0x21, 0x11, V4)[..], b"\x80\0\0\x28"].concat();
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed.source, Some("192.0.2.7:800".parse().unwrap()));
        assert_eq!((parsed.consumed, parsed.tlvs.len()), (28, 0));
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[9], &[0; 16], &[0x03, 0xff, 0x08, 0x01]].concat();
        let parsed = parse(&header(0x21, 0x21, &v6)).unwrap();
        assert_eq!(parsed.source, Some("[2001:db8::9]:1023".parse().unwrap()));
        assert_eq!(parsed.consumed, 52);
        let mapped =
            [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 7], &[0; 16], &[0x03, 0x20, 0x08, 0x01]].concat();
        let parsed = parse(&header(0x21, 0x21, &mapped)).unwrap();
        assert_eq!(parsed.source, Some("192.0.2.7:800".parse().unwrap()), "an IPv4 client");
    }

    #[test]
    fn a_second_header_is_the_clients_own_bytes() {
        let bytes = header(0x21, 0x11, V4).repeat(2);
        assert_eq!(parse(&bytes).unwrap().consumed, bytes.len() / 2);
    }

    #[test]
    fn local_and_families_without_addresses_name_nobody() {
        for (command, family, payload) in [
            (0x20, 0x00, &b""[..]),
            (0x20, 0x11, V4),
            (0x20, 0xff, b"?"),
            (0x21, 0x00, b""),
            (0x21, 0x31, &[0; 216]),
        ] {
            let parsed = parse(&header(command, family, payload)).unwrap();
            assert_eq!(parsed.source, None, "{command:#x} {family:#x}");
            assert_eq!(parsed.consumed, 16 + payload.len());
        }
    }

    #[test]
    fn remarks_are_read_and_their_lengths_checked() {
        let payload = [V4, &tlv(0x02, b"nfs.example"), &tlv(0x05, b""), &tlv(0xee, &[1; 300])].concat();
        let tlvs = parse(&header(0x21, 0x11, &payload)).unwrap().tlvs;
        let seen: Vec<_> = tlvs.iter().map(|tlv| (tlv.kind, tlv.value.len())).collect();
        assert_eq!(seen, [(0x02, 11), (0x05, 0), (0xee, 300)]);
        assert_eq!(tlvs[0].value, b"nfs.example");
        for wrong in [&[0x02][..], &[0x02, 0], &[0x02, 0, 5, b'x'], &[0x02, 0xff, 0xff]] {
            let error = parse(&header(0x21, 0x11, &[V4, wrong].concat())).unwrap_err();
            assert!(matches!(error, NoHeader::Form(_)), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_header_is_told_from_what_is_none_yet() {
        let whole = header(0x21, 0x11, &[V4, &tlv(0x04, b"pad")].concat());
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), Err(NoHeader::NeedMore), "{len} bytes");
        }
        assert_eq!(parse(b"\x80"), Err(NoHeader::Missing), "a record's first byte");
        assert_eq!(parse(b"PROXY TCP4 192.0.2.7 192.0.2.1 800 2049\r\n"), Err(NoHeader::Version1));
        assert_eq!(parse(&header(0x21, 0x12, V4)), Err(NoHeader::Datagram));
        let over = header(0x21, 0x11, &vec![0; MAX_HEADER]);
        assert_eq!(parse(&over[..16]), Err(NoHeader::TooLong(MAX_HEADER + 16)), "before it is received");
        for (command, family, payload) in [
            (0x11, 0x11, V4),
            (0x22, 0x11, V4),
            (0x21, 0x41, V4),
            (0x21, 0x13, V4),
            (0x21, 0x11, &V4[1..]),
            (0x21, 0x10, V4),
            (0x21, 0x01, b""),
        ] {
            let error = parse(&header(command, family, payload)).unwrap_err();
            assert!(matches!(error, NoHeader::Form(_)), "{command:#x} {family:#x}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_header_comes_back_whatever_follows(
            ip: [u8; 4],
            port: u16,
            remarks in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..99)), 0..9),
            rest: Vec<u8>,
        ) {
            let tlvs: Vec<u8> = remarks.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect();
            let payload = [&ip[..], &[0; 4], &port.to_be_bytes(), &[0; 2], &tlvs].concat();
            let bytes = header(0x21, 0x11, &payload);
            let parsed = parse(&[&bytes[..], &rest].concat()).unwrap();
            prop_assert_eq!(parsed.consumed, bytes.len());
            prop_assert_eq!(parsed.source, Some(SocketAddr::from((ip, port))));
            let seen: Vec<_> = parsed.tlvs.into_iter().map(|tlv| (tlv.kind, tlv.value)).collect();
            prop_assert_eq!(seen, remarks);
        }

        #[test]
        fn no_bytes_panic_and_none_ask_for_more_than_the_limit(
            command: u8,
            family: u8,
            length: u16,
            payload in prop::collection::vec(any::<u8>(), 0..MAX_HEADER + 99),
            cut in 0..MAX_HEADER + 99,
        ) {
            let mut bytes = header(command, family, &payload);
            bytes[14..16].copy_from_slice(&length.to_be_bytes());
            bytes.truncate(cut);
            match parse(&bytes) {
                Ok(parsed) => prop_assert!(parsed.consumed <= bytes.len()),
                Err(NoHeader::NeedMore) => prop_assert!(bytes.len() < MAX_HEADER),
                Err(_) => {}
            }
        }
    }
}
