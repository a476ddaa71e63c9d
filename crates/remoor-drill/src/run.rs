//! Runs one case on real hosts: build, mount, break, watch, mend, check.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use remoor_flow::Health;
use remoor_nfs::reconnect::ConfigError;

use crate::attempts::{AnswerKind, Answerer, Attempt, attempts};
use crate::balancer::{Balancer, BalancerError, FlowView, KernelBalancer, ModelBalancer};
use crate::capture::{Capture, CaptureError, Recording, Sighting, Tap};
use crate::case::{BalancerChoice, Case};
use crate::check::{Losses, check};
use crate::expect;
use crate::fault::{FaultError, Mended, Victim};
use crate::journal::{Journal, Record};
use crate::nodes::{Files, NodeError, Server};
use crate::report::{
    AttemptReport, Break, CaseReport, Expected, NoticeReport, PinnedFlow, RebindSeen, thinned,
};
use crate::session::{Session, SessionError};
use crate::topology::{Node, SERVICE, Topology, TopologyError};

/// Files the workload completes before a fault, and after it to count as recovered.
const STEADY_FILES: u64 = 8;
/// How long the workload may take to become steady.
const STEADY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a case goes on after a change, so that what it sets off is in the capture.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a client that did not recover is given once the node is back.
const RESTORE_WINDOW: Duration = Duration::from_secs(4);
/// Interval at which the workload's progress is looked at.
const POLL: Duration = Duration::from_millis(5);

/// What all cases of a drill share.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program whose `serve` command is a node.
    pub program: PathBuf,
    /// Directory for the files of a case.
    pub dir: PathBuf,
    /// Where to save the packets.
    pub pcap: Option<PathBuf>,
}

/// A step of a case, for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Hosts, links and servers are being made.
    Building,
    /// The client mounts and the workload becomes steady.
    Mounting,
    /// This node was broken; the client is watched.
    Broken(Node),
    /// The node is mended.
    Mending(Node),
    /// Disk and capture are checked.
    Checking,
}

/// Why a case could not be run at all.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it wraps")]
pub enum RunError {
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Balancer(#[from] BalancerError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Fault(#[from] FaultError),
    #[error(transparent)]
    Predict(#[from] ConfigError),
    #[error("cannot read the exported directory: {0}")]
    Check(io::Error),
    #[error("cannot save packets to {path}: {source}")]
    Save { path: PathBuf, source: io::Error },
    #[error("the workload completed {files} files in {} s, not {STEADY_FILES}, before any fault: {errors}", STEADY_TIMEOUT.as_secs())]
    NotSteady { files: u64, errors: String },
}

/// Runs `case`; `stage` is told each step as it begins.
///
/// # Errors
/// [`RunError`] if the case could not be run; a case that went otherwise than predicted is a report, not an error.
pub fn run(case: &Case, setup: &Setup, stage: &(dyn Fn(Stage) + Sync)) -> Result<CaseReport, RunError> {
    stage(Stage::Building);
    let mut bench = Bench::build(case, setup)?;
    stage(Stage::Mounting);
    bench.mount(case)?;
    let mut breaks = Vec::new();
    let mut pinned_flow = None;
    for _ in 0..case.rounds {
        let (broken, flow) = bench.round(case, stage)?;
        pinned_flow = pinned_flow.or(flow);
        breaks.push(broken);
    }
    stage(Stage::Checking);
    bench.finish(case, setup, breaks, pinned_flow)
}

/// One moment on both clocks: the capture has wall-clock times, everything else has not.
#[derive(Debug, Clone, Copy)]
struct Origin {
    instant: Instant,
    wall: Duration,
}

impl Origin {
    fn now() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), wall }
    }

    fn since(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.instant)
    }

    fn since_wall(&self, wall: Duration) -> Duration {
        wall.saturating_sub(self.wall)
    }
}

/// The hosts of a case and what runs on them.
struct Bench<'a> {
    program: &'a Path,
    files: Files,
    // Fields are dropped in order: what runs before where it runs.
    session: Option<Session>,
    capture: Option<Capture>,
    balancer: Box<dyn Balancer>,
    servers: [Server; 2],
    topology: Topology,
    journal: Arc<Journal>,
    origin: Origin,
}

