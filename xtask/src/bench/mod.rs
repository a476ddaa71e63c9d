//! `cargo xtask bench server`: this server and its peers on the same machine, in one run, under the same load.
//!
//! All servers run at once, in a network and mount namespace of this bench, and export the same directory; each is
//! loaded in a directory of its own there, so that none keeps in memory what another changed. Only one is under load at a
//! time, and they take turns load by load: on a busy machine only figures that were taken within moments of each other
//! can be compared, so ratios are taken within a round, and the median over the rounds is what is told.

mod idle;
pub(crate) mod load;
pub(crate) mod mount;
mod outcome;
mod rows;
pub(crate) mod server;
pub(crate) mod site;
mod slow;
mod table;

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};

use load::Tools;
use outcome::{Cell, Outcome};
use rows::{LOADS, Load};
use server::{Peer, Role, Running};
use site::Site;

/// Connections of the idle test, with and without `--quick`. nfs-ganesha takes 10 000 at most, itself among them.
const IDLE_CONNECTIONS: [usize; 2] = [1_000, 9_900];

/// What to compare, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One short round: to see that it works, not to judge by
    #[arg(long)]
    quick: bool,
    /// Only loads whose name contains NAME, as the table shows it; "idle" and "slow" are names too; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only these servers, by name; may be repeated
    #[arg(long, value_name = "NAME")]
    server: Vec<String>,
    /// A further server: COMMAND is run by sh in the foreground (it should begin with `exec`), {dir} is what to
    /// export, {port} where to serve NFS and MOUNT on 127.0.0.1, {mountport} where to serve MOUNT if it needs
    /// another port for it, {slow} a second export, {work} a directory for its
    /// files; NAME:PATH=COMMAND when clients mount PATH instead of {dir}; may be repeated
    #[arg(long, value_name = "NAME=COMMAND", value_parser = server::parse_peer)]
    peer: Vec<Peer>,
    /// Directory to export, on a file system of its own choice [default: a tmpfs]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Rounds; every load runs on every server in each [default: 5, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Seconds of each load [default: 0.5, with --quick 0.3]
    #[arg(long, value_name = "S")]
    secs: Option<f64>,
    /// uid and gid of the calls
    #[arg(long, value_name = "N", default_value_t = 0)]
    uid: u32,
    /// Print every sample and the medians as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Set when this runs in the bench's namespaces.
    #[arg(long, hide = true)]
    inside: bool,
}

impl Arguments {
    fn rounds(&self) -> u16 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    fn secs(&self) -> f64 {
        self.secs.unwrap_or(if self.quick { 0.3 } else { 0.5 })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    fn loads(&self) -> Vec<&'static Load> {
        LOADS.iter().filter(|load| load.rows.iter().any(|row| self.wants(row.name))).collect()
    }
}

/// Runs the comparison. Fails when this server cannot be measured, not when it misses a goal.
pub(crate) fn server(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if !arguments.inside {
        let tools = Tools::build()?;
        tools.provide_peers(&arguments.server);
        return Err(site::enter());
    }
    let outcome = measure(arguments, &Tools::built()?)?;
    let text = if arguments.json { table::json(&outcome)? } else { table::text(&outcome) };
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: &Arguments, tools: &Tools) -> anyhow::Result<Outcome> {
    let site = Site::make(arguments.dir.as_deref())?;
    let mut outcome =
        Outcome { file_system: site.file_system()?, rounds: arguments.rounds(), ..Outcome::default() };
    let running = start(arguments, tools, &site, &mut outcome)?;
    outcome.servers = running.iter().map(|server| server.peer.clone()).collect();
    outcome.cells = vec![Vec::new(); running.len()];
    // First, because memory that a load has freed would serve connections without any growth to see.
    if arguments.wants("idle") {
        let connections = IDLE_CONNECTIONS[usize::from(!arguments.quick)];
        idle::measure(connections, &running, &mut outcome);
    }
    run_loads(arguments, tools, &running, &mut outcome);
    outcome.rss = running.iter().map(|server| server.rss_kib().ok()).collect();
    if arguments.wants("slow") {
        slow::measure(arguments, tools, &site, &running, &mut outcome);
    }
    Ok(outcome)
}

/// Starts every server that was asked for. A peer that does not start is left out with the reason.
fn start(
    arguments: &Arguments,
    tools: &Tools,
    site: &Site,
    outcome: &mut Outcome,
) -> anyhow::Result<Vec<Running>> {
    let mut all = server::known(tools, site.is_volatile()?);
    all.extend(arguments.peer.iter().cloned());
    if let Some(unknown) = arguments.server.iter().find(|name| !all.iter().any(|peer| peer.name == **name)) {
        let names: Vec<&str> = all.iter().map(|peer| peer.name.as_str()).collect();
        bail!("there is no server {unknown}: choose from {}", names.join(", "));
    }
    all.retain(|peer| arguments.server.is_empty() || arguments.server.contains(&peer.name));
    let mut running = Vec::new();
    for (n, peer) in all.into_iter().enumerate() {
        let (name, role) = (peer.name.clone(), peer.role);
        progress(&format!("starting {name}"));
        match Running::start(peer, n, site, tools, arguments) {
            Ok(server) => running.push(server),
            Err(e) if role == Role::Subject => return Err(e.context(format!("cannot measure {name}"))),
            Err(e) => outcome.notes.push(format!("{name} is not measured: {e:#}")),
        }
    }
    ensure!(!running.is_empty(), "no server is left to measure: {}", outcome.notes.join("; "));
    Ok(running)
}

fn run_loads(arguments: &Arguments, tools: &Tools, running: &[Running], outcome: &mut Outcome) {
    let loads = arguments.loads();
    for round in 0..arguments.rounds() {
        for load in &loads {
            // Whoever goes first finds the caches of the processor as another load left them.
            for turn in 0..running.len() {
                let n = (turn + usize::from(round)) % running.len();
                progress(&format!("round {}: {} on {}", round + 1, load.rows[0].name, running[n].peer.name));
                run_load(arguments, tools, &running[n], load, &mut outcome.cells[n], &mut outcome.notes);
            }
        }
    }
}

fn run_load(
    arguments: &Arguments,
    tools: &Tools,
    server: &Running,
    load: &'static Load,
    cells: &mut Vec<Cell>,
    notes: &mut Vec<String>,
) {
    let flags: &[&str] = if load.stable { &["--stable"] } else { &[] };
    match tools.run(load.client, server, arguments, flags, load.spec) {
        Ok(samples) => {
            cells.extend(load.rows.iter().zip(samples).map(|(row, sample)| Cell { row: row.name, sample }));
        }
        Err(e) => {
            let note = format!("{} on {}: {e:#}", load.rows[0].name, server.peer.name);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
}

/// Shows what happens now, on standard error so that standard output holds only the result.
pub(crate) fn progress(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}

/// A command that gets SIGTERM when this process ends, however that ends.
pub(crate) fn bound_to_this(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// Runs a command of the system and fails with its output.
pub(crate) fn system(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), told.trim());
    Ok(())
}
