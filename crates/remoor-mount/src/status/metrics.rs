//! Every metric of a mount: its name, which ends in its unit, its kind and its meaning. To add one, write its row.

use remoor_client::stats::{Latency, Procedure};
use remoor_control::prometheus::{Kind, Label, Samples, family};

use super::{Hits, Status};

struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Status, &mut Samples<'_>),
}

use Kind::{Counter, Gauge, Histogram};

/// Buckets of latency between the first and the last bound that is told, of [`remoor_client::stats::BUCKETS`]: 16 µs to
/// 67 s. Those below and above are counted with their neighbours.
const TOLD_BUCKETS: std::ops::RangeInclusive<usize> = 4..=26;

static FAMILIES: &[Family] = &[
    Family {
        name: "remoor_mount_info",
        kind: Gauge,
        help: "1; the labels tell what is mounted where, and by which version.",
        samples: |status, s| {
            let labels =
                [("source", &status.source), ("target", &status.target), ("version", &status.version)];
            s.add(&labels.map(|(label, text)| (label, text.as_str())), 1);
        },
    },
    Family {
        name: "remoor_mount_start_time_seconds",
        kind: Gauge,
        help: "When it was mounted, since 1970.",
        samples: |status, s| s.add(&[], format_args!("{:.3}", status.mounted_unix_ms as f64 / 1e3)),
    },
    Family {
        name: "remoor_mount_responding",
        kind: Gauge,
        help: "1 if the server answers on every connection, else 0.",
        samples: |status, s| s.add(&[], u8::from(status.is_responding())),
    },
    Family {
        name: "remoor_mount_source_port",
        kind: Gauge,
        help: "Source port of each connection (nconnect) that carries calls.",
        samples: |status, s| {
            for (n, connection) in status.client.connections.iter().enumerate() {
                if let Some(port) = connection.source_port {
                    s.add(&[("connection", &n.to_string())], port);
                }
            }
        },
    },
    Family {
        name: "remoor_mount_connect_attempts_total",
        kind: Counter,
        help: "Attempts to connect, one SYN series each.",
        samples: |status, s| each_connection(status, s, |connection| connection.attempts),
    },
    Family {
        name: "remoor_mount_reconnects_total",
        kind: Counter,
        help: "Times the calls of a connection went to another one.",
        samples: |status, s| each_connection(status, s, |connection| connection.reconnects),
    },
    Family {
        name: "remoor_mount_suspicions_total",
        kind: Counter,
        help: "Times a connection was silent for the suspicion interval with calls in flight.",
        samples: |status, s| each_connection(status, s, |connection| connection.suspicions),
    },
    Family {
        name: "remoor_mount_resent_calls_total",
        kind: Counter,
        help: "Calls sent again on another connection.",
        samples: |status, s| each_connection(status, s, |connection| connection.resent_calls),
    },
    Family {
        name: "remoor_mount_calls_in_flight",
        kind: Gauge,
        help: "Calls not answered yet.",
        samples: |status, s| s.add(&[], status.client.in_flight_calls),
    },
    Family {
        name: "remoor_mount_oldest_call_seconds",
        kind: Gauge,
        help: "Age of the oldest call in flight; 0 if there is none.",
        samples: |status, s| s.add(&[], status.client.in_flight.first().map_or(0.0, |call| call.age_secs)),
    },
    Family {
        name: "remoor_mount_call_duration_seconds",
        kind: Histogram,
        help: "Time from a call to its reply, by procedure, waiting for a connection included. The sum is estimated from \
               the buckets.",
        samples: |status, s| each_procedure(status, |labels, row| durations(labels, &row.latency, s)),
    },
    Family {
        name: "remoor_mount_call_bytes_total",
        kind: Counter,
        help: "Bytes of calls, each sending counted.",
        samples: |status, s| each_procedure(status, |labels, row| s.add(labels, row.sent_bytes)),
    },
    Family {
        name: "remoor_mount_reply_bytes_total",
        kind: Counter,
        help: "Bytes of replies.",
        samples: |status, s| each_procedure(status, |labels, row| s.add(labels, row.received_bytes)),
    },
    Family {
        name: "remoor_mount_call_errors_total",
        kind: Counter,
        help: "Calls that ended without a result: timed out (soft), refused, malformed.",
        samples: |status, s| each_procedure(status, |labels, row| s.add(labels, row.errors)),
    },
    Family {
        name: "remoor_mount_cache_hits_total",
        kind: Counter,
        help: "Answers from a cache: attributes, names, permissions.",
        samples: |status, s| each_cache(status, |label, hits| s.add(&[label], hits.hits)),
    },
    Family {
        name: "remoor_mount_cache_misses_total",
        kind: Counter,
        help: "What a cache did not have and the server was asked for.",
        samples: |status, s| each_cache(status, |label, hits| s.add(&[label], hits.misses)),
    },
    Family {
        name: "remoor_mount_read_ahead_hit_bytes_total",
        kind: Counter,
        help: "Bytes read that had been read ahead.",
        samples: |status, s| s.add(&[], status.counted.read_bytes.hits),
    },
    Family {
        name: "remoor_mount_read_ahead_miss_bytes_total",
        kind: Counter,
        help: "Bytes read that the server had to be waited for.",
        samples: |status, s| s.add(&[], status.counted.read_bytes.misses),
    },
    Family {
        name: "remoor_mount_nodes",
        kind: Gauge,
        help: "Objects that the kernel knows.",
        samples: |status, s| s.add(&[], status.kept.nodes),
    },
    Family {
        name: "remoor_mount_unstable_bytes",
        kind: Gauge,
        help: "Bytes written, and kept until the server has them on stable storage.",
        samples: |status, s| s.add(&[], status.kept.unstable_bytes),
    },
    Family {
        name: "remoor_mount_dirty_bytes",
        kind: Gauge,
        help: "Bytes written that the server has not answered yet.",
        samples: |status, s| s.add(&[], status.kept.dirty_bytes),
    },
    Family {
        name: "remoor_mount_uncommitted_bytes",
        kind: Gauge,
        help: "Bytes that the server has and has not committed to stable storage.",
        samples: |status, s| s.add(&[], status.kept.uncommitted_bytes),
    },
];