/// A break of a node under way.
struct Watch {
    at: Instant,
    switched: Instant,
    mended: Option<Instant>,
    /// Files completed when the node was broken: up to one per writer may still follow from replies under way.
    files: u64,
    /// What is due when, after the break, in order.
    steps: VecDeque<(Duration, Step)>,
}

/// What happens to a broken node by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    MarkDown,
    Mend,
    MarkUp,
}

/// The probes notice each change of the node after the same delay, and a fault that is over by then not at all.
fn steps(case: &Case) -> VecDeque<(Duration, Step)> {
    let delay = case.probe_delay;
    let noticed = case.fault.lasts.is_none_or(|lasts| delay <= lasts);
    let down = (noticed && !delay.is_zero()).then_some((delay, Step::MarkDown));
    let mend = case.fault.lasts.map(|lasts| (lasts, Step::Mend));
    let up = case.fault.lasts.map(|lasts| (lasts + delay, Step::MarkUp));
    [down, mend, up].into_iter().flatten().collect()
}

impl<'a> Bench<'a> {
    fn build(case: &Case, setup: &'a Setup) -> Result<Self, RunError> {
        let files = Files::create(&setup.dir, !case.options.reserved)?;
        let topology = Topology::build()?;
        let start = |node| Server::start(&setup.program, &topology, node, &files);
        let servers = [start(Node::A)?, start(Node::B)?];
        let balancer: Box<dyn Balancer> = match &case.balancer {
            BalancerChoice::Model(chosen) => {
                Box::new(ModelBalancer::start(&topology, chosen.config.clone(), case.seed)?)
            }
            BalancerChoice::Kernel(_) => Box::new(KernelBalancer::start(&topology)?),
        };
        let capture = Some(Capture::start(&topology)?);
        let origin = Origin::now();
        let journal = Arc::default();
        Ok(Self {
            program: &setup.program,
            files,
            session: None,
            capture,
            balancer,
            servers,
            topology,
            journal,
            origin,
        })
    }

    fn mount(&mut self, case: &Case) -> Result<(), RunError> {
        let journal = Arc::clone(&self.journal);
        let session =
            Session::start(&self.topology, &case.options, &self.files.export, case.workload, journal)?;
        self.session = Some(session);
        if self.wait_for_files(STEADY_FILES, Instant::now() + STEADY_TIMEOUT).is_none() {
            let record = self.journal.snapshot();
            let errors = record.failures.iter().map(|f| f.error.clone()).collect::<Vec<_>>().join("; ");
            return Err(RunError::NotSteady { files: record.files, errors });
        }
        Ok(())
    }

    /// Waits until the workload has completed `files` more files; `None` if it did not by `until`.
    fn wait_for_files(&self, files: u64, until: Instant) -> Option<()> {
        let target = self.journal.files() + files;
        while self.journal.files() < target {
            if Instant::now() >= until {
                return None;
            }
            thread::sleep(POLL);
        }
        Some(())
    }

    /// Breaks the node in use, watches the client come back, and mends the node.
    fn round(
        &mut self,
        case: &Case,
        stage: &(dyn Fn(Stage) + Sync),
    ) -> Result<(Break, Option<PinnedFlow>), RunError> {
        let node = self.node_in_use();
        stage(Stage::Broken(node));
        let mut watch = self.break_node(case, node)?;
        let recovered = self.watch(case, node, &mut watch)?;
        let flow = if recovered { None } else { self.pinned_flow(node)? };
        let gap = self.journal.snapshot().gap(watch.at, Instant::now()).filter(|_| recovered);
        stage(Stage::Mending(node));
        thread::sleep(SETTLE);
        let restoring = Instant::now();
        if watch.mended.is_none() {
            self.mend(case, node)?;
            self.balancer.set_health(node, Health::Up)?;
        }
        let back = if recovered { None } else { self.wait_for_reply(restoring) };
        thread::sleep(SETTLE);
        let broken = Break {
            node: node.to_string(),
            at: self.origin.since(watch.at),
            switched: self.origin.since(watch.switched),
            last_reply: gap.map(|(last, _)| self.origin.since(last)),
            first_reply: gap.map(|(_, first)| self.origin.since(first)),
            mended: Some(self.origin.since(watch.mended.unwrap_or(restoring))),
            restored: back.map(|reply| self.origin.since(reply)),
        };
        Ok((broken, flow))
    }

