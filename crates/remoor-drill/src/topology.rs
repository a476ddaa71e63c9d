//! The four hosts of a drill and the links between them.
//!
//! ```text
//! client 10.81.1.2 ── 10.81.1.1 balancer 10.81.2.1 ── 10.81.2.2 node A
//!                  service 10.81.9.9    └─ 10.81.3.1 ── 10.81.3.2 node B
//! ```
//!
//! No host ever asks for an Ethernet address: ARP is off on every interface and each end knows the other by a
//! permanent entry, so a silent node cannot be noticed below TCP. Offloads are off, so that packet sockets see the
//! segments and checksums that a real wire would carry.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::Serialize;

use crate::link::{End, LinkError, Netlink};
use crate::namespace::{Host, NamespaceError};

/// The port of the NFS service, on the balancer and on both nodes.
pub const SERVICE_PORT: u16 = 2049;

/// Where the client connects: the balancer's service address, which no host has on an interface.
pub const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 81, 9, 9), SERVICE_PORT);

/// One of the two NFS servers behind the balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Node {
    /// The node that serves first.
    A,
    /// The node that takes over.
    B,
}

impl Node {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// 0 for A, 1 for B.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The node that takes over from this one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["A", "B"][self.index()])
    }
}

/// A link from the balancer to another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The balancer's end.
    pub near: End,
    /// The other host's end.
    pub far: End,
}

const CLIENT_LINK: Link = link("bal-client", "client", 1);
const NODE_LINKS: [Link; 2] = [link("bal-a", "node-a", 2), link("bal-b", "node-b", 3)];

/// Why the network could not be built or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A host could not be made or entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused an rtnetlink or ethtool request.
    #[error("host {host}: {source}; the kernel needs CONFIG_VETH (modprobe veth)")]
    Link {
        /// The host the request was made on.
        host: String,
        /// The request and the kernel's answer.
        source: LinkError,
    },
}

/// The built network. Dropping it removes every host, link and process of it.
#[derive(Debug, Clone)]
pub struct Topology {
    client: Host,
    balancer: Host,
    nodes: [Host; 2],
}

impl Topology {
    /// Builds the four hosts and connects them.
    ///
    /// # Errors
    /// [`TopologyError`] with the step that failed; nothing is left behind.
    pub fn build() -> Result<Self, TopologyError> {
        let topology = Self {
            client: Host::create("client")?,
            balancer: Host::create("balancer")?,
            nodes: [Host::create("node-a")?, Host::create("node-b")?],
        };
        for host in topology.hosts() {
            on(host, |netlink| netlink.set_up("lo"))?;
        }
        topology.connect(&topology.client, &CLIENT_LINK)?;
        for node in Node::ALL {
            topology.connect(topology.node(node), Self::node_link(node))?;
        }
        Ok(topology)
    }

    /// The host the application runs on.
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The host between client and nodes.
    pub fn balancer(&self) -> &Host {
        &self.balancer
    }

    /// The host of a node.
    pub fn node(&self, node: Node) -> &Host {
        &self.nodes[node.index()]
    }

    /// The link between balancer and client.
    pub const fn client_link() -> &'static Link {
        &CLIENT_LINK
    }

    /// The link between balancer and a node.
    pub const fn node_link(node: Node) -> &'static Link {
        &NODE_LINKS[node as usize]
    }

    /// Where a node's server listens, and where the balancer sends its share.
    pub const fn node_service(node: Node) -> SocketAddrV4 {
        SocketAddrV4::new(Self::node_link(node).far.address, SERVICE_PORT)
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        [&self.client, &self.balancer].into_iter().chain(&self.nodes)
    }

    fn connect(&self, far_host: &Host, Link { near, far }: &Link) -> Result<(), TopologyError> {
        on(&self.balancer, |netlink| {
            netlink.add_veth(near, far, far_host.netns())?;
            netlink.configure(near)?;
            netlink.set_neighbour(near.interface, far.address, far.mac())
        })?;
        on(far_host, |netlink| {
            netlink.configure(far)?;
            netlink.set_neighbour(far.interface, near.address, near.mac())?;
            netlink.add_default_route(near.address)
        })
    }
}

/// Runs rtnetlink requests on a host.
pub(crate) fn on(
    host: &Host,
    requests: impl FnOnce(&Netlink) -> Result<(), LinkError> + Send,
) -> Result<(), TopologyError> {
    host.run(|| Netlink::open().and_then(|netlink| requests(&netlink)))?
        .map_err(|source| TopologyError::Link { host: host.name().to_owned(), source })
}

const fn link(near: &'static str, far: &'static str, subnet: u8) -> Link {
    Link {
        near: End { interface: near, address: Ipv4Addr::new(10, 81, subnet, 1) },
        far: End { interface: far, address: Ipv4Addr::new(10, 81, subnet, 2) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_distinct() {
        let links = [*Topology::client_link(), NODE_LINKS[0], NODE_LINKS[1]];
        let ends: Vec<End> = links.iter().flat_map(|l| [l.near, l.far]).collect();
        for (i, end) in ends.iter().enumerate() {
            assert!(end.interface.len() < libc::IFNAMSIZ);
            for other in &ends[i + 1..] {
                assert_ne!(end.interface, other.interface);
                assert_ne!(end.address, other.address);
                assert_ne!(end.mac(), other.mac());
            }
        }
    }

    #[test]
    fn the_service_address_is_on_no_link() {
        let links = [*Topology::client_link(), NODE_LINKS[0], NODE_LINKS[1]];
        let service_net = &SERVICE.ip().octets()[..3];
        assert!(links.iter().all(|l| &l.near.address.octets()[..3] != service_net));
    }

    #[test]
    fn each_node_has_the_other_as_its_stand_in() {
        assert_eq!(Node::A.other(), Node::B);
        assert_eq!(Node::B.other(), Node::A);
        assert_eq!(Topology::node_service(Node::B).to_string(), "10.81.3.2:2049");
    }
}
