//! What a mount does at the moment, from memory alone: no server is asked and no mount point touched.
//!
//! | module | subject |
//! |---|---|
//! | [`counters`] | what the file system counts |
//! | `metrics` | the same in the text format of Prometheus |

pub mod counters;
mod metrics;

use remoor_client::stats::Snapshot;
use serde::{Deserialize, Serialize};

pub use counters::{Counted, Counters, Hits};
pub use metrics::render as metrics;

/// What a mount does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of remoor that serves it.
    pub version: String,
    /// The process that serves it.
    pub pid: u32,
    /// `server:/export`.
    pub source: String,
    /// Mount point.
    pub target: String,
    /// `major:minor` of its device.
    pub device: String,
    /// Effective options, as /proc/mounts would show them for a mount of the kernel's client.
    pub options: String,
    /// When it was mounted, milliseconds since 1970.
    pub mounted_unix_ms: u64,
    /// Seconds since then.
    pub mounted_secs: f64,
    /// Connections, calls and reconnects.
    #[serde(flatten)]
    pub client: Snapshot,
    /// What the caches answered, and errors.
    pub counted: Counted,
    /// What is kept at the moment.
    pub kept: Kept,
}

/// What a mount keeps at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Objects that the kernel knows.
    pub nodes: u64,
    /// Bytes of memory that hold what was written, until the server has it on stable storage.
    pub unstable_bytes: u64,
    /// Bytes that were written, and are not yet answered by the server.
    #[serde(default)]
    pub dirty_bytes: u64,
    /// Bytes that the server has, and has not yet committed to stable storage.
    #[serde(default)]
    pub uncommitted_bytes: u64,
    /// Bytes that were read ahead.
    pub read_ahead_bytes: u64,
}

impl Status {
    /// The server answers on every connection.
    pub fn is_responding(&self) -> bool {
        self.client.connections.iter().all(|connection| connection.responding)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use remoor_client::stats::{BUCKETS, Connection, InFlight, Latency, Procedure, Reconnect};

    use super::*;

    /// A mount whose server is away.
    pub(crate) fn status() -> Status {
        let mut buckets = vec![0; BUCKETS];
        (buckets[2], buckets[5], buckets[30]) = (3, 2, 2);
        let read = Procedure {
            program: "NFS".into(),
            name: "READ".into(),
            calls: 9,
            answered: 7,
            errors: 1,
            given_up: 0,
            retransmissions: 2,
            sent_bytes: 1_000,
            received_bytes: 1 << 20,
            latency: Latency { p50_us: 20.0, p99_us: 600_000_000.0, max_us: 600_000_000, buckets },
        };
        let reconnect = Reconnect {
            unix_ms: 1_795_000_000_000,
            connection: 0,
            reason: "path dead".to_owned(),
            from_port: 700,
            to_port: 721,
            from_address: "192.0.2.1:2049".to_owned(),
            to_address: "192.0.2.1:2049".to_owned(),
            gap_ms: 412.0,
            resent_calls: 5,
            attempts: 2,
        };
        let connection = Connection {
            state: "suspect".into(),
            responding: false,
            server_address: Some("192.0.2.1:2049".to_owned()),
            source_port: Some(721),
            connected_unix_ms: Some(1_795_000_000_000),
            attempts: 5,
            reconnects: 3,
            ..Connection::default()
        };
        Status {
            version: "0.1.0".to_owned(),
            pid: 4711,
            source: "h:/e".to_owned(),
            target: "/mnt \"x\"".to_owned(),
            device: "0:57".to_owned(),
            options: "rw,vers=3,hard".to_owned(),
            mounted_unix_ms: 1_794_000_000_000,
            mounted_secs: 7_300.0,
            client: Snapshot {
                server: "h".to_owned(),
                addresses: vec!["192.0.2.1:2049".to_owned()],
                age_secs: 7_300.0,
                connections: vec![connection],
                procedures: vec![read],
                in_flight_calls: 1,
                in_flight: vec![InFlight { program: "NFS".into(), name: "READ".into(), age_secs: 12.5 }],
                reconnects: vec![reconnect],
            },
            counted: Counted { names: Hits { hits: 3, misses: 1 }, ..Counted::default() },
            kept: Kept {
                unstable_bytes: 4096,
                dirty_bytes: 1000,
                uncommitted_bytes: 3000,
                ..Kept::default()
            },
        }
    }

    #[test]
    fn a_status_is_read_back_from_its_line() {
        let line = serde_json::to_string(&status()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&line).unwrap(), status());
        assert!(!status().is_responding());
    }
}
