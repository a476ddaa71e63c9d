//! `secure` exports and source ports, as the kernel server has them.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use remoor_nfs::mnt::{self, MountStat};
use remoor_nfs::v3::{self, NfsStat};
use remoor_server::Running;
use socket2::{Domain, Socket, Type};

use crate::client::{Client, PATIENCE, address, serve, skip};

/// From a reserved port, or `None` if this process may not bind one.
fn reserved(server: &Running) -> Option<Client> {
    for port in 665..1024 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        match socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()) {
            Ok(()) => {
                socket.connect_timeout(&address(server).into(), PATIENCE).unwrap();
                return Some(Client::over(TcpStream::from(socket)));
            }
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(e) => {
                skip(
                    "reserved ports",
                    format!("none can be bound: {e}; run as root or with CAP_NET_BIND_SERVICE"),
                );
                return None;
            }
        }
    }
    panic!("no reserved port is free")
}

#[test]
fn a_secure_export_refuses_high_ports() {
    let server =
        serve("/secure *(rw,no_root_squash,no_subtree_check)\n/open *(rw,insecure,no_subtree_check)");
    let mut high = Client::connect(&server);
    assert_eq!(high.mount("/secure"), Err(MountStat::Acces));
    high.call::<v3::Null>(&());
    high.call::<mnt::Null>(&());
    let open = high.mount("/open").unwrap();
    assert!(high.getattr(&open).is_ok());
    assert_eq!(server.counters().port_refusals, 1);
    let Some(mut low) = reserved(&server) else { return };
    let root = low.mount("/secure").unwrap();
    assert!(low.getattr(&root).is_ok());
    // A client that mounted from a reserved port and came back from another one.
    assert_eq!(high.getattr(&root), Err(NfsStat::Perm));
    assert_eq!(high.lookup(&root, "x").unwrap_err(), NfsStat::Perm);
    let fsinfo = high.call::<v3::Fsinfo>(&v3::OnFile { file: root.clone() });
    assert_eq!(fsinfo.status(), NfsStat::Perm);
    let remove = high.call::<v3::Remove>(&crate::client::place(&root, "x"));
    assert_eq!(remove.status(), NfsStat::Perm);
    assert_eq!(server.counters().port_refusals, 5);
    assert!(low.getattr(&root).is_ok());
}
