//! Finding ports, and mounts that are not made.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use remoor_client::mount::{Mounted, Places, Request};
use remoor_client::{Error, MountError};
use remoor_nfs::mnt::MountStat;
use remoor_server::portmap::Portmapper;
use remoor_server::vfs::memory::MemoryVfs;
use remoor_skip::skip;

use crate::host::{Host, options};

const OPTIONS: &str = "rw,insecure,no_root_squash";

/// A mount of the host's export that knows only the host and where its portmapper is.
fn request(host: &str, portmap_port: u16) -> Request {
    Request {
        options: options("noresvport"),
        places: Places { portmap_port, ..Places::default() },
        within: Duration::from_secs(20),
        ..Request::new(host, "/data")
    }
}

/// A port of this address where nobody listens.
fn closed_port(ip: &str) -> u16 {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port()
}

fn portmapper(ip: &str, nfs: SocketAddr) -> Portmapper {
    let any = SocketAddr::new(ip.parse().unwrap(), 0);
    // What the kernel chose for UDP may be taken for TCP.
    std::iter::repeat_with(|| Portmapper::start(&[any], &[nfs])).take(9).find_map(Result::ok).unwrap()
}

async fn is_usable(mounted: &Mounted) {
    let node = mounted.client.getattr(&mounted.root).await.unwrap();
    assert_eq!(node.kind, remoor_nfs::v3::FileType::Directory);
    assert!(mounted.fsinfo.rtmax > 0);
    assert!(mounted.unmount().await);
}

#[tokio::test]
async fn the_portmapper_tells_the_ports_of_both_programs() {
    let host = Host::start(OPTIONS);
    let portmapper = portmapper("127.0.0.1", host.address);
    let mounted = request("127.0.0.1", portmapper.local_addrs()[0].port()).mount().await.unwrap();
    assert_eq!(mounted.client.addresses(), [host.address]);
    is_usable(&mounted).await;
    assert_eq!((host.calls("MNT"), host.calls("UMNT")), (1, 1));
}

#[tokio::test]
async fn over_ipv6_the_portmapper_is_asked_by_version_3() {
    let Ok(_) = TcpListener::bind("[::1]:0") else {
        return skip("over_ipv6_the_portmapper_is_asked_by_version_3", "this host has no IPv6");
    };
    let vfs = Arc::new(MemoryVfs::new(1 << 20, 1));
    let host = Host::at("[::1]:0".parse().unwrap(), &vfs, OPTIONS);
    let portmapper = portmapper("::1", host.address);
    let mounted = request("[::1]", portmapper.local_addrs()[0].port()).mount().await.unwrap();
    assert_eq!(mounted.client.addresses(), [host.address]);
    is_usable(&mounted).await;
}

#[tokio::test]
async fn without_a_portmapper_mount_is_where_nfs_is() {
    let host = Host::start(OPTIONS);
    let mut request = request("127.0.0.1", closed_port("127.0.0.1"));
    request.places.port = Some(host.address.port());
    is_usable(&request.mount().await.unwrap()).await;
}

#[tokio::test]
async fn without_a_portmapper_nfs_is_at_port_2049() {
    let address: SocketAddr = "127.77.20.49:2049".parse().unwrap();
    if TcpListener::bind(address).is_err() {
        return skip("without_a_portmapper_nfs_is_at_port_2049", "port 2049 is taken on this host");
    }
    let host = Host::at(address, &Arc::new(MemoryVfs::new(1 << 20, 1)), OPTIONS);
    let mounted = request("127.77.20.49", closed_port("127.77.20.49")).mount().await.unwrap();
    assert_eq!(mounted.client.addresses(), [host.address]);
}

#[tokio::test]
async fn mountport_and_mounthost_lead_to_another_mount_program() {
    let vfs = Arc::new(MemoryVfs::new(1 << 20, 1));
    let nfs = Host::at("127.0.0.1:0".parse().unwrap(), &vfs, OPTIONS);
    let mount = nfs.node("127.0.0.2:0".parse().unwrap(), OPTIONS);
    let mut request = request("127.0.0.1", closed_port("127.0.0.1"));
    request.places.port = Some(nfs.address.port());
    request.places.mountport = Some(mount.address.port());
    request.places.mounthost = Some("127.0.0.2".to_owned());
    let mounted = request.mount().await.unwrap();
    assert!(mounted.unmount().await);
    assert_eq!((mount.calls("MNT"), mount.calls("UMNT"), nfs.calls("MNT")), (1, 1, 0));
}

