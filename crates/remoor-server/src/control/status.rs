//! What a server does at the moment, in the form that `remoor status` shows.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use remoor_nfs::replay::Counters;
use serde::{Deserialize, Serialize};

use crate::metrics::{ClientCalls, ProcedureStats};
use crate::net::Connections;
use crate::state::FIRST_UNRESERVED_PORT;

/// What a server does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The node's name.
    pub node: String,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Seconds since its start.
    pub uptime_secs: f64,
    /// That this server began with, in hexadecimal digits; each export has its own since.
    pub write_verifier: String,
    /// It answers what it has taken, and takes no more.
    pub stopping: bool,
    /// Its connections.
    pub connections: Connections,
    /// Calls answered since the start.
    pub calls: u64,
    /// Over the last seconds.
    pub calls_per_second: f64,
    /// Calls refused because a `secure` export was used from a port of 1024 or above.
    pub port_refusals: u64,
    /// Calls answered from the reply cache.
    #[serde(default)]
    pub replays: Replays,
    /// Those with connections or calls, the busiest first.
    pub clients: Vec<ClientStatus>,
    /// In the order of the table of exports.
    pub exports: Vec<ExportStatus>,
    /// Those that were called.
    pub procedures: Vec<ProcedureStats>,
}

/// Calls answered from the reply cache, by what is known of the connection of the first such call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// It came on the same one.
    pub same_connection: u64,
    /// It is gone; the call came from the same port.
    pub same_port: u64,
    /// It is gone; the call came from another port.
    pub other_port: u64,
    /// It was not seen to end, but did not acknowledge the reply, or did not answer.
    pub inferred: u64,
}

impl From<Counters> for Replays {
    fn from(counters: Counters) -> Self {
        let Counters { same_connection, same_port, other_port, inferred, .. } = counters;
        Self { same_connection, same_port, other_port, inferred }
    }
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its open connections from ports below 1024.
    pub reserved_ports: Vec<u16>,
    /// Its open connections from other ports.
    pub other_ports: Vec<u16>,
    /// Calls answered since the start.
    pub calls: u64,
    /// Bytes of its calls.
    pub request_bytes: u64,
    /// Bytes of the replies.
    pub reply_bytes: u64,
    /// Seconds since its last call, if it called.
    pub idle_secs: Option<f64>,
    /// What it has mounted and not unmounted, as far as MOUNT tells.
    pub mounts: Vec<String>,
}

/// What is done with an export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExportStatus {
    /// Its path.
    pub path: String,
    /// To whom it is exported.
    pub clients: Vec<String>,
    /// Clients that have mounted it or a directory below.
    pub mounted_by: usize,
    /// NFS calls on its objects since its file system was opened.
    pub calls: u64,
    /// Of unstable WRITEs, in hexadecimal digits: another one if written data may have been lost.
    pub write_verifier: String,
    /// Why it is not well, if it is not.
    pub unhealthy: Option<String>,
}

/// Joins what is known of clients: where their connections come from, what they called, what they mounted.
pub(super) fn clients(
    peers: &[SocketAddr],
    calls: &[ClientCalls],
    mounts: &[(IpAddr, PathBuf)],
    now_millis: u64,
) -> Vec<ClientStatus> {
    let mut all: BTreeMap<IpAddr, ClientStatus> = BTreeMap::new();
    for peer in peers {
        let client = entry(&mut all, peer.ip());
        let reserved = peer.port() < FIRST_UNRESERVED_PORT;
        (if reserved { &mut client.reserved_ports } else { &mut client.other_ports }).push(peer.port());
    }
    for known in calls {
        let client = entry(&mut all, known.address);
        (client.calls, client.request_bytes, client.reply_bytes) =
            (known.calls, known.request_bytes, known.reply_bytes);
        client.idle_secs = Some(now_millis.saturating_sub(known.last_millis) as f64 / 1000.0);
    }
    for (address, path) in mounts {
        entry(&mut all, *address).mounts.push(path.to_string_lossy().into_owned());
    }
    let mut list: Vec<_> = all.into_values().collect();
    list.sort_by_key(|client| std::cmp::Reverse(client.calls));
    list
}

fn entry(all: &mut BTreeMap<IpAddr, ClientStatus>, address: IpAddr) -> &mut ClientStatus {
    let address = address.to_canonical();
    all.entry(address).or_insert_with(|| ClientStatus {
        address,
        reserved_ports: Vec::new(),
        other_ports: Vec::new(),
        calls: 0,
        request_bytes: 0,
        reply_bytes: 0,
        idle_secs: None,
        mounts: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_address() {
        let peers = ["[::ffff:192.0.2.7]:700", "192.0.2.7:40001", "198.51.100.1:1023"];
        let peers = peers.map(|peer| peer.parse().unwrap());
        let address = "192.0.2.7".parse().unwrap();
        let calls = ClientCalls { address, calls: 5, request_bytes: 50, reply_bytes: 70, last_millis: 1_000 };
        let list = clients(&peers, &[calls], &[(address, "/srv".into())], 3_500);
        assert_eq!(list.len(), 2);
        assert_eq!((&list[0].reserved_ports[..], &list[0].other_ports[..]), (&[700][..], &[40001][..]));
        assert_eq!((list[0].calls, list[0].idle_secs), (5, Some(2.5)));
        assert_eq!(list[0].mounts, ["/srv"]);
        assert_eq!((list[1].address.to_string(), list[1].idle_secs), ("198.51.100.1".to_owned(), None));
    }
}
