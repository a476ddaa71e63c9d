//! Development tasks: `cargo xtask test` is what continuous integration runs, and what to run before a push.
//!
//! # How a test says that it was skipped
//! A test that cannot run here, because a program or a permission is missing, appends one line to the file that the
//! environment variable `REMOOR_SKIP_LOG` names, and returns:
//!
//! ```text
//! NAME OF THE TEST: because package X is missing
//! ```
//!
//! A test binary whose output is not captured (`harness = false`) may print the line instead, after `SKIPPED: `.
//!
//! `cargo xtask test` lists these lines at its end as `skipped: ...`, counts them as skipped and not as passed, and
//! fails when there are any while it runs as root or with `CI=true`.

mod archive;
mod bench;
mod fio;
mod fuzz;
mod guest;
mod mount;
mod packages;
mod report;
mod suite;

use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use xtask::architecture::root;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Set up what the tests need and run everything: format, clippy, tests, fuzz targets, licences.
    /// As root nothing may be skipped; otherwise what cannot run here is listed.
    Test,
    /// As `test`, and nothing may be skipped.
    Ci,
    /// Run the fuzz targets, or one of them, on the stable toolchain.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
        secs: u64,
        /// One of fuzz/fuzz_targets; all of them by default.
        target: Option<String>,
    },
    /// Boot real Linux kernels as NFS clients, and take the power from a server's machine.
    Guest {
        #[command(subcommand)]
        task: guest::Task,
    },
    /// Test the mount: POSIX, random operations, long work, mounting and unmounting.
    Mount {
        #[command(subcommand)]
        task: mount::Task,
    },
    /// Write man pages and shell completions to target/gen.
    Gen,
    /// Run the benches of single crates, or those whose name contains NAME; or compare whole servers.
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        /// Part of a bench's name.
        name: Option<String>,
        #[command(subcommand)]
        whole: Option<Whole>,
    },
}

#[derive(Subcommand)]
enum Whole {
    /// Compare this server with its peers on this machine: rates, CPU, memory, a slow disk. docs/benchmarking.md tells more.
    Server(bench::Arguments),
    /// Compare this mount with its peers on the same servers: rates and CPU. docs/benchmarking.md tells more.
    Mount(bench::mount::Arguments),
}

fn main() -> ExitCode {
    run(Arguments::parse().task).unwrap_or_else(|error| {
        println!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Test => Ok(suite::run(packages::is_root() || std::env::var("CI").is_ok_and(|v| v == "true"))),
        Task::Ci => Ok(suite::run(true)),
        Task::Fuzz { secs, target } => fuzz_only(secs, target.as_deref()),
        Task::Guest { task } => guests(&task),
        Task::Mount { task } => mount::run(&task),
        Task::Gen => generate(),
        Task::Bench { whole: Some(Whole::Server(arguments)), .. } => bench::server(&arguments),
        Task::Bench { whole: Some(Whole::Mount(arguments)), .. } => bench::mount::run(&arguments),
        Task::Bench { name, whole: None } => benches(name.as_deref()),
    }
}

fn fuzz_only(secs: u64, target: Option<&str>) -> anyhow::Result<ExitCode> {
    let counts = fuzz::run(secs, target)?;
    println!("{counts}");
    Ok(counts.exit_code())
}

fn guests(task: &guest::Task) -> anyhow::Result<ExitCode> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let counts = guest::run(task, &arguments)?;
    println!("{counts}");
    Ok(counts.exit_code())
}

fn generate() -> anyhow::Result<ExitCode> {
    let dir = "target/gen";
    let status = cargo().args(["run", "--package", "remoor", "--", "generate", "--dir", dir]).status();
    ensure!(status.context("cannot run cargo run")?.success(), "remoor generate failed: see above");
    println!("man pages and completions are in {dir}");
    Ok(ExitCode::SUCCESS)
}

fn benches(name: Option<&str>) -> anyhow::Result<ExitCode> {
    let status = cargo().args(["bench", "--workspace", "--bench", "*", "--"]).args(name).status();
    ensure!(status.context("cannot run cargo bench")?.success(), "a bench failed: see above");
    Ok(ExitCode::SUCCESS)
}

/// The cargo that runs this task, in the repository's root.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}
