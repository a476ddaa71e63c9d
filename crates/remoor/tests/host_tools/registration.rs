//! `remoor serve --rpcbind`, with Debian's rpcbind.

use std::process::Command;

use crate::host::{Host, Program};

const TOOLS: [(&str, &str); 2] = [("rpcbind", "rpcbind"), ("rpcinfo", "rpcbind")];
const REGISTERED: &str = "registered with rpcbind: NFS 3 at tcp 0.0.0.0.8.1, MOUNT 3 at tcp 0.0.0.0.8.1, \
                          NFS 3 at tcp6 ::.8.1, MOUNT 3 at tcp6 ::.8.1";

/// rpcbind, once it answers.
fn rpcbind(host: &Host) -> Program {
    let command: Command = host.command("rpcbind", &["-f"]);
    let program = Program::start(command);
    host.await_said("rpcinfo -p 127.0.0.1", |_| true);
    program
}

/// Program, version, network identifier and address of what is listed of NFS and MOUNT.
fn listed(host: &Host) -> Vec<String> {
    rows(&host.said("rpcinfo 127.0.0.1"))
}

fn rows(said: &str) -> Vec<String> {
    let row = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
    let mut rows: Vec<_> =
        said.lines().map(row).filter(|r| r.starts_with("100003") || r.starts_with("100005")).collect();
    rows.sort();
    rows
}

fn ours() -> Vec<String> {
    let row = |program, netid, address| format!("{program} 3 {netid} {address}");
    let of = |program| [row(program, "tcp", "0.0.0.0.8.1"), row(program, "tcp6", "::.8.1")];
    [of("100003"), of("100005")].concat()
}

#[test]
fn a_restart_of_rpcbind_is_made_good_and_nothing_is_left_behind() {
    let test = "a_restart_of_rpcbind_is_made_good_and_nothing_is_left_behind";
    let Some(host) = Host::up(test, &TOOLS) else { return };
    let first = rpcbind(&host);
    let server = host.serve("state", 2049, &["--rpcbind"], REGISTERED);
    assert_eq!(listed(&host), ours());
    drop(first);
    let _second = rpcbind(&host);
    host.await_said("rpcinfo 127.0.0.1", |said| rows(said) == ours());
    server.await_line("registered with rpcbind");
    assert!(server.stop());
    assert_eq!(listed(&host), [""; 0]);
}

#[test]
fn rpcbind_may_come_later() {
    let Some(host) = Host::up("rpcbind_may_come_later", &TOOLS) else { return };
    let server =
        host.serve("state", 2049, &["--rpcbind"], "not registered with rpcbind: cannot reach rpcbind");
    let _rpcbind = rpcbind(&host);
    server.await_line(REGISTERED);
    assert_eq!(listed(&host), ours());
}

#[test]
fn another_servers_registration_is_left_alone_until_it_is_gone() {
    let test = "another_servers_registration_is_left_alone_until_it_is_gone";
    let Some(host) = Host::up(test, &TOOLS) else { return };
    let _rpcbind = rpcbind(&host);
    let first = host.serve("one", 2049, &["--rpcbind"], REGISTERED);
    let second = host.serve("two", 2050, &["--rpcbind"], "is registered with rpcbind by another server");
    assert_eq!(listed(&host), ours());
    assert!(first.stop());
    second.await_line("registered with rpcbind: NFS 3 at tcp 0.0.0.0.8.2");
    assert!(listed(&host).iter().all(|row| row.ends_with(".8.2")), "{:?}", listed(&host));
    // One that never registered takes nothing back.
    let third = host.serve("three", 2051, &["--rpcbind"], "is registered with rpcbind by another server");
    assert!(third.stop());
    assert_eq!(listed(&host).len(), 4);
    let log = second.rest();
    assert!(log.iter().all(|line| !line.contains("rpcbind")), "said once: {log:?}");
}

#[test]
fn loopback_will_do_where_the_unix_socket_is_missing() {
    let test = "loopback_will_do_where_the_unix_socket_is_missing";
    let Some(host) = Host::up(test, &TOOLS) else { return };
    let _rpcbind = rpcbind(&host);
    host.said("rm /run/rpcbind.sock");
    let server = host.serve("state", 2049, &["--rpcbind"], REGISTERED);
    assert_eq!(listed(&host), ours());
    assert!(server.stop());
    assert_eq!(listed(&host), [""; 0]);
}
