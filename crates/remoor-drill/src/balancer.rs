//! The host between client and nodes, as a flow-table model or as the Linux kernel.

use std::fmt;
use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use remoor_flow::Health;

use crate::link::LinkError;
use crate::namespace::NamespaceError;
use crate::topology::Node;

mod frame;
mod kernel;
mod model;

pub use kernel::KernelBalancer;
pub use model::{ModelBalancer, Traffic};

/// A balancer that forwards between the client and the nodes for as long as it lives.
pub trait Balancer: fmt::Debug + Send {
    /// Tells the balancer what its probes would say. Which node a new flow gets among those that are up is the
    /// balancer's choice: the kernel takes A, a model that hashes may take either.
    ///
    /// # Errors
    /// [`BalancerError`] when the change could not be made.
    fn set_health(&mut self, node: Node, health: Health) -> Result<(), BalancerError>;

    /// The flows it holds now.
    ///
    /// # Errors
    /// [`BalancerError`] when they cannot be read on this machine.
    fn flows(&self) -> Result<Vec<FlowView>, BalancerError>;
}

/// A flow that a balancer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowView {
    /// The client's end.
    pub client: SocketAddrV4,
    /// Where its segments go.
    pub node: Node,
    /// State of the connection, in the balancer's own words.
    pub state: String,
    /// Until the entry frees, if no segment refreshes it.
    pub expires_in: Duration,
}

/// Why a balancer could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BalancerError {
    /// The balancer's host could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// An interface is not there.
    #[error("the balancer cannot forward: {0}; build the topology first")]
    Interface(#[from] LinkError),
    /// A packet socket failed.
    #[error(
        "the balancer cannot forward on {interface}: {source}; the kernel needs CONFIG_PACKET (modprobe af_packet)"
    )]
    Socket {
        /// The interface.
        interface: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// nft is not installed.
    #[error("the kernel balancer needs nft, which is neither in PATH nor in {}; run `apt-get install nftables`", .0)]
    NoNft(String),
    /// nft ran and was refused.
    #[error(
        "the kernel balancer could not {attempted}: nft said: {said}; the kernel needs nf_tables, nft_nat and \
             nf_conntrack (modprobe nf_tables nft_chain_nat nft_ct)"
    )]
    Nft {
        /// What was attempted.
        attempted: &'static str,
        /// What nft printed, in one line.
        said: String,
    },
    /// A file of the kernel could not be read or written.
    #[error("the kernel balancer cannot {attempted} {path}: {source}; {remedy}")]
    Proc {
        /// `read` or `write`.
        attempted: &'static str,
        /// The file.
        path: &'static str,
        /// What to do.
        remedy: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}
