//! The parts of a TCP/IP header that a balancer decides on.

use std::fmt;
use std::net::SocketAddr;
use std::ops::BitOr;

use serde::Serialize;

/// A server behind the balancer, by its position in the operator's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct BackendId(pub u16);

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {}", self.0)
    }
}

/// A TCP flow as the client sees it. The fifth element, the protocol, is always TCP.
///
/// Segments from a backend carry the same value: the driver undoes its address translation first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct FiveTuple {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The address and port the client connects to.
    pub service: SocketAddr,
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.client, self.service)
    }
}

/// TCP control bits, in the bit order of RFC 9293 section 3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push function.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Self = Self(0x10);

    /// Whether every bit of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether this opens a connection: SYN without ACK and without RST.
    pub fn is_lone_syn(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0 | Self::RST.0) == Self::SYN.0
    }

    /// These bits without those of `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One TCP segment, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The flow, seen from the client, in both directions.
    pub flow: FiveTuple,
    /// Control bits.
    pub flags: TcpFlags,
    /// Sequence number of the first octet; of a SYN, the initial sequence number.
    pub seq: u32,
    /// Acknowledgment number; meaningless without [`TcpFlags::ACK`].
    pub ack: u32,
    /// Payload octets.
    pub payload_len: u32,
}

impl Segment {
    /// The sequence number after this segment: SYN and FIN count one each (RFC 9293 section 3.4).
    pub fn end(&self) -> u32 {
        let control = [TcpFlags::SYN, TcpFlags::FIN].iter().filter(|bit| self.flags.contains(**bit)).count();
        self.seq.wrapping_add(self.payload_len).wrapping_add(control as u32)
    }
}

/// Where a segment came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client's side.
    FromClient,
    /// From a backend.
    FromBackend(BackendId),
}

/// A RST for the driver to send, exact enough to be accepted under RFC 5961 section 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The flow that ends.
    pub flow: FiveTuple,
    /// Who receives the RST; its source is the other end of the flow.
    pub to: ResetTo,
    /// Sequence number: what the receiver expects next.
    pub seq: u32,
    /// Acknowledgment number; `Some` means RST|ACK, `None` a RST without ACK.
    pub ack: Option<u32>,
}

impl Reset {
    /// The answer of RFC 9293 section 3.5.2 to a segment that fits no connection.
    pub fn answering(segment: &Segment, from: Direction) -> Self {
        let (seq, ack) = match segment.flags.contains(TcpFlags::ACK) {
            true => (segment.ack, None),
            false => (0, Some(segment.end())),
        };
        Self { flow: segment.flow, to: from.into(), seq, ack }
    }

    /// The control bits of the RST.
    pub fn flags(&self) -> TcpFlags {
        match self.ack {
            Some(_) => TcpFlags::RST | TcpFlags::ACK,
            None => TcpFlags::RST,
        }
    }
}

/// The end of a flow that a [`Reset`] goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// The client.
    Client,
    /// A backend.
    Backend(BackendId),
}

impl From<Direction> for ResetTo {
    fn from(sender: Direction) -> Self {
        match sender {
            Direction::FromClient => Self::Client,
            Direction::FromBackend(backend) => Self::Backend(backend),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: TcpFlags, seq: u32, ack: u32, payload_len: u32) -> Segment {
        let flow = FiveTuple {
            client: "192.0.2.1:940".parse().unwrap(),
            service: "192.0.2.100:2049".parse().unwrap(),
        };
        Segment { flow, flags, seq, ack, payload_len }
    }

    #[test]
    fn syn_and_fin_take_one_sequence_number_and_wrap() {
        assert_eq!(segment(TcpFlags::SYN, u32::MAX, 0, 0).end(), 0);
        assert_eq!(segment(TcpFlags::FIN | TcpFlags::ACK, 10, 1, 5).end(), 16);
        assert_eq!(segment(TcpFlags::ACK, 10, 1, 0).end(), 10);
    }

    #[test]
    fn a_lone_syn_has_neither_ack_nor_rst() {
        assert!(TcpFlags::SYN.is_lone_syn());
        assert!(!(TcpFlags::SYN | TcpFlags::ACK).is_lone_syn());
        assert!(!(TcpFlags::SYN | TcpFlags::RST).is_lone_syn());
    }

    #[test]
    fn a_reset_takes_its_numbers_from_the_segment_it_answers() {
        let to_data = Reset::answering(&segment(TcpFlags::ACK, 100, 700, 8), Direction::FromClient);
        assert_eq!((to_data.seq, to_data.ack, to_data.to), (700, None, ResetTo::Client));
        assert_eq!(to_data.flags(), TcpFlags::RST);
        let to_syn =
            Reset::answering(&segment(TcpFlags::SYN, 41, 0, 0), Direction::FromBackend(BackendId(1)));
        assert_eq!((to_syn.seq, to_syn.ack, to_syn.to), (0, Some(42), ResetTo::Backend(BackendId(1))));
        assert_eq!(to_syn.flags(), TcpFlags::RST | TcpFlags::ACK);
    }
}
