//! The node goes silent: nothing it sends arrives, and nothing sent to it is answered.
//!
//! Its interface takes another Ethernet address, so what arrives for the old one is not for this host and the kernel
//! drops it before IP (PACKET_OTHERHOST in `eth_type_trans`, `ip_rcv`). Its gateway becomes a station that does not
//! exist. The link keeps its carrier, and nobody is told.

use remoor_flow::predict;

use super::{Fault, FaultError, Mended};
use crate::link::Mac;
use crate::topology::{Node, Topology, on};

pub(super) const FAULT: Fault = Fault {
    name: "silent",
    about: "the node stops answering: no RST, no ICMP, the link stays up",
    lasts: None,
    predicted: |_| predict::Fault::Silent,
    inject: |victim| silence(victim.topology, victim.node),
    mend: |victim| restore(victim.topology, victim.node).map(|()| Mended::Resumed),
};

/// The address a silent node has, and the one it takes for its gateway's; neither station exists.
const NOBODY: [Mac; 2] = [Mac([0x02, 0x52, 0xff, 0xff, 0, 1]), Mac([0x02, 0x52, 0xff, 0xff, 0, 2])];

/// Makes `node` silent in both directions. Its processes run on.
///
/// # Errors
/// [`FaultError::Network`] when the kernel refuses a step.
pub fn silence(topology: &Topology, node: Node) -> Result<(), FaultError> {
    set_station(topology, node, NOBODY[0], NOBODY[1])
}

/// Ends a silence.
///
/// # Errors
/// [`FaultError::Network`] when the kernel refuses a step.
pub fn restore(topology: &Topology, node: Node) -> Result<(), FaultError> {
    let link = Topology::node_link(node);
    set_station(topology, node, link.far.mac(), link.near.mac())
}

/// Gives the node's interface the address `own` and its gateway the address `gateway`.
fn set_station(topology: &Topology, node: Node, own: Mac, gateway: Mac) -> Result<(), FaultError> {
    let link = Topology::node_link(node);
    on(topology.node(node), |netlink| {
        // A new address flushes the neighbour entries, permanent ones too (neigh_changeaddr). Until the next
        // request, frames go to the interface's own address (arp_constructor, IFF_NOARP): to nobody.
        netlink.set_mac(link.far.interface, own)?;
        netlink.set_neighbour(link.far.interface, link.near.address, gateway)
    })
    .map_err(|source| FaultError::Network { node, source })
}
