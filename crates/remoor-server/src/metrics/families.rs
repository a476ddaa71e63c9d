//! Every metric: its name, which ends in its unit, its kind and its meaning. To add one, write its row.

use std::time::UNIX_EPOCH;

use super::Metrics;
use super::procedures::{BUCKETS_MICROS, ProcedureStats};
use crate::net::Connections;
use remoor_control::prometheus::{Kind, Label, Samples, family};
use remoor_nfs::replay;

/// What metrics are made of, at one moment.
pub(crate) struct Facts<'a> {
    pub(crate) metrics: &'a Metrics,
    pub(crate) connections: Connections,
    pub(crate) port_refusals: u64,
    pub(crate) replays: replay::Counters,
    pub(crate) exports: Vec<ExportFacts>,
    /// In the order of the programs' tables.
    pub(crate) procedures: Vec<ProcedureStats>,
}

/// What is told of an export.
pub(crate) struct ExportFacts {
    pub(crate) path: String,
    pub(crate) calls: u64,
    pub(crate) healthy: bool,
}

struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Facts<'_>, &mut Samples<'_>),
}

use Kind::{Counter, Gauge, Histogram};

static FAMILIES: &[Family] = &[
    Family {
        name: "remoor_build_info",
        kind: Gauge,
        help: "1; the label tells the version.",
        samples: |_, s| s.add(&[("version", env!("CARGO_PKG_VERSION"))], 1),
    },
    Family {
        name: "remoor_start_time_seconds",
        kind: Gauge,
        help: "When the server started, since 1970.",
        samples: |facts, s| s.add(&[], format_args!("{:.3}", started(facts))),
    },
    Family {
        name: "remoor_call_duration_seconds",
        kind: Histogram,
        help: "Time from a whole call to its reply, by procedure. It includes no wait for a worker.",
        samples: |facts, s| each(facts, |labels, row| durations(labels, row, s)),
    },
    Family {
        name: "remoor_call_bytes_total",
        kind: Counter,
        help: "Bytes of calls, RPC headers included: what was written, for WRITE.",
        samples: |facts, s| each(facts, |labels, row| s.add(labels, row.request_bytes)),
    },
    Family {
        name: "remoor_reply_bytes_total",
        kind: Counter,
        help: "Bytes of replies, RPC headers included: what was read, for READ.",
        samples: |facts, s| each(facts, |labels, row| s.add(labels, row.reply_bytes)),
    },
    Family {
        name: "remoor_errors_total",
        kind: Counter,
        help: "Calls that failed, by status of RFC 1813, or GARBAGE_ARGS and SYSTEM_ERR.",
        samples: |facts, s| each(facts, |labels, row| errors(labels, row, s)),
    },
    Family {
        name: "remoor_refused_calls_total",
        kind: Counter,
        help: "Calls given to no procedure, by answer of RFC 5531.",
        samples: |facts, s| facts.metrics.refused.counts().for_each(|(why, n)| s.add(&[("reason", why)], n)),
    },
    Family {
        name: "remoor_port_refusals_total",
        kind: Counter,
        help: "Calls refused because a secure export was used from a port of 1024 or above.",
        samples: |facts, s| s.add(&[], facts.port_refusals),
    },
    Family {
        name: "remoor_replayed_calls_total",
        kind: Counter,
        help: "Calls answered from the reply cache, by where they came from compared with the first one.",
        samples: |facts, s| replayed(&facts.replays).iter().for_each(|(kind, n)| s.add(&[("kind", kind)], n)),
    },
    Family {
        name: "remoor_reply_cache_calls_total",
        kind: Counter,
        help: "Calls that the reply cache saw and did not answer, by what became of them.",
        samples: |facts, s| {
            unanswered(&facts.replays).iter().for_each(|(what, n)| s.add(&[("what", what)], n))
        },
    },
    Family {
        name: "remoor_reply_cache_evicted_total",
        kind: Counter,
        help: "Replies forgotten to make room: settled ones were received, others may be asked for again.",
        samples: |facts, s| evicted(&facts.replays).iter().for_each(|(what, n)| s.add(&[("reply", what)], n)),
    },
    Family {
        name: "remoor_connections",
        kind: Gauge,
        help: "Connections open now.",
        samples: |facts, s| s.add(&[], facts.connections.open),
    },
    Family {
        name: "remoor_connections_accepted_total",
        kind: Counter,
        help: "Connections accepted.",
        samples: |facts, s| s.add(&[], facts.connections.accepted),
    },
    Family {
        name: "remoor_connections_refused_total",
        kind: Counter,
        help: "Connections closed at once because too many were open.",
        samples: |facts, s| s.add(&[], facts.connections.refused),
    },
    Family {
        name: "remoor_connections_evicted_total",
        kind: Counter,
        help: "Idle connections closed for new ones because too many were open.",
        samples: |facts, s| s.add(&[], facts.connections.evicted),
    },
    Family {
        name: "remoor_connections_broken_total",
        kind: Counter,
        help: "Connections closed because of an error, a malformed record or a stalled peer.",
        samples: |facts, s| s.add(&[], facts.connections.broken),
    },
    Family {
        name: "remoor_export_calls_total",
        kind: Counter,
        help: "NFS calls on objects of an export. They begin anew when its file system is opened anew.",
        samples: |facts, s| facts.exports.iter().for_each(|e| s.add(&[("export", &e.path)], e.calls)),
    },
    Family {
        name: "remoor_export_healthy",
        kind: Gauge,
        help: "1 if the export's file system answers in time, else 0.",
        samples: |facts, s| {
            facts.exports.iter().for_each(|e| s.add(&[("export", &e.path)], u8::from(e.healthy)));
        },
    },
];

