//! A flow-table model that forwards real packets.
//!
//! It reads frames from packet sockets on the balancer's three interfaces and writes them out readdressed. The host's
//! kernel takes no part: forwarding is off and the service address is on none of its interfaces, so it drops what
//! the model reads (`ip_route_input_slow`, no route and no forwarding: no ICMP either). Anything but TCP between the
//! client and the service is dropped.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use remoor_flow::{
    BackendId, Config, Counters, Decision, EntryView, FlowTable, Health, Reset, ResetTo, TcpState,
};
use rustix::event::Timespec;

use super::frame::{Rst, Side, TcpFrame, flow_segment};
use super::{Balancer, BalancerError, FlowView};
use crate::link::{Mac, index_of};
use crate::segment::Segment;
use crate::stop::{StopSignal, Woken};
use crate::sys::{Direction, PacketSocket};
use crate::topology::{Link, Node, SERVICE, Topology};

/// Frames taken from one interface before the others have their turn.
const BATCH_FRAMES: usize = 64;

/// The largest frame an interface here can carry.
const MAX_FRAME_BYTES: usize = 65_535 + 14;

/// Kernel buffer of each interface's socket.
const SOCKET_BUFFER_BYTES: i32 = 4 << 20;

/// A balancer whose every decision a [`FlowTable`] makes.
#[derive(Debug)]
pub struct ModelBalancer {
    forwarder: Arc<Forwarder>,
    thread: Option<JoinHandle<()>>,
}

/// What the forwarding thread did, beyond the table's own counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames that are not TCP between the client and the service, or have no hop left.
    pub ignored: u64,
    /// Frames the kernel did not take.
    pub unsent: u64,
}

impl ModelBalancer {
    /// Starts forwarding by `config`; both nodes are up. `seed` keys the table's hash.
    ///
    /// # Errors
    /// [`BalancerError`] when a packet socket cannot be opened.
    pub fn start(topology: &Topology, config: Config, seed: u64) -> Result<Self, BalancerError> {
        let backends = Node::ALL.map(backend_of);
        let forwarder = Arc::new(Forwarder {
            stop: StopSignal::new()
                .map_err(|source| BalancerError::Socket { interface: "every interface", source })?,
            ports: Ports::open(topology)?,
            table: Mutex::new(FlowTable::new(config, &backends, seed)),
            ignored: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
        });
        let worker = Arc::clone(&forwarder);
        let thread = topology.balancer().spawn_thread("balancer", move || worker.forward_until_stopped())?;
        Ok(Self { forwarder, thread: Some(thread) })
    }

    /// The table's counters.
    pub fn counters(&self) -> Counters {
        self.forwarder.table().counters()
    }

    /// The forwarding thread's own counters.
    pub fn traffic(&self) -> Traffic {
        let Forwarder { ignored, unsent, .. } = &*self.forwarder;
        Traffic { ignored: ignored.load(Ordering::Relaxed), unsent: unsent.load(Ordering::Relaxed) }
    }

    /// The entry of the flow from `client`.
    pub fn entry(&self, client: SocketAddrV4) -> Option<EntryView> {
        let flow = remoor_flow::FiveTuple { client: client.into(), service: SERVICE.into() };
        self.forwarder.table().entry(&flow)
    }
}

impl Balancer for ModelBalancer {
    fn set_health(&mut self, node: Node, health: Health) -> Result<(), BalancerError> {
        let mut table = self.forwarder.table();
        // Under the lock, so that `now` never goes backwards from one call to the next.
        let resets = table.set_health(backend_of(node), health, Instant::now());
        self.forwarder.send_resets(&resets);
        Ok(())
    }

    fn flows(&self) -> Result<Vec<FlowView>, BalancerError> {
        let table = self.forwarder.table();
        let now = Instant::now();
        Ok(table.entries().filter_map(|entry| view(&entry, now)).collect())
    }
}

impl Drop for ModelBalancer {
    fn drop(&mut self) {
        self.forwarder.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            thread.join().ok();
        }
    }
}

#[derive(Debug)]
struct Forwarder {
    stop: StopSignal,
    ports: Ports,
    table: Mutex<FlowTable>,
    ignored: AtomicU64,
    unsent: AtomicU64,
}

/// The balancer's interfaces.
#[derive(Debug)]
struct Ports {
    client: PacketSocket,
    nodes: [PacketSocket; 2],
}

impl Ports {
    fn open(topology: &Topology) -> Result<Self, BalancerError> {
        topology.balancer().run(|| {
            let [a, b] = Node::ALL.map(|node| open_port(Topology::node_link(node)));
            Ok(Self { client: open_port(Topology::client_link())?, nodes: [a?, b?] })
        })?
    }
}

fn open_port(link: &Link) -> Result<PacketSocket, BalancerError> {
    let interface = link.near.interface;
    let open = |index| PacketSocket::open(index)?.without_outgoing()?.with_buffer(SOCKET_BUFFER_BYTES);
    open(index_of(interface)?).map_err(|source| BalancerError::Socket { interface, source })
}

impl Forwarder {
    fn forward_until_stopped(&self) {
        let mut buffer = vec![0; MAX_FRAME_BYTES];
        let sources: [&dyn AsFd; 3] = [&self.ports.client, &self.ports.nodes[0], &self.ports.nodes[1]];
        loop {
            match self.stop.wait(&sources, self.until_timeout()) {
                Ok(Woken::Ready) => self.take_turn(&mut buffer),
                Ok(Woken::Stopped) => return,
                Err(error) => return tracing::error!(%error, "the balancer cannot wait for packets and ends"),
            }
        }
    }

