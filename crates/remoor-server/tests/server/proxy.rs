//! Clients behind a relay that names them by the PROXY protocol.

use std::net::Ipv4Addr;

use remoor_nfs::mnt::{self, MountStat};
use remoor_nfs::v3;
use remoor_rpc::message::{AuthStat, ReplyStatus};
use remoor_server::Running;

use crate::client::{Client, builder};

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
