//! The balancer: the flow table with its ports to both sides.

use std::time::Instant;

use super::tcp::Packet;
use super::world::{Context, Event, Sender};
use crate::config::{Config, IdleAction};
use crate::packet::{BackendId, Direction, FiveTuple, Reset, ResetTo, Segment};
use crate::pool::Health;
use crate::table::{Decision, FlowTable};

#[derive(Debug)]
pub(super) struct Balancer {
    table: FlowTable,
    /// Whether expiry sends something, so that it must not wait for the next segment.
    wakes: bool,
    armed: Option<Instant>,
}

/// Where a client's SYN went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passage {
    pub(super) backend: BackendId,
    /// The backend is marked down: only the flow's entry made the SYN go there.
    pub(super) by_entry: bool,
    /// When the entry expires if nothing refreshes it.
    pub(super) frees_at: Option<Instant>,
}

impl Balancer {
    pub(super) fn new(config: Config, backends: &[BackendId], seed: u64) -> Self {
        let wakes = config.idle_action == IdleAction::RstBoth;
        Self { table: FlowTable::new(config, backends, seed), wakes, armed: None }
    }

    /// Treats a segment; says where it went if it was a client's SYN.
    pub(super) fn receive(
        &mut self,
        from: Direction,
        packet: Packet,
        cx: &mut Context<'_>,
    ) -> Option<Passage> {
        let decision = self.table.handle(from, &packet.segment, cx.now);
        self.wake(cx);
        match decision {
            Decision::Forward { backend } => {
                cx.deliver_to_backend(backend, packet);
                packet.segment.flags.is_lone_syn().then(|| self.passage(backend, &packet.segment.flow))
            }
            Decision::ToClient => {
                if let Direction::FromBackend(backend) = from {
                    cx.deliver_to_client(Sender::Backend(backend), packet);
                }
                None
            }
            Decision::Reset(reset) => {
                send(reset, cx);
                None
            }
            Decision::Drop(_) => None,
        }
    }

    pub(super) fn set_health(&mut self, backend: BackendId, health: Health, cx: &mut Context<'_>) {
        for reset in self.table.set_health(backend, health, cx.now) {
            send(reset, cx);
        }
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.armed = None;
        for reset in self.table.handle_timeout(cx.now) {
            send(reset, cx);
        }
        self.wake(cx);
    }

    fn passage(&self, backend: BackendId, flow: &FiveTuple) -> Passage {
        let by_entry = self.table.health(backend) == Some(Health::Down);
        Passage { backend, by_entry, frees_at: self.table.entry(flow).map(|entry| entry.expires_at) }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        if !self.wakes {
            return;
        }
        let Some(at) = self.table.poll_timeout() else { return };
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            cx.queue.push(at.max(cx.now), Event::BalancerTimer);
        }
    }
}

fn send(reset: Reset, cx: &mut Context<'_>) {
    let segment = Segment {
        flow: reset.flow,
        flags: reset.flags(),
        seq: reset.seq,
        ack: reset.ack.unwrap_or(0),
        payload_len: 0,
    };
    let packet = Packet { segment, message: None };
    match reset.to {
        ResetTo::Client => cx.deliver_to_client(Sender::Balancer, packet),
        ResetTo::Backend(backend) => cx.deliver_to_backend(backend, packet),
    }
}
