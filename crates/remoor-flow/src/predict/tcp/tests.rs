//! One socket against a peer that the test plays.

use super::*;
use crate::script::{self, flow};

const MS: Duration = Duration::from_millis(1);
const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);

/// A socket, and what it sends to a peer that the test plays.
struct Bench {
    socket: Socket,
    start: Instant,
    io: Io,
}

impl Bench {
    fn connecting(tcp: Tcp) -> Self {
        let (start, mut io) = (script::origin(), Io::default());
        let socket = Socket::connect(flow(940), 1000, tcp, Duration::ZERO, start, &mut io);
        Self { socket, start, io }
    }

    fn open(tcp: Tcp) -> Self {
        let mut bench = Self::connecting(tcp);
        bench.gets(SYN_ACK, 5000, 1001);
        assert_eq!(std::mem::take(&mut bench.io).signals, [Signal::Connected]);
        bench
    }

    fn gets(&mut self, flags: TcpFlags, seq: u32, ack: u32) {
        let segment = Segment { flow: flow(940), flags, seq, ack, payload_len: 0 };
        self.socket.receive(&Packet { segment, message: None }, self.start, &mut self.io);
    }

    fn sends(&mut self, len: u32) {
        self.socket.send(Message { xid: 1, len, born: self.start }, self.start, &mut self.io);
    }

    /// What was sent since the last call: flags, sequence number, length.
    fn sent(&mut self) -> Vec<(TcpFlags, u32, u32)> {
        let packets = std::mem::take(&mut self.io.packets).into_iter();
        packets.map(|packet| (packet.segment.flags, packet.segment.seq, packet.segment.payload_len)).collect()
    }

    /// Fires the timer `times` times; when that was, in milliseconds.
    fn expiries(&mut self, times: usize) -> Vec<u128> {
        let fire = || {
            let at = self.socket.deadline()?;
            self.socket.handle_timeout(at, &mut self.io);
            Some((at - self.start).as_millis())
        };
        std::iter::from_fn(fire).take(times).collect()
    }
}

/// Measured from 5.10 and 6.1: 1, 2, 4, 8, 16, 33 s; from 6.5: 1, 1, 1, 1, 1, 2, 4, 8, 17, 33 s.
#[test]
fn the_syn_timer_doubles_at_once_or_after_the_linear_ones() {
    for (syn_linear_timeouts, expected) in
        [(0, vec![1, 3, 7, 15, 31, 63, 127]), (4, vec![1, 2, 3, 4, 5, 7, 11, 19, 35, 67, 131])]
    {
        let mut bench = Bench::connecting(Tcp { syn_linear_timeouts, ..Tcp::default() });
        let secs: Vec<_> = bench.expiries(99).into_iter().map(|ms| ms / 1000).collect();
        assert_eq!(secs, expected);
        assert_eq!(bench.io.signals, [Signal::TimedOut]);
        assert!(bench.sent().iter().all(|sent| *sent == (TcpFlags::SYN, 1000, 0)), "one series, one number");
    }
}

/// Measured on Linux 6.18: 0.206, 0.422, 0.850, 1.686, 3.346 s, the first as a tail loss probe.
#[test]
fn retransmissions_come_when_linux_sends_them() {
    let mut bench = Bench::open(Tcp::default());
    bench.sends(100);
    assert_eq!(bench.expiries(1), [200]);
    assert_eq!(bench.socket.ack_state(bench.start + 250 * MS).retransmits, 0);
    assert_eq!(bench.expiries(4), [400, 800, 1600, 3200]);
    let ack = bench.socket.ack_state(bench.start + 3300 * MS);
    assert_eq!((ack.unacked_for, ack.retransmits), (Some(3300 * MS), 4));
    bench.gets(TcpFlags::ACK, 5001, 1101);
    assert_eq!(bench.socket.ack_state(bench.start), AckState::default());
    assert_eq!(bench.socket.deadline(), None);
}

