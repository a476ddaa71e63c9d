//! What a server does, for people.

use remoor_server::control::{ClientStatus, Replays, Status};

use super::table::{bytes, cells, duration, few, micros, section};
use crate::columns;

/// Clients that are shown; `--json` has all.
const MAX_CLIENTS: usize = 40;
/// Seconds that the rate of calls is taken from, once the server has run for so long.
const RATE_SECS: f64 = 10.0;

pub(super) fn render(status: &Status) -> String {
    let mut text = head(status);
    text += &section("client", &client_rows(status), 3..7);
    let hidden = status.clients.len().saturating_sub(MAX_CLIENTS);
    if hidden > 0 {
        text += &format!("{hidden} more with fewer calls; --json has all\n");
    }
    text += &section("export", &export_rows(status), 2..4);
    text += &section("procedure", &procedure_rows(status), 1..7);
    text
}

fn head(status: &Status) -> String {
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    let connections = &status.connections;
    let stopping = if status.stopping { ", stopping" } else { "" };
    let lines = [
        format!(
            "node {}, remoor {}, pid {}, up {}{stopping}",
            status.node,
            status.version,
            status.pid,
            duration(status.uptime_secs)
        ),
        format!(
            "{} open ({} accepted, {} evicted, {} refused, {} broken); {} refused for their port",
            columns::counted(connections.open, "connection"),
            connections.accepted,
            connections.evicted,
            connections.refused,
            connections.broken,
            columns::counted(status.port_refusals, "call")
        ),
        format!("{} calls, {:.1} a second {}", status.calls, status.calls_per_second, rate_span(status)),
        replays(&status.replays),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    lines + &columns::row("listening on", 13, &listen.join(" "))
}

/// What the server takes the rate of calls from.
fn rate_span(status: &Status) -> &'static str {
    if status.uptime_secs < RATE_SECS { "since the start" } else { "in the last 10 s" }
}

fn replays(replays: &Replays) -> String {
    let Replays { same_connection, same_port, other_port, inferred } = replays;
    format!(
        "replayed: {same_connection} same connection, {same_port} same port, {other_port} other port, {inferred} inferred"
    )
}

fn client_rows(status: &Status) -> Vec<Vec<String>> {
    let header =
        cells(["client", "reserved ports", "other ports", "calls", "received", "sent", "idle", "mounted"]);
    let row = |client: &ClientStatus| {
        vec![
            client.address.to_string(),
            ports(&client.reserved_ports),
            ports(&client.other_ports),
            client.calls.to_string(),
            bytes(client.request_bytes),
            bytes(client.reply_bytes),
            client.idle_secs.map_or_else(|| "-".to_owned(), duration),
            few(&client.mounts),
        ]
    };
    std::iter::once(header).chain(status.clients.iter().take(MAX_CLIENTS).map(row)).collect()
}

fn export_rows(status: &Status) -> Vec<Vec<String>> {
    let header = cells(["export", "to", "mounted by", "calls", "health"]);
    let rows = status.exports.iter().map(|export| {
        vec![
            export.path.clone(),
            few(&export.clients),
            export.mounted_by.to_string(),
            export.calls.to_string(),
            export.unhealthy.clone().unwrap_or_else(|| "ok".to_owned()),
        ]
    });
    std::iter::once(header).chain(rows).collect()
}

fn procedure_rows(status: &Status) -> Vec<Vec<String>> {
    let header = cells(["procedure", "calls", "mean", "median", "99 %", "received", "sent", "errors"]);
    let rows = status.procedures.iter().map(|row| {
        let errors: Vec<String> = row.errors.iter().map(|(status, n)| format!("{n} {status}")).collect();
        let bound = |share| row.quantile_micros(share).map_or_else(|| "> 10 s".to_owned(), micros);
        vec![
            format!("{} {}", row.program, row.procedure),
            row.calls.to_string(),
            micros(row.mean_micros().round() as u64),
            bound(0.5),
            bound(0.99),
            bytes(row.request_bytes),
            bytes(row.reply_bytes),
            errors.join(", "),
        ]
    });
    std::iter::once(header).chain(rows).collect()
}

