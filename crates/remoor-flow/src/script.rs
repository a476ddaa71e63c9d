//! Plays one client's segments through a table, for tests: `A` is preferred, `B` is the other backend.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::packet::{BackendId, FiveTuple, Segment, TcpFlags};
use crate::pool::Health;
use crate::preset;
use crate::table::{Decision, DropReason, EntryView, FlowTable};

pub(crate) const A: BackendId = BackendId(0);
pub(crate) const B: BackendId = BackendId(1);
pub(crate) const TO_A: Decision = Decision::Forward { backend: A };
pub(crate) const TO_B: Decision = Decision::Forward { backend: B };

/// Next sequence numbers of both ends after the handshake of [`Script::establish`].
pub(crate) const CLIENT_NEXT: u32 = 1001;
pub(crate) const BACKEND_NEXT: u32 = 5001;

pub(crate) const SYN: TcpFlags = TcpFlags::SYN;
pub(crate) const ACK: TcpFlags = TcpFlags::ACK;
pub(crate) const RST: TcpFlags = TcpFlags::RST;
pub(crate) const FIN_ACK: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
pub(crate) const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);

pub(crate) const fn dropped(reason: DropReason) -> Decision {
    Decision::Drop(reason)
}

pub(crate) fn flow(client_port: u16) -> FiveTuple {
    FiveTuple { client: ([192, 0, 2, 1], client_port).into(), service: ([192, 0, 2, 100], 2049).into() }
}

#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin; the value is never compared")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

pub(crate) struct Script {
    pub(crate) table: FlowTable,
    pub(crate) flow: FiveTuple,
    start: Instant,
    now: Instant,
}

impl Script {
    /// A table of the preset `name`.
    pub(crate) fn of(name: &str) -> Self {
        Self::with(preset::find(name).unwrap().config)
    }

    pub(crate) fn with(config: Config) -> Self {
        let start = origin();
        Self { table: FlowTable::new(config, &[A, B], 7), flow: flow(940), start, now: start }
    }

    /// Moves the clock to `secs` after the start.
    pub(crate) fn at(&mut self, secs: f64) -> &mut Self {
        self.now = self.start + Duration::from_secs_f64(secs);
        self
    }

    /// The handshake of port 940 with the backend that is chosen, at the present time.
    pub(crate) fn establish(&mut self) -> &mut Self {
        let Decision::Forward { backend } = self.syn(CLIENT_NEXT - 1) else {
            panic!("SYN was not forwarded")
        };
        self.reply(backend, SYN_ACK, BACKEND_NEXT - 1, CLIENT_NEXT, 0);
        self.client(ACK, CLIENT_NEXT, BACKEND_NEXT, 0);
        self
    }

    pub(crate) fn syn(&mut self, isn: u32) -> Decision {
        self.client(SYN, isn, 0, 0)
    }

    /// A SYN of another client port.
    pub(crate) fn syn_from(&mut self, client_port: u16) -> Decision {
        let segment = Segment { flow: flow(client_port), flags: SYN, seq: 77, ack: 0, payload_len: 0 };
        self.table.from_client(&segment, self.now)
    }

    pub(crate) fn client(&mut self, flags: TcpFlags, seq: u32, ack: u32, payload_len: u32) -> Decision {
        self.table.from_client(&Segment { flow: self.flow, flags, seq, ack, payload_len }, self.now)
    }

    /// 100 octets that follow the handshake.
    pub(crate) fn data(&mut self) -> Decision {
        self.client(ACK, CLIENT_NEXT, BACKEND_NEXT, 100)
    }

    pub(crate) fn reply(
        &mut self,
        from: BackendId,
        flags: TcpFlags,
        seq: u32,
        ack: u32,
        len: u32,
    ) -> Decision {
        let segment = Segment { flow: self.flow, flags, seq, ack, payload_len: len };
        self.table.from_backend(from, &segment, self.now)
    }

    pub(crate) fn health(&mut self, backend: BackendId, health: Health) -> Vec<crate::packet::Reset> {
        self.table.set_health(backend, health, self.now)
    }

    pub(crate) fn down(&mut self, backend: BackendId) -> &mut Self {
        self.health(backend, Health::Down);
        self
    }

    pub(crate) fn timeout(&mut self) -> Vec<crate::packet::Reset> {
        self.table.handle_timeout(self.now)
    }

    pub(crate) fn entry(&self) -> EntryView {
        self.table.entry(&self.flow).expect("the flow has an entry")
    }

    /// When the flow frees, in seconds after the start.
    pub(crate) fn frees_at(&self) -> f64 {
        (self.entry().expires_at - self.start).as_secs_f64()
    }
}
