//! A small TCP: handshake, data in order, retransmission, close and reset, for both ends.
//!
//! Modelled after Linux where failover depends on it: the SYN timer, the retransmission timer with a tail loss
//! probe before it, TCP_USER_TIMEOUT, and the challenge ACKs of RFC 5961. Windows, congestion and delayed
//! acknowledgements are not modelled: one segment carries one record and is sent at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use remoor_nfs::reconnect::AckState;

use crate::packet::{FiveTuple, Segment, TcpFlags};

/// `TCP_TIMEOUT_INIT`: the first SYN timer (RFC 6298 section 2).
const SYN_TIMER: Duration = Duration::from_secs(1);
/// `TCP_RTO_MIN`.
const RTO_MIN: Duration = Duration::from_millis(200);
/// `TCP_RTO_MAX`.
const RTO_MAX: Duration = Duration::from_secs(120);
/// `net.ipv4.tcp_synack_retries`.
const SYN_ACK_RETRIES: u32 = 5;
/// `TCP_TIMEOUT_MIN`, two ticks of 250 Hz, which a tail loss probe waits at least.
const PROBE_MIN: Duration = Duration::from_millis(8);
/// Octets of one segment on Ethernet with timestamps.
const MSS: u32 = 1448;
/// Octets within which a RST counts as in the window (RFC 5961 section 3.2); `net.ipv4.tcp_rmem` gives at least this.
const WINDOW: u32 = 65_535;

/// What the client's kernel is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// `net.ipv4.tcp_syn_retries`, or TCP_SYNCNT.
    pub syn_retries: u32,
    /// `net.ipv4.tcp_syn_linear_timeouts`: SYN retransmissions before the timer doubles, in addition to
    /// `syn_retries`. 4 from Linux 6.5, 0 before.
    pub syn_linear_timeouts: u32,
    /// TCP_USER_TIMEOUT; its default, 0, means what `net.ipv4.tcp_retries2` = 15 amounts to.
    pub user_timeout: Duration,
    /// Whether a FIN leaves although the congestion window is used up, as `tcp_cwnd_test` of Linux 6.1 has it.
    /// Linux 6.18 was seen to keep a FIN back once data was retransmitted, so that no balancer sees it.
    pub fin_ignores_window: bool,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            syn_retries: 6,
            syn_linear_timeouts: 4,
            user_timeout: Duration::from_millis(924_600),
            fin_ignores_window: false,
        }
    }
}

/// One RPC message on its way. Its bytes do not matter to the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) xid: u32,
    /// Octets, record mark included.
    pub(super) len: u32,
    /// When it was written to the socket.
    pub(super) born: Instant,
}

/// A segment with what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) segment: Segment,
    pub(super) message: Option<Message>,
}

/// What the socket tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The handshake is complete.
    Connected,
    /// A RST answered the SYN.
    Refused,
    /// A whole message arrived.
    Received(Message),
    /// The peer sent its FIN.
    Finished,
    /// A RST ended the connection.
    Reset,
    /// The kernel gave up; nothing was sent.
    TimedOut,
}

/// What a call on a socket leads to, in order.
#[derive(Debug, Default)]
pub(super) struct Io {
    pub(super) packets: Vec<Packet>,
    pub(super) signals: Vec<Signal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SynSent,
    SynRecv,
    /// From ESTABLISHED until both FINs are acknowledged.
    Open,
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    seq: u32,
    message: Message,
}

/// One end of one connection.
#[derive(Debug)]
pub(super) struct Socket {
    state: State,
    /// Initial sequence number.
    pub(super) isn: u32,
    flow: FiveTuple,
    tcp: Tcp,
    rto: Duration,
    snd_nxt: u32,
    snd_una: u32,
    rcv_nxt: u32,
    /// Written but kept back: after a timeout the congestion window is one segment, and that is out.
    held: VecDeque<Message>,
    /// A FIN is due after `held`.
    fin_held: bool,
    /// Sent but not acknowledged, in order.
    in_flight: VecDeque<Sent>,
    /// Sequence number of our FIN, once it was sent.
    fin: Option<u32>,
    peer_finished: bool,
    deadline: Option<Instant>,
    /// Timer expiries since the peer last acknowledged something new.
    retransmits: u32,
    /// The tail loss probe of this flight was sent.
    probed: bool,
    /// When the first unacknowledged octet was sent.
    unacked_since: Instant,
    last_ack: Instant,
}

impl Socket {
    /// Sends the first SYN.
    pub(super) fn connect(
        flow: FiveTuple,
        isn: u32,
        tcp: Tcp,
        round_trip: Duration,
        now: Instant,
        io: &mut Io,
    ) -> Self {
        let socket = Self::new(State::SynSent, flow, isn, 0, tcp, round_trip, now);
        socket.emit(TcpFlags::SYN, isn, None, io);
        socket
    }