fn ports(ports: &[u16]) -> String {
    if ports.is_empty() { "-".to_owned() } else { few(ports) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use remoor_server::control::ExportStatus;
    use remoor_server::{BUCKETS_MICROS, Connections, ProcedureStats};

    use super::*;

    fn status() -> Status {
        let client = |n: u8| ClientStatus {
            address: std::net::Ipv6Addr::from([0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, n])
                .into(),
            reserved_ports: vec![700, 701, 702, 1003, 1004],
            other_ports: vec![],
            calls: 1_234_567_890,
            request_bytes: 12_345_678_901,
            reply_bytes: 999,
            idle_secs: Some(0.25),
            mounts: vec!["/srv/data/with/a/long/name/indeed".to_owned(), "/srv/b".to_owned()],
        };
        let buckets = BUCKETS_MICROS.iter().map(|_| 7).chain([0]).collect();
        let procedure = ProcedureStats {
            program: "NFS".to_owned(),
            procedure: "READDIRPLUS".to_owned(),
            calls: 133,
            nanos: 133_000_000,
            buckets,
            request_bytes: 5_000,
            reply_bytes: 5_000_000,
            errors: BTreeMap::from([("NFS3ERR_NOENT".to_owned(), 12), ("NFS3ERR_BADHANDLE".to_owned(), 3)]),
        };
        let export = ExportStatus {
            path: "/srv/data/with/a/long/name/indeed".to_owned(),
            clients: vec!["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()],
            mounted_by: 2,
            calls: 99,
            write_verifier: "0123456789abcdef".to_owned(),
            unhealthy: Some("its file system has not answered for 12.0 s".to_owned()),
        };
        Status {
            version: "0.1.0".to_owned(),
            pid: 4711,
            node: "a".to_owned(),
            listen: vec!["192.0.2.1:2049".parse().unwrap(), "[2001:db8::1]:2049".parse().unwrap()],
            uptime_secs: 100_000.0,
            write_verifier: "0123456789abcdef".to_owned(),
            stopping: false,
            connections: Connections { open: 250, accepted: 500, evicted: 3, refused: 0, broken: 1 },
            calls: 133,
            calls_per_second: 12.34,
            port_refusals: 4,
            replays: Replays { other_port: 5, ..Replays::default() },
            clients: (0..50).map(client).collect(),
            exports: vec![export],
            procedures: vec![procedure],
        }
    }

    #[test]
    fn everything_fits_the_width() {
        let text = render(&status());
        for line in text.lines() {
            assert!(line.chars().count() <= columns::WIDTH, "{line}\n{text}");
        }
        for part in [
            "node a, remoor 0.1.0, pid 4711, up 1 d 3 h",
            "its file system has not",
            "4 calls refused for their port",
            "133 calls, 12.3 a second in the last 10 s",
            "replayed: 0 same connection, 0 same port, 5 other port, 0 inferred",
            "10 more with fewer calls",
            "NFS READDIRPLUS",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn what_clients_name_neither_breaks_lines_nor_speaks_to_the_terminal() {
        let status = status();
        let mounts = |path: &str| vec![path.to_owned(); 500];
        let client = |path: &str| ClientStatus { mounts: mounts(path), ..status.clients[0].clone() };
        let export = ExportStatus {
            path: "/x".repeat(200),
            clients: mounts("2001:db8:1111:2222:3333:4444:5555:6666"),
            ..status.exports[0].clone()
        };
        let clients = vec![client("/srv/\u{1b}[2J\n/forged"), client(&"/no-blank".repeat(100))];
        let text = render(&Status { clients, exports: vec![export], ..status });
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("+497"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= columns::WIDTH, "{line}\n{text}");
        }
    }

    #[test]
    fn a_server_nobody_uses_says_so() {
        let text = render(&Status { clients: vec![], exports: vec![], procedures: vec![], ..status() });
        assert!(text.ends_with("\nno client yet\n\nno export yet\n\nno procedure yet\n"), "{text}");
    }
}
