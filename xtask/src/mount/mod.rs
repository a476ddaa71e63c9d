//! `cargo xtask mount`: whether the mount keeps what POSIX and nfs(5) promise, and whether it lasts.
//!
//! Everything runs in namespaces of its own ([`crate::guest::sandbox`]), against servers on loopback that export a tmpfs.
//!
//! | module | subject |
//! |---|---|
//! | [`client`] | the clients: how each mounts, its processes, what they cost |
//! | [`place`] | servers, and mounts of them |
//! | [`tools`] | pjdfstest and fsx, installed below the target directory |
//! | [`pjdfstest`] | POSIX, case by case |
//! | [`fsx`] | random operations on one file |
//! | [`soak`] | many programs for a long time, and what the mount's processes hold meanwhile |
//! | [`spark`] | figures over time, in a line of text |
//! | [`cycles`] | mounting and unmounting, and what that leaves behind |
//! | [`restart`] | a server that is killed and started again |
//! | [`failover`] | nodes that break behind a balancer, in the drill's network |

pub(crate) mod client;
mod cycles;
mod failover;
mod fsx;
mod pjdfstest;
pub(crate) mod place;
mod restart;
mod soak;
mod spark;
mod tools;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;

use crate::bench::load::Tools;
use crate::bench::progress;
use crate::cargo;
use crate::guest::{self, sandbox};
use crate::packages::is_root;
use crate::report::Counts;

/// What to do with mounts.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run pjdfstest on the mount, and on the exported directory itself; compare with docs/pjdfstest.md.
    Pjdfstest(pjdfstest::Options),
    /// Run fsx, with mapped memory, from several seeds.
    Fsx(fsx::Options),
    /// Work on the mount for a long time; memory, descriptors and threads of its processes must not grow.
    Soak(soak::Options),
    /// Mount and unmount many times; nothing must stay.
    Cycles(cycles::Options),
    /// Kill the server under writers and start it again; nothing may be lost and no call may fail.
    Restart(restart::Options),
    /// Break the node that serves under writers, behind a balancer, again and again; tells how long each gap was.
    Failover(failover::Options),
    /// What `cargo xtask test` runs: pjdfstest, a short fsx, a few cycles and restarts, on our server.
    Suite,
}

/// Runs a task, and tells how many of its checks hold.
pub(crate) fn run(task: &Task) -> anyhow::Result<ExitCode> {
    let again: Vec<_> = std::env::args_os().skip(1).collect();
    let counts = in_sandbox(&again, || prepare(task), || scenario(task))?;
    if !sandbox::inside() {
        progress(&counts.to_string());
    }
    Ok(counts.exit_code())
}

/// The step of `cargo xtask test`.
pub(crate) fn run_suite() -> anyhow::Result<Counts> {
    let again = ["mount".into(), "suite".into()];
    in_sandbox(&again, || prepare(&Task::Suite), || scenario(&Task::Suite))
}

/// Why nothing can be mounted here, if so.
pub(crate) fn impossible() -> Option<String> {
    let why = (!is_root()).then(|| "namespaces and mounts need root".to_owned());
    why.or_else(|| client::provide().err().map(|error| error.to_string())).map(|why| format!("because {why}"))
}

/// Prepares here, where the network is, and then works in a sandbox, in which this program runs again with `arguments`.
pub(crate) fn in_sandbox(
    arguments: &[OsString],
    prepare: impl FnOnce() -> anyhow::Result<()>,
    work: impl FnOnce() -> anyhow::Result<Counts>,
) -> anyhow::Result<Counts> {
    if !sandbox::inside() {
        if let Some(reason) = impossible() {
            bail!("nothing can be mounted here, {reason}");
        }
        prepare()?;
        return sandbox::enter(arguments);
    }
    sandbox::end_with_parent();
    let counts = work()?;
    sandbox::leave(counts)?;
    Ok(counts)
}

fn prepare(task: &Task) -> anyhow::Result<()> {
    match task {
        Task::Pjdfstest(options) => pjdfstest::prepare(options),
        Task::Fsx(options) => fsx::prepare(options),
        Task::Soak(_) => fsx::prepare(&fsx::Options::suite()),
        Task::Cycles(_) => build(false),
        Task::Restart(_) | Task::Failover(_) => guest::build(),
        Task::Suite => fsx::prepare(&fsx::Options::suite())
            .and_then(|()| pjdfstest::prepare(&pjdfstest::Options::suite()))
            .and_then(|()| guest::build()),
    }
}

fn scenario(task: &Task) -> anyhow::Result<Counts> {
    match task {
        Task::Pjdfstest(options) => pjdfstest::run(options),
        Task::Fsx(options) => fsx::run(options),
        Task::Soak(options) => soak::run(options),
        Task::Cycles(options) => cycles::run(options),
        Task::Restart(options) => restart::run(options),
        Task::Failover(options) => failover::run(options),
        Task::Suite => suite(),
    }
}

fn suite() -> anyhow::Result<Counts> {
    let mut counts = pjdfstest::run(&pjdfstest::Options::suite())?;
    counts += fsx::run(&fsx::Options::suite())?;
    counts += cycles::run(&cycles::Options::suite())?;
    counts += restart::run(&restart::Options::suite())?;
    Ok(counts)
}

/// Builds what is mounted and what serves; with the bench's ceiling, which may be missing.
pub(crate) fn build(ceiling: bool) -> anyhow::Result<()> {
    progress("building remoor");
    let status = cargo().args(["build", "--quiet", "--release", "-p", "remoor"]).status();
    ensure!(status.context("cannot run cargo build")?.success(), "remoor does not build: see above");
    if ceiling && let Err(error) = Tools::built()?.build_passthrough() {
        progress(&format!("{error:#}: it is not measured"));
    }
    Ok(())
}