/// All metrics, in the text format of Prometheus.
pub(crate) fn render(facts: &Facts<'_>) -> String {
    let mut out = String::new();
    for Family { name, kind, help, samples } in FAMILIES {
        family(&mut out, (name, *kind, help), |s| samples(facts, s));
    }
    out
}

fn each(facts: &Facts<'_>, mut tell: impl FnMut(&[Label<'_>; 2], &ProcedureStats)) {
    for row in &facts.procedures {
        tell(&[("program", &row.program), ("procedure", &row.procedure)], row);
    }
}

fn durations(labels: &[Label<'_>; 2], row: &ProcedureStats, s: &mut Samples<'_>) {
    let bounds = BUCKETS_MICROS.map(|micros| micros as f64 / 1e6);
    s.histogram(labels, &bounds, &row.buckets, row.nanos as f64 / 1e9);
}

fn errors(labels: &[Label<'_>; 2], row: &ProcedureStats, s: &mut Samples<'_>) {
    for (status, n) in &row.errors {
        s.add(&[labels[0], labels[1], ("status", status)], n);
    }
}

fn replayed(replays: &replay::Counters) -> [(&'static str, u64); 4] {
    let replay::Counters { same_connection, same_port, other_port, inferred, .. } = *replays;
    [
        ("same_connection", same_connection),
        ("same_port", same_port),
        ("other_port", other_port),
        ("inferred", inferred),
    ]
}

fn unanswered(replays: &replay::Counters) -> [(&'static str, u64); 5] {
    let replay::Counters { executed, in_progress, held, told_apart, refused, .. } = *replays;
    [
        ("executed", executed),
        ("in_progress", in_progress),
        ("held", held),
        ("told_apart", told_apart),
        ("refused", refused),
    ]
}

fn evicted(replays: &replay::Counters) -> [(&'static str, u64); 2] {
    [("settled", replays.evicted_settled), ("unsettled", replays.evicted_unsettled)]
}

fn started(facts: &Facts<'_>) -> f64 {
    facts.metrics.began_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use remoor_control::strict;

    #[test]
    fn every_metric_has_its_name_its_unit_and_its_samples() {
        let metrics = Metrics::new();
        let client = IpAddr::from([192, 0, 2, 7]);
        let lookup = (remoor_nfs::v3::PROGRAM.number, 3);
        let mut head = [0; crate::metrics::HEAD];
        metrics.answered(client, lookup, &head, (100, 200), metrics.began);
        head[27] = 2;
        metrics.answered(client, lookup, &head, (100, 50), metrics.began);
        head[23] = 3;
        metrics.answered(client, (remoor_nfs::v3::PROGRAM.number, 99), &head, (100, 50), metrics.began);
        let connections = Connections { open: 3, accepted: 5, refused: 1, evicted: 6, broken: 2 };
        let exports = vec![ExportFacts { path: "/a \"b\"".into(), calls: 9, healthy: false }];
        let procedures = metrics.procedures.stats();
        let replays = replay::Counters { other_port: 6, ..Default::default() };
        let facts = Facts { metrics: &metrics, connections, port_refusals: 4, replays, exports, procedures };
        let samples = strict::parse(&render(&facts));
        let value = |name: &str, labels: &[(&str, &str)]| {
            let is = |(n, l, _): &&strict::Sample| {
                n == name && labels.iter().all(|(k, v)| l.get(*k).is_some_and(|x| x == v))
            };
            let found: Vec<_> = samples.iter().filter(is).map(|s| s.2).collect();
            assert_eq!(found.len(), 1, "{name} {labels:?}");
            found[0]
        };
        let lookup = ("procedure", "LOOKUP");
        assert_eq!(value("remoor_call_duration_seconds_count", &[lookup]), 2.0);
        assert_eq!(value("remoor_call_duration_seconds_bucket", &[lookup, ("le", "+Inf")]), 2.0);
        assert_eq!(value("remoor_reply_bytes_total", &[lookup]), 250.0);
        assert_eq!(value("remoor_errors_total", &[lookup, ("status", "NFS3ERR_NOENT")]), 1.0);
        assert_eq!(value("remoor_refused_calls_total", &[("reason", "PROC_UNAVAIL")]), 1.0);
        assert_eq!(value("remoor_replayed_calls_total", &[("kind", "other_port")]), 6.0);
        assert_eq!(value("remoor_connections", &[]), 3.0);
        assert_eq!(value("remoor_connections_evicted_total", &[]), 6.0);
        assert_eq!(value("remoor_export_healthy", &[("export", "/a \"b\"")]), 0.0);
        assert_eq!(value("remoor_port_refusals_total", &[]), 4.0);
        assert!(samples.len() < 1000, "a scrape stays small: {}", samples.len());
    }
}
