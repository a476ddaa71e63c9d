//! The `remoor` command: NFS that survives failover. One file per subcommand.

mod drill;
mod serve;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// NFS that survives failover.
#[derive(Debug, Parser)]
#[command(name = "remoor", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Drill(drill::Args),
    Serve(serve::Args),
}

/// Exit codes of every subcommand.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; for a drill: every case came out as predicted and nothing was lost
  1  a drill's case came out otherwise
  2  the command line, an option or a file is wrong
  3  it could not run here: a permission, a namespace, a port or a program is missing

Logs go to standard error; RUST_LOG sets their level, for example RUST_LOG=debug.";

/// How a subcommand ends, besides success.
enum Failure {
    /// A case failed; the report says why.
    Case,
    /// Bad input.
    Usage(anyhow::Error),
    /// Not possible here.
    Cannot(anyhow::Error),
}

impl Failure {
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    fn cannot(error: impl Into<anyhow::Error>) -> Self {
        Self::Cannot(error.into())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Drill(args) => start_log("warn").and_then(|()| drill::run(&args)),
        Command::Serve(args) => start_log("info").and_then(|()| serve::run(&args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Case) => ExitCode::from(1),
        Err(Failure::Usage(error)) => complain(&error, 2),
        Err(Failure::Cannot(error)) => complain(&error, 3),
    }
}

#[allow(clippy::print_stderr, reason = "the one place that tells a person why the command ended")]
fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("remoor: {error:#}");
    ExitCode::from(code)
}

fn start_log(default: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let started = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
    started.map_err(|error| Failure::Cannot(anyhow::anyhow!("cannot start the log: {error}")))
}
