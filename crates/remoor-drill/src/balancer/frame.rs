//! Readdressing of TCP segments in place, and RSTs made from nothing.

use std::net::SocketAddrV4;

use etherparse::PacketBuilder;
use remoor_flow::TcpFlags;

use crate::link::Mac;
use crate::segment::Segment;

const ETHERNET_LEN: usize = 14;
const IPV4_MIN_LEN: usize = 20;
const TCP_MIN_LEN: usize = 20;

/// Where a checksum and the address words it covers lie in an IPv4 header.
const IP_TTL: usize = 8;
const IP_CHECKSUM: usize = 10;
const IP_SOURCE: usize = 12;
const IP_DESTINATION: usize = 16;
const TCP_SOURCE: usize = 0;
const TCP_DESTINATION: usize = 2;
const TCP_CHECKSUM: usize = 16;

/// The time to live of a RST made here, as the kernel's own.
const RST_TTL: u8 = 64;

/// A whole, unfragmented TCP segment over IPv4 in an Ethernet frame.
#[derive(Debug)]
pub(super) struct TcpFrame<'a> {
    bytes: &'a mut [u8],
    /// Where the TCP header starts.
    tcp: usize,
}

/// Which end of a segment an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

impl<'a> TcpFrame<'a> {
    /// Takes a frame apart; `None` for all that is no whole TCP segment. Padding after the segment is cut off.
    pub(super) fn parse(frame: &'a mut [u8]) -> Option<(Self, Segment)> {
        let segment = Segment::decode(frame)?;
        let ip_header_len = usize::from(frame[ETHERNET_LEN] & 0x0f) * 4;
        let total_len = usize::from(word(frame, ETHERNET_LEN + 2));
        let tcp = ETHERNET_LEN + ip_header_len;
        let bytes = frame.get_mut(..ETHERNET_LEN + total_len)?;
        let whole = ip_header_len >= IPV4_MIN_LEN && bytes.len() >= tcp + TCP_MIN_LEN;
        whole.then_some((Self { bytes, tcp }, segment))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    pub(super) fn set_stations(&mut self, from: Mac, to: Mac) {
        self.bytes[..6].copy_from_slice(&to.0);
        self.bytes[6..12].copy_from_slice(&from.0);
    }

    /// Counts this hop; `false` when the segment has used up its time to live and must not go on.
    pub(super) fn decrement_ttl(&mut self) -> bool {
        let at = ETHERNET_LEN + IP_TTL;
        if self.bytes[at] <= 1 {
            return false;
        }
        let (old, protocol) = (self.bytes[at], self.bytes[at + 1]);
        self.set_ip_word(IP_TTL, u16::from_be_bytes([old - 1, protocol]));
        true
    }

    /// Replaces the address and port of one end and mends both checksums; the TCP checksum covers the addresses
    /// through its pseudo-header (RFC 9293 §3.1).
    pub(super) fn set_address(&mut self, side: Side, to: SocketAddrV4) {
        let (ip_at, port_at) = match side {
            Side::Source => (IP_SOURCE, TCP_SOURCE),
            Side::Destination => (IP_DESTINATION, TCP_DESTINATION),
        };
        let [a, b, c, d] = to.ip().octets();
        for (offset, new) in [(0, u16::from_be_bytes([a, b])), (2, u16::from_be_bytes([c, d]))] {
            let old = self.set_ip_word(ip_at + offset, new);
            self.mend(self.tcp + TCP_CHECKSUM, old, new);
        }
        let old = put_word(self.bytes, self.tcp + port_at, to.port());
        self.mend(self.tcp + TCP_CHECKSUM, old, to.port());
    }

    fn set_ip_word(&mut self, at: usize, new: u16) -> u16 {
        let old = put_word(self.bytes, ETHERNET_LEN + at, new);
        self.mend(ETHERNET_LEN + IP_CHECKSUM, old, new);
        old
    }

    /// RFC 1624 equation 3: HC' = ~(~HC + ~m + m'). A wrong checksum stays wrong, so that damage is not hidden.
    fn mend(&mut self, checksum_at: usize, old: u16, new: u16) {
        let sum = u32::from(!word(self.bytes, checksum_at)) + u32::from(!old) + u32::from(new);
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        put_word(self.bytes, checksum_at, !(folded as u16));
    }
}

/// A RST to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rst {
    pub(super) stations: (Mac, Mac),
    pub(super) src: SocketAddrV4,
    pub(super) dst: SocketAddrV4,
    pub(super) seq: u32,
    /// `Some`: RST|ACK.
    pub(super) ack: Option<u32>,
}