    /// Answers a SYN.
    pub(super) fn accept(syn: &Segment, isn: u32, round_trip: Duration, now: Instant, io: &mut Io) -> Self {
        let tcp = Tcp { syn_retries: SYN_ACK_RETRIES, syn_linear_timeouts: 0, ..Tcp::default() };
        let socket = Self::new(State::SynRecv, syn.flow, isn, syn.end(), tcp, round_trip, now);
        socket.emit(TcpFlags::SYN | TcpFlags::ACK, isn, None, io);
        socket
    }

    fn new(
        state: State,
        flow: FiveTuple,
        isn: u32,
        rcv_nxt: u32,
        tcp: Tcp,
        round_trip: Duration,
        now: Instant,
    ) -> Self {
        Self {
            state,
            isn,
            flow,
            tcp,
            // RFC 6298 section 2 with the variance of a steady path, which Linux bounds by TCP_RTO_MIN.
            rto: RTO_MIN + round_trip,
            snd_nxt: isn.wrapping_add(1),
            snd_una: isn,
            rcv_nxt,
            held: VecDeque::new(),
            fin_held: false,
            in_flight: VecDeque::new(),
            fin: None,
            peer_finished: false,
            deadline: Some(now + SYN_TIMER),
            retransmits: 0,
            probed: false,
            unacked_since: now,
            last_ack: now,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the SYN has no acceptable answer yet.
    pub(super) fn is_connecting(&self) -> bool {
        self.state == State::SynSent
    }

    /// Whether the peer's FIN has come.
    pub(super) fn peer_finished(&self) -> bool {
        self.peer_finished
    }

    /// What TCP_INFO says of unacknowledged bytes.
    pub(super) fn ack_state(&self, now: Instant) -> AckState {
        let unacked = self.snd_una != self.snd_nxt;
        let unacked_for = unacked.then(|| now.saturating_duration_since(self.last_ack));
        AckState { unacked_for, retransmits: if unacked { self.retransmits } else { 0 } }
    }

    pub(super) fn send(&mut self, message: Message, now: Instant, io: &mut Io) {
        if self.state != State::Open || self.fin.is_some() || self.fin_held {
            return;
        }
        self.held.push_back(message);
        self.push(now, io);
    }

    /// close(2): a FIN after all that was written.
    pub(super) fn close(&mut self, now: Instant, io: &mut Io) {
        if self.state != State::Open {
            self.end(io, None);
        } else if self.fin.is_none() {
            self.fin_held = true;
            self.push(now, io);
        }
    }

    /// Sends what the congestion window allows.
    fn push(&mut self, now: Instant, io: &mut Io) {
        let recovers = self.retransmits > 0;
        while let Some(message) = self.held.pop_front_if(|_| !recovers) {
            let sent = Sent { seq: self.snd_nxt, message };
            self.in_flight.push_back(sent);
            self.snd_nxt = self.snd_nxt.wrapping_add(message.len);
            self.arm_if_idle(now);
            self.emit(TcpFlags::ACK | TcpFlags::PSH, sent.seq, Some(message), io);
        }
        let fin_may_leave = self.held.is_empty() && (!recovers || self.tcp.fin_ignores_window);
        if self.fin_held && fin_may_leave {
            let seq = self.snd_nxt;
            self.fin_held = false;
            self.fin = Some(seq);
            self.snd_nxt = seq.wrapping_add(1);
            self.arm_if_idle(now);
            self.emit(TcpFlags::FIN | TcpFlags::ACK, seq, None, io);
        }
    }

    /// close(2) with SO_LINGER 0: a RST, but none before the handshake (`tcp_need_reset`). Its number is that after
    /// all that was sent; with `exact`, one with the number the peer acknowledged last goes before it.
    pub(super) fn reset(&mut self, exact: bool, io: &mut Io) {
        if self.state == State::Open {
            if exact && self.snd_una != self.snd_nxt {
                self.emit(TcpFlags::RST | TcpFlags::ACK, self.snd_una, None, io);
            }
            self.emit(TcpFlags::RST | TcpFlags::ACK, self.snd_nxt, None, io);
        }
        self.end(io, None);
    }

    /// A FIN and its copy, whatever is in flight; then the socket is gone.
    pub(super) fn finish_and_forget(&mut self, io: &mut Io) {
        if self.state == State::Open && self.fin.is_none() {
            for _ in 0..2 {
                self.emit(TcpFlags::FIN | TcpFlags::ACK, self.snd_nxt, None, io);
            }
        }
        self.end(io, None);
    }

    /// Fires the timer.
    pub(super) fn handle_timeout(&mut self, now: Instant, io: &mut Io) {
        self.deadline = None;
        match self.state {
            State::SynSent => self.repeat_handshake(TcpFlags::SYN, now, io),
            State::SynRecv => self.repeat_handshake(TcpFlags::SYN | TcpFlags::ACK, now, io),
            State::Open if now >= self.unacked_since + self.tcp.user_timeout => {
                self.end(io, Some(Signal::TimedOut));
            }
            State::Open => self.retransmit(now, io),
            State::Closed => {}
        }
    }

    /// Takes a segment of this connection.
    pub(super) fn receive(&mut self, packet: &Packet, now: Instant, io: &mut Io) {
        match self.state {
            State::SynSent => self.receive_in_syn_sent(&packet.segment, now, io),
            State::SynRecv => self.receive_in_syn_recv(packet, now, io),
            State::Open => self.receive_open(packet, now, io),
            State::Closed => {}
        }
    }

    fn receive_in_syn_sent(&mut self, segment: &Segment, now: Instant, io: &mut Io) {
        let acks_syn = segment.flags.contains(TcpFlags::ACK) && segment.ack == self.snd_nxt;
        if segment.flags.contains(TcpFlags::RST) {
            if acks_syn {
                self.end(io, Some(Signal::Refused));
            }
        } else if segment.flags.contains(TcpFlags::SYN | TcpFlags::ACK) && acks_syn {
            self.rcv_nxt = segment.end();
            self.opened(now);
            self.acknowledge(io);
            io.signals.push(Signal::Connected);
        } else if segment.flags.contains(TcpFlags::ACK) && !acks_syn {
            // RFC 9293 section 3.10.7.3: the peer still holds an older connection; this RST ends it.
            self.emit(TcpFlags::RST, segment.ack, None, io);
        }
    }

    fn receive_in_syn_recv(&mut self, packet: &Packet, now: Instant, io: &mut Io) {
        let segment = &packet.segment;
        if segment.flags.contains(TcpFlags::RST) {
            if segment.seq == self.rcv_nxt {
                self.end(io, None);
            }
        } else if segment.flags.contains(TcpFlags::SYN) {
            self.emit(TcpFlags::SYN | TcpFlags::ACK, self.isn, None, io);
        } else if segment.flags.contains(TcpFlags::ACK) && segment.ack == self.snd_nxt {
            self.opened(now);
            io.signals.push(Signal::Connected);
            self.receive_open(packet, now, io);
        }
    }

    fn receive_open(&mut self, packet: &Packet, now: Instant, io: &mut Io) {
        let segment = &packet.segment;
        if segment.flags.contains(TcpFlags::RST) {
            return self.receive_reset(segment, io);
        }
        if segment.flags.contains(TcpFlags::SYN) {
            // RFC 5961 section 4.2: a challenge ACK, whatever the sequence number.
            return self.acknowledge(io);
        }
        if segment.flags.contains(TcpFlags::ACK) {
            self.take_ack(segment.ack, now, io);
        }
        let fin = segment.flags.contains(TcpFlags::FIN);
        if packet.message.is_some() || fin {
            self.take_data(packet, fin, io);
        }
        if self.peer_finished && self.fin.is_some_and(|fin| after(self.snd_una, fin)) {
            self.end(io, None);
        }
    }

    /// RFC 5961 section 3.2: only the exact sequence number resets, any other in the window is challenged.
    fn receive_reset(&mut self, segment: &Segment, io: &mut Io) {
        match segment.seq.wrapping_sub(self.rcv_nxt) {
            0 => self.end(io, Some(Signal::Reset)),
            1..=WINDOW => self.acknowledge(io),
            _ => {}
        }
    }

    fn take_ack(&mut self, ack: u32, now: Instant, io: &mut Io) {
        if after(ack, self.snd_nxt) {
            return self.acknowledge(io);
        }
        self.last_ack = now;
        if !after(ack, self.snd_una) {
            return;
        }
        self.snd_una = ack;
        while self.in_flight.front().is_some_and(|sent| !after(sent.seq.wrapping_add(sent.message.len), ack))
        {
            self.in_flight.pop_front();
        }
        let lost = self.retransmits > 0;
        self.retransmits = 0;
        self.probed = false;
        self.deadline = None;
        if self.snd_una != self.snd_nxt {
            self.arm_if_idle(now);
            if lost {
                self.resend(self.in_flight.len(), io);
            }
        }
        self.push(now, io);
    }

    fn take_data(&mut self, packet: &Packet, fin: bool, io: &mut Io) {
        let segment = &packet.segment;
        let in_order = segment.seq == self.rcv_nxt && !self.peer_finished;
        let fin_alone = fin && segment.seq.wrapping_add(segment.payload_len) == self.rcv_nxt;
        if in_order {
            self.rcv_nxt = segment.end();
        } else if fin_alone && !self.peer_finished {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        }
        self.acknowledge(io);
        if let Some(message) = packet.message.filter(|_| in_order) {
            io.signals.push(Signal::Received(message));
        }
        if fin && (in_order || fin_alone) && !std::mem::replace(&mut self.peer_finished, true) {
            io.signals.push(Signal::Finished);
        }
    }

    fn repeat_handshake(&mut self, flags: TcpFlags, now: Instant, io: &mut Io) {
        if self.retransmits >= self.tcp.syn_retries + self.tcp.syn_linear_timeouts {
            return self.end(io, Some(Signal::TimedOut));
        }
        self.retransmits += 1;
        let doublings = self.retransmits.saturating_sub(self.tcp.syn_linear_timeouts);
        self.deadline = Some(now + doubled(SYN_TIMER, doublings));
        self.emit(flags, self.isn, None, io);
    }

    /// The first expiry sends the tail loss probe of RFC 8985 section 7, which does not count as a retransmission.
    fn retransmit(&mut self, now: Instant, io: &mut Io) {
        if std::mem::replace(&mut self.probed, true) {
            self.retransmits += 1;
        }
        let wait = doubled(self.rto, self.retransmits);
        self.deadline = Some((now + wait).min(self.unacked_since + self.tcp.user_timeout).max(now + RTO_MIN));
        let small = self.in_flight.iter().scan(0u32, |octets, sent| {
            *octets = octets.saturating_add(sent.message.len);
            (*octets <= MSS).then_some(())
        });
        let together = small.count().max(1);
        self.resend(together, io);
    }

    /// Sends the oldest `count` segments again; with all of them goes the FIN. Linux joins those that fit into one
    /// (`tcp_retrans_try_collapse`), which a balancer cannot tell from a burst.
    fn resend(&self, count: usize, io: &mut Io) {
        let all = count >= self.in_flight.len();
        let fin = if all && self.fin.is_some() { TcpFlags::FIN } else { TcpFlags::default() };
        for sent in self.in_flight.iter().take(count) {
            let last = self.in_flight.back().is_some_and(|back| back.seq == sent.seq);
            let flags = TcpFlags::ACK | TcpFlags::PSH | if last { fin } else { TcpFlags::default() };
            self.emit(flags, sent.seq, Some(sent.message), io);
        }
        if let Some(seq) = self.fin.filter(|_| self.in_flight.is_empty()) {
            self.emit(TcpFlags::ACK | TcpFlags::FIN, seq, None, io);
        }
    }

    fn opened(&mut self, now: Instant) {
        self.state = State::Open;
        self.snd_una = self.snd_nxt;
        self.retransmits = 0;
        self.deadline = None;
        self.last_ack = now;
    }

    /// Starts the timer of a new flight, or puts its tail loss probe off (`tcp_schedule_loss_probe`).
    fn arm_if_idle(&mut self, now: Instant) {
        if self.deadline.is_none() {
            self.unacked_since = now;
        } else if self.probed {
            return;
        }
        let octets = self.in_flight.iter().fold(0u32, |sum, sent| sum.saturating_add(sent.message.len));
        let one_segment = octets <= MSS && self.in_flight.len() <= 1;
        let probe = if one_segment { self.rto } else { (self.rto - RTO_MIN) * 2 + PROBE_MIN };
        self.deadline = Some((now + probe).min(self.unacked_since + self.rto));
    }

    fn end(&mut self, io: &mut Io, signal: Option<Signal>) {
        self.state = State::Closed;
        self.deadline = None;
        io.signals.extend(signal);
    }

    fn acknowledge(&self, io: &mut Io) {
        self.emit(TcpFlags::ACK, self.snd_nxt, None, io);
    }

    fn emit(&self, flags: TcpFlags, seq: u32, message: Option<Message>, io: &mut Io) {
        let payload_len = message.map_or(0, |message| message.len);
        let ack = if flags.contains(TcpFlags::ACK) { self.rcv_nxt } else { 0 };
        let segment = Segment { flow: self.flow, flags, seq, ack, payload_len };
        io.packets.push(Packet { segment, message });
    }
}

fn doubled(timer: Duration, times: u32) -> Duration {
    timer.saturating_mul(1 << times.min(16)).min(RTO_MAX)
}

/// Whether sequence number `a` is later than `b` (RFC 9293 section 3.4).
fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

#[cfg(test)]
mod tests;
