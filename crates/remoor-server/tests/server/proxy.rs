//! Clients behind a relay that names them by the PROXY protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use remoor_nfs::mnt::{self, MountStat};
use remoor_nfs::v3::{self, NfsStat, Sattr};
use remoor_rpc::message::{AuthStat, ReplyStatus, encode_call};
use remoor_rpc::xdr::Xdr;
use remoor_server::control::{Answer, Request, call};
use remoor_server::{Limits, Running};

use crate::client::{Client, PATIENCE, builder, place};

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// A server whose every client on loopback is a relay, with an export for one client behind it.
fn serve() -> Running {
    let exports = "/x 192.0.2.7(rw,no_root_squash) 127.0.0.1(rw,insecure,no_root_squash)";
    builder(exports).proxy_from(["127.0.0.0/8".parse().unwrap()]).start().unwrap()
}

fn header(command: u8, client: [u8; 4], port: u16) -> Vec<u8> {
    let addresses =
        [&client[..], &Ipv4Addr::LOCALHOST.octets(), &port.to_be_bytes(), &2049u16.to_be_bytes()].concat();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11, 0, 12][..], &addresses].concat()
}

/// A connection of a relay, for this client.
pub(crate) fn relayed(server: &Running, client: [u8; 4], port: u16) -> Client {
    let mut connection = Client::connect(server);
    connection.write(&header(PROXY, client, port));
    connection
}

#[test]
fn the_client_that_the_relay_names_decides_the_export_and_the_port_check() {
    let server = serve();
    assert!(relayed(&server, [192, 0, 2, 7], 1023).mount("/x").is_ok());
    assert_eq!(relayed(&server, [192, 0, 2, 7], 1024).mount("/x").unwrap_err(), MountStat::Acces, "secure");
    assert_eq!(
        relayed(&server, [192, 0, 2, 8], 1023).mount("/x").unwrap_err(),
        MountStat::Acces,
        "not exported"
    );
    assert!(relayed(&server, [127, 0, 0, 1], 4000).mount("/x").is_ok(), "a client of the relay's own host");
    assert_eq!(server.counters().port_refusals, 1);
}

#[test]
fn a_handle_is_good_for_the_clients_it_is_exported_to_only() {
    let server = serve();
    let file = relayed(&server, [192, 0, 2, 7], 700).mount("/x").unwrap();
    assert!(relayed(&server, [192, 0, 2, 7], 701).getattr(&file).is_ok());
    assert!(relayed(&server, [192, 0, 2, 8], 702).getattr(&file).is_err());
}

#[test]
fn the_relays_own_connection_is_nobodys() {
    let server = serve();
    let file = relayed(&server, [192, 0, 2, 7], 700).mount("/x").unwrap();
    let mut check = Client::connect(&server);
    check.write(&header(LOCAL, [192, 0, 2, 7], 700));
    check.call::<v3::Null>(&());
    check.call::<mnt::Null>(&());
    let nobody = ReplyStatus::AuthError(AuthStat::TooWeak);
    check.send::<mnt::Mnt>(&"/x".into());
    assert_eq!(check.status(), nobody);
    check.send::<v3::Getattr>(&v3::OnFile { file });
    assert_eq!(check.status(), nobody, "although the export is for the relay's address too");
    check.call::<v3::Null>(&());
}

#[test]
fn a_header_may_come_in_pieces_and_with_the_first_call() {
    let server = serve();
    let header = header(PROXY, [192, 0, 2, 7], 700);
    let mut connection = Client::connect(&server);
    for byte in &header[..20] {
        connection.write(&[*byte]);
    }
    let call = b"\x80\0\0\x28\0\0\0\x09\0\0\0\0\0\0\0\x02\0\x01\x86\xa3\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    connection.write(&[&header[20..], call].concat());
    assert_eq!(connection.reply().unwrap().xid, 9);
    assert!(connection.mount("/x").is_ok());
}