impl Rst {
    pub(super) fn frame(&self) -> Vec<u8> {
        let (from, to) = self.stations;
        let ip = PacketBuilder::ethernet2(from.0, to.0).ipv4(
            self.src.ip().octets(),
            self.dst.ip().octets(),
            RST_TTL,
        );
        let rst = ip.tcp(self.src.port(), self.dst.port(), self.seq, 0).rst();
        let rst = match self.ack {
            Some(ack) => rst.ack(ack),
            None => rst,
        };
        let mut frame = Vec::with_capacity(rst.size(0));
        // Only a payload beyond 64 KiB or a failing writer can be refused, and there is neither.
        if rst.write(&mut frame, &[]).is_err() {
            frame.clear();
        }
        frame
    }
}

/// The model's view of a segment, whose ends the caller names: addresses differ on the two sides of a balancer.
pub(super) fn flow_segment(
    segment: &Segment,
    client: SocketAddrV4,
    service: SocketAddrV4,
) -> remoor_flow::Segment {
    remoor_flow::Segment {
        flow: remoor_flow::FiveTuple { client: client.into(), service: service.into() },
        flags: TcpFlags(segment.flags.0),
        seq: segment.seq,
        ack: segment.ack,
        payload_len: segment.payload_len as u32,
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Stores a word and returns what was there.
fn put_word(bytes: &mut [u8], at: usize, new: u16) -> u16 {
    let old = word(bytes, at);
    bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
    old
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    const CLIENT: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 81, 1, 2), 700);
    const SERVICE: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 81, 9, 9), 2049);
    const MACS: (Mac, Mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));

    fn call(ttl: u8, payload: &[u8]) -> Vec<u8> {
        let ip = PacketBuilder::ethernet2(MACS.0.0, MACS.1.0).ipv4(
            CLIENT.ip().octets(),
            SERVICE.ip().octets(),
            ttl,
        );
        let tcp = ip.tcp(CLIENT.port(), SERVICE.port(), 1, 65_000).ack(2);
        let mut frame = Vec::new();
        tcp.write(&mut frame, payload).unwrap();
        frame
    }

    /// Both checksums computed anew equal those in the frame.
    fn checksums_hold(frame: &[u8]) -> bool {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport)
        else {
            return false;
        };
        let (source, destination) = (ip.header().source(), ip.header().destination());
        ip.header().to_header().calc_header_checksum() == ip.header().header_checksum()
            && tcp.calc_checksum_ipv4(source, destination).unwrap() == tcp.checksum()
    }

    #[test]
    fn readdressing_keeps_both_checksums_right() {
        for port in [0, 1, 2049, 0x7fff, 0xffff] {
            for last in [0, 1, 127, 254, 255] {
                let to = SocketAddrV4::new([last, 81, 255 - last, last].into(), port);
                for side in [Side::Source, Side::Destination] {
                    let mut frame = call(64, b"odd length!");
                    let (mut tcp, _) = TcpFrame::parse(&mut frame).unwrap();
                    tcp.set_address(side, to);
                    assert!(tcp.decrement_ttl());
                    assert!(checksums_hold(&frame), "{side:?} {to}");
                    let segment = Segment::decode(&frame).unwrap();
                    assert_eq!(if side == Side::Source { segment.src } else { segment.dst }, to);
                }
            }
        }
    }

    #[test]
    fn a_damaged_segment_stays_damaged() {
        let mut frame = call(64, b"payload");
        *frame.last_mut().unwrap() ^= 1;
        let (mut tcp, _) = TcpFrame::parse(&mut frame).unwrap();
        tcp.set_address(Side::Destination, "10.81.2.2:2049".parse().unwrap());
        assert!(!checksums_hold(&frame));
    }

    #[test]
    fn the_last_hop_is_the_end() {
        let mut frame = call(1, b"");
        let (mut tcp, _) = TcpFrame::parse(&mut frame).unwrap();
        assert!(!tcp.decrement_ttl());
        let mut frame = call(2, b"");
        let (mut tcp, _) = TcpFrame::parse(&mut frame).unwrap();
        assert!(tcp.decrement_ttl());
        assert!(!tcp.decrement_ttl());
    }

    #[test]
    fn padding_is_cut_and_a_cut_segment_is_refused() {
        let mut padded = call(64, b"");
        let length = padded.len();
        padded.extend([0; 6]);
        assert_eq!(TcpFrame::parse(&mut padded).unwrap().0.bytes().len(), length);
        let mut cut = call(64, b"payload");
        cut.pop();
        assert!(TcpFrame::parse(&mut cut).is_none());
    }

    #[test]
    fn a_rst_is_whole_and_right() {
        let rst = Rst { stations: MACS, src: SERVICE, dst: CLIENT, seq: 5, ack: Some(9) };
        let frame = rst.frame();
        assert!(checksums_hold(&frame));
        let segment = Segment::decode(&frame).unwrap();
        assert_eq!(segment.flags, TcpFlags::RST | TcpFlags::ACK);
        assert_eq!((segment.seq, segment.ack, segment.payload_len), (5, 9, 0));
        let bare = Segment::decode(&Rst { ack: None, ..rst }.frame()).unwrap();
        assert_eq!(bare.flags, TcpFlags::RST);
    }
}
