//! `cargo xtask mount failover`: nodes break under processes that write on the mount, in the drill's network.
//! `remoor-guest failover` does the work and tells each round.

use std::process::{Command, Stdio};

use anyhow::Context;
use clap::value_parser;

use crate::bench::progress;
use crate::guest::Programs;
use crate::report::Counts;

/// Options of the mount unless others are asked for: both that leave from a fresh port, and that a stopped server is left
/// in less than a second, whatever is in flight.
const DEFAULT: [&str; 2] = ["noresvport,stuck=400", "resvport,rebind=fresh,stuck=400"];

/// How often, and with which mount.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Failovers; each goes to the node that does not serve
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Options of the mount; may be repeated [default: noresvport,stuck=400 and resvport,rebind=fresh,stuck=400]
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// The balancer: a preset of the flow-table model
    #[arg(long, value_name = "PRESET", default_value = "azure-standard")]
    balancer: String,
    /// Seed of the moments at which nodes break
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl Options {
    fn mounts(&self) -> Vec<&str> {
        if self.options.is_empty() {
            DEFAULT.to_vec()
        } else {
            self.options.iter().map(String::as_str).collect()
        }
    }
}

/// Runs all rounds with each set of options.
pub(super) fn run(options: &Options) -> anyhow::Result<Counts> {
    let programs = Programs::built();
    let mut counts = Counts::default();
    for mount in options.mounts() {
        progress(&format!("{} failovers with -o {mount}", options.rounds));
        let status = command(&programs, options, mount).status();
        let passed = status.context("cannot run remoor-guest")?.success();
        println!("failover -o {mount}: {}", if passed { "ok" } else { "FAILED" });
        counts += Counts::of(passed);
    }
    Ok(counts)
}

fn command(programs: &Programs, options: &Options, mount: &str) -> Command {
    let mut command = Command::new(&programs.guest);
    command.arg("failover").arg("--remoor").arg(&programs.remoor).args(["-o", mount]);
    command.args(["--rounds", &options.rounds.to_string(), "--seed", &options.seed.to_string()]);
    command.args(["--balancer", &options.balancer]).stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fresh_ports_are_tried_unless_options_are_named() {
        let mut options =
            Options { rounds: 4, options: Vec::new(), balancer: "azure-standard".into(), seed: 1 };
        assert_eq!(options.mounts(), DEFAULT);
        options.options = vec!["noresvport,nconnect=4".into()];
        assert_eq!(options.mounts(), ["noresvport,nconnect=4"]);
        let command = command(&Programs::built(), &options, "noresvport,nconnect=4");
        let told: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        assert!(told.windows(2).any(|pair| pair == ["-o", "noresvport,nconnect=4"]), "{told:?}");
        assert!(told.windows(2).any(|pair| pair == ["--rounds", "4"]), "{told:?}");
    }
}
