//! rtnetlink requests of one host: virtual Ethernet pairs, addresses, routes and permanent neighbour entries.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::sys;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The locally administered address this crate gives to the interface that owns `address`.
    pub const fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x52, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Interface name, unique in the whole topology.
    pub interface: &'static str,
    /// Its only address.
    pub address: Ipv4Addr,
}

impl End {
    /// The Ethernet address of this end while its host is well.
    pub const fn mac(&self) -> Mac {
        Mac::of(self.address)
    }
}

/// Every network of the drill is a /24.
pub(crate) const PREFIX_LEN: u8 = 24;

/// linux/ethtool.h: ETHTOOL_SRXCSUM, _STXCSUM, _SSG, _STSO, _SGSO, _SGRO. Scatter-gather goes with the checksum, and
/// segmentation with both; each is named so that none depends on the kernel's order of fixing up features.
const OFFLOADS: [u32; 6] = [0x15, 0x17, 0x19, 0x1f, 0x24, 0x2c];

/// An rtnetlink socket in the network namespace of the thread that opened it.
pub(crate) struct Netlink {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
}

/// A refused request: what was attempted, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempted}: {source}")]
pub struct LinkError {
    attempted: String,
    source: io::Error,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, LinkError> {
        let open = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            let (connection, handle, _) = {
                let _context = runtime.enter();
                rtnetlink::new_connection()?
            };
            runtime.spawn(connection);
            Ok(Self { runtime, handle })
        };
        open().map_err(|source| LinkError { attempted: "open an rtnetlink socket".to_owned(), source })
    }

    /// Creates a pair of interfaces, `near` here and `far` in `netns`; both down, ARP off, with their own MACs.
    pub(crate) fn add_veth(&self, near: &End, far: &End, netns: &OwnedFd) -> Result<(), LinkError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(far.interface)
            .address(far.mac().0.to_vec())
            .arp(false)
            .setns_by_fd(netns.as_raw_fd());
        let message = LinkVeth::new(near.interface, far.interface)
            .address(near.mac().0.to_vec())
            .arp(false)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        let request = self.handle.link().add(message.build()).execute();
        self.wait(request, || format!("create the link {} to {}", near.interface, far.interface))
    }

    /// Addresses `end`, turns its offloads off and brings it up.
    pub(crate) fn configure(&self, end: &End) -> Result<(), LinkError> {
        let index = index_of(end.interface)?;
        let request = self.handle.address().add(index, end.address.into(), PREFIX_LEN).execute();
        self.wait(request, || format!("give {} the address {}", end.interface, end.address))?;
        for command in OFFLOADS {
            sys::ethtool_set(end.interface, command, 0).map_err(|source| LinkError {
                attempted: format!("turn off offload {command:#x} of {}", end.interface),
                source,
            })?;
        }
        self.set_up(end.interface)
    }

    pub(crate) fn set_up(&self, interface: &str) -> Result<(), LinkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(index_of(interface)?).up().build();
        self.wait(self.handle.link().set(message).execute(), || format!("bring up {interface}"))
    }

    pub(crate) fn set_mac(&self, interface: &str, mac: Mac) -> Result<(), LinkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new()
            .index(index_of(interface)?)
            .address(mac.0.to_vec())
            .build();
        self.wait(self.handle.link().set(message).execute(), || format!("give {interface} the MAC {mac}"))
    }

    /// Adds or replaces the permanent neighbour entry of `address` on `interface`.
    pub(crate) fn set_neighbour(
        &self,
        interface: &str,
        address: Ipv4Addr,
        mac: Mac,
    ) -> Result<(), LinkError> {
        let request = self.handle.neighbours().add(index_of(interface)?, address.into());
        let request = request.link_layer_address(&mac.0).replace().execute();
        self.wait(request, || format!("set neighbour {address} on {interface} to {mac}"))
    }

    pub(crate) fn add_default_route(&self, gateway: Ipv4Addr) -> Result<(), LinkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        let request = self.handle.route().add(route).execute();
        self.wait(request, || format!("route through {gateway}"))
    }

    fn wait(
        &self,
        request: impl Future<Output = Result<(), rtnetlink::Error>>,
        attempted: impl Fn() -> String,
    ) -> Result<(), LinkError> {
        self.runtime.block_on(request).map_err(|e| LinkError { attempted: attempted(), source: as_io(e) })
    }
}

/// The index of an interface in the calling thread's network namespace.
pub(crate) fn index_of(interface: &str) -> Result<u32, LinkError> {
    use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
    socket(AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|any| name_to_index(any, interface))
        .map_err(|e| LinkError { attempted: format!("find interface {interface}"), source: e.into() })
}

fn as_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_unicast_local_and_tells_the_address() {
        let mac = Mac::of(Ipv4Addr::new(10, 81, 2, 2));
        assert_eq!(mac.to_string(), "02:52:0a:51:02:02");
        assert_eq!(mac.0[0] & 0b11, 0b10, "locally administered, not a group address");
    }
}
