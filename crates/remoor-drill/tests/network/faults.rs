//! What each fault does on the wire.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use remoor_drill::capture::{Capture, Frame, Tap};
use remoor_drill::fault::{Fault, FaultError, Mended};
use remoor_drill::topology::{Node, Topology};

use crate::Test;
use crate::bench::{PATIENCE, Server, connect, exchange};

pub(crate) const TESTS: &[Test] = &[
    ("a_silent_node_answers_nothing_and_resumes", a_silent_node_answers_nothing_and_resumes),
    ("a_killed_server_refuses", a_killed_server_refuses),
    ("a_stopped_server_accepts_and_says_nothing", a_stopped_server_accepts_and_says_nothing),
    ("a_fault_on_a_server_that_ended_is_reported", a_fault_on_a_server_that_ended_is_reported),
];

/// Several SYN and data retransmissions at the initial timeout of one second (RFC 6298) and less.
const OBSERVED: Duration = Duration::from_millis(2500);

fn fault(name: &str) -> Result<&'static Fault> {
    Fault::named(name).with_context(|| format!("no fault {name}"))
}

/// IP packets that a node's kernel took in since it was made (`InReceives`, counted by `ip_rcv_core`).
fn packets_heard(topology: &Topology, node: Node) -> Result<u64> {
    let counters = topology.node(node).run(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut ip = counters.lines().filter(|line| line.starts_with("Ip:")).map(str::split_whitespace);
    let (mut names, mut values) = (ip.next().context("no names")?, ip.next().context("no values")?);
    let column = names.position(|name| name == "InReceives").context("no column InReceives")?;
    Ok(values.nth(column).context("no value of InReceives")?.parse()?)
}

fn a_silent_node_answers_nothing_and_resumes() -> Result<()> {
    let topology = Topology::build()?;
    let server = Server::start(&topology, Node::A)?;
    let victim = server.victim(&topology);
    let (host, service) = (topology.balancer(), Topology::node_service(Node::A));
    let mut stream = connect(host, service, PATIENCE)??;
    exchange(&stream, b"before")?;

    let capture = Capture::start(&topology)?;
    fault("silent")?.inject(&victim)?;
    let heard = packets_heard(&topology, Node::A)?;
    let silenced = SystemTime::now().duration_since(UNIX_EPOCH)?;
    stream.write_all(b"into the void")?;
    // A closed UDP port is what a live kernel answers with ICMP, and a closed TCP port with RST.
    let probe = host.run(|| UdpSocket::bind("0.0.0.0:0"))??;
    probe.send_to(b"?", (*service.ip(), 9))?;
    let refused = connect(host, std::net::SocketAddrV4::new(*service.ip(), 9), OBSERVED)?;
    ensure!(refused.is_err_and(|e| e.kind() == ErrorKind::TimedOut), "a closed port was answered");
    ensure!(packets_heard(&topology, Node::A)? == heard, "the silent node's kernel took packets in");
    let recording = capture.finish()?;
    let after = |frame: &&Frame| frame.time > silenced;
    let frames = || recording.frames(Tap::Node(Node::A)).iter().filter(after);
    let received = frames().filter(|frame| !frame.outgoing).count();
    ensure!(received == 0, "{received} frames came from the silent node");
    let sent = frames().filter(|frame| frame.outgoing).count();
    ensure!(sent >= 5, "only {sent} frames were sent to the silent node: is its link down?");
    ensure!(frames().all(|frame| frame.data[12..14] == [8, 0]), "something else than IPv4 was sent");

    ensure!(fault("silent")?.mend(&victim)? == Mended::Resumed);
    let mut back = [0; 13];
    stream.read_exact(&mut back).context("TCP did not resume")?;
    ensure!(&back == b"into the void");
    exchange(&connect(host, service, PATIENCE)??, b"anew")
}

fn a_killed_server_refuses() -> Result<()> {
    let topology = Topology::build()?;
    let mut server = Server::start(&topology, Node::B)?;
    let service = Topology::node_service(Node::B);
    let mut stream = connect(topology.balancer(), service, PATIENCE)??;
    exchange(&stream, b"before")?;
    fault("kill")?.inject(&server.victim(&topology))?;
    server.process.wait()?;
    ensure!(stream.read(&mut [0; 1]).is_ok_and(|n| n == 0), "the connection was not closed");
    let again = connect(topology.balancer(), service, PATIENCE)?;
    ensure!(again.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused), "the port still listens");
    let victim = remoor_drill::fault::Victim { topology: &topology, node: Node::B, server: u32::MAX };
    ensure!(fault("kill")?.mend(&victim)? == Mended::StartServer);
    Ok(())
}

fn a_stopped_server_accepts_and_says_nothing() -> Result<()> {
    let topology = Topology::build()?;
    let server = Server::start(&topology, Node::A)?;
    let victim = server.victim(&topology);
    fault("stop")?.inject(&victim)?;
    let mut stream = connect(topology.balancer(), Topology::node_service(Node::A), PATIENCE)??;
    stream.write_all(b"anyone?")?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    let silence = stream.read(&mut [0; 8]);
    ensure!(silence.is_err_and(|e| e.kind() == ErrorKind::WouldBlock), "a stopped server answered");
    ensure!(fault("stop")?.mend(&victim)? == Mended::Resumed);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut back = [0; 7];
    stream.read_exact(&mut back)?;
    ensure!(&back == b"anyone?");
    Ok(())
}

fn a_fault_on_a_server_that_ended_is_reported() -> Result<()> {
    let topology = Topology::build()?;
    let mut server = Server::start(&topology, Node::A)?;
    server.process.kill()?;
    server.process.wait()?;
    let Err(error @ FaultError::Signal { .. }) = fault("stop")?.inject(&server.victim(&topology)) else {
        anyhow::bail!("the signal was sent to nobody without an error")
    };
    ensure!(error.to_string().contains(&server.process.id().to_string()), "{error}");
    Ok(())
}
