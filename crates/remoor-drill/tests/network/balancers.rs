//! Both balancers on the wire, and the model of nf_conntrack against nf_conntrack itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use remoor_drill::attempts::{Attempt, attempts};
use remoor_drill::balancer::{Balancer, BalancerError, FlowView, KernelBalancer, ModelBalancer};
use remoor_drill::capture::{Capture, Sighting, Tap};
use remoor_drill::fault::{restore, silence};
use remoor_drill::namespace::Host;
use remoor_drill::topology::{Node, SERVICE, Topology};
use remoor_flow::{Config, Health, IdleAction, OnBackendDown, TcpFlags, preset};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Test;
use crate::bench::{PATIENCE, Server, connect, exchange};

pub(crate) const TESTS: &[Test] = &[
    ("every_balancer_carries_both_directions", every_balancer_carries_both_directions),
    ("the_client_keeps_its_address", the_client_keeps_its_address),
    ("a_reused_port_is_pinned_where_the_model_says_so", a_reused_port_is_pinned_where_the_model_says_so),
    ("the_kernel_and_its_model_hold_the_same_flows", the_kernel_and_its_model_hold_the_same_flows),
    ("new_flows_follow_health_there_and_back", new_flows_follow_health_there_and_back),
    ("resets_at_a_health_change_are_accepted", resets_at_a_health_change_are_accepted),
    ("an_idle_entry_that_expires_resets_both_ends", an_idle_entry_that_expires_resets_both_ends),
    ("the_balancers_host_answers_nothing", the_balancers_host_answers_nothing),
    ("with_no_node_up_the_kernel_stays_silent", with_no_node_up_the_kernel_stays_silent),
];

const SEED: u64 = 7;
const KERNEL: &str = "kernel";

/// A reserved port, as `resvport` uses.
const PORT: u16 = 700;

/// What a client has in flight when its node dies.
const IN_FLIGHT: &[u8] = b"in flight";

/// How long a connect that is to be pinned is watched: its SYN and one retransmission.
const PINNED: Duration = Duration::from_millis(1300);

