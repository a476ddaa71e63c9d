//! What docs/semantics.md promises of a mount, each sentence by a test here: `remoor serve` and `remoor mount` as
//! processes, and system calls. In a network and a mount namespace of their own, which no test harness can enter.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod command;
mod consistency;
mod data;
mod failure;
mod names;
mod owners;
mod site;
mod sys;

use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, ExitCode};
use std::time::Instant;

use remoor_drill::namespace::{NamespaceError, enter_private};
use remoor_skip::skip;

/// A promise.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    if !std::path::Path::new("/dev/fuse").exists() {
        skip("mounted", "/dev/fuse is missing (modprobe fuse)");
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        skip("mounted", "mounting in a namespace of its own, other users and device nodes need root");
        return ExitCode::SUCCESS;
    }
    match enter_private() {
        Ok(_) => {}
        Err(error @ NamespaceError::Unavailable { .. }) => {
            skip("mounted", error);
            return ExitCode::SUCCESS;
        }
        Err(error) => panic!("{error}"),
    }
    open_to_all("/dev/fuse");
    // The sockets of other mounts of this machine are not for these tests.
    let run = Command::new("mount").args(["-t", "tmpfs", "none", "/run"]).status();
    assert!(run.is_ok_and(|status| status.success()), "mount -t tmpfs none /run failed");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "ip link set lo up failed; apt-get install iproute2");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let tests =
        [command::TESTS, consistency::TESTS, data::TESTS, names::TESTS, owners::TESTS, failure::TESTS]
            .concat();
    let chosen: Vec<&Test> = tests.iter().filter(|(name, _)| name.contains(&filter)).collect();
    let failed = chosen.iter().filter(|test| !passes(test)).count();
    println!("{failed} of {} tests failed", chosen.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everywhere else udev lets everyone open this device; fusermount3 opens it as the user who mounts.
fn open_to_all(device: &str) {
    let script = r#"d=$(mktemp -d) && mount -t tmpfs none $d && mknod -m 666 $d/fuse c 10 229 && mount --bind $d/fuse "$0""#;
    let made = Command::new("sh").args(["-c", script, device]).status();
    assert!(made.is_ok_and(|status| status.success()), "{device} cannot be replaced in this namespace");
}

fn passes((name, test): &Test) -> bool {
    let start = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(test));
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!("test {name} ... {verdict} ({:.2} s)", start.elapsed().as_secs_f64());
    outcome.is_ok()
}
