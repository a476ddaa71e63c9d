//! Which port a program has: what the server's portmapper says (RFC 1833).

use std::net::SocketAddr;
use std::time::Duration;

use remoor_rpc::auth::OpaqueAuth;
use remoor_rpc::portmap::rpcb::Rpcb;
use remoor_rpc::portmap::{from_universal, universal, v2, v3};
use remoor_rpc::program::Program;
use tokio::time::timeout;

use super::dial::{self, DialError};

/// How long the portmapper of one address may take. A firewall that drops port 111 costs this at each mount without
/// `port=` and `mountport=`.
pub const PORTMAP_PATIENCE: Duration = Duration::from_secs(1);

/// What a portmapper says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Port(u16),
    NotRegistered,
    /// Nobody answers at any address.
    Nobody,
}

/// Asks the portmapper of each address in turn, until one answers, for `program` over TCP.
pub(crate) async fn port_of(program: &Program, addresses: &[SocketAddr], portmap_port: u16) -> Told {
    for address in addresses {
        let portmapper = SocketAddr::new(address.ip(), portmap_port);
        match timeout(PORTMAP_PATIENCE, ask(program, portmapper)).await {
            Ok(Ok(port)) => return port.map_or(Told::NotRegistered, Told::Port),
            Ok(Err(error)) => tracing::debug!(%portmapper, "no portmapper: {error}"),
            Err(_) => tracing::debug!(%portmapper, "no portmapper: no answer in {PORTMAP_PATIENCE:?}"),
        }
    }
    Told::Nobody
}

/// The port, if the program is registered. Version 2 knows IPv4 alone.
async fn ask(program: &Program, portmapper: SocketAddr) -> Result<Option<u16>, DialError> {
    let nobody = OpaqueAuth::none();
    if portmapper.is_ipv4() {
        let wanted =
            v2::Mapping { program: program.number, version: program.version, protocol: v2::TCP, port: 0 };
        let port = dial::call::<v2::GetPort>(portmapper, false, &nobody, &wanted).await?;
        return Ok(u16::try_from(port).ok().filter(|port| *port != 0));
    }
    let wanted = Rpcb {
        program: program.number,
        version: program.version,
        netid: "tcp6".into(),
        address: universal(portmapper).as_str().into(),
        owner: "".into(),
    };
    let told = dial::call::<v3::GetAddr>(portmapper, false, &nobody, &wanted).await?;
    Ok(from_universal(&told.0).map(|address| address.port()).filter(|port| *port != 0))
}