/// Starts a balancer by name; `None`, with a note, when this machine lacks what it needs.
pub(crate) fn start(topology: &Topology, name: &str) -> Result<Option<Box<dyn Balancer>>> {
    if name != KERNEL {
        let config = preset::find(name)?.config;
        return Ok(Some(Box::new(ModelBalancer::start(topology, config, SEED)?)));
    }
    match KernelBalancer::start(topology) {
        Ok(balancer) => Ok(Some(Box::new(balancer))),
        Err(error @ BalancerError::NoNft(_)) => {
            println!("SKIPPED the kernel balancer: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A network with an echo server on both nodes.
struct Stage {
    topology: Topology,
    _servers: [Server; 2],
}

impl Stage {
    fn build() -> Result<Self> {
        let topology = Topology::build()?;
        let _servers = [Server::start(&topology, Node::A)?, Server::start(&topology, Node::B)?];
        Ok(Self { topology, _servers })
    }

    fn connect(&self) -> Result<TcpStream> {
        Ok(connect(self.topology.client(), SERVICE, PATIENCE)??)
    }

    fn fail(&self, balancer: &mut dyn Balancer, node: Node) -> Result<()> {
        silence(&self.topology, node)?;
        Ok(balancer.set_health(node, Health::Down)?)
    }
}

/// Connects from a given port of a host, as a client that rebinds does.
fn connect_from(host: &Host, port: u16, timeout: Duration) -> Result<std::io::Result<TcpStream>> {
    let source = SocketAddrV4::new(Topology::client_link().far.address, port);
    let socket = host.run(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)))??;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(source).into())?;
    let connected = socket.connect_timeout(&SocketAddr::from(SERVICE).into(), timeout);
    Ok(connected.map(|()| TcpStream::from(socket)))
}

/// How a client leaves a connection to a dead node.
#[derive(Debug, Clone, Copy)]
enum Abandon {
    /// TCP_USER_TIMEOUT with data in flight: no packet.
    Silent,
    /// SO_LINGER 0: a RST.
    Reset,
    /// shutdown(2): a FIN that is never acknowledged, and then no packet.
    Close,
}

fn abandon(stream: TcpStream, how: Abandon) -> Result<()> {
    let socket = Socket::from(stream);
    match how {
        Abandon::Reset => socket.set_linger(Some(Duration::ZERO))?,
        Abandon::Close => {
            socket.shutdown(Shutdown::Write)?;
            give_up(&socket)?;
        }
        Abandon::Silent => {
            (&socket).write_all(IN_FLIGHT)?;
            give_up(&socket)?;
        }
    }
    Ok(())
}

/// Waits until the socket has ended without a packet: TCP_USER_TIMEOUT, a few retransmissions long.
fn give_up(mut socket: &Socket) -> Result<()> {
    socket.set_tcp_user_timeout(Some(Duration::from_millis(500)))?;
    let ended = socket.read(&mut [0; 1]);
    ensure!(ended.is_err_and(|e| e.kind() == ErrorKind::TimedOut), "the socket did not give up");
    Ok(())
}

fn every_balancer_carries_both_directions() -> Result<()> {
    for name in ["azure-standard", "nf-conntrack", "aws-nlb", KERNEL] {
        let stage = Stage::build()?;
        let Some(_balancer) = start(&stage.topology, name)? else { continue };
        let capture = Capture::start(&stage.topology)?;
        let stream = stage.connect().with_context(|| name.to_owned())?;
        ensure!(stream.peer_addr()? == SocketAddr::V4(SERVICE));
        exchange(&stream, &[b'r'; 1 << 20]).with_context(|| name.to_owned())?;
        let recording = capture.finish()?;
        let [attempt] = &attempts(&recording.sightings(), SERVICE)[..] else {
            bail!("{name}: one connection")
        };
        let node = attempt.connected_to().with_context(|| format!("{name}: {attempt:?}"))?;
        ensure!(attempt.forwarded_to == [node] && attempt.source_port == stream.local_addr()?.port());
    }
    Ok(())
}

fn the_client_keeps_its_address() -> Result<()> {
    for name in ["nf-conntrack", KERNEL] {
        let stage = Stage::build()?;
        let Some(balancer) = start(&stage.topology, name)? else { continue };
        let stream = stage.connect()?;
        exchange(&stream, b"x")?;
        let [flow] = &balancer.flows()?[..] else { bail!("{name} holds one flow") };
        ensure!(SocketAddr::V4(flow.client) == stream.local_addr()?, "{name}: {flow:?}");
        ensure!(flow.node == Node::A, "{name}: {flow:?}");
    }
    Ok(())
}

/// One failover: connect from PORT to A, lose A, leave, come back from PORT and then from another port.
fn come_back(name: &str, how: Abandon) -> Result<Option<[Attempt; 2]>> {
    let stage = Stage::build()?;
    let Some(mut balancer) = start(&stage.topology, name)? else { return Ok(None) };
    let host = stage.topology.client();
    let stream = connect_on_a(&stage, balancer.as_ref())?;
    let port = stream.local_addr()?.port();
    stage.fail(balancer.as_mut(), Node::A)?;
    abandon(stream, how)?;
    let capture = Capture::start(&stage.topology)?;
    // Its outcome is read off the wire.
    let _same = connect_from(host, port, PINNED)?;
    let _fresh = connect_from(host, port - 1, PINNED)?;
    let recording = capture.finish()?;
    let seen = attempts(&recording.sightings(), SERVICE);
    let [same, fresh] =
        <[Attempt; 2]>::try_from(seen).map_err(|seen| anyhow::anyhow!("two attempts: {seen:?}"))?;
    Ok(Some([same, fresh]))
}

/// A balancer that hashes may choose B at first; some port near PORT leads to A.
fn connect_on_a(stage: &Stage, balancer: &dyn Balancer) -> Result<TcpStream> {
    for port in (PORT - 40..=PORT).rev().step_by(2) {
        let stream = connect_from(stage.topology.client(), port, PATIENCE)??;
        stream.set_read_timeout(Some(PATIENCE))?;
        exchange(&stream, b"x")?;
        if balancer.flows()?.iter().any(|flow| flow.client.port() == port && flow.node == Node::A) {
            return Ok(stream);
        }
    }
    bail!("no port leads to node A")
}

fn a_reused_port_is_pinned_where_the_model_says_so() -> Result<()> {
    let cases = [
        ("azure-standard", Abandon::Silent, true),
        ("azure-standard", Abandon::Reset, true),
        ("nf-conntrack", Abandon::Silent, true),
        ("nf-conntrack", Abandon::Reset, false),
        (KERNEL, Abandon::Silent, true),
        (KERNEL, Abandon::Reset, false),
    ];
    for (name, how, pinned) in cases {
        let Some([same, fresh]) = come_back(name, how)? else { continue };
        let case = || format!("{name}, {how:?}: {same:?}");
        if pinned {
            ensure!(same.forwarded_to == [Node::A] && same.answer.is_none(), case());
            ensure!(!same.retransmissions.is_empty(), case());
        } else {
            ensure!(same.connected_to() == Some(Node::B) && same.retransmissions.is_empty(), case());
        }
        ensure!(fresh.connected_to() == Some(Node::B), "{name}, {how:?}: {fresh:?}");
    }
    Ok(())
}

/// The flow of a connection that its client left while A was silent.
fn left_behind(name: &str, how: Abandon) -> Result<Option<FlowView>> {
    let stage = Stage::build()?;
    let Some(mut balancer) = start(&stage.topology, name)? else { return Ok(None) };
    let capture = Capture::start(&stage.topology)?;
    let stream = connect_on_a(&stage, balancer.as_ref())?;
    stage.fail(balancer.as_mut(), Node::A)?;
    abandon(stream, how)?;
    // A flow has seen what shows on the node's side. After its first retransmission a FIN changes nothing more.
    let deadline = Instant::now() + PATIENCE;
    let crossed = || capture.sightings().iter().filter(|sighting| is_last(sighting, how)).count();
    while crossed() < if matches!(how, Abandon::Close) { 2 } else { 1 } {
        ensure!(Instant::now() < deadline, "{name}, {how:?}: nothing crossed the balancer");
        std::thread::yield_now();
    }
    Ok(balancer.flows()?.into_iter().find(|flow| flow.node == Node::A))
}

/// Whether a segment on its way to node A is the last kind that a client sends which leaves as `how` says.
fn is_last(sighting: &Sighting, how: Abandon) -> bool {
    let segment = &sighting.segment;
    let last = match how {
        Abandon::Silent => segment.payload_len == IN_FLIGHT.len(),
        Abandon::Reset => segment.flags.contains(TcpFlags::RST),
        Abandon::Close => segment.flags.contains(TcpFlags::FIN),
    };
    last && sighting.tap == Tap::Node(Node::A) && sighting.outgoing
}

fn the_kernel_and_its_model_hold_the_same_flows() -> Result<()> {
    for how in [Abandon::Silent, Abandon::Reset, Abandon::Close] {
        let Some(kernel) = left_behind(KERNEL, how)? else { return Ok(()) };
        let model =
            left_behind("nf-conntrack", how)?.with_context(|| format!("{how:?}: no flow in the model"))?;
        ensure!(kernel.state == model.state, "{how:?}: kernel {kernel:?}, model {model:?}");
        let apart = kernel.expires_in.abs_diff(model.expires_in);
        ensure!(apart < Duration::from_secs(3), "{how:?}: kernel {kernel:?}, model {model:?}");
    }
    Ok(())
}

fn new_flows_follow_health_there_and_back() -> Result<()> {
    for name in ["azure-standard", "nf-conntrack", "aws-nlb", KERNEL] {
        let stage = Stage::build()?;
        let Some(mut balancer) = start(&stage.topology, name)? else { continue };
        let capture = Capture::start(&stage.topology)?;
        for round in 0..4 {
            let down = Node::ALL[round % 2];
            stage.fail(balancer.as_mut(), down)?;
            exchange(&stage.connect()?, b"still there?").with_context(|| format!("{name}, {down} down"))?;
            restore(&stage.topology, down)?;
            balancer.set_health(down, Health::Up)?;
        }
        let served: Vec<_> =
            attempts(&capture.sightings(), SERVICE).iter().map(Attempt::connected_to).collect();
        let expected = [Node::B, Node::A, Node::B, Node::A].map(Some);
        ensure!(served == expected, "{name}: {served:?}");
    }
    Ok(())
}

/// A balancer of the model with one thing changed.
fn changed(stage: &Stage, change: impl FnOnce(&mut Config)) -> Result<ModelBalancer> {
    let mut config = preset::find("nf-conntrack")?.config;
    change(&mut config);
    Ok(ModelBalancer::start(&stage.topology, config, SEED)?)
}

fn resets_at_a_health_change_are_accepted() -> Result<()> {
    let stage = Stage::build()?;
    let mut balancer = changed(&stage, |config| config.on_backend_down = OnBackendDown::RstNow)?;
    let mut stream = stage.connect()?;
    exchange(&stream, b"known to both ends")?;
    silence(&stage.topology, Node::A)?;
    stream.write_all(b"unanswered")?;
    balancer.set_health(Node::A, Health::Down)?;
    let ended = stream.read(&mut [0; 1]);
    ensure!(ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset), "the client took no notice");
    ensure!(balancer.counters().resets > 0 && balancer.flows()?.is_empty());
    Ok(())
}