    /// A balancer that learns of a fault at once learns of it just before: a client that comes back within the
    /// millisecond would else find the old choice or the new one by chance.
    fn break_node(&mut self, case: &Case, node: Node) -> Result<Watch, RunError> {
        let at = Instant::now();
        if case.probe_delay.is_zero() {
            self.balancer.set_health(node, Health::Down)?;
        }
        let switched = Instant::now();
        case.fault.inject(&self.victim(node))?;
        Ok(Watch { at, switched, mended: None, files: self.journal.files(), steps: steps(case) })
    }

    /// Lets the window pass until the client has recovered, and takes each step when it is due. On return all steps
    /// were taken.
    fn watch(&mut self, case: &Case, node: Node, watch: &mut Watch) -> Result<bool, RunError> {
        let mut recovered = false;
        loop {
            while let Some((_, step)) = watch.steps.pop_front_if(|(due, _)| watch.at.elapsed() >= *due) {
                self.take(step, case, node, watch)?;
            }
            recovered |= self.journal.files() >= watch.files + STEADY_FILES;
            let over = recovered || watch.at.elapsed() >= case.window;
            if over && watch.steps.is_empty() {
                return Ok(recovered);
            }
            thread::sleep(POLL);
        }
    }

    fn take(&mut self, step: Step, case: &Case, node: Node, watch: &mut Watch) -> Result<(), RunError> {
        match step {
            Step::MarkDown => {
                self.balancer.set_health(node, Health::Down)?;
                watch.switched = Instant::now();
            }
            Step::Mend => {
                watch.mended = Some(Instant::now());
                self.mend(case, node)?;
            }
            Step::MarkUp => self.balancer.set_health(node, Health::Up)?,
        }
        Ok(())
    }

    fn mend(&mut self, case: &Case, node: Node) -> Result<(), RunError> {
        if case.fault.mend(&self.victim(node))? == Mended::StartServer {
            self.servers[node.index()] = Server::start(self.program, &self.topology, node, &self.files)?;
        }
        Ok(())
    }

    fn victim(&self, node: Node) -> Victim<'_> {
        Victim { topology: &self.topology, node, server: self.servers[node.index()].id() }
    }

    /// First reply after `since`, if one comes in time.
    fn wait_for_reply(&self, since: Instant) -> Option<Instant> {
        let until = since + RESTORE_WINDOW;
        self.wait_for_files(1, until);
        self.journal.snapshot().replies.into_iter().filter(|reply| *reply > since).min()
    }

    fn node_in_use(&self) -> Node {
        let sightings = self.capture.as_ref().map(Capture::sightings).unwrap_or_default();
        node_in_use(&sightings).unwrap_or(Node::A)
    }

    fn pinned_flow(&self, node: Node) -> Result<Option<PinnedFlow>, RunError> {
        let flows = self.balancer.flows()?;
        let pinned = flows.into_iter().filter(|flow| flow.node == node).max_by_key(|flow| flow.expires_in);
        Ok(pinned.map(|FlowView { client, node, state, expires_in }| PinnedFlow {
            port: client.port(),
            node: node.to_string(),
            state,
            frees_in: expires_in,
        }))
    }

    fn finish(
        mut self,
        case: &Case,
        setup: &Setup,
        breaks: Vec<Break>,
        pinned_flow: Option<PinnedFlow>,
    ) -> Result<CaseReport, RunError> {
        let (errors, notices) = self.session.take().map(Session::stop).unwrap_or_default();
        let recording = self.capture.take().map(Capture::finish).transpose()?;
        let origin = self.origin;
        let record = self.journal.snapshot();
        let export = self.files.export.clone();
        // Both nodes end before the disk is looked at: nothing they hold back can change it afterwards.
        drop(self);
        let losses = check(&record, &export).map_err(RunError::Check)?;
        let sightings = recording.as_ref().map(Recording::sightings).unwrap_or_default();
        if let (Some(recording), Some(path)) = (&recording, &setup.pcap) {
            save(recording, path)?;
        }
        let attempts = attempts(&sightings, SERVICE);
        let missing_frames = recording.as_ref().map_or(0, Recording::missing_frames);
        let notices =
            notices.into_iter().map(|(at, notice)| NoticeReport::new(origin.since(at), &notice)).collect();
        let seen =
            Seen { origin, breaks, pinned_flow, attempts, notices, record, losses, errors, missing_frames };
        Ok(seen.report(case, expect::expect(case)?))
    }
}