/// All metrics of a mount, in the text format of Prometheus.
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    for Family { name, kind, help, samples } in FAMILIES {
        family(&mut out, (name, *kind, help), |s| samples(status, s));
    }
    out
}

fn each_connection(
    status: &Status,
    s: &mut Samples<'_>,
    value: impl Fn(&remoor_client::stats::Connection) -> u64,
) {
    for (n, connection) in status.client.connections.iter().enumerate() {
        s.add(&[("connection", &n.to_string())], value(connection));
    }
}

fn each_procedure(status: &Status, mut tell: impl FnMut(&[Label<'_>; 2], &Procedure)) {
    for row in &status.client.procedures {
        tell(&[("program", &row.program), ("procedure", &row.name)], row);
    }
}

fn each_cache(status: &Status, mut tell: impl FnMut(Label<'_>, Hits)) {
    let counted = &status.counted;
    for (name, hits) in
        [("attributes", counted.attributes), ("names", counted.names), ("access", counted.access)]
    {
        tell(("cache", name), hits);
    }
}

/// A bucket's calls are taken to have needed three quarters of its upper bound.
fn durations(labels: &[Label<'_>; 2], latency: &Latency, s: &mut Samples<'_>) {
    let bound = |bucket: usize| (1u64 << bucket) as f64 / 1e6;
    let bounds: Vec<f64> = TOLD_BUCKETS.map(bound).collect();
    let mut counts = vec![0; bounds.len() + 1];
    let mut sum = 0.0;
    for (bucket, count) in latency.buckets.iter().enumerate() {
        counts[bucket.saturating_sub(*TOLD_BUCKETS.start()).min(bounds.len())] += count;
        sum += *count as f64 * bound(bucket) * 0.75;
    }
    s.histogram(labels, &bounds, &counts, sum);
}

#[cfg(test)]
mod tests {
    use remoor_control::strict;

    use super::*;
    use crate::status::tests::status;

    #[test]
    fn every_metric_has_its_name_its_unit_and_its_samples() {
        let samples = strict::parse(&render(&status()));
        let value = |name: &str, labels: &[(&str, &str)]| {
            let is = |(n, l, _): &&strict::Sample| {
                n == name && labels.iter().all(|(k, v)| l.get(*k).is_some_and(|x| x == v))
            };
            let found: Vec<_> = samples.iter().filter(is).map(|s| s.2).collect();
            assert_eq!(found.len(), 1, "{name} {labels:?}");
            found[0]
        };
        assert_eq!(value("remoor_mount_info", &[("source", "h:/e"), ("target", "/mnt \"x\"")]), 1.0);
        assert_eq!(value("remoor_mount_responding", &[]), 0.0);
        assert_eq!(value("remoor_mount_source_port", &[("connection", "0")]), 721.0);
        assert_eq!(value("remoor_mount_reconnects_total", &[]), 3.0);
        assert_eq!(value("remoor_mount_oldest_call_seconds", &[]), 12.5);
        let read = ("procedure", "READ");
        assert_eq!(value("remoor_mount_call_duration_seconds_count", &[read]), 7.0);
        let below_32_us = [read, ("le", "0.000032")];
        assert_eq!(value("remoor_mount_call_duration_seconds_bucket", &below_32_us), 5.0);
        assert_eq!(value("remoor_mount_cache_hits_total", &[("cache", "names")]), 3.0);
        assert_eq!(value("remoor_mount_unstable_bytes", &[]), 4096.0);
        assert_eq!(value("remoor_mount_dirty_bytes", &[]), 1000.0);
        assert_eq!(value("remoor_mount_uncommitted_bytes", &[]), 3000.0);
        assert!(samples.len() < 200, "a scrape stays small: {}", samples.len());
    }
}