#[test]
fn a_relay_must_name_its_client_and_only_once() {
    let server = serve();
    let mut silent = Client::connect(&server);
    silent.send::<v3::Null>(&());
    assert!(silent.reply().is_none(), "closed");
    let mut twice = relayed(&server, [192, 0, 2, 8], 700);
    twice.write(&header(PROXY, [192, 0, 2, 7], 700));
    assert!(twice.reply().is_none(), "closed");
    assert_eq!(server.counters().connections.broken, 2);
}

#[test]
fn who_is_no_relay_cannot_name_a_client() {
    let server = builder("/x *(rw,insecure)").start().unwrap();
    let mut connection = relayed(&server, [192, 0, 2, 7], 700);
    assert!(connection.reply().is_none(), "closed");
    assert_eq!(server.counters().connections.broken, 1);
}

#[test]
fn a_header_may_be_cut_anywhere() {
    let server = serve();
    let header = header(PROXY, [192, 0, 2, 7], 700);
    for cut in 1..header.len() {
        let mut connection = Client::connect(&server);
        connection.write(&header[..cut]);
        // What was sent before was read before, so the pieces stay pieces.
        Client::connect(&server).write(b"x");
        connection.write(&header[cut..]);
        assert!(connection.mount("/x").is_ok(), "cut at {cut}");
    }
}

#[test]
fn a_client_is_shown_by_its_own_address_and_port() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("node.sock");
    let exports = "/x 192.0.2.7(rw,no_root_squash)";
    let builder = builder(exports).proxy_from(["127.0.0.0/8".parse().unwrap()]);
    let server = builder.control(&socket, true).start().unwrap();
    let mut client = relayed(&server, [192, 0, 2, 7], 801);
    client.mount("/x").unwrap();
    let Answer::Status(status) = call(&socket, &Request::Status, PATIENCE).unwrap() else { panic!() };
    let shown: Vec<_> = status
        .clients
        .iter()
        .map(|client| (client.address.to_string(), client.reserved_ports.clone(), client.mounts.clone()))
        .collect();
    assert_eq!(shown, [("192.0.2.7".to_owned(), vec![801], vec!["/x".to_owned()])]);
}

/// What the relay acknowledges its client may never get: the call is replayed as soon as it is asked for often enough.
#[test]
fn an_acknowledgement_of_the_relay_makes_no_call_new() {
    let server = serve();
    let mut first = relayed(&server, [192, 0, 2, 7], 700);
    let root = first.mount("/x").unwrap();
    let args = v3::MkdirArgs { place: place(&root, "dir"), attr: Sattr::default() };
    let mkdir = encode_call::<v3::Mkdir>(0x7265, &first.credential, &args).segments().concat();
    first.write(&mkdir);
    assert_eq!(first.status(), ReplyStatus::Success);
    // With this call comes the acknowledgement of the reply before it.
    first.call::<v3::Null>(&());
    let mut second = relayed(&server, [192, 0, 2, 7], 701);
    second.write(&mkdir.repeat(3));
    let mut reply = second.reply().unwrap();
    assert_eq!(NfsStat::decode(&mut reply.result), Ok(NfsStat::Ok));
    // Still there.
    first.call::<v3::Null>(&());
}

#[test]
fn a_header_that_comes_byte_by_byte_is_not_waited_for() {
    let stall = Duration::from_secs(1);
    let limits = Limits { stall, ..Limits::default() };
    let relays = ["127.0.0.0/8".parse().unwrap()];
    let server = builder("/x *(rw,insecure)").proxy_from(relays).limits(limits).start().unwrap();
    let mut slow = Client::connect(&server);
    slow.stream.set_read_timeout(Some(stall / 20)).unwrap();
    slow.write(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\0");
    let began = Instant::now();
    while slow.stream.write_all(b"x").is_ok() {
        match slow.stream.read(&mut [0]) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            closed => return assert!(closed.is_err() || matches!(closed, Ok(0))),
        }
        assert!(began.elapsed() < PATIENCE, "still open");
    }
}