/// The node that answers: the one that accepted the connection on which the client last received data. Not that of the
/// newest connection, which the client may have opened in doubt and left again.
fn node_in_use(sightings: &[Sighting]) -> Option<Node> {
    let to_client = |seen: &&Sighting| seen.tap == Tap::Client && !seen.outgoing;
    let reply = sightings.iter().rev().filter(to_client).find(|seen| seen.segment.payload_len > 0)?;
    let port = reply.segment.dst.port();
    let attempts = attempts(sightings, SERVICE);
    attempts.iter().rev().filter(|attempt| attempt.source_port == port).find_map(Attempt::connected_to)
}

fn save(recording: &Recording, path: &Path) -> Result<(), RunError> {
    let save = || recording.write_pcapng(BufWriter::new(File::create(path)?));
    save().map_err(|source| RunError::Save { path: path.to_owned(), source })
}

/// All that a case brought to light.
struct Seen {
    origin: Origin,
    breaks: Vec<Break>,
    pinned_flow: Option<PinnedFlow>,
    attempts: Vec<Attempt>,
    notices: Vec<NoticeReport>,
    record: Record,
    losses: Losses,
    errors: Vec<String>,
    missing_frames: u64,
}

impl Seen {
    fn report(self, case: &Case, expected: Expected) -> CaseReport {
        let gaps: Option<Vec<Duration>> = self.breaks.iter().map(Break::gap).collect();
        let attempts: Vec<_> = self.attempts.iter().map(|a| attempt_report(a, &self.origin)).collect();
        let mut report = CaseReport {
            pinned: self.breaks.iter().any(|broken| pinned(broken, &attempts)),
            rebind: self.rebind(&attempts),
            gap: gaps.and_then(|gaps| gaps.into_iter().max()),
            false_errors: self.record.failures.iter().filter(|failure| failure.is_false).count(),
            errors: self.error_texts(),
            replies: self.replies(),
            breaks: self.breaks,
            attempts,
            notices: self.notices,
            pinned_flow: self.pinned_flow,
            files: self.record.files,
            lost: self.losses.count,
            losses: self.losses.named,
            missing_frames: self.missing_frames,
            ..CaseReport::blank(case, expected)
        };
        report.judge();
        report
    }

    /// Ports of the attempts until the first node was mended; what a client does to a healthy pair is no rebind rule.
    fn rebind(&self, attempts: &[AttemptReport]) -> Option<RebindSeen> {
        let mended = self.breaks.first().and_then(|broken| broken.mended).unwrap_or(Duration::MAX);
        let until = if self.breaks.len() > 1 { Duration::MAX } else { mended };
        RebindSeen::of(attempts.iter().filter(|a| a.at < until).map(|a| a.port))
    }

    fn replies(&self) -> Vec<Duration> {
        thinned(self.record.replies.iter().map(|reply| self.origin.since(*reply)).collect())
    }

    fn error_texts(&self) -> Vec<String> {
        let failures = self.record.failures.iter().map(|failure| {
            let kind = if failure.is_false { " (false: it had succeeded)" } else { "" };
            format!("{} {}: {}{kind}", failure.procedure, failure.name, failure.error)
        });
        let named = failures.collect::<Vec<_>>();
        let known = |error: &String| self.record.failures.iter().any(|failure| failure.error == *error);
        named.into_iter().chain(self.errors.iter().filter(|e| !known(e)).cloned()).collect()
    }
}

/// Whether a SYN that began after the switch went to the broken node while it was broken.
fn pinned(broken: &Break, attempts: &[AttemptReport]) -> bool {
    let until = broken.mended.unwrap_or(Duration::MAX);
    let during = attempts.iter().filter(|a| a.at > broken.switched && a.at < until);
    during.into_iter().any(|a| a.forwarded_to.contains(&broken.node))
}

