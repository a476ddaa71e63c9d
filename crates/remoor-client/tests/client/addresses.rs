//! Several addresses of one name, and names that move.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use remoor_client::{Client, Resolver, Target};
use remoor_server::vfs::memory::MemoryVfs;

use crate::host::{Host, options, root};

const OPTIONS: &str = "rw,insecure,no_root_squash";

/// Names as /etc/hosts has them, in a file that the test changes.
struct HostsFile(PathBuf);

impl HostsFile {
    fn write(path: &Path, name: &str, addresses: &[SocketAddr]) {
        let lines: String = addresses.iter().map(|address| format!("{} {name}\n", address.ip())).collect();
        std::fs::write(path, lines).unwrap();
    }
}

impl Resolver for HostsFile {
    fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        let text = std::fs::read_to_string(&self.0)?;
        let fields = text.lines().filter_map(|line| line.split_once(' '));
        let known = fields.filter(|(_, name)| *name == host);
        Ok(known.map(|(ip, _)| SocketAddr::new(ip.parse().unwrap(), port)).collect())
    }
}

/// Two nodes of one server, at these addresses and one port.
fn nodes(first: &str, second: &str) -> (Host, Host) {
    let first = host(first);
    let address = SocketAddr::new(second.parse().unwrap(), first.address.port());
    let second = first.node(address, OPTIONS);
    (first, second)
}

fn host(ip: &str) -> Host {
    let vfs = Arc::new(MemoryVfs::new(1 << 20, 1));
    Host::at(SocketAddr::new(ip.parse().unwrap(), 0), &vfs, OPTIONS)
}

#[tokio::test]
async fn the_second_address_serves_when_the_first_refuses() {
    let (mut first, second) = nodes("127.0.1.1", "127.0.1.2");
    let target = Target::of("cluster", vec![first.address, second.address]).unwrap();
    let client = Client::connect(target, options("noresvport")).unwrap().with_identity(&root());
    let export = client.mount("/data").await.unwrap();
    assert_eq!((first.calls("MNT"), second.calls("MNT")), (1, 0));
    first.stop();
    client.fsstat(&export).await.unwrap();
    assert_eq!(second.calls("FSSTAT"), 1);
    let told = client.snapshot();
    assert_eq!(told.server, "cluster");
    let [moved] = &told.reconnects[..] else { panic!("{told:?}") };
    assert_eq!(moved.from_address, first.address.to_string());
    assert_eq!(moved.to_address, second.address.to_string());
    assert_eq!(told.connections[0].server_address.as_deref(), Some(&moved.to_address[..]));
    assert_eq!(client.addresses()[0], second.address, "what served last is tried first");
}

#[tokio::test]
async fn a_client_follows_its_servers_name() {
    let (mut old, new) = nodes("127.0.1.3", "127.0.1.4");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    HostsFile::write(&path, "server.example", &[old.address]);
    let resolver = Arc::new(HostsFile(path.clone()));
    let within = Duration::from_secs(20);
    let target = Target::resolve("server.example", old.address.port(), resolver, within).await.unwrap();
    assert_eq!(target.addresses(), [old.address]);
    let client = Client::connect(target, options("noresvport")).unwrap().with_identity(&root());
    let export = client.mount("/data").await.unwrap();
    HostsFile::write(&path, "server.example", &[new.address]);
    client.getattr(&export).await.unwrap();
    assert_eq!(new.calls("GETATTR"), 0, "a connection that serves is not left");
    old.stop();
    client.getattr(&export).await.unwrap();
    assert_eq!(new.calls("GETATTR"), 1);
    assert_eq!(client.addresses(), [new.address]);
}

#[tokio::test]
async fn a_name_that_is_gone_leaves_the_last_good_addresses() {
    let mut host = host("127.0.1.5");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    HostsFile::write(&path, "server.example", &[host.address]);
    let resolver = Arc::new(HostsFile(path.clone()));
    let within = Duration::from_secs(20);
    let target = Target::resolve("server.example", host.address.port(), resolver, within).await.unwrap();
    let client = Client::connect(target, options("noresvport")).unwrap().with_identity(&root());
    let export = client.mount("/data").await.unwrap();
    std::fs::remove_file(&path).unwrap();
    host.restart(OPTIONS);
    client.getattr(&export).await.unwrap();
    assert_eq!(client.addresses(), [host.address]);
}

#[tokio::test]
async fn the_server_is_reached_over_ipv6() {
    let Ok(_) = std::net::TcpListener::bind("[::1]:0") else {
        return remoor_skip::skip("the_server_is_reached_over_ipv6", "this host has no IPv6");
    };
    let host = host("::1");
    let client = Client::connect(host.address, options("noresvport")).unwrap().with_identity(&root());
    client.mount("/data").await.unwrap();
    assert_eq!(client.snapshot().connections[0].server_address, Some(host.address.to_string()));
}
