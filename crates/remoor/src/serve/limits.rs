//! Bounds of the network side, as options: every field of [`Limits`] that one may want to change.

use std::time::Duration;

use remoor_server::Limits;

/// Bounds on what clients may take. The defaults are meant for production.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Connections open at a time
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections as u64, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_connections: u64,
    /// Calls of one connection that execute at a time; NULL never waits
    #[arg(long, value_name = "N", default_value_t = Limits::default().running_per_connection as u64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    max_running: u64,
    /// Calls of one connection that wait; at this many it is not read further
    #[arg(long, value_name = "N", default_value_t = Limits::default().backlog_calls as u64, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    max_waiting: u64,
    /// Bytes of the calls of one connection that wait
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().backlog_bytes as u64, value_parser = clap::value_parser!(u64).range(BYTES))]
    max_waiting_bytes: u64,
    /// Bytes of replies that one client has not taken; above it its connection is not read further
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().reply_bytes as u64, value_parser = clap::value_parser!(u64).range(BYTES))]
    max_reply_bytes: u64,
    /// Calls of all connections that execute or wait; at this many no connection is read
    #[arg(long, value_name = "N", default_value_t = Limits::default().calls as u64, value_parser = clap::value_parser!(u64).range(16..=10_000_000))]
    max_calls: u64,
    /// Bytes of those calls and of replies not taken, of all connections
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bytes as u64, value_parser = clap::value_parser!(u64).range(16 << 20..=1 << 40))]
    max_bytes: u64,
    /// Seconds after which a connection without a call is closed
    #[arg(long, value_name = "SECS", default_value_t = Limits::default().idle.as_secs(), value_parser = clap::value_parser!(u64).range(1..=MAX_SECS))]
    idle: u64,
    /// Seconds after which a connection is closed that stands still amid a call or a reply
    #[arg(long, value_name = "SECS", default_value_t = Limits::default().stall.as_secs(), value_parser = clap::value_parser!(u64).range(1..=MAX_SECS))]
    stall: u64,
    /// Seconds that a server which is stopped waits for calls that execute and replies that are not taken
    #[arg(long, value_name = "SECS", default_value_t = Limits::default().drain.as_secs(), value_parser = clap::value_parser!(u64).range(..=MAX_SECS))]
    drain: u64,
}

/// A day.
const MAX_SECS: u64 = 86_400;
/// From one page to a gigabyte.
const BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections as usize,
            running_per_connection: self.max_running as usize,
            backlog_calls: self.max_waiting as usize,
            backlog_bytes: self.max_waiting_bytes as usize,
            reply_bytes: self.max_reply_bytes as usize,
            calls: self.max_calls as usize,
            bytes: self.max_bytes as usize,
            idle: Duration::from_secs(self.idle),
            stall: Duration::from_secs(self.stall),
            drain: Duration::from_secs(self.drain),
            ..Limits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: LimitArgs,
    }

    fn limits(line: &str) -> Limits {
        Cli::try_parse_from(["serve"].into_iter().chain(line.split_whitespace())).unwrap().args.limits()
    }

    #[test]
    fn what_is_not_said_is_as_the_server_has_it() {
        assert_eq!(limits(""), Limits::default());
    }

    #[test]
    fn each_option_changes_its_limit() {
        let got = limits(
            "--max-connections 1 --max-running 2 --max-waiting 3 --max-waiting-bytes 4096 --max-reply-bytes 8192 \
             --max-calls 16 --max-bytes 33554432 --idle 6 --stall 7 --drain 0",
        );
        let secs = Duration::from_secs;
        let wanted = Limits {
            connections: 1,
            running_per_connection: 2,
            backlog_calls: 3,
            backlog_bytes: 4096,
            reply_bytes: 8192,
            calls: 16,
            bytes: 32 << 20,
            idle: secs(6),
            stall: secs(7),
            drain: secs(0),
            ..Limits::default()
        };
        assert_eq!(got, wanted);
    }
}
