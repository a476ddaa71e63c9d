//! Ways to break a node, and to mend it. One file each, and one line in [`FAULTS`].

use std::time::Duration;

use remoor_flow::predict;

use crate::namespace::NamespaceError;
use crate::topology::{Node, Topology, TopologyError};

mod flap;
mod kill;
mod silent;
mod stop;

pub use silent::{restore, silence};

/// Every fault, in the order a listing shows them.
pub const FAULTS: &[Fault] = &[silent::FAULT, kill::FAULT, stop::FAULT, flap::FAULT];

/// One way to break a node.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The name on the command line.
    pub name: &'static str,
    /// One line for a listing.
    pub about: &'static str,
    /// How long the fault lasts by itself; whoever injected it calls [`Fault::mend`] then. `None`: until the case
    /// decides.
    pub lasts: Option<Duration>,
    /// The same fault in virtual time, given the window of the case.
    pub predicted: fn(Duration) -> predict::Fault,
    inject: fn(&Victim<'_>) -> Result<(), FaultError>,
    mend: fn(&Victim<'_>) -> Result<Mended, FaultError>,
}

/// The node to break.
#[derive(Debug, Clone, Copy)]
pub struct Victim<'a> {
    /// The network it is in.
    pub topology: &'a Topology,
    /// Which one.
    pub node: Node,
    /// The process id of its server, as [`std::process::Child::id`] tells it; not yet waited for.
    pub server: u32,
}

/// What is left to do after a fault was mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// Nothing: the server goes on.
    Resumed,
    /// The server is gone and must be started again.
    StartServer,
}

/// Why a fault could not be injected or mended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// The node's network could not be changed.
    #[error("cannot change the network of node {node}: {source}")]
    Network {
        /// The node.
        node: Node,
        /// The request that failed.
        source: TopologyError,
    },
    /// The node's host could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The node's server could not be signalled.
    #[error(
        "cannot send {signal} to the server of node {node} (process {server}): {source}; did it end early?"
    )]
    Signal {
        /// The signal's name.
        signal: &'static str,
        /// The node.
        node: Node,
        /// The process.
        server: u32,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl Fault {
    /// The fault of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        FAULTS.iter().find(|fault| fault.name == name)
    }

    /// Breaks the node; on return it is broken.
    ///
    /// # Errors
    /// [`FaultError`] with the step that failed.
    pub fn inject(&self, victim: &Victim<'_>) -> Result<(), FaultError> {
        (self.inject)(victim)
    }

    /// Undoes what [`Fault::inject`] did, as far as it can be undone.
    ///
    /// # Errors
    /// [`FaultError`] with the step that failed.
    pub fn mend(&self, victim: &Victim<'_>) -> Result<Mended, FaultError> {
        (self.mend)(victim)
    }
}

impl Victim<'_> {
    fn signal(&self, signal: rustix::process::Signal, name: &'static str) -> Result<(), FaultError> {
        // Pid 0 and negative values would address process groups.
        let pid =
            i32::try_from(self.server).ok().filter(|pid| *pid > 0).and_then(rustix::process::Pid::from_raw);
        let sent = pid.map_or(Err(rustix::io::Errno::SRCH), |pid| rustix::process::kill_process(pid, signal));
        let failed = |e: rustix::io::Errno| FaultError::Signal {
            signal: name,
            node: self.node,
            server: self.server,
            source: e.into(),
        };
        sent.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (i, fault) in FAULTS.iter().enumerate() {
            assert!(!fault.about.is_empty() && !fault.about.contains('\n'), "{}", fault.name);
            assert!(FAULTS[i + 1..].iter().all(|other| other.name != fault.name));
            assert_eq!(Fault::named(fault.name).map(|found| found.name), Some(fault.name));
        }
        assert!(Fault::named("flood").is_none());
    }
}