    fn take_turn(&self, buffer: &mut [u8]) {
        self.drain(&self.ports.client, buffer, |frame| self.client_frame(frame));
        for node in Node::ALL {
            self.drain(&self.ports.nodes[node.index()], buffer, |frame| self.node_frame(node, frame));
        }
        let mut table = self.table();
        let resets = table.handle_timeout(Instant::now());
        self.send_resets(&resets);
    }

    fn until_timeout(&self) -> Option<Timespec> {
        let at = self.table().poll_timeout()?;
        let left = at.saturating_duration_since(Instant::now());
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() })
    }

    fn drain(&self, port: &PacketSocket, buffer: &mut [u8], forward: impl Fn(&mut [u8]) -> io::Result<bool>) {
        for _ in 0..BATCH_FRAMES {
            // An interface that went down reports it once and is empty then; it may come up again.
            let Ok(Some(info)) = port.recv(buffer) else { return };
            let Some(frame) = buffer.get_mut(..info.wire_len).filter(|_| info.direction == Direction::In)
            else {
                continue;
            };
            match forward(frame) {
                Ok(true) => {}
                Ok(false) => count(&self.ignored),
                Err(_) => count(&self.unsent),
            }
        }
    }

    /// Handles a frame from the client; `false` when it is not for the service.
    fn client_frame(&self, frame: &mut [u8]) -> io::Result<bool> {
        let Some((mut frame, segment)) = TcpFrame::parse(frame) else { return Ok(false) };
        if segment.dst != SERVICE || !frame.decrement_ttl() {
            return Ok(false);
        }
        let seen = flow_segment(&segment, segment.src, SERVICE);
        let decision = {
            let mut table = self.table();
            table.from_client(&seen, Instant::now())
        };
        self.execute(decision, frame, &segment)
    }

    /// Handles a frame from a node; `false` when it is not from its server.
    fn node_frame(&self, node: Node, frame: &mut [u8]) -> io::Result<bool> {
        let Some((mut frame, segment)) = TcpFrame::parse(frame) else { return Ok(false) };
        if segment.src != Topology::node_service(node) || !frame.decrement_ttl() {
            return Ok(false);
        }
        let seen = flow_segment(&segment, segment.dst, SERVICE);
        let decision = {
            let mut table = self.table();
            table.from_backend(backend_of(node), &seen, Instant::now())
        };
        self.execute(decision, frame, &segment)
    }

    fn execute(&self, decision: Decision, mut frame: TcpFrame<'_>, segment: &Segment) -> io::Result<bool> {
        match decision {
            Decision::Forward { backend } => {
                let Some(node) = node_of(backend) else { return Ok(false) };
                frame.set_address(Side::Destination, Topology::node_service(node));
                send(&self.ports.nodes[node.index()], Topology::node_link(node), frame)?;
            }
            Decision::ToClient => {
                frame.set_address(Side::Source, SERVICE);
                send(&self.ports.client, Topology::client_link(), frame)?;
            }
            Decision::Reset(reset) => self.send_reset(&reset)?,
            Decision::Drop(reason) => tracing::debug!(?segment, ?reason, "balancer dropped a segment"),
        }
        Ok(true)
    }

    fn send_resets(&self, resets: &[Reset]) {
        for reset in resets {
            if self.send_reset(reset).is_err() {
                count(&self.unsent);
            }
        }
    }

    fn send_reset(&self, reset: &Reset) -> io::Result<()> {
        // The drill's network is IPv4 only, and so is every flow in the table.
        let SocketAddr::V4(client) = reset.flow.client else { return Ok(()) };
        let (port, link, src, dst) = match reset.to {
            ResetTo::Client => (&self.ports.client, Topology::client_link(), SERVICE, client),
            ResetTo::Backend(backend) => {
                let Some(node) = node_of(backend) else { return Ok(()) };
                let (port, link) = (&self.ports.nodes[node.index()], Topology::node_link(node));
                (port, link, client, Topology::node_service(node))
            }
        };
        let rst = Rst { stations: stations(link), src, dst, seq: reset.seq, ack: reset.ack };
        port.send(&rst.frame())
    }

    /// A panic between two calls of the table leaves it consistent.
    fn table(&self) -> MutexGuard<'_, FlowTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(port: &PacketSocket, link: &Link, mut frame: TcpFrame<'_>) -> io::Result<()> {
    let (from, to) = stations(link);
    frame.set_stations(from, to);
    port.send(frame.bytes())
}

const fn stations(link: &Link) -> (Mac, Mac) {
    (link.near.mac(), link.far.mac())
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

const fn backend_of(node: Node) -> BackendId {
    BackendId(node as u16)
}

fn node_of(backend: BackendId) -> Option<Node> {
    Node::ALL.into_iter().find(|node| backend_of(*node) == backend)
}

fn view(entry: &EntryView, now: Instant) -> Option<FlowView> {
    let SocketAddr::V4(client) = entry.flow.client else { return None };
    let expires_in = entry.expires_at.checked_duration_since(now).unwrap_or(Duration::ZERO);
    Some(FlowView { client, node: node_of(entry.backend)?, state: state_name(entry.state), expires_in })
}

/// As /proc/net/nf_conntrack spells it: `SYN_SENT` for `SynSent`.
fn state_name(state: TcpState) -> String {
    let mut name = String::new();
    for letter in format!("{state:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_and_nodes_map_both_ways() {
        for node in Node::ALL {
            assert_eq!(node_of(backend_of(node)), Some(node));
        }
        assert_eq!(node_of(BackendId(2)), None);
    }

    #[test]
    fn states_are_spelled_as_the_kernel_does() {
        assert_eq!(state_name(TcpState::Established), "ESTABLISHED");
        assert_eq!(state_name(TcpState::LastAck), "LAST_ACK");
    }
}
