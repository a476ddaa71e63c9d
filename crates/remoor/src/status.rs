//! `remoor status`: what a running server and running mounts do.

mod mount;
mod server;
mod table;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use remoor_mount::control::{self, MountEntry, mountinfo};
use remoor_server::control::{Answer, Request, Status};
use serde::Serialize;

use crate::control::{Target, print, print_json, unexpected};
use crate::{Failure, mount as mounting};

/// Clears a terminal and goes to its first line (ECMA-48 ED, CUP).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show what a running server and running mounts do: connections, reconnects, calls and their latencies, caches.
///
/// It never waits for a file system or touches a mount point, and for a process that does not answer no longer than
/// --timeout says.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// Show the mount there and nothing else [default: the server and every mount; with --node or --control: that
    /// server]
    #[arg(value_name = "MOUNTPOINT", conflicts_with_all = ["control", "node"])]
    mount: Option<OsString>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Show it again every second, or every SECS seconds, until interrupted
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    #[command(flatten)]
    target: Target,
}

const EXAMPLES: &str = "\
Examples:
  remoor status
  remoor status /mnt/data
  remoor status --watch
  remoor status --node a --json

Received and sent are the server's, or the mount's. Latencies are from a whole call to its reply:
half and 99 % of the calls took no longer than the bounds under median and 99 %; those of a mount
include what its calls waited for a connection. An export's calls are counted from when its file
system was opened. The same numbers, and histograms, are at /metrics where `remoor serve --metrics`
or `remoor mount --metrics` says.

With --json, what the server tells is beside the list `mounts`; a mount that does not answer has
`error`.

Exit codes: 0 done; 2 the command line is wrong; 3 nobody answers, or refuses.";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Some(secs) = args.watch else { return args.show("") };
    let before = if io::stdout().is_terminal() && !args.json { CLEAR } else { "" };
    args.show(before)?;
    loop {
        std::thread::sleep(Duration::from_secs(secs));
        match args.show(before) {
            // A server that is restarted comes back.
            Err(Failure::Cannot(error)) => complain(&error),
            done => done?,
        }
    }
}

#[allow(clippy::print_stderr, reason = "standard output is for what is answered")]
fn complain(error: &anyhow::Error) {
    eprintln!("remoor: {error}");
}

/// A server and mounts.
#[derive(Serialize)]
struct Everything {
    #[serde(flatten)]
    server: Option<Box<Status>>,
    mounts: Vec<mount::Told>,
}

impl Args {
    fn show(&self, before: &str) -> Result<(), Failure> {
        if let Some(dir) = &self.mount {
            return self.show_mount(Path::new(dir), before);
        }
        if self.target.is_named() {
            let status = self.server()?;
            return if self.json {
                print_json(&status)
            } else {
                print(&(before.to_owned() + &server::render(&status)))
            };
        }
        let everything = self.everything()?;
        if self.json { print_json(&everything) } else { print(&format!("{before}{}", everything.render())) }
    }

    fn server(&self) -> Result<Box<Status>, Failure> {
        match self.target.ask(&Request::Status)? {
            Answer::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    fn show_mount(&self, dir: &Path, before: &str) -> Result<(), Failure> {
        let target = mounting::resolved(dir).map_err(|e| Failure::Usage(anyhow!(e.message)))?;
        let entry = mountinfo::at(&target).map_err(Failure::cannot)?.ok_or_else(|| {
            let all = mountinfo::ours().unwrap_or_default();
            Failure::Usage(anyhow!("{} is no mount of remoor's{}", target.display(), others(&all)))
        })?;
        let status = self.ask(&entry).map_err(|error| Failure::Cannot(anyhow!(error)))?;
        if self.json { print_json(&status) } else { print(&format!("{before}{}", mount::render(&status))) }
    }

    fn ask(&self, entry: &MountEntry) -> Result<Box<remoor_mount::status::Status>, String> {
        match control::call(entry, &control::Request::Status, self.target.patience()) {
            Ok(control::Answer::Status(status)) => Ok(status),
            Ok(control::Answer::Error { message, .. }) => Err(message),
            Ok(_) => Err("it answered another question; is it of another version?".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What there is; nothing at all is a failure.
    fn everything(&self) -> Result<Everything, Failure> {
        let entries = mountinfo::ours().map_err(Failure::cannot)?;
        let mounts: Vec<_> = entries.iter().map(|entry| mount::Told::new(entry, self.ask(entry))).collect();
        match self.server() {
            Ok(server) => Ok(Everything { server: Some(server), mounts }),
            Err(error) if mounts.is_empty() => Err(error),
            Err(_) => Ok(Everything { server: None, mounts }),
        }
    }
}

fn others(all: &[MountEntry]) -> String {
    let targets: Vec<String> = all.iter().map(|entry| entry.target.display().to_string()).collect();
    if targets.is_empty() {
        ", and there is none".to_owned()
    } else {
        format!("; there are {}", targets.join(", "))
    }
}

impl Everything {
    fn render(&self) -> String {
        let server = self.server.as_deref().map(server::render);
        let mounts = self.mounts.iter().map(mount::Told::render);
        server.into_iter().chain(mounts).collect::<Vec<_>>().join("\n")
    }
}