#[test]
fn small_segments_are_retransmitted_together_and_large_ones_one_by_one() {
    for (len, expected) in [(100, 3), (4096, 1)] {
        let mut bench = Bench::open(Tcp::default());
        (0..3).for_each(|_| bench.sends(len));
        bench.sent();
        bench.expiries(1);
        assert_eq!(bench.sent().len(), expected);
    }
}

#[test]
fn the_user_timeout_ends_it_without_a_packet() {
    let mut bench = Bench::open(Tcp { user_timeout: Duration::from_secs(180), ..Tcp::default() });
    bench.sends(100);
    assert_eq!(bench.expiries(99).last(), Some(&180_000));
    assert_eq!(bench.io.signals, [Signal::TimedOut]);
    let last = bench.sent().pop();
    assert_eq!(last, Some((TcpFlags::ACK | TcpFlags::PSH, 1001, 100)));
}

#[test]
fn after_a_timeout_nothing_new_leaves_until_an_acknowledgement() {
    let mut bench = Bench::open(Tcp::default());
    bench.sends(100);
    bench.expiries(2);
    bench.sent();
    bench.sends(50);
    bench.socket.close(bench.start, &mut bench.io);
    assert_eq!(bench.sent(), []);
    bench.gets(TcpFlags::ACK, 5001, 1101);
    let expected = [(TcpFlags::ACK | TcpFlags::PSH, 1101, 50), (TcpFlags::FIN | TcpFlags::ACK, 1151, 0)];
    assert_eq!(bench.sent(), expected);
}

/// RFC 5961 section 3.2.
#[test]
fn only_an_exact_rst_resets() {
    let challenge = vec![(TcpFlags::ACK, 1001, 0)];
    for (seq, signals, sent) in [
        (5001, vec![Signal::Reset], vec![]),
        (5002, vec![], challenge),
        (5000, vec![], vec![]),
        (5001 + WINDOW + 1, vec![], vec![]),
    ] {
        let mut bench = Bench::open(Tcp::default());
        bench.sent();
        bench.gets(TcpFlags::RST, seq, 0);
        assert_eq!(bench.sent(), sent, "{seq}");
        assert_eq!(bench.io.signals, signals, "{seq}");
    }
}

/// RFC 5961 section 4, and RFC 9293 section 3.10.7.3 for the answer.
#[test]
fn a_syn_on_a_connection_is_challenged_and_the_challenge_is_answered_with_an_exact_rst() {
    let mut server = Bench::open(Tcp::default());
    server.sent();
    server.gets(TcpFlags::SYN, 77, 0);
    assert_eq!(server.sent(), [(TcpFlags::ACK, 1001, 0)]);
    let mut client = Bench::connecting(Tcp::default());
    client.sent();
    client.gets(TcpFlags::ACK, 9000, 4242);
    assert_eq!(client.sent(), [(TcpFlags::RST, 4242, 0)]);
    assert!(client.socket.is_connecting());
}

#[test]
fn a_refused_syn_counts_only_if_the_rst_acknowledges_it() {
    let mut bench = Bench::connecting(Tcp::default());
    bench.gets(TcpFlags::RST | TcpFlags::ACK, 0, 1000);
    assert!(bench.socket.is_connecting());
    bench.gets(TcpFlags::RST | TcpFlags::ACK, 0, 1001);
    assert_eq!((bench.io.signals.as_slice(), bench.socket.is_closed()), ([Signal::Refused].as_slice(), true));
}

#[test]
fn a_reset_with_data_in_flight_is_exact_for_both_that_saw_it_and_that_did_not() {
    let mut bench = Bench::open(Tcp::default());
    bench.sends(100);
    bench.sent();
    bench.socket.reset(true, &mut bench.io);
    let numbers: Vec<_> = bench.sent().iter().map(|(_, seq, _)| *seq).collect();
    assert_eq!(numbers, [1001, 1101]);
}
