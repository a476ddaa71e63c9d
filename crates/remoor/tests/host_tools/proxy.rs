//! `remoor serve --proxy-from`, behind Debian's HAProxy.

use std::fs;

use crate::host::{ADDRESS, Host, Program};

const TOOLS: [(&str, &str); 2] = [("haproxy", "haproxy"), ("nfs-ls", "libnfs-utils")];

/// Relays port 3049 of the host's address, names the client, and checks the server twice a second by a connection of its
/// own. It stays in the foreground, and ends with its log.
const CONFIG: &str = "\
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen nfs
  bind 192.0.2.5:3049
  server remoor 127.0.0.1:2049 send-proxy-v2 check check-send-proxy inter 500ms
";

/// Once it listens.
fn haproxy(host: &Host) -> Program {
    let config = host.dir.path().join("haproxy.cfg");
    fs::write(&config, CONFIG).unwrap();
    let relay = Program::start(host.command("haproxy", &["-db", "-f", config.to_str().unwrap()]));
    host.await_said("ss -ltnH sport = :3049", |said| said.contains(":3049"));
    relay
}

/// Lists the export through `address`:`port`; as root libnfs comes from a reserved port.
fn list(host: &Host, address: &str, port: u16) -> String {
    let export = host.export();
    format!("nfs-ls nfs://{address}{export}?nfsport={port}&mountport={port}&version=3")
}

#[test]
fn the_client_behind_haproxy_decides_what_it_may() {
    let test = "the_client_behind_haproxy_decides_what_it_may";
    let Some(host) = Host::up(test, &TOOLS) else { return };
    fs::write(format!("{}/seen", host.export()), "").unwrap();
    // HAProxy speaks from 127.0.0.1 and a high port, either of which would be refused.
    let options = ["--proxy-from", "198.51.100.0/24,127.0.0.1"];
    let server = host.serve_to(":192.0.2.5(rw)", "state", 2049, &options, "listening on [::]:2049");
    let _relay = haproxy(&host);
    let listed = host.await_said(&list(&host, ADDRESS, 3049), |_| true);
    assert!(listed.contains("seen"), "{listed}");
    let mounted = server.await_line("mounted ");
    assert!(mounted.contains("client=192.0.2.5 port="), "{mounted}");
    // Not a relay's address, so without a header.
    assert!(host.said(&list(&host, ADDRESS, 2049)).contains("seen"));
    // A relay's address, so not without.
    let (good, said) = host.run(&list(&host, "127.0.0.1", 2049));
    assert!(!good, "{said}");
    let closed = server.await_line("does not begin with a PROXY version 2 header");
    assert!(closed.contains("client=127.0.0.1:"), "{closed}");
}

#[test]
fn a_client_cannot_name_another() {
    let Some(host) = Host::up("a_client_cannot_name_another", &TOOLS) else { return };
    let server = host.serve("state", 2049, &[], "listening on [::]:2049");
    let _relay = haproxy(&host);
    let (good, said) = host.run(&list(&host, ADDRESS, 3049));
    assert!(!good, "{said}");
    server.await_line("a PROXY header from a peer that is not listed");
}
