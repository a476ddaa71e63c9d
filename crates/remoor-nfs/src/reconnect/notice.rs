//! What the machine tells people: for the log, status output and the drill.

use std::fmt;
use std::time::Duration;

use super::event::{AttemptError, CloseReason};

/// Why calls went to another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoveReason {
    /// Our bytes stayed unacknowledged.
    #[error("path dead")]
    PathDead,
    /// Bytes were acknowledged, NULL was not answered.
    #[error("server stuck")]
    Stuck,
    /// The connection ended.
    #[error("{0}")]
    Closed(CloseReason),
}

/// Something worth telling a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The first connection is proven.
    Mounted {
        /// Its source port.
        port: u16,
        /// Attempts it took.
        attempts: u32,
    },
    /// A hard mount passed a major timeout ("server not responding, still trying").
    NotResponding,
    /// A reply came after [`Notice::NotResponding`] ("server OK").
    Ok,
    /// A connection with calls outstanding went silent.
    Suspected {
        /// Its source port.
        port: u16,
        /// For how long.
        silent_for: Duration,
    },
    /// A suspect connection spoke again; the race is called off.
    Cleared {
        /// Its source port.
        port: u16,
        /// How long it was silent.
        silent_for: Duration,
    },
    /// A proven connection took over and outstanding calls are sent again on it.
    Moved {
        /// Source port left.
        from_port: u16,
        /// Source port taken.
        to_port: u16,
        /// Why.
        reason: MoveReason,
        /// From the last byte received on the old connection to the proof of the new one.
        gap: Duration,
        /// Calls outstanding at the move.
        resent: usize,
    },
    /// An attempt failed.
    AttemptFailed {
        /// Its source port.
        port: u16,
        /// Why.
        error: AttemptError,
        /// When the next starts.
        retry_in: Duration,
    },
    /// An attempt used up its time.
    AttemptTimedOut {
        /// Its source port.
        port: u16,
        /// How long it had.
        waited: Duration,
    },
    /// The port is in use by another program and the attempt takes another of the same range. With `rebind=same`
    /// after a connection this means that a reply cache that keys on the port will not know the calls again.
    PortChanged {
        /// Port in use.
        from_port: u16,
        /// Port taken.
        to_port: u16,
    },
    /// Every port of the range was used within the longest balancer idle time; the longest unused is taken again.
    PortExhausted {
        /// The port taken again.
        port: u16,
        /// For how long it was unused.
        unused_for: Duration,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { port, attempts } => write!(f, "connected from port {port}, attempt {attempts}"),
            Self::NotResponding => f.write_str("server not responding, still trying"),
            Self::Ok => f.write_str("server OK"),
            Self::Suspected { port, silent_for } => {
                write!(
                    f,
                    "no byte for {silent_for:.0?} on the connection from port {port}: asking whether it is alive"
                )
            }
            Self::Cleared { port, silent_for } => {
                write!(f, "the connection from port {port} spoke after {silent_for:.0?}: staying on it")
            }
            Self::Moved { from_port, to_port, reason, gap, resent } => write!(
                f,
                "{reason}: moved from port {from_port} to port {to_port} after {gap:.0?}, {resent} calls sent again"
            ),
            Self::AttemptFailed { port, error, retry_in } => {
                write!(f, "attempt from port {port}: {error}; next in {retry_in:.0?}")
            }
            Self::AttemptTimedOut { port, waited } => {
                write!(f, "attempt from port {port}: no answer in {waited:.0?}; trying again now")
            }
            Self::PortChanged { from_port, to_port } => {
                write!(f, "source port {from_port} is in use by another program: taking port {to_port}")
            }
            Self::PortExhausted { port, unused_for } => write!(
                f,
                "every source port was used within the longest balancer idle time: port {port}, unused for \
                 {unused_for:.0?}, is taken again; a wider range avoids this"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_read_as_sentences() {
        let moved = Notice::Moved {
            from_port: 940,
            to_port: 733,
            reason: MoveReason::PathDead,
            gap: Duration::from_micros(402_600),
            resent: 2,
        };
        assert_eq!(
            moved.to_string(),
            "path dead: moved from port 940 to port 733 after 403ms, 2 calls sent again"
        );
        let error = AttemptError::Closed(CloseReason::Fin);
        let failed = Notice::AttemptFailed { port: 940, error, retry_in: Duration::from_millis(25) };
        assert_eq!(
            failed.to_string(),
            "attempt from port 940: closed by the server before NULL was answered; next in 25ms"
        );
    }
}