fn attempt_report(attempt: &Attempt, origin: &Origin) -> AttemptReport {
    let (answered_by, answer) = match attempt.answer {
        None => ("none".to_owned(), ""),
        Some(answer) => (answerer(answer.by), kind(answer.kind)),
    };
    AttemptReport {
        at: origin.since_wall(attempt.time),
        port: attempt.source_port,
        isn: attempt.isn,
        retransmissions: attempt.retransmissions.len(),
        retransmitted: attempt.retransmissions.iter().map(|at| origin.since_wall(*at)).collect(),
        forwarded_to: attempt.forwarded_to.iter().map(Node::to_string).collect(),
        answered_by,
        answer: answer.to_owned(),
        answered: attempt.answer.map(|answer| origin.since_wall(answer.time)),
    }
}

fn answerer(by: Answerer) -> String {
    match by {
        Answerer::Node(node) => node.to_string(),
        Answerer::Balancer => "balancer".to_owned(),
    }
}

fn kind(kind: AnswerKind) -> &'static str {
    match kind {
        AnswerKind::SynAck => "SYN-ACK",
        AnswerKind::Rst => "RST",
        AnswerKind::ChallengeAck => "challenge ACK",
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use remoor_flow::TcpFlags;

    use super::*;
    use crate::case::Matrix;
    use crate::segment::Segment;

    fn steps_of(fault: &str, probe_delay_secs: u64) -> Vec<(u64, Step)> {
        let probe_delay = Duration::from_secs(probe_delay_secs);
        let matrix = Matrix { faults: vec![fault.to_owned()], probe_delay, ..Matrix::default() };
        steps(&matrix.cases().unwrap()[0]).into_iter().map(|(due, step)| (due.as_secs(), step)).collect()
    }

    #[test]
    fn a_flap_ends_by_itself_and_probes_follow_it() {
        assert_eq!(steps_of("flap", 0), [(2, Step::Mend), (2, Step::MarkUp)]);
        assert_eq!(steps_of("flap", 1), [(1, Step::MarkDown), (2, Step::Mend), (3, Step::MarkUp)]);
        assert_eq!(steps_of("flap", 3), [(2, Step::Mend), (5, Step::MarkUp)]);
    }

    /// What the taps see of a connection to `node`: SYN, SYN-ACK, and a reply if there is one.
    fn connection(port: u16, node: Node, at: u64, reply: Option<u64>) -> Vec<Sighting> {
        let client = SocketAddrV4::new(Ipv4Addr::new(10, 81, 1, 2), port);
        let syn = Segment { src: client, dst: SERVICE, flags: TcpFlags::SYN, seq: 9, ack: 0, payload_len: 0 };
        let flags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
        let answer = Segment { src: SERVICE, dst: client, flags, seq: 70, ack: 10, payload_len: 0 };
        let data = Segment { flags: TcpFlags::ACK, seq: 71, payload_len: 100, ..answer };
        let seen = |ms, tap, outgoing, segment| {
            let time = Duration::from_millis(ms);
            Sighting { time, tap, outgoing, segment }
        };
        let from_node = Segment { src: Topology::node_service(node), ..answer };
        let mut all = vec![
            seen(at, Tap::Client, true, syn),
            seen(at + 1, Tap::Node(node), false, from_node),
            seen(at + 2, Tap::Client, false, answer),
        ];
        all.extend(reply.map(|at| seen(at, Tap::Client, false, data)));
        all
    }

    #[test]
    fn the_node_that_answers_is_in_use_and_not_one_that_was_only_tried() {
        let mut seen = [connection(700, Node::A, 0, Some(50)), connection(701, Node::B, 20, None)].concat();
        seen.sort_by_key(|sighting| sighting.time);
        assert_eq!(node_in_use(&seen), Some(Node::A));
        seen.extend(connection(702, Node::B, 60, Some(70)));
        assert_eq!(node_in_use(&seen), Some(Node::B));
        assert_eq!(node_in_use(&[]), None);
    }

    #[test]
    fn a_fault_that_lasts_is_mended_by_the_case() {
        assert_eq!(steps_of("silent", 0), []);
        assert_eq!(steps_of("kill", 3), [(3, Step::MarkDown)]);
    }
}
