//! Where a mount's log goes: to standard error in front; in the background to syslog, which systemd's journal reads, too,
//! or to a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Context;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Where syslog listens, and systemd's journal in its place.
const SYSLOG: &str = "/dev/log";
/// Facility of daemons (RFC 5424, table 1), shifted beside the severity.
const DAEMON: u8 = 3 << 3;
/// What is logged unless RUST_LOG says otherwise.
const LEVEL: &str = "info";

/// Where to.
#[derive(Debug, Clone, Copy)]
pub(super) enum To<'a> {
    StandardError,
    Syslog { target: &'a str },
    File(&'a Path),
}

/// Changes what is logged.
#[derive(Clone)]
pub(super) struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// Logs what `filter` lets through from now on, as RUST_LOG is written.
    pub(super) fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
        self.0.reload(parsed).map_err(|e| e.to_string())
    }
}

/// Begins to log.
pub(super) fn start(to: To<'_>) -> anyhow::Result<Filter> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LEVEL));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = lines(to)?;
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("cannot start the log")?;
    Ok(Filter(handle))
}

type Lines = Box<dyn Layer<Filtered> + Send + Sync>;
type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

fn lines(to: To<'_>) -> anyhow::Result<Lines> {
    let plain = fmt::layer().with_ansi(false);
    Ok(match to {
        To::StandardError => plain.with_target(false).with_writer(io::stderr).boxed(),
        To::Syslog { target } => {
            let syslog = Syslog::new(target).context("cannot make a socket for syslog")?;
            plain.with_target(false).without_time().with_level(false).with_writer(syslog).boxed()
        }
        To::File(path) => {
            let file = File::options().append(true).create(true).open(path);
            let file = file.with_context(|| {
                format!("cannot write the log {}; name another file with --log-file", path.display())
            })?;
            plain.with_target(false).with_writer(Mutex::new(file)).boxed()
        }
    })
}

/// Sends each line to syslog (RFC 3164 as syslog(3) writes it), and never waits for it: a line that it has no room for is
/// lost, because a mount must not hang with its log.
struct Syslog {
    socket: UnixDatagram,
    /// What stands before each line.
    tag: String,
}

impl Syslog {
    fn new(target: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, tag: format!("remoor[{}]: {target}: ", std::process::id()) })
    }
}

/// A line on its way to syslog.
struct Line<'a> {
    syslog: &'a Syslog,
    severity: u8,
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { syslog: self, severity: severity(Level::INFO) }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { syslog: self, severity: severity(*meta.level()) }
    }
}

/// Severity of RFC 5424, table 2.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut datagram = format!("<{}>{}", DAEMON | self.severity, self.syslog.tag).into_bytes();
        datagram.extend_from_slice(line.trim_ascii_end());
        let _ = self.syslog.socket.send_to(&datagram, SYSLOG);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_those_of_syslog() {
        let priority = |level| DAEMON | severity(level);
        assert_eq!([Level::ERROR, Level::WARN, Level::INFO, Level::TRACE].map(priority), [27, 28, 30, 31]);
    }

    #[test]
    fn a_line_without_a_syslog_is_lost_and_nothing_else() {
        let syslog = Syslog::new("/mnt/x").unwrap();
        assert!(syslog.tag.ends_with("]: /mnt/x: "));
        let line = b"server a not responding\n";
        assert_eq!(syslog.make_writer().write(line).unwrap(), line.len());
    }
}
