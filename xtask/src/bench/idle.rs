//! What many connections cost that do nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::outcome::Outcome;
use super::progress;
use super::server::Running;

/// A NULL call of NFS version 3 with AUTH_NONE, as a record: RFC 5531 sections 9 and 11.
const NULL: [u32; 11] = [0x8000_0028, 7, 0, 2, 100_003, 3, 0, 0, 0, 0, 0];
/// Bytes of its reply, as a record.
const REPLY: usize = 28;
/// How long a connection may take to be served.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens `connections` to each server, has one NULL answered on each, and tells by how much its memory grew.
pub(crate) fn measure(connections: usize, running: &[Running], outcome: &mut Outcome) {
    outcome.idle_connections = connections;
    for server in running {
        progress(&format!("{connections} idle connections to {}", server.peer.name));
        match growth(server, connections) {
            Ok(kib) => outcome.idle_kib.push(Some(kib)),
            Err(e) => {
                outcome.idle_kib.push(None);
                outcome.notes.push(format!("idle connections to {}: {e:#}", server.peer.name));
            }
        }
    }
}

fn growth(server: &Running, connections: usize) -> anyhow::Result<u64> {
    raise_open_files()?;
    let before = server.rss_kib()?;
    let mut open = Vec::with_capacity(connections);
    for n in 0..connections {
        open.push(served(server.port).with_context(|| format!("connection {} of {connections}", n + 1))?);
    }
    Ok(server.rss_kib()?.saturating_sub(before))
}

/// Whether something answers calls there; what a call of another program is answered with has the length of a reply
/// to NULL.
pub(crate) fn answers(port: u16) -> anyhow::Result<()> {
    served(port).map(drop)
}

fn served(port: u16) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&NULL.map(u32::to_be_bytes).concat()).context("cannot send NULL")?;
    stream.read_exact(&mut [0; REPLY]).context("NULL is not answered")?;
    Ok(stream)
}

fn raise_open_files() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot open so many sockets")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_counts_once_its_null_is_answered() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let mut call = [0; 44];
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut call).unwrap();
            stream.write_all(&[0; REPLY]).unwrap();
            drop(listener.accept().unwrap());
            call
        });
        assert!(served(port).is_ok());
        assert!(served(port).is_err(), "closed without a reply");
        assert_eq!(server.join().unwrap()[..8], [0x80, 0, 0, 0x28, 0, 0, 0, 7]);
    }
}
