//! What the tests put on the network: echo servers as processes, and clients of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use std::{io, thread};

use anyhow::{Context, Result, bail, ensure};
use remoor_drill::fault::Victim;
use remoor_drill::namespace::Host;
use remoor_drill::topology::{Node, Topology};

/// First argument of this program when it is to be an echo server.
pub(crate) const ECHO_ROLE: &str = "--echo-server";

/// Generous: the machine may be busy. Nothing waits this long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An echo server on a node.
pub(crate) struct Server {
    pub(crate) process: Child,
    node: Node,
}

impl Server {
    /// Starts the server; on return it accepts connections.
    pub(crate) fn start(topology: &Topology, node: Node) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ECHO_ROLE).arg(Topology::node_service(node).to_string()).stdout(Stdio::piped());
        let mut process = topology.node(node).spawn_process(command)?;
        let mut ready = String::new();
        BufReader::new(process.stdout.take().context("a piped stdout")?).read_line(&mut ready)?;
        ensure!(ready == "ready\n", "the echo server said {ready:?}");
        Ok(Self { process, node })
    }

    pub(crate) fn victim<'a>(&self, topology: &'a Topology) -> Victim<'a> {
        Victim { topology, node: self.node, server: self.process.id() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Body of the echo server process.
pub(crate) fn echo_forever(address: &str) -> ExitCode {
    let listener = TcpListener::bind(address).expect("bind the echo server");
    println!("ready");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || echo(stream));
    }
    ExitCode::SUCCESS
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 65_536];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..n])?;
    }
}

/// Connects from a host.
pub(crate) fn connect(host: &Host, to: SocketAddrV4, timeout: Duration) -> Result<io::Result<TcpStream>> {
    let stream = host.run(|| TcpStream::connect_timeout(&SocketAddr::V4(to), timeout))?;
    if let Ok(stream) = &stream {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
    }
    Ok(stream)
}

/// Sends `bytes` and waits for them to come back.
pub(crate) fn exchange(mut stream: &TcpStream, bytes: &[u8]) -> Result<()> {
    let back = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut back = vec![0; bytes.len()];
            let mut stream = stream;
            stream.read_exact(&mut back).map(|()| back)
        });
        stream.write_all(bytes)?;
        match reader.join() {
            Ok(back) => Ok(back?),
            Err(_) => bail!("the reader panicked"),
        }
    })?;
    ensure!(back == bytes, "the echo differs");
    Ok(())
}
