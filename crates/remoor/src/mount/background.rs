//! Starts the process that will serve the mount, and waits until the mount can be used.

use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::exit::{self, Failed};
use super::report::{Report, show};
use super::sys;

/// How long nothing is shown of what is tried.
const QUIET: Duration = Duration::from_secs(1);
/// How long a process that is to end may take.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// What is waited for.
enum Happening {
    Report(Report),
    /// The process has closed the pipe.
    Closed,
    Interrupt,
}

/// Runs this program with `args` in the background, and returns when its mount can be used, or when the first try failed
/// and it goes on trying.
pub(super) fn start(program: &str, verbose: bool, args: &[std::ffi::OsString]) -> Result<(), Failed> {
    let cannot = |e: io::Error| Failed::system(format!("cannot start a process for the mount: {e}"));
    sys::keep_from_children().map_err(cannot)?;
    let (reader, writer) = io::pipe().map_err(cannot)?;
    let (sender, happenings) = channel();
    watch_signals(sender.clone()).map_err(cannot)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("remoor").args(args).stdin(Stdio::null()).stdout(writer);
    let mut child = command.spawn().map_err(cannot)?;
    // Its end of the pipe is the child's alone, so that it closes with the child.
    drop(command);
    read_reports(reader, sender).map_err(cannot)?;
    Waiting { program, verbose, trying: None, since: Instant::now() }.wait(&happenings, &mut child)
}

fn watch_signals(sender: Sender<Happening>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let watch =
        move || signals.forever().map_while(|_| sender.send(Happening::Interrupt).ok()).for_each(drop);
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
}

fn read_reports(pipe: PipeReader, sender: Sender<Happening>) -> io::Result<()> {
    let read = move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let Ok(report) = serde_json::from_str(&line) else { break };
            if sender.send(Happening::Report(report)).is_err() {
                return;
            }
        }
        let _ = sender.send(Happening::Closed);
    };
    thread::Builder::new().name("reports".to_owned()).spawn(read).map(drop)
}

/// Somebody who waits for a mount.
struct Waiting<'a> {
    program: &'a str,
    verbose: bool,
    /// What was tried last and has not been shown.
    trying: Option<Report>,
    since: Instant,
}

impl Waiting<'_> {
    fn wait(mut self, happenings: &Receiver<Happening>, child: &mut Child) -> Result<(), Failed> {
        loop {
            match happenings.recv_timeout(self.quiet()) {
                Ok(Happening::Report(Report::Ready)) => return Ok(()),
                Ok(Happening::Report(Report::Failed { code, message })) => {
                    return Err(Failed { code, message });
                }
                Ok(Happening::Report(report)) if report.is_last() => {
                    show(self.program, self.verbose, &report);
                    return Ok(());
                }
                Ok(Happening::Report(report @ Report::Trying(_))) => self.trying = Some(report),
                Ok(Happening::Report(report)) => show(self.program, self.verbose, &report),
                Ok(Happening::Closed) | Err(RecvTimeoutError::Disconnected) => return Err(ended(child)),
                Ok(Happening::Interrupt) => return Err(interrupt(happenings, child)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.show_trying();
        }
    }

    /// How long to wait before something has to be shown.
    fn quiet(&self) -> Duration {
        match self.trying {
            Some(_) => QUIET.saturating_sub(self.since.elapsed()),
            None => Duration::from_secs(3600),
        }
    }

    fn show_trying(&mut self) {
        if (self.verbose || self.since.elapsed() >= QUIET)
            && let Some(report) = self.trying.take()
        {
            show(self.program, true, &report);
        }
    }
}

/// Why a process that said nothing to the end has ended.
fn ended(child: &mut Child) -> Failed {
    let how = match child.wait() {
        Ok(status) => status.to_string(),
        Err(e) => e.to_string(),
    };
    Failed::new(
        exit::INTERNAL,
        format!("the process that should serve the mount has ended without a word: {how}"),
    )
}

/// Lets the process end as it should: it may have mounted already.
fn interrupt(happenings: &Receiver<Happening>, child: &mut Child) -> Failed {
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let deadline = Instant::now() + LAST_PATIENCE;
    loop {
        match happenings.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Happening::Closed) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                break;
            }
        }
    }
    let _ = child.wait();
    Failed::new(exit::INTERRUPTED, "interrupted; nothing is mounted")
}
