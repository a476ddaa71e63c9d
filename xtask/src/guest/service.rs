//! `remoor serve` and `remoor-guest` as processes beside a guest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::Programs;

/// Between two attempts to connect to what is starting.
const RETRY: Duration = Duration::from_millis(20);
/// How long a server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long writers may take to come to rest. A kernel client of a server that was away waits seconds between attempts.
const PAUSE_LIMIT: Duration = Duration::from_secs(200);

/// A server on this machine. It is killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// What it logs.
    pub(super) log: PathBuf,
}

/// What a server serves.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) program: PathBuf,
    pub(super) listen: SocketAddr,
    /// In the form of exports(5).
    pub(super) exports: String,
    /// Where its state and its log are.
    pub(super) dir: PathBuf,
}

impl Serving {
    /// Starts a server and waits until it listens.
    pub(super) fn start(&self) -> anyhow::Result<Server> {
        fs::create_dir_all(&self.dir)?;
        let (exports, log) = (self.dir.join("exports"), self.dir.join("server.log"));
        fs::write(&exports, &self.exports)?;
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(&self.program);
        command.arg("serve").args(["--listen", &self.listen.to_string()]).arg("--exports").arg(&exports);
        command.args(["--control", "none", "--portmap"]);
        command.arg("--state").arg(self.dir.join("state")).env("RUST_LOG", "info").env("NO_COLOR", "1");
        command.stdout(output.try_clone()?).stderr(output).stdin(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        let mut server = Server { child, log };
        server.wait(self.listen)?;
        Ok(server)
    }
}

impl Server {
    fn wait(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let until = Instant::now() + START_LIMIT;
        while TcpStream::connect(address).is_err() {
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "the server ended: see {}", self.log.display());
            ensure!(Instant::now() < until, "nothing listens on {address}: see {}", self.log.display());
            thread::sleep(RETRY);
        }
        Ok(())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("cannot kill the server")?;
        self.child.wait().context("cannot wait for the server")?;
        Ok(())
    }

    /// What it has logged.
    pub(super) fn logged(&self) -> anyhow::Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

/// Writers of our own client, as a process here. They are killed when dropped.
#[derive(Debug)]
pub(super) struct Dialled(Child);

impl Dialled {
    /// Starts writers that mount `export` of `server` and obey on `control`.
    pub(super) fn start(
        programs: &Programs,
        server: SocketAddr,
        export: &str,
        control: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(&programs.guest);
        command.args(["write", "--server", &server.to_string(), "--export", export]);
        command.args(["--control", &control.to_string(), "--prefix", "dialled"]).stdout(Stdio::null());
        Ok(Self(command.spawn().context("cannot start writers")?))
    }
}

impl Drop for Dialled {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The connection that writers obey.
#[derive(Debug)]
pub(crate) struct Control {
    /// Who writes, for messages.
    pub(super) who: &'static str,
    stream: BufReader<TcpStream>,
}

impl Control {
    /// Connects, as soon as the writers listen.
    pub(crate) fn connect(who: &'static str, address: SocketAddr) -> anyhow::Result<Self> {
        let until = Instant::now() + START_LIMIT;
        loop {
            match TcpStream::connect_timeout(&address, START_LIMIT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PAUSE_LIMIT))?;
                    return Ok(Self { who, stream: BufReader::new(stream) });
                }
                Err(e) if Instant::now() > until => bail!("{who}: no writers on {address}: {e}"),
                Err(_) => thread::sleep(RETRY),
            }
        }
    }

    /// Waits until every writer rests between two steps; returns the ledger and how long that took.
    pub(super) fn pause(&mut self) -> anyhow::Result<(Told, Duration)> {
        let began = Instant::now();
        let text = self.ask("pause").with_context(|| format!("{} did not come to rest", self.who))?;
        Ok((Told::read(text), began.elapsed()))
    }

    /// Lets the writers go on.
    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.ask("resume").map(drop)
    }

    fn ask(&mut self, word: &str) -> anyhow::Result<String> {
        writeln!(self.stream.get_mut(), "{word}").with_context(|| format!("cannot say {word}"))?;
        let mut text = String::new();
        loop {
            let began = text.len();
            ensure!(self.stream.read_line(&mut text)? > 0, "the writers went away");
            if &text[began..] == "end\n" {
                text.truncate(began);
                return Ok(text);
            }
        }
    }
}

/// What writers told: a ledger as `remoor-guest write` prints it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    text: String,
    figures: BTreeMap<String, String>,
    /// Calls that failed.
    pub(super) failures: Vec<String>,
}

impl Told {
    fn read(text: String) -> Self {
        let pairs = || text.lines().filter_map(|line| line.split_once(' '));
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let single = ["acknowledged", "repeated", "verifier"];
        let figures = pairs().filter(|(key, _)| single.contains(key)).map(owned).collect();
        let failures =
            pairs().filter(|(key, _)| *key == "failed").map(|(_, value)| value.to_owned()).collect();
        Self { text, figures, failures }
    }

    /// Calls acknowledged, or sent twice.
    pub(super) fn number(&self, key: &str) -> u64 {
        self.figures.get(key).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// The server's write verifier, where the writers saw it.
    pub(super) fn verifier(&self) -> Option<&str> {
        self.figures.get("verifier").map(String::as_str)
    }
}

/// Where to look for what a ledger says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// The exported directory itself.
    Directory(&'a Path),
    /// Through the server, over a new connection.
    Export(SocketAddr, &'a str),
}

/// Compares; returns each loss.
pub(super) fn compare(programs: &Programs, told: &Told, place: Place<'_>) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new(&programs.guest);
    command.arg("check").stdin(Stdio::piped()).stdout(Stdio::piped());
    match place {
        Place::Directory(dir) => command.arg("--dir").arg(dir),
        Place::Export(server, path) => command.args(["--server", &server.to_string(), "--export", path]),
    };
    let mut child = command.spawn().context("cannot start the comparison")?;
    child.stdin.take().context("no standard input")?.write_all(told.text.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("checked "), "the comparison failed: {}", text.trim());
    Ok(text.lines().filter_map(|line| line.strip_prefix("lost ")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writers_tell_is_read() {
        let text =
            "holds a 1 8\nabsent b\nfailed w0 at step 3: no\nacknowledged 40\nrepeated 1\nverifier 00ff\n";
        let told = Told::read(text.into());
        assert_eq!((told.number("acknowledged"), told.number("repeated")), (40, 1));
        assert_eq!(told.verifier(), Some("00ff"));
        assert_eq!(told.failures, ["w0 at step 3: no"]);
        assert_eq!(Told::read(String::new()).verifier(), None);
    }
}
