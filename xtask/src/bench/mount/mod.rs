//! `cargo xtask bench mount`: this mount and its peers on the same server, in one run, under the same load.
//!
//! Every row begins on a mount of its own, so that nothing is cached on the client; the server's files are in memory.
//! Clients take turns row by row, and ratios are taken within a round.

mod outcome;
mod rows;
mod table;
mod work;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::value_parser;

use super::load::Tools;
use super::progress;
use crate::mount::client::{self, Client, Mounted};
use crate::mount::place::{Servers, Which};
use crate::mount::{build, in_sandbox};
use crate::report::Counts;
use outcome::{Cell, Column, Outcome};
use rows::{ROWS, Row};
use work::{Scale, Stage};

/// A row that takes longer has hung: its client is killed, and with it every call that waits for it.
const PATIENCE: Duration = Duration::from_mins(5);

/// What to compare, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    servers: Which,
    /// Only these clients, by name; may be repeated
    #[arg(long, value_name = "NAME")]
    client: Vec<String>,
    /// A further client: COMMAND is run by sh and mounts {server}:{export} at {dir}, in the foreground or not; {port}
    /// and {mountport} are the server's, {source} is the exported directory itself; may be repeated
    #[arg(long, value_name = "NAME=MOUNT-COMMAND", value_parser = client::parse)]
    peer: Vec<Client>,
    /// Only rows whose name contains NAME; may be repeated, or separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    rows: Vec<String>,
    /// Rounds; every row runs on every client in each [default: 3, with --quick 1]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// One short round with a tenth of the files: to see that it works, not to judge by
    #[arg(long)]
    quick: bool,
    /// Print every sample and the medians as JSON instead of tables
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn rounds(&self) -> u16 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn scale(&self) -> Scale {
        let again = Duration::from_millis(if self.quick { 250 } else { 1_000 });
        if self.quick {
            Scale { file_mib: 64, files: 1_000, tree: 10_000, limit: Duration::from_secs(1), again }
        } else {
            Scale { file_mib: 256, files: 10_000, tree: 100_000, limit: Duration::from_secs(4), again }
        }
    }

    fn chosen(&self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(|row| self.rows.is_empty() || self.rows.iter().any(|part| row.name.contains(part)))
    }
}

/// Runs the comparison. What cannot be measured is told; a goal that is missed is no failure.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let again: Vec<_> = std::env::args_os().skip(1).collect();
    in_sandbox(&again, || build(true), || compare(arguments)).map(|_| ExitCode::SUCCESS)
}

fn compare(arguments: &Arguments) -> anyhow::Result<Counts> {
    let outcomes = measure(arguments)?;
    let text = if arguments.json { table::json(&outcomes)? } else { table::text(&outcomes) };
    println!("{text}");
    Ok(Counts::default())
}

fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Outcome>> {
    let tools = Tools::built()?;
    let clients = client::choose(&tools, &arguments.client, &arguments.peer)?;
    let servers = Servers::start(&arguments.servers, &tools)?;
    let mut outcomes: Vec<Outcome> =
        servers.names().into_iter().map(|name| empty(name, arguments, &clients)).collect();
    let able: Vec<Vec<bool>> =
        outcomes.iter_mut().enumerate().map(|(n, outcome)| try_all(&servers, n, &clients, outcome)).collect();
    for round in 0..arguments.rounds() {
        for row in arguments.chosen() {
            for (n, outcome) in outcomes.iter_mut().enumerate() {
                one_row(arguments, &servers, n, &clients, &able[n], row, round, outcome);
            }
        }
    }
    Ok(outcomes)
}

fn empty(server: String, arguments: &Arguments, clients: &[Client]) -> Outcome {
    let column = |client: &Client| Column { name: client.name.clone(), role: client.role, cells: Vec::new() };
    let columns = clients.iter().map(column).collect();
    Outcome { server, rounds: arguments.rounds(), columns, notes: Vec::new() }
}

/// Mounts once with each client. One that cannot is left out, which is told once.
fn try_all(servers: &Servers, server: usize, clients: &[Client], outcome: &mut Outcome) -> Vec<bool> {
    let mut works = |client: &Client| {
        let tried = servers.mount(server, client).and_then(Mounted::unmount);
        if let Err(error) = &tried {
            outcome.notes.push(format!("{} is not measured: {error:#}", client.name));
        }
        tried.is_ok()
    };
    clients.iter().map(&mut works).collect()
}

#[expect(clippy::too_many_arguments, reason = "a cell is one of each of these")]
fn one_row(
    arguments: &Arguments,
    servers: &Servers,
    server: usize,
    clients: &[Client],
    able: &[bool],
    row: &'static Row,
    round: u16,
    outcome: &mut Outcome,
) {
    // Whoever goes first finds the caches of the processor as another load left them.
    for turn in 0..clients.len() {
        let n = (turn + usize::from(round)) % clients.len();
        let client = &clients[n];
        if !able[n] {
            continue;
        }
        progress(&format!("round {}: {} with {} on {}", round + 1, row.name, client.name, outcome.server));
        match one_cell(arguments.scale(), servers, server, client, row, round) {
            Ok(cell) => outcome.columns[n].cells.push(cell),
            Err(e) => {
                let note = format!("{} with {}: {e:#}", row.name, client.name);
                if !outcome.notes.contains(&note) {
                    outcome.notes.push(note);
                }
            }
        }
    }
}

fn one_cell(
    scale: Scale,
    servers: &Servers,
    server: usize,
    client: &Client,
    row: &'static Row,
    round: u16,
) -> anyhow::Result<Cell> {
    // A name that no server has seen, so that none remembers anything of it.
    let index = ROWS.iter().position(|other| other.name == row.name).unwrap_or_default();
    let name = format!("{}-{server}-{index}-{round}", client.name);
    let native = servers.native().join(&name);
    let mounted = servers.mount_point(server, client).join(&name);
    fs::create_dir(&native).with_context(|| format!("cannot make {}", native.display()))?;
    let stage = Stage { mounted, native: native.clone(), scale };
    let cell = on_fresh_mount(&stage, servers, server, client, row, round);
    remove(&native)?;
    cell
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

fn on_fresh_mount(
    stage: &Stage,
    servers: &Servers,
    server: usize,
    client: &Client,
    row: &'static Row,
    round: u16,
) -> anyhow::Result<Cell> {
    row.prepare.map_or(Ok(()), |prepare| prepare(stage))?;
    let mounted = servers.mount(server, client)?;
    let cell = mounted.guarded(PATIENCE, || timed(stage, &mounted, row, round))?;
    mounted.unmount()?;
    Ok(cell)
}

fn timed(stage: &Stage, mounted: &Mounted, row: &'static Row, round: u16) -> anyhow::Result<Cell> {
    row.warm.map_or(Ok(0), |warm| warm(stage)).context("while warming up")?;
    let (cpu, began) = (mounted.cpu_seconds(), Instant::now());
    let done = (row.run)(stage)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Cell { row: row.name, round, done, seconds, cpu_seconds: mounted.cpu_seconds() - cpu })
}
