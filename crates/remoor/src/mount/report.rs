//! What a mount in the making tells the command that waits for it: lines of JSON on a pipe.

use std::fs::File;
use std::io::{self, Write};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio;
use serde::{Deserialize, Serialize};

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report {
    /// What it is about to do, for somebody who has waited for a while.
    Trying(String),
    /// What the user should know although the mount works.
    Warning(String),
    /// The first try failed, which `bg` takes; it goes on trying.
    Background(String),
    /// The mount can be used.
    Ready,
    /// It has ended.
    Failed {
        /// Exit code.
        code: u8,
        /// Why.
        message: String,
    },
}

impl Report {
    /// Whether nothing follows it.
    pub(super) fn is_last(&self) -> bool {
        matches!(self, Self::Background(_) | Self::Ready | Self::Failed { .. })
    }
}

/// Where reports go.
pub(super) enum Reporter {
    /// To whoever runs the command in front.
    InFront {
        /// Shown before a line.
        program: String,
        /// Everything is shown.
        verbose: bool,
    },
    /// Into the pipe, until the last one.
    Pipe(Option<File>),
}

/// The command that waited is gone.
#[derive(Debug)]
pub(super) struct NobodyWaits;

impl Reporter {
    pub(super) fn in_front(program: &str, verbose: bool) -> Self {
        Self::InFront { program: program.to_owned(), verbose }
    }

    /// Takes standard output, which is the pipe, and puts `/dev/null` in its place.
    pub(super) fn on_stdout() -> io::Result<Self> {
        let pipe = fcntl_dupfd_cloexec(stdio::stdout(), 3)?;
        stdio::dup2_stdout(null()?)?;
        Ok(Self::Pipe(Some(pipe.into())))
    }

    /// Tells `report`. After the last one the pipe is closed, and more is told nobody.
    pub(super) fn tell(&mut self, report: &Report) -> Result<(), NobodyWaits> {
        match self {
            Self::InFront { program, verbose } => show(program, *verbose, report),
            Self::Pipe(None) => {}
            Self::Pipe(Some(pipe)) => {
                let told = write(pipe, report).map_err(|_| NobodyWaits);
                if report.is_last() {
                    *self = Self::Pipe(None);
                }
                return told;
            }
        }
        Ok(())
    }
}

fn write(pipe: &mut File, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    pipe.write_all(&line)
}

/// A file that takes everything and has nothing.
pub(super) fn null() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

/// Shows a report to a person.
#[allow(clippy::print_stderr, reason = "for whoever runs the command")]
pub(super) fn show(program: &str, verbose: bool, report: &Report) {
    match report {
        Report::Trying(what) if verbose => eprintln!("{program}: {what}"),
        Report::Warning(what) => eprintln!("{program}: warning: {what}"),
        Report::Background(why) => eprintln!("{program}: {why}; trying on in the background"),
        Report::Failed { message, .. } => eprintln!("{program}: {message}"),
        Report::Trying(_) | Report::Ready => {}
    }
}