fn an_idle_entry_that_expires_resets_both_ends() -> Result<()> {
    let stage = Stage::build()?;
    let balancer = changed(&stage, |config| {
        config.idle_action = IdleAction::RstBoth;
        config.timers.established = Duration::from_millis(300);
    })?;
    let mut stream = stage.connect()?;
    exchange(&stream, b"then idle")?;
    let ended = stream.read(&mut [0; 1]);
    ensure!(ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset), "the client took no notice");
    ensure!(balancer.counters().expired == 1);
    Ok(())
}

fn the_balancers_host_answers_nothing() -> Result<()> {
    let stage = Stage::build()?;
    let balancer = changed(&stage, |_| {})?;
    let capture = Capture::start(&stage.topology)?;
    let other_port = SocketAddrV4::new(*SERVICE.ip(), 1);
    let other_service = SocketAddrV4::new([10, 81, 77, 7].into(), SERVICE.port());
    for nowhere in [other_port, other_service] {
        let refused = connect(stage.topology.client(), nowhere, PINNED)?;
        ensure!(refused.is_err_and(|e| e.kind() == ErrorKind::TimedOut), "{nowhere} was answered");
    }
    let recording = capture.finish()?;
    ensure!(recording.frames(Tap::Client).iter().all(|frame| frame.outgoing), "something came back");
    ensure!(balancer.traffic().ignored >= 2, "{:?}", balancer.traffic());
    Ok(())
}

fn with_no_node_up_the_kernel_stays_silent() -> Result<()> {
    let stage = Stage::build()?;
    let Some(mut balancer) = start(&stage.topology, KERNEL)? else { return Ok(()) };
    for node in Node::ALL {
        balancer.set_health(node, Health::Down)?;
    }
    let refused = connect(stage.topology.client(), SERVICE, PINNED)?;
    ensure!(refused.is_err_and(|e| e.kind() == ErrorKind::TimedOut), "the service was answered");
    balancer.set_health(Node::B, Health::Up)?;
    exchange(&stage.connect()?, b"B serves")
}
