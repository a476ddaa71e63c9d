//! TCP segments as read from captured or forwarded frames.

use std::fmt;
use std::net::SocketAddrV4;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};

/// TCP control bits, as in the header (RFC 9293 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);

    /// Whether every bit of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those of `other`.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// SYN without ACK: the first segment of a connection attempt.
    pub const fn opens(self) -> bool {
        self.has(Self::SYN) && !self.has(Self::ACK)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Flags, &str); 5] = [
            (Flags::SYN, "SYN"),
            (Flags::FIN, "FIN"),
            (Flags::RST, "RST"),
            (Flags::PSH, "PSH"),
            (Flags::ACK, "ACK"),
        ];
        let set: Vec<&str> = NAMES.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name).collect();
        f.write_str(if set.is_empty() { "-" } else { "" })?;
        f.write_str(&set.join("|"))
    }
}

/// The header of one TCP segment over IPv4, and how much it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Sender.
    pub src: SocketAddrV4,
    /// Receiver.
    pub dst: SocketAddrV4,
    /// Control bits.
    pub flags: Flags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number; meaningless without [`Flags::ACK`].
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

    /// Sequence space the segment takes: its payload, plus one each for SYN and FIN.
    pub const fn sequence_len(&self) -> u32 {
        self.payload_len as u32 + self.flags.has(Flags::SYN) as u32 + self.flags.has(Flags::FIN) as u32
    }
}

fn flags_of(tcp: &TcpSlice<'_>) -> Flags {
    // Byte 13 of the TCP header holds the control bits; the two highest (CWR, ECE) are not ours.
    Flags(tcp.header_slice()[13] & 0x3f)
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
        assert_eq!(segment.flags, Flags::PSH.and(Flags::ACK));
        assert_eq!((segment.seq, segment.ack, segment.payload_len), (0x0102_0304, 0x0a0b_0c0d, 4));
        assert_eq!(format!("{:?}", segment.flags), "PSH|ACK");
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

    #[test]
    fn syn_and_fin_take_sequence_space() {
        let mut segment = Segment::decode(&frame(b"abc")).unwrap();
        assert_eq!(segment.sequence_len(), 3);
        segment.flags = Flags::SYN.and(Flags::FIN);
        assert_eq!(segment.sequence_len(), 5);
        assert!(segment.flags.opens());
    }
}
