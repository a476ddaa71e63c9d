//! What a mount does, for people.

use std::time::{SystemTime, UNIX_EPOCH};

use remoor_client::stats::Connection;
use remoor_mount::control::MountEntry;
use remoor_mount::status::{Hits, Status};
use serde::Serialize;

use super::table::{bytes, cells, duration, micros, section};
use crate::columns;

/// Reconnects that are shown, the latest; `--json` has more.
const MAX_RECONNECTS: usize = 8;
/// State of a connection that carries calls.
const READY: &str = "ready";
/// Column of the text beside a heading.
const BESIDE: usize = 13;

/// What a mount told, or why it did not.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Told {
    Status(Box<Status>),
    Error { source: String, target: String, error: String },
}

impl Told {
    pub(super) fn new(entry: &MountEntry, status: Result<Box<Status>, String>) -> Self {
        match status {
            Ok(status) => Self::Status(status),
            Err(error) => Self::Error {
                source: entry.source.to_string_lossy().into_owned(),
                target: entry.target.to_string_lossy().into_owned(),
                error,
            },
        }
    }

    pub(super) fn render(&self) -> String {
        match self {
            Self::Status(status) => render(status),
            Self::Error { source, target, error } => {
                let head = format!("mount {}, {}\n", columns::plain(target), columns::plain(source));
                head + &columns::row("", BESIDE, &columns::plain(error))
            }
        }
    }
}

pub(super) fn render(status: &Status) -> String {
    let mut text = head(status);
    text += &connections(status);
    text += &data(status);
    text += &reconnects(status);
    text += &section("cache", &cache_rows(status), 1..4);
    text += &section("procedure", &procedure_rows(status), 1..8);
    text
}

fn head(status: &Status) -> String {
    let Status { source, target, version, pid, mounted_secs, options, .. } = status;
    let (source, target) = (columns::plain(source), columns::plain(target));
    let facts =
        format!("mount {target}, {source}, remoor {version}, pid {pid}, for {}", duration(*mounted_secs));
    columns::row("", 0, &facts) + &beside("options", &options.replace(',', ", "))
}

fn beside(heading: &str, text: &str) -> String {
    columns::row(heading, BESIDE, &columns::plain(text))
}

fn connections(status: &Status) -> String {
    let client = &status.client;
    let line = |connection: &Connection| {
        let address = connection.server_address.as_deref().unwrap_or("no address yet");
        let text = format!(
            "{} at {address}{}; {}, {}",
            client.server,
            standing(connection),
            columns::counted(connection.reconnects, "reconnect"),
            columns::counted(connection.attempts, "attempt")
        );
        beside("server", &text)
    };
    let lines: String = client.connections.iter().map(line).collect();
    let oldest = client.in_flight.first().map_or_else(String::new, |call| {
        format!(", the oldest {} {} for {}", call.program, call.name, duration(call.age_secs))
    });
    lines + &beside("in flight", &(columns::counted(client.in_flight_calls, "call") + &oldest))
}

/// Where a connection leaves from and since when; without one, why the last attempt failed.
fn standing(connection: &Connection) -> String {
    let port = connection.source_port.map_or_else(String::new, |port| format!(" from port {port}"));
    let since = connection.connected_unix_ms.filter(|_| connection.state == READY);
    let since = since.map_or_else(String::new, |ms| format!(" for {}", ago(ms)));
    let failure = connection.last_failure.as_ref().filter(|_| connection.state != READY);
    let failure = failure.map_or_else(String::new, |why| format!(", last attempt: {why}"));
    let responding = if connection.responding { "" } else { ", server not responding" };
    format!("{port}, {}{since}{responding}{failure}", connection.state)
}

/// How long ago.
fn ago(unix_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    duration(now.saturating_sub(unix_ms) as f64 / 1e3)
}

fn data(status: &Status) -> String {
    let kept = &status.kept;
    let text = format!(
        "{} to be written, {} written and not yet committed by the server, {} read ahead, {} known",
        bytes(kept.dirty_bytes),
        bytes(kept.uncommitted_bytes),
        bytes(kept.read_ahead_bytes),
        columns::counted(kept.nodes, "object")
    );
    beside("data", &text)
}

fn reconnects(status: &Status) -> String {
    let header = cells(["reconnect", "ports", "to", "gap", "attempts", "resent", "reason"]);
    let latest = status.client.reconnects.iter().rev().take(MAX_RECONNECTS);
    let rows = latest.map(|reconnect| {
        vec![
            format!("{} ago", ago(reconnect.unix_ms)),
            format!("{} -> {}", reconnect.from_port, reconnect.to_port),
            reconnect.to_address.clone(),
            micros((reconnect.gap_ms * 1e3).round() as u64),
            reconnect.attempts.to_string(),
            reconnect.resent_calls.to_string(),
            reconnect.reason.clone(),
        ]
    });
    section("reconnect", &std::iter::once(header).chain(rows).collect::<Vec<_>>(), 3..6)
}

fn cache_rows(status: &Status) -> Vec<Vec<String>> {
    let counted = &status.counted;
    let row = |name: &str, hits: Hits, shown: fn(u64) -> String| {
        let part = hits.part().map_or_else(|| "-".to_owned(), |part| format!("{:.1} %", part * 100.0));
        vec![name.to_owned(), part, shown(hits.hits), shown(hits.misses)]
    };
    let number = |n: u64| n.to_string();
    vec![
        cells(["cache", "from it", "hits", "misses"]),
        row("attributes", counted.attributes, number),
        row("names", counted.names, number),
        row("permissions", counted.access, number),
        row("read ahead", counted.read_bytes, bytes),
    ]
}

fn procedure_rows(status: &Status) -> Vec<Vec<String>> {
    let header =
        cells(["procedure", "calls", "median", "99 %", "longest", "sent", "received", "again", "errors"]);
    let rows = status.client.procedures.iter().map(|row| {
        let latency = |us: f64| if row.answered == 0 { "-".to_owned() } else { micros(us.round() as u64) };
        vec![
            format!("{} {}", row.program, row.name),
            row.calls.to_string(),
            latency(row.latency.p50_us),
            latency(row.latency.p99_us),
            latency(row.latency.max_us as f64),
            bytes(row.sent_bytes),
            bytes(row.received_bytes),
            row.retransmissions.to_string(),
            row.errors.to_string(),
        ]
    });
    std::iter::once(header).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(state: &str, port: Option<u16>, responding: bool) -> Connection {
        let connection = serde_json::json!({
            "state": state, "responding": responding, "server_address": "192.0.2.1:2049", "source_port": port,
            "connected_unix_ms": 0, "attempts": 8, "failed_attempts": 7, "last_failure": "connection refused",
            "reconnects": 0, "suspicions": 0, "false_alarms": 0, "resent_calls": 0, "retransmitted_calls": 0,
            "stray_replies": 0, "reply_time_us": 0,
        });
        serde_json::from_value(connection).unwrap()
    }

    #[test]
    fn a_failure_is_told_while_there_is_no_connection() {
        let lost = standing(&connection("backing-off", None, true));
        assert_eq!(lost, ", backing-off, last attempt: connection refused");
        let hung = standing(&connection("suspect", Some(700), false));
        assert!(hung.starts_with(" from port 700, suspect, server not responding"), "{hung}");
        let ready = standing(&connection("ready", Some(700), true));
        assert!(ready.starts_with(" from port 700, ready for ") && !ready.contains("refused"), "{ready}");
    }
}
