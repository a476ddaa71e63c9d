//! Programs that tests run on an NFS mount, in a guest whose kernel is the client or beside it. `cargo xtask guest`
//! starts them; each works on any directory.
//!
//! | module | subject |
//! |---|---|
//! | [`exercise`] | what applications do with files, one check a line |
//! | [`pledge`] | writers under load that note every acknowledged change |
//! | [`failover`] | nodes that break under writers on our own mount, in the drill's network |
//! | [`ledger`] | what was acknowledged, as text |
//! | [`store`] | where the writers write: a mounted directory, or our own client |
//! | [`content`] | bytes from a seed |

mod content;
mod exercise;
mod failover;
mod ledger;
mod pledge;
mod store;
mod sys;

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};

use crate::ledger::Ledger;
use crate::store::{Dialled, Mounted, Store};

#[derive(Parser)]
#[command(name = "remoor-guest", about = "Programs that tests run on an NFS mount", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Do with files in DIR what applications do, and print one line for each check.
    Exercise(exercise::Options),
    /// The checks of `exercise` that an ordinary user makes; `exercise` starts it as uid 1000.
    #[command(hide = true)]
    AsUser {
        /// The check.
        check: String,
        /// A directory that everyone may write to.
        dir: PathBuf,
    },
    /// Write until told to stop, and say over a TCP connection what was acknowledged.
    Write {
        #[command(flatten)]
        place: Place,
        /// Address and port on which a test asks: `pause`, `resume` or `quit`, one a line.
        #[arg(long, value_name = "ADDR:PORT")]
        control: SocketAddr,
        /// Concurrent writers.
        #[arg(long, default_value_t = 4)]
        writers: usize,
        /// Begins the names this process uses.
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Mount with `remoor mount` in the drill's network, write on it, and break the node that serves, again and again.
    Failover(failover::Options),
    /// Read a ledger from standard input and compare what is there with it.
    Check {
        #[command(flatten)]
        place: Place,
    },
}

/// Where files are.
#[derive(Args)]
struct Place {
    /// A directory, mounted or not.
    #[arg(long, value_name = "DIR", required_unless_present = "server")]
    dir: Option<PathBuf>,
    /// A server to dial with our own client.
    #[arg(long, value_name = "ADDR:PORT", requires = "export", conflicts_with = "dir")]
    server: Option<SocketAddr>,
    /// The exported path there.
    #[arg(long, value_name = "PATH")]
    export: Option<String>,
    /// Options of our own client.
    #[arg(long, default_value = "noresvport", value_name = "OPTIONS")]
    options: String,
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        println!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Exercise(options) => exercise::run(&options),
        Command::AsUser { check, dir } => exercise::as_user(&check, &dir).map(|()| ExitCode::SUCCESS),
        Command::Write { place, control, writers, prefix } => match place.open()? {
            Either::Mounted(store) => pledge::run(store, control, writers, &prefix),
            Either::Dialled(store) => pledge::run(store, control, writers, &prefix),
        },
        Command::Failover(options) => failover::run(&options),
        Command::Check { place } => match place.open()? {
            Either::Mounted(store) => check(&store),
            Either::Dialled(store) => check(&store),
        },
    }
}

/// A store of either kind.
enum Either {
    Mounted(Mounted),
    Dialled(Dialled),
}

impl Place {
    fn open(&self) -> anyhow::Result<Either> {
        match (&self.dir, self.server, &self.export) {
            (Some(dir), None, _) => Ok(Either::Mounted(Mounted::new(dir)?)),
            (None, Some(server), Some(export)) => {
                Ok(Either::Dialled(Dialled::connect(server, export, &self.options)?))
            }
            _ => bail!("name either --dir, or --server with --export"),
        }
    }
}

fn check(store: &impl Store) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("cannot read the ledger from standard input")?;
    let ledger: Ledger = text.parse()?;
    let losses = ledger.losses(store)?;
    losses.iter().for_each(|loss| println!("lost {loss}"));
    println!("checked {} names: {} lost", ledger.facts.len(), losses.len());
    Ok(if losses.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
