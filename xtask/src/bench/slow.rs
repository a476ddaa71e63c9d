//! Whether clients feel that another one waits for a disk that does not answer.
//!
//! The disk is a file system of its own, exported beside the other, that is frozen (fsfreeze(8)): a WRITE to it waits
//! until it is thawed. One client has eight of them in flight, as many as a kernel client may well have; seven read from
//! the other export.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::load::{Sample, Tools, samples};
use super::outcome::{Figure, Outcome, Slow};
use super::rows::{Client, Unit};
use super::server::Running;
use super::site::Site;
use super::{Arguments, progress};

/// Seven clients that read, with four calls in flight each.
const OTHERS: (&[&str], &str) = (&["--connections", "7"], "randread:4");
/// The client that waits.
const WAITING: (&[&str], &str) = (&["--file-mib", "16", "--patience", "120"], "randwrite:8");
/// How long that client runs before its disk stops.
const BEFORE: Duration = Duration::from_millis(1500);

/// Measures the other clients with and without the one that waits, on every server that has a second export.
pub(crate) fn measure(
    arguments: &Arguments,
    tools: &Tools,
    site: &Site,
    running: &[Running],
    outcome: &mut Outcome,
) {
    for server in running {
        progress(&format!("a slow disk on {}", server.peer.name));
        let rounds = || -> anyhow::Result<Slow> {
            let each = (0..arguments.rounds()).map(|_| both(arguments, tools, site, server));
            middle(each.collect::<anyhow::Result<_>>()?).context("no round")
        };
        let measured = server.peer.slow.then(rounds).transpose();
        outcome.slow.push(measured.unwrap_or_else(|e| {
            outcome.notes.push(format!("a slow disk on {}: {e:#}", server.peer.name));
            None
        }));
    }
}

/// The round in which the other clients felt it as much as they do in most.
fn middle(mut rounds: Vec<Slow>) -> Option<Slow> {
    let part =
        |slow: &Slow| Figure::Rate.of(&slow.with, Unit::Calls) / Figure::Rate.of(&slow.without, Unit::Calls);
    rounds.sort_by(|a, b| part(a).total_cmp(&part(b)));
    let at = rounds.len() / 2;
    rounds.into_iter().nth(at)
}

fn both(arguments: &Arguments, tools: &Tools, site: &Site, server: &Running) -> anyhow::Result<Slow> {
    let without = others(arguments, tools, server)?;
    let waiting = waiting(arguments, tools, site, server)?;
    sleep(BEFORE);
    let frozen = Frozen::for_secs(site, arguments.secs() + 1.0)?;
    let with = others(arguments, tools, server);
    frozen.thawed()?;
    let output = waiting.wait_with_output().context("the waiting client is lost")?;
    ensure!(
        output.status.success(),
        "the waiting client: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let waited = samples(&String::from_utf8_lossy(&output.stdout))?.pop().context("it told nothing")?;
    ensure!(waited.max_us > arguments.secs() * 1e6, "no call waited for the disk, so this proves nothing");
    Ok(Slow { without, with: with? })
}

fn others(arguments: &Arguments, tools: &Tools, server: &Running) -> anyhow::Result<Sample> {
    let told = tools.run(Client::Libnfs, server, arguments, OTHERS.0, OTHERS.1)?;
    told.into_iter().next().context("the load generator told nothing")
}

fn waiting(arguments: &Arguments, tools: &Tools, site: &Site, server: &Running) -> anyhow::Result<Child> {
    let secs = (arguments.secs() + 4.0).to_string();
    let mut command = Command::new(tools.nfsload());
    command.args(WAITING.0).args(["--secs", &secs, "--name", &server.peer.name]);
    command.args(["--mountport", &server.mount_port().to_string()]);
    command.args(["127.0.0.1", &server.port.to_string()]).arg(&site.slow).arg(WAITING.1);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("cannot run nfsload")
}

/// A disk that does not answer, for some seconds. It is thawed by a process of its own, because a server that waits for
/// a frozen disk cannot be ended, should this bench be.
struct Frozen(Child);

impl Frozen {
    fn for_secs(site: &Site, secs: f64) -> anyhow::Result<Self> {
        let disk = site.slow.display();
        let script = format!("fsfreeze -f {disk} && echo frozen && sleep {secs}; fsfreeze -u {disk}");
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot run setsid")?;
        let mut told = [0; 6];
        let output = child.stdout.as_mut().context("no standard output")?;
        std::io::Read::read_exact(output, &mut told).context("fsfreeze failed")?;
        Ok(Self(child))
    }

    fn thawed(mut self) -> anyhow::Result<()> {
        let status = self.0.wait().context("the process that thaws is lost")?;
        ensure!(status.success(), "fsfreeze -u ended with {status}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_in_the_middle_is_told() {
        let round = |with| Slow {
            without: Sample { calls: 100, seconds: 1.0, ..Sample::default() },
            with: Sample { calls: with, seconds: 1.0, ..Sample::default() },
        };
        let told = middle(vec![round(90), round(5), round(60)]);
        assert_eq!(told.map(|slow| slow.with.calls), Some(60));
        assert!(middle(Vec::new()).is_none());
    }
}
