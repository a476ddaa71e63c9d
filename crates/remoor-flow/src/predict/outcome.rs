//! What a prediction says, in words.

use std::fmt;
use std::time::Duration;

use remoor_nfs::reconnect::Rebind;

use super::{Attempt, Prediction, Scenario};

/// One thing worth telling of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Replies came again.
    Recovered {
        /// The failover gap.
        gap: Duration,
    },
    /// None did.
    NotRecovered {
        /// The window, after the fault.
        within: Duration,
    },
    /// The flow's entry sent SYNs to the faulty node.
    Pinned {
        /// The port whose flow it is.
        port: u16,
    },
    /// When that entry expires if nothing refreshes it.
    FlowFrees {
        /// After the fault.
        after: Duration,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovered { gap } => write!(f, "recovered after {:.3} s", gap.as_secs_f64()),
            Self::NotRecovered { within } => write!(f, "not recovered within {} s", within.as_secs()),
            Self::Pinned { port } => write!(f, "port {port} is pinned to the faulty node by its flow entry"),
            Self::FlowFrees { after } => {
                write!(f, "that entry frees {} s after the fault if nothing refreshes it", after.as_secs())
            }
        }
    }
}

impl Prediction {
    /// What is worth telling, the result first.
    pub fn findings(&self, scenario: &Scenario) -> Vec<Finding> {
        let result = match self.gap {
            Some(gap) => Finding::Recovered { gap },
            None => Finding::NotRecovered { within: scenario.window },
        };
        let pinned = self.attempts.iter().rfind(|_| self.pinned);
        let pinned = pinned.map(|attempt| Finding::Pinned { port: attempt.port });
        let frees = self.flow_frees_at.map(|at| at.saturating_sub(scenario.fault_at));
        let frees = frees.map(|after| Finding::FlowFrees { after });
        [Some(result), pinned, frees].into_iter().flatten().collect()
    }
}

/// Whether all attempts after the fault came from the port of the last one before it.
pub(super) fn rebind(attempts: &[Attempt], fault_at: Duration) -> Option<Rebind> {
    let split = attempts.partition_point(|attempt| attempt.at < fault_at);
    let (before, after) = attempts.split_at(split);
    let port = before.last()?.port;
    after.first()?;
    Some(if after.iter().all(|attempt| attempt.port == port) { Rebind::Same } else { Rebind::Fresh })
}