#[tokio::test]
async fn a_mount_connection_of_its_own_leaves_from_a_reserved_port_too() {
    let vfs = Arc::new(MemoryVfs::new(1 << 20, 1));
    let secure = "rw,secure,no_root_squash";
    let nfs = Host::at("127.0.0.1:0".parse().unwrap(), &vfs, secure);
    let mount = nfs.node("127.0.0.1:0".parse().unwrap(), secure);
    let mut request = request("127.0.0.1", closed_port("127.0.0.1"));
    request.places.port = Some(nfs.address.port());
    request.places.mountport = Some(mount.address.port());
    let error = request.mount().await.unwrap_err();
    let denied = matches!(
        error,
        MountError::Refused(Error::Mount { status: MountStat::Acces, .. }) if !error.is_temporary()
    );
    assert!(denied, "{error}");
    let name = "a_mount_connection_of_its_own_leaves_from_a_reserved_port_too";
    if !rustix::process::geteuid().is_root() {
        return skip(name, "reserved ports need CAP_NET_BIND_SERVICE; run as root");
    }
    request.options = options("resvport");
    request.mount().await.unwrap();
    assert_eq!(mount.calls("MNT"), 2);
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_worth_another_attempt() {
    let port = closed_port("127.0.0.1");
    let mut request = request("127.0.0.1", port);
    request.places.port = Some(port);
    let error = request.mount().await.unwrap_err();
    assert!(matches!(error, MountError::Unreachable { .. }) && error.is_temporary(), "{error}");
    assert!(error.to_string().contains("connection refused"), "{error}");
    request.places.mountport = Some(port);
    request.places.mounthost = Some("127.0.0.9".to_owned());
    let error = request.mount().await.unwrap_err();
    assert!(matches!(error, MountError::Unreachable { .. }) && error.is_temporary(), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_ends_an_attempt_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut request = request("127.0.0.1", closed_port("127.0.0.1"));
    request.places.port = Some(port);
    request.within = Duration::from_millis(300);
    let error = request.mount().await.unwrap_err();
    assert!(matches!(error, MountError::TimedOut { .. }) && error.is_temporary(), "{error}");
    request.places.mountport = Some(port);
    request.places.mounthost = Some("127.0.0.1".to_owned());
    request.places.port = Some(closed_port("127.0.0.1"));
    let error = request.mount().await.unwrap_err();
    assert!(matches!(error, MountError::TimedOut { .. }) && error.is_temporary(), "{error}");
}

#[tokio::test]
async fn an_export_that_is_not_there_is_final() {
    let host = Host::start(OPTIONS);
    let mut request = request("127.0.0.1", closed_port("127.0.0.1"));
    request.places.port = Some(host.address.port());
    request.path = "/elsewhere".to_owned();
    let error = request.mount().await.unwrap_err();
    assert!(!error.is_temporary() && error.to_string().contains("/elsewhere"), "{error}");
}

#[tokio::test]
async fn a_program_that_the_portmapper_does_not_know_is_named() {
    // A portmapper that serves nothing but itself.
    let table = portmapper("127.0.0.1", "127.0.0.9:2049".parse().unwrap());
    let error = request("127.0.0.1", table.local_addrs()[0].port()).mount().await.unwrap_err();
    assert!(matches!(error, MountError::NotRegistered { .. }) && error.is_temporary(), "{error}");
    assert!(error.to_string().contains("port="), "{error}");
}

#[tokio::test]
async fn options_that_cannot_be_followed_are_refused_with_the_reason() {
    let with = |mountproto: Option<&str>, mountvers| {
        let mountproto = mountproto.map(str::to_owned);
        Request { places: Places { mountproto, mountvers, ..Places::default() }, ..Request::new("h", "/") }
    };
    for (mountproto, mountvers, part) in [
        (Some("udp"), None, "forged"),
        (Some("udp6"), None, "mountproto=tcp"),
        (Some("rdma"), None, "tcp6"),
        (None, Some(1), "mountvers=1"),
    ] {
        let error = with(mountproto, mountvers).mount().await.unwrap_err();
        assert!(!error.is_temporary() && error.to_string().contains(part), "{error}");
    }
    assert!(with(Some("tcp"), Some(3)).places.validate().is_ok());
}
