//! The writing processes on the client's host.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use remoor_drill::namespace::Host;

use crate::ledger::Ledger;

/// Port of the first writer's control connection; the others follow.
const FIRST_CONTROL: u16 = 3001;
/// How long a process may take to start.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a writer may take to come to rest: a failover, and what a slow machine adds.
const REST_LIMIT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(10);

/// One writing process; killed when dropped.
#[derive(Debug)]
pub(super) struct Writer {
    child: Child,
    control: BufReader<TcpStream>,
}

impl Writer {
    /// Starts number `n`, which writes in `dir`.
    pub(super) fn start(host: &Host, dir: &Path, n: u16) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_CONTROL + n));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("write").arg("--dir").arg(dir).args(["--control", &address.to_string()]);
        command
            .args(["--writers", "1", "--prefix", &format!("w{n}-")])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = host.spawn_process(command)?;
        let control = host.run(|| connect(address))?.with_context(|| format!("writer {n} does not start"))?;
        Ok(Self { child, control: BufReader::new(control) })
    }

    /// Asks for rest; [`Writer::rested`] waits for it.
    pub(super) fn ask_to_rest(&mut self) -> anyhow::Result<()> {
        self.say("pause")
    }

    /// What the writer has noted, once it rests.
    pub(super) fn rested(&mut self) -> anyhow::Result<Ledger> {
        self.heard().context("a writer did not come to rest")?.parse()
    }

    /// Lets it go on.
    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.say("resume")?;
        self.heard().map(drop)
    }

    fn say(&mut self, word: &str) -> anyhow::Result<()> {
        writeln!(self.control.get_mut(), "{word}").with_context(|| format!("cannot say {word} to a writer"))
    }

    fn heard(&mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        loop {
            let began = text.len();
            ensure!(self.control.read_line(&mut text)? > 0, "a writer went away");
            if &text[began..] == "end\n" {
                text.truncate(began);
                return Ok(text);
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let until = Instant::now() + START_LIMIT;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(REST_LIMIT))?;
                return Ok(stream);
            }
            Err(e) if Instant::now() > until => bail!("{address}: {e}"),
            Err(_) => thread::sleep(RETRY),
        }
    }
}
