//! TCP segments as read from captured or forwarded frames.

use std::net::SocketAddrV4;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};
use remoor_flow::TcpFlags;

/// The header of one TCP segment over IPv4, and how much it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Sender.
    pub src: SocketAddrV4,
    /// Receiver.
    pub dst: SocketAddrV4,
    /// Control bits.
    pub flags: TcpFlags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number; meaningless without [`TcpFlags::ACK`].
    pub ack: u32,
    /// Payload bytes on the wire, by the IP total length, whether captured or not.
    pub payload_len: usize,
}

impl Segment {
    /// Reads the segment of an Ethernet frame, which may be cut off after the TCP header. `None` for anything but
    /// an unfragmented TCP segment over IPv4.
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let (Some(LaxNetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (&packet.net, &packet.transport)
        else {
            return None;
        };
        let ip = ip.header();
        let headers = ip.slice().len() + tcp.header_slice().len();
        Some(Self {
            src: SocketAddrV4::new(ip.source_addr(), tcp.source_port()),
            dst: SocketAddrV4::new(ip.destination_addr(), tcp.destination_port()),
            flags: flags_of(tcp),
            seq: tcp.sequence_number(),
            ack: tcp.acknowledgment_number(),
            payload_len: usize::from(ip.total_len()).checked_sub(headers)?,
        })
    }
}

fn flags_of(tcp: &TcpSlice<'_>) -> TcpFlags {
    // Byte 13 of the TCP header holds the control bits; the two highest (CWR, ECE) are not ours.
    TcpFlags(tcp.header_slice()[13] & 0x3f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([10, 81, 1, 2], [10, 81, 9, 9], 64)
            .tcp(700, 2049, 0x0102_0304, 65_000)
            .ack(0x0a0b_0c0d)
            .psh();
        let mut out = Vec::new();
        builder.write(&mut out, payload).unwrap();
        out
    }

    #[test]
    fn a_segment_is_read_field_by_field() {
        let segment = Segment::decode(&frame(b"call")).unwrap();
        assert_eq!(segment.src.to_string(), "10.81.1.2:700");
        assert_eq!(segment.dst.to_string(), "10.81.9.9:2049");
        assert_eq!(segment.flags, TcpFlags::PSH | TcpFlags::ACK);
        assert_eq!((segment.seq, segment.ack, segment.payload_len), (0x0102_0304, 0x0a0b_0c0d, 4));
    }

    #[test]
    fn a_frame_cut_after_the_headers_keeps_its_length() {
        let whole = frame(&[7; 1000]);
        assert_eq!(Segment::decode(&whole[..54]).unwrap().payload_len, 1000);
    }

    #[test]
    fn cut_headers_and_noise_are_no_segments() {
        let whole = frame(b"x");
        for len in 0..54 {
            assert_eq!(Segment::decode(&whole[..len]), None, "{len} bytes");
        }
        let mut fragment = whole;
        fragment[20] = 0x20; // more fragments
        assert_eq!(Segment::decode(&fragment), None);
    }
}
