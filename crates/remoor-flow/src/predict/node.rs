//! An NFS server behind the balancer: its kernel, and the process that may die or stop under it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::RngExt;

use super::tcp::{Io, Message, Packet, Signal, Socket};
use super::world::{Context, Event};
use crate::packet::{BackendId, Direction, Reset, Segment, TcpFlags};

/// Octets of a reply, record mark included; none of the workload's calls has a longer one.
const REPLY_LEN: u32 = 140;
/// Connections that wait for accept(2) while the process is stopped: `net.core.somaxconn`.
const BACKLOG: usize = 4096;

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Serving,
    /// Nothing reaches it and nothing leaves it; within, it goes on.
    Silent,
    /// The process does not run; the kernel does.
    Stopped,
    /// The process is gone; the kernel is there.
    Dead,
}

/// The process's end of one connection.
#[derive(Debug)]
struct Connection {
    socket: Socket,
    /// Calls in the receive queue.
    unread: VecDeque<Message>,
    /// When the socket's timer was last put into the queue.
    armed: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: BackendId,
    pub(super) condition: Condition,
    service_time: Duration,
    round_trip: Duration,
    /// By the client's port; there is one client.
    connections: BTreeMap<u16, Connection>,
}

impl Node {
    pub(super) fn new(id: BackendId, service_time: Duration, round_trip: Duration) -> Self {
        Self { id, condition: Condition::Serving, service_time, round_trip, connections: BTreeMap::new() }
    }

    /// A segment has come in.
    pub(super) fn receive(&mut self, packet: &Packet, cx: &mut Context<'_>) {
        if self.condition == Condition::Silent {
            return;
        }
        let port = packet.segment.flow.client.port();
        let mut io = Io::default();
        match self.connections.get_mut(&port) {
            Some(connection) => connection.socket.receive(packet, cx.now, &mut io),
            None => self.receive_without_socket(packet, cx, &mut io),
        }
        self.carry_out(port, io, cx);
    }

    /// The timer of a connection may be due.
    pub(super) fn handle_timeout(&mut self, port: u16, cx: &mut Context<'_>) {
        let Some(connection) = self.connections.get_mut(&port) else { return };
        let mut io = Io::default();
        if connection.socket.deadline().is_some_and(|at| at <= cx.now) {
            connection.socket.handle_timeout(cx.now, &mut io);
            connection.armed = None;
        }
        self.carry_out(port, io, cx);
    }

    /// The process has carried out a call that came from `port`.
    pub(super) fn served(&mut self, port: u16, isn: u32, call: Message, cx: &mut Context<'_>) {
        let Some(connection) = self.connections.get_mut(&port).filter(|c| c.socket.isn == isn) else {
            return;
        };
        match self.condition {
            Condition::Dead => {}
            Condition::Stopped => connection.unread.push_back(call),
            Condition::Serving | Condition::Silent => {
                let mut io = Io::default();
                let reply = Message { len: REPLY_LEN, born: cx.now, ..call };
                connection.socket.send(reply, cx.now, &mut io);
                self.carry_out(port, io, cx);
            }
        }
    }

    /// The process is killed: the kernel closes its sockets, with a RST where calls are unread (RFC 2525 section
    /// 2.17) and a FIN elsewhere.
    pub(super) fn kill(&mut self, cx: &mut Context<'_>) {
        self.condition = Condition::Dead;
        for port in self.ports() {
            let mut io = Io::default();
            if let Some(connection) = self.connections.get_mut(&port) {
                match connection.unread.is_empty() {
                    true => connection.socket.close(cx.now, &mut io),
                    false => connection.socket.reset(false, &mut io),
                }
            }
            self.carry_out(port, io, cx);
        }
    }

    /// The process runs again and reads what was queued, or the path is back.
    pub(super) fn recover(&mut self, cx: &mut Context<'_>) {
        self.condition = Condition::Serving;
        for port in self.ports() {
            let mut io = Io::default();
            if let Some(connection) = self.connections.get_mut(&port) {
                let isn = connection.socket.isn;
                for call in connection.unread.drain(..) {
                    cx.after(self.service_time, Event::Served { backend: self.id, port, isn, call });
                }
                if connection.socket.peer_finished() {
                    connection.socket.close(cx.now, &mut io);
                }
            }
            self.carry_out(port, io, cx);
        }
    }

    fn ports(&self) -> Vec<u16> {
        self.connections.keys().copied().collect()
    }

    fn receive_without_socket(&mut self, packet: &Packet, cx: &mut Context<'_>, io: &mut Io) {
        let segment = &packet.segment;
        let listening = self.condition != Condition::Dead && self.connections.len() < BACKLOG;
        if segment.flags.is_lone_syn() && listening {
            let socket = Socket::accept(segment, cx.rng.random(), self.round_trip, cx.now, io);
            let connection = Connection { socket, unread: VecDeque::new(), armed: None };
            self.connections.insert(segment.flow.client.port(), connection);
        } else {
            io.packets.extend(refusal(segment));
        }
    }

    fn carry_out(&mut self, port: u16, io: Io, cx: &mut Context<'_>) {
        if self.condition != Condition::Silent {
            for packet in io.packets {
                cx.send(Direction::FromBackend(self.id), packet);
            }
        }
        for signal in io.signals {
            self.take(port, signal, cx);
        }
        let Some(connection) = self.connections.get_mut(&port) else { return };
        if connection.socket.is_closed() {
            self.connections.remove(&port);
        } else if connection.armed != connection.socket.deadline() {
            connection.armed = connection.socket.deadline();
            if let Some(at) = connection.armed {
                cx.queue.push(at, Event::NodeTimer { backend: self.id, port });
            }
        }
    }

    fn take(&mut self, port: u16, signal: Signal, cx: &mut Context<'_>) {
        let Some(connection) = self.connections.get_mut(&port) else { return };
        let stopped = self.condition == Condition::Stopped;
        match signal {
            Signal::Received(call) if stopped => connection.unread.push_back(call),
            Signal::Received(call) => {
                let isn = connection.socket.isn;
                cx.after(self.service_time, Event::Served { backend: self.id, port, isn, call });
            }
            Signal::Finished if !stopped => {
                let mut io = Io::default();
                connection.socket.close(cx.now, &mut io);
                self.carry_out(port, io, cx);
            }
            Signal::Finished | Signal::Connected | Signal::Refused | Signal::Reset | Signal::TimedOut => {}
        }
    }
}

/// What a kernel answers to a segment that no socket is for (RFC 9293 section 3.10.7.1).
pub(super) fn refusal(segment: &Segment) -> Option<Packet> {
    if segment.flags.contains(TcpFlags::RST) {
        return None;
    }
    let reset = Reset::answering(segment, Direction::FromClient);
    let answer = Segment {
        flow: reset.flow,
        flags: reset.flags(),
        seq: reset.seq,
        ack: reset.ack.unwrap_or(0),
        payload_len: 0,
    };
    Some(Packet { segment: answer, message: None })
}
