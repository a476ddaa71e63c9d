//! `remoor status`: what a running server does.

use std::io::{self, IsTerminal};
use std::ops::Range;
use std::time::Duration;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use remoor_server::control::{Answer, ClientStatus, Replays, Request, Status};

use crate::control::{Target, print, print_json, unexpected};
use crate::{Failure, columns};

/// Clients that are shown; `--json` has all.
const MAX_CLIENTS: usize = 40;
/// Longest first cell of a row that is not broken, in columns: an IPv6 address.
const UNBROKEN: usize = 39;
/// Seconds that the rate of calls is taken from, once the server has run for so long.
const RATE_SECS: f64 = 10.0;
/// Clears a terminal and goes to its first line (ECMA-48 ED, CUP).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show what a running server does: clients, exports in use, calls and their latencies.
///
/// It never waits for a file system, and for a server that does not answer no longer than --timeout says.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Show it again every second, or every SECS seconds, until interrupted
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    #[command(flatten)]
    target: Target,
}

const EXAMPLES: &str = "\
Examples:
  remoor status
  remoor status --watch
  remoor status --node a --json

Received and sent are the server's. Latencies are from a whole call to its reply: half and 99 % of
the calls took no longer than the bounds under median and 99 %. An export's calls are counted from
when its file system was opened. The same numbers, and histograms, are at /metrics where
`remoor serve --metrics` says.

Exit codes: 0 done; 2 the command line is wrong; 3 no server answers, or it refuses.";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Some(secs) = args.watch else { return args.show("") };
    let before = if io::stdout().is_terminal() && !args.json { CLEAR } else { "" };
    args.show(before)?;
    loop {
        std::thread::sleep(Duration::from_secs(secs));
        match args.show(before) {
            // A server that is restarted comes back.
            Err(Failure::Cannot(error)) => complain(&error),
            done => done?,
        }
    }
}

#[allow(clippy::print_stderr, reason = "standard output is for what the server answers")]
fn complain(error: &anyhow::Error) {
    eprintln!("remoor: {error}");
}

impl Args {
    fn show(&self, before: &str) -> Result<(), Failure> {
        let status = match self.target.ask(&Request::Status)? {
            Answer::Status(status) => status,
            other => return Err(unexpected(&other)),
        };
        if self.json { print_json(&status) } else { print(&format!("{before}{}", render(&status))) }
    }
}

fn render(status: &Status) -> String {
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
            "{} connections open ({} accepted, {} evicted, {} refused, {} broken); {} calls refused for their port",
            connections.open,
            connections.accepted,
            connections.evicted,
            connections.refused,
            connections.broken,
            status.port_refusals
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

/// A table with its header first, or that there is nothing to show. The columns `numbers` are aligned to the right.
fn section(what: &str, rows: &[Vec<String>], numbers: Range<usize>) -> String {
    let Some((header, rows)) = rows.split_first() else { return String::new() };
    if rows.is_empty() {
        return format!("\nno {what} yet\n");
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(columns::WIDTH as u16);
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| columns::plain(cell)));
    }
    for (n, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if n == 0 && rows.iter().all(|row| row[0].len() <= UNBROKEN) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        if numbers.contains(&n) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: String = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    format!("\n{lines}")
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
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

/// The first few, and how many there are besides; `--json` has all.
fn few(list: &[impl ToString]) -> String {
    const SHOWN: usize = 3;
    let first: Vec<String> = list.iter().take(SHOWN).map(ToString::to_string).collect();
    match list.len().saturating_sub(SHOWN) {
        0 => first.join(" "),
        more => format!("{} +{more}", first.join(" ")),
    }
}

fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn micros(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} µs"),
        1_000..1_000_000 => format!("{} ms", (n as f64 / 100.0).round() / 10.0),
        _ => format!("{} s", (n as f64 / 1e5).round() / 10.0),
    }
}

fn duration(secs: f64) -> String {
    let whole = secs as u64;
    match whole {
        0..10 => format!("{secs:.1} s"),
        10..120 => format!("{whole} s"),
        120..7_200 => format!("{} min", whole / 60),
        7_200..86_400 => format!("{} h {} min", whole / 3_600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3_600 % 24),
    }
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
    fn numbers_are_short() {
        assert_eq!([0, 1023, 1024, 1 << 40].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.0 TiB"]);
        assert_eq!([25, 2_500, 1_718, 10_000_000].map(micros), ["25 µs", "2.5 ms", "1.7 ms", "10 s"]);
        assert_eq!([0.25, 59.0, 600.0, 90_000.0].map(duration), ["0.2 s", "59 s", "10 min", "1 d 1 h"]);
        assert_eq!(
            (ports(&[]), ports(&[1, 2]), ports(&[1, 2, 3, 4])),
            ("-".into(), "1 2".into(), "1 2 3 +1".into())
        );
    }

    #[test]
    fn a_server_nobody_uses_says_so() {
        let text = render(&Status { clients: vec![], exports: vec![], procedures: vec![], ..status() });
        assert!(text.ends_with("\nno client yet\n\nno export yet\n\nno procedure yet\n"), "{text}");
    }
}
