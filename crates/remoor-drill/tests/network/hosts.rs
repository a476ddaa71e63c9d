//! Hosts, links and what becomes of processes.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, ensure};
use remoor_drill::namespace::enter_private;
use remoor_drill::topology::{Node, Topology};

use crate::Test;
use crate::bench::{PATIENCE, Server, connect, exchange};

pub(crate) const TESTS: &[Test] = &[
    ("both_nodes_are_reached_from_the_balancer", both_nodes_are_reached_from_the_balancer),
    ("hosts_do_not_share_ports", hosts_do_not_share_ports),
    ("processes_end_with_their_host", processes_end_with_their_host),
    ("processes_end_with_a_drill_that_is_killed", processes_end_with_a_drill_that_is_killed),
    ("a_missing_program_is_named", a_missing_program_is_named),
    ("reserved_ports_can_be_bound", reserved_ports_can_be_bound),
];

fn both_nodes_are_reached_from_the_balancer() -> Result<()> {
    let topology = Topology::build()?;
    for node in Node::ALL {
        let _server = Server::start(&topology, node)?;
        let stream = connect(topology.balancer(), Topology::node_service(node), PATIENCE)??;
        exchange(&stream, &[b'x'; 100_000])?;
        ensure!(stream.local_addr()?.ip() == Topology::node_link(node).near.address);
    }
    Ok(())
}

fn hosts_do_not_share_ports() -> Result<()> {
    let topology = Topology::build()?;
    let listen = || TcpListener::bind("127.0.0.1:2049");
    let _on_client = topology.client().run(listen)??;
    let _on_node = topology.node(Node::A).run(listen)??;
    ensure!(topology.client().run(listen)?.is_err(), "the same host has one port 2049");
    Ok(())
}

fn processes_end_with_their_host() -> Result<()> {
    let topology = Topology::build()?;
    let mut server = Server::start(&topology, Node::A)?;
    drop(topology);
    ensure!(server.process.wait()?.signal() == Some(9), "the server outlived its host");
    Ok(())
}

/// First argument of this program when it is to be killed while it runs a server.
pub(crate) const CRASH_ROLE: &str = "--crash-with-a-server";

/// Body of the process that is killed.
pub(crate) fn crash_with_a_server() -> ExitCode {
    enter_private().expect("namespaces");
    let topology = Topology::build().expect("a network");
    let _server = Server::start(&topology, Node::A).expect("a server");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .expect("a signal");
    ExitCode::FAILURE
}

fn processes_end_with_a_drill_that_is_killed() -> Result<()> {
    let mut drill = Command::new(std::env::current_exe()?).arg(CRASH_ROLE).stderr(Stdio::piped()).spawn()?;
    let mut stderr = drill.stderr.take().context("a piped stderr")?;
    ensure!(drill.wait()?.signal() == Some(9), "the drill was to be killed");
    // The server inherited the drill's stderr: its end shows when the last holder is gone.
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(stderr.read_to_end(&mut Vec::new())));
    end.recv_timeout(PATIENCE).context("the server outlived its drill")??;
    Ok(())
}

fn a_missing_program_is_named() -> Result<()> {
    let topology = Topology::build()?;
    let missing = Command::new("/nonexistent/server");
    let Err(error) = topology.client().spawn_process(missing) else { anyhow::bail!("it started") };
    let text = error.to_string();
    ensure!(text.contains("client") && text.contains("/nonexistent/server"), "{text}");
    Ok(())
}

fn reserved_ports_can_be_bound() -> Result<()> {
    let topology = Topology::build()?;
    topology.client().run(|| TcpListener::bind("10.81.1.2:700"))??;
    Ok(())
}
