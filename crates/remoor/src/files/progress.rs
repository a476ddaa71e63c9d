//! What a person sees while a command runs: a bar once it has taken a second, and why it waits.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use remoor_nfs::reconnect::Notice;

/// A command that is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);
/// Redraws a second.
const FRAMES: u8 = 10;
/// With a size: how much of it, how quickly, how long it still takes.
const BAR: &str = "{bar:24} {bytes:>10}/{total_bytes} {bytes_per_sec:>12} ETA {eta} {wide_msg}";

/// The bar of a command. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// One that nobody sees yet.
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden()).with_style(style);
        Self { bar }
    }

    /// Shows the bar, if standard error is a terminal and the command takes its time.
    pub(crate) async fn show_when_long(self) {
        tokio::time::sleep(PATIENCE).await;
        if io::stderr().is_terminal() && self.bar.length() > Some(0) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES));
            self.bar.enable_steady_tick(Duration::from_millis(1000 / u64::from(FRAMES)));
        }
    }

    /// `bytes` more will be copied.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// `bytes` more are copied.
    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        if self.bar.length().is_some_and(|length| length < self.bar.position()) {
            self.bar.set_length(self.bar.position());
        }
    }

    /// What is copied now.
    pub(crate) fn about(&self, what: String) {
        self.bar.set_message(what);
    }

    /// A line for people.
    #[allow(clippy::print_stderr, reason = "standard output is for what the command prints")]
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("remoor: {line}"));
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// The connection to `server` has something to tell.
    pub(crate) fn notice(&self, server: SocketAddr, notice: &Notice) {
        match notice {
            Notice::Suspected { .. } => self.about(format!("server {server} not responding")),
            Notice::Cleared { .. } => self.about(String::new()),
            notice => {
                if let Some(line) = told(server, notice) {
                    self.say(&line);
                }
            }
        }
    }
}

/// What everybody is told, bar or not.
fn told(server: SocketAddr, notice: &Notice) -> Option<String> {
    match notice {
        Notice::NotResponding => Some(format!("server {server} not responding, still trying")),
        Notice::Ok => Some(format!("server {server} OK")),
        Notice::Moved { to_port, gap, reason, .. } => Some(format!(
            "server {server} not responding ({reason}): moved to port {to_port} after {:.1} s",
            gap.as_secs_f64()
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use remoor_nfs::reconnect::MoveReason;

    use super::*;

    #[test]
    fn a_move_says_which_port_and_how_long_it_took() {
        let gap = Duration::from_millis(412);
        let moved =
            Notice::Moved { from_port: 700, to_port: 701, reason: MoveReason::PathDead, gap, resent: 8 };
        let line = told(([192, 0, 2, 1], 2049).into(), &moved).unwrap();
        assert_eq!(line, "server 192.0.2.1:2049 not responding (path dead): moved to port 701 after 0.4 s");
    }

    #[test]
    fn more_than_was_expected_moves_the_end() {
        let progress = Progress::new();
        progress.expect(10);
        progress.advance(25);
        assert_eq!((progress.bar.position(), progress.bar.length()), (25, Some(25)));
    }
}
