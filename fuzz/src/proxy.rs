//! The PROXY header before a stream: whom it names and what follows it is what a plain reading of its specification
//! (section 2.2) gives, however the stream is split.

use std::net::{Ipv6Addr, SocketAddr};

use remoor_server::fuzz::{Introduced, introduced};

use crate::pieces::Pieces;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const CALL: &[u8] = b"\x80\0\0\x08\0\0\0\x07\0\0\0\0";

/// Inputs to start from: one byte that chooses the splits, then a header and a record.
pub fn seeds() -> Vec<Vec<u8>> {
    let v4 = [192, 0, 2, 7, 192, 0, 2, 1, 3, 32, 8, 1];
    let v6 = [[0x20; 32].as_slice(), &[3, 32, 8, 1]].concat();
    let mapped = [[0; 10].as_slice(), &[0xff; 2], &v4[..4], &[0; 16], &v4[8..]].concat();
    let tlv = [&v4[..], &[4, 0, 3, 1, 2, 3], &[0xee, 0, 0]].concat();
    let header = |command: u8, family: u8, payload: &[u8]| {
        let head = [command, family, 0, payload.len() as u8];
        [&[0x5a], SIGNATURE, &head, payload, CALL].concat()
    };
    vec![
        header(0x21, 0x11, &v4),
        header(0x21, 0x21, &v6),
        header(0x21, 0x21, &mapped),
        header(0x21, 0x11, &tlv),
        header(0x21, 0x31, &[0; 216]),
        header(0x21, 0x12, &v4),
        header(0x20, 0x00, b""),
        b"\0PROXY TCP4 192.0.2.7 192.0.2.1 800 2049\r\n".to_vec(),
    ]
}

/// Reads the stream in one piece and in pieces, and compares.
pub fn run(data: &[u8]) {
    let Some((split, stream)) = data.split_first() else { return };
    let whole = introduced([stream]);
    let pieces = introduced(Pieces::new(stream, *split));
    match &whole {
        // In pieces it may be refused before it is all there, and then for another reason.
        Err(_) => assert!(pieces.is_err(), "taken in pieces only: {pieces:?}"),
        whole => assert_eq!(whole, &pieces, "what is read depends on how the stream was split"),
    }
    match whole {
        Ok(Some(got)) => assert_eq!(got, plain_reading(stream)),
        Ok(None) => assert!(stream.len() < 4096, "a header without end"),
        Err(_) => {}
    }
}

/// Of a stream that begins with a header.
fn plain_reading(stream: &[u8]) -> Introduced {
    assert!(stream.starts_with(SIGNATURE));
    let end = 16 + usize::from(u16::from_be_bytes([stream[14], stream[15]]));
    let client = match (stream[12], stream[13]) {
        (0x21, 0x11) => {
            let [a, b, c, d] = stream[16..20].try_into().unwrap();
            Some(SocketAddr::from(([a, b, c, d], port(&stream[24..]))))
        }
        (0x21, 0x21) => {
            let octets: [u8; 16] = stream[16..32].try_into().unwrap();
            Some(SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port(&stream[48..])))
        }
        _ => None,
    };
    Introduced { client, rest: stream[end..].to_vec() }
}

fn port(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}
