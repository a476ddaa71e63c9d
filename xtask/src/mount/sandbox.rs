//! Namespaces of its own for everything a task mounts and starts: network, mounts and processes. What is left over when
//! the task ends, ends with them.

use std::fs;
use std::io::{self, Read};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, ensure};
use xtask::architecture::root;

use crate::packages::is_root;

/// What the program is called with within.
pub(crate) const INSIDE: &str = "--inside";

/// Runs this program again with its own arguments in a sandbox.
pub(crate) fn enter() -> anyhow::Result<ExitCode> {
    ensure!(is_root(), "this needs root: namespaces, servers that act as their clients' users, and mounts");
    // By the time it is called again, cargo may have replaced it.
    let program = root().join("target").join(format!("xtask-{}", std::process::id()));
    fs::copy("/proc/self/exe", &program).context("cannot copy this program")?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private"]);
    // Of a process namespace whose first process dies, every process is killed.
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(&program);
    command.args(std::env::args_os().skip(1)).arg(INSIDE).stdin(Stdio::piped());
    let mut child = command.spawn().context("cannot run unshare (package util-linux)")?;
    let leash = child.stdin.take();
    let status = child.wait().context("cannot wait for the sandbox");
    drop(leash);
    fs::remove_file(&program)?;
    Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ends this process when the one outside does, however that ended: the first process of a namespace ignores the
/// signals by which others end. Standard input is a pipe that only the one outside holds, and nothing is written to it.
pub(crate) fn end_with_parent() {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(1)
    });
}
