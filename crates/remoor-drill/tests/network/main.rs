//! Tests on the real network of a drill. They run as root or as an ordinary user, in namespaces of their own; no
//! test harness, because a user namespace can only be entered before the first thread exists.

mod balancers;
mod bench;
mod faults;
mod hosts;
mod wire;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use remoor_drill::namespace::{NamespaceError, enter_private};

/// A test on a private network.
type Test = (&'static str, fn() -> Result<()>);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(bench::ECHO_ROLE) => return bench::echo_forever(&arguments[1]),
        Some(hosts::CRASH_ROLE) => return hosts::crash_with_a_server(),
        _ => {}
    }
    match enter_private() {
        Ok(privilege) => println!("private network as {privilege:?}"),
        Err(error @ NamespaceError::Unavailable { .. }) => {
            println!("SKIPPED all network tests: {error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => panic!("{error}"),
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-')).cloned().unwrap_or_default();
    let tests = [hosts::TESTS, faults::TESTS, wire::TESTS, balancers::TESTS].concat();
    let failed = tests.iter().filter(|(name, _)| name.contains(&filter)).filter(|test| !passes(test)).count();
    println!("{failed} of {} tests failed", tests.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes((name, test): &Test) -> bool {
    let start = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(test));
    let verdict = match &outcome {
        Ok(Ok(())) => "ok".to_owned(),
        Ok(Err(error)) => format!("FAILED: {error:#}"),
        Err(_) => "FAILED: panicked".to_owned(),
    };
    println!("test {name} ... {verdict} ({:.2} s)", start.elapsed().as_secs_f64());
    matches!(outcome, Ok(Ok(())))
}
