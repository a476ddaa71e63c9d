//! `remoor drill`: shows an NFS failover end to end.

mod interrupt;
mod listing;
mod progress;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use remoor_drill::case::{self, Case, Matrix};
use remoor_drill::report::{self, CaseReport, DrillReport, seconds};
use remoor_drill::run::{self, RunError, Setup};
use remoor_drill::workload::WORKLOADS;
use remoor_drill::{expect, namespace};

pub(crate) use self::interrupt::hangup_is_ignored;
use self::interrupt::remove_on_signal;
use self::listing::listing;
use self::progress::Progress;
use crate::Failure;

/// Cases run at a time, unless told otherwise: they mostly wait.
const DEFAULT_JOBS: usize = 3;

/// Show an NFS failover end to end: build a client, a balancer and two NFS nodes, break one, report.
///
/// Four hosts (network namespaces) are made: a client, a stateful balancer, nodes A and B that export one directory.
/// The client mounts through the balancer and writes files; then a node breaks. Every SYN on the wire is captured.
/// Afterwards the files on disk are compared with what the client was told. It needs no root where user namespaces
/// are permitted, and touches nothing of this machine but a temporary directory.
///
/// Without options, 12 cases run: three balancers, four sets of mount options, node A falling silent. Each case is
/// also predicted, by the same balancer model and the same client in virtual time; a case passes if it came out as
/// predicted and nothing was lost. A case that hangs as predicted passes: that is what the drill is there to show.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Balancer: a preset, `preset+variant`, or `kernel` for nftables and nf_conntrack; may be repeated
    /// [default: azure-standard, nf-conntrack and aws-nlb]
    #[arg(short, long, value_name = "NAME")]
    balancer: Vec<String>,
    /// Mount options, separated by commas; may be repeated for several cases [default: resvport,abandon=silent;
    /// resvport; noresvport; resvport,rebind=fresh]
    #[arg(short, long, value_name = "OPTIONS")]
    options: Vec<String>,
    /// How node A is broken; may be repeated [default: silent]
    #[arg(short, long, value_name = "NAME")]
    fault: Vec<String>,
    /// What the applications on the client do
    #[arg(short, long, value_name = "NAME", default_value = WORKLOADS[0].name)]
    workload: String,
    /// How long the client may take to come back after a fault
    #[arg(long, value_name = "SECONDS", default_value_t = case::DEFAULT_WINDOW.as_secs_f64(), value_parser = parse_seconds)]
    window: f64,
    /// From a fault until the balancer marks the node down: what a vendor's health probes take
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = parse_seconds)]
    probe_delay: f64,
    /// Break nodes this many times in turn: A, then B after A is back, then A…
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Cases run at a time
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_JOBS as u32, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Start of every random choice of the predictions and the balancer model; real hosts have more of their own
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Tell each case as a story of five steps: mount, capture, disrupt, observe, restore
    #[arg(long)]
    story: bool,
    /// Predict only, in virtual time: no hosts, no packets, no data; done at once
    #[arg(long, conflicts_with = "rounds")]
    simulate: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Save the packets of the one case that runs as a pcapng file
    #[arg(long, value_name = "FILE", conflicts_with = "simulate")]
    pcap: Option<PathBuf>,
    /// Save report.html (pictures of every case), report.json, and each case's packets and story in this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// List balancers, faults, workloads and mount options
    #[arg(long)]
    list: bool,
}

const AFTER_HELP: &str = "\
Examples:
  remoor drill  # the default matrix
  remoor drill -b azure-standard -o noresvport -f silent --story  # one case, told step by step
  remoor drill -b kernel -o resvport,abandon=silent  # real nftables NAT; needs nft
  remoor drill -b azure-standard -o noresvport --rounds 10  # fail over and back, ten times
  remoor drill --simulate --out /tmp/drill  # the same cases, predicted; see report.html there

Exit codes: 0 every case met its expectation; 1 some did not; 2 wrong usage; 3 it cannot run here.

JSON: {cases: [{balancer, options, fault, workload, attempts: [{t_ms, port, isn, retransmissions,
retransmitted_ms: [...], forwarded_to, answered_by, answer, answered_ms}], breaks: [{node, at_ms,
switched_ms, last_reply_ms, first_reply_ms, mended_ms, restored_ms}], notices: [{t_ms, text}],
replies_ms: [...], rebind, pinned, gap_ms, pinned_flow, files, lost, losses, false_errors, errors,
expected: {gap_ms, rebind, pinned, flow_frees_ms}, verdict, reasons, ...}], wall_ms}.
Times are milliseconds since the mount began; gap_ms is null if the client did not recover in the
window; replies_ms is thinned to at most 300 times, the ends of every long silence kept.

The drill's client leaves a server that acknowledges but does not answer after 400 ms, unless
-o stuck= says otherwise: both servers are its own. A call resent to the other node may then be
executed twice and reported as failed though it had succeeded: such false errors are counted.";

fn parse_seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "must be a number of seconds".to_owned())?;
    if (0.0..=3600.0).contains(&value) { Ok(value) } else { Err("must be from 0 to 3600 seconds".to_owned()) }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.list {
        return written(io::stdout().write_all(listing().as_bytes()));
    }
    let cases = args.matrix().cases().map_err(Failure::usage)?;
    if args.pcap.is_some() && cases.len() != 1 {
        return Err(Failure::Usage(anyhow!(
            "--pcap saves one case, but these options make {}; choose one balancer, option and fault, or use --out DIR",
            cases.len()
        )));
    }
    if let Some(out) = &args.out {
        fs::create_dir_all(out)
            .with_context(|| format!("cannot make {}", out.display()))
            .map_err(Failure::Usage)?;
    }
    let started = Instant::now();
    let cases = match args.simulate {
        true => cases.iter().map(expect::simulate).collect::<Result<_, _>>().map_err(Failure::usage)?,
        false => args.run_all(&cases)?,
    };
    let report = DrillReport { cases, wall: started.elapsed() };
    args.print(&report)?;
    if report.passed() { Ok(()) } else { Err(Failure::Case) }
}

impl Args {
    pub(crate) fn matrix(&self) -> Matrix {
        let or =
            |given: &[String], default: Vec<String>| if given.is_empty() { default } else { given.to_vec() };
        let default = Matrix::default();
        Matrix {
            balancers: or(&self.balancer, default.balancers),
            options: or(&self.options, default.options),
            faults: or(&self.fault, default.faults),
            workload: self.workload.clone(),
            window: Duration::from_secs_f64(self.window),
            probe_delay: Duration::from_secs_f64(self.probe_delay),
            rounds: self.rounds,
            seed: self.seed,
        }
    }

    fn run_all(&self, cases: &[Case]) -> Result<Vec<CaseReport>, Failure> {
        namespace::enter_private().map_err(Failure::cannot)?;
        let dir = tempfile::Builder::new().prefix("remoor-drill-").tempdir();
        let dir = dir.context("cannot make a temporary directory; set TMPDIR").map_err(Failure::Cannot)?;
        remove_on_signal(dir.path().to_owned()).map_err(Failure::cannot)?;
        let program =
            std::env::current_exe().context("cannot find this program's file").map_err(Failure::Cannot)?;
        let setups: Vec<_> =
            cases.iter().enumerate().map(|(n, case)| self.setup(case, n, &program, dir.path())).collect();
        run_parallel(cases, &setups, self.jobs as usize)
    }

    fn setup(&self, case: &Case, n: usize, program: &Path, dir: &Path) -> Setup {
        let saved = self.out.as_ref().map(|out| out.join(format!("{}.pcapng", file_stem(n, case))));
        Setup {
            program: program.to_owned(),
            dir: dir.join(format!("case-{n}")),
            pcap: self.pcap.clone().or(saved),
        }
    }

    fn print(&self, report: &DrillReport) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(report).map_err(Failure::cannot)?;
        if let Some(out) = &self.out {
            save(out, report, &json).map_err(Failure::Cannot)?;
            tell(&format!("wrote {}", out.join("report.html").display()));
        }
        let text = if self.json {
            json + "\n"
        } else if self.story {
            report.cases.iter().map(|case| report::story::render(case) + "\n").collect()
        } else {
            report::table::render(report) + &summary(report) + "\n"
        };
        written(io::stdout().write_all(text.as_bytes()))
    }
}

#[allow(clippy::print_stderr, reason = "for a person, beside the report on standard output")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// A reader that closed its end has seen enough, and the exit code still tells the verdict.
pub(crate) fn written(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write the report to standard output").map_err(Failure::Cannot),
    }
}

fn summary(report: &DrillReport) -> String {
    let count = |wanted: fn(&CaseReport) -> bool| report.cases.iter().filter(|case| wanted(case)).count();
    let cases = report.cases.len();
    let recovered = count(|case| case.gap.is_some());
    let took = seconds(report.wall);
    if report.cases.iter().all(|case| case.simulated) {
        return format!("{cases} cases predicted, nothing measured: {recovered} recover, in {took}");
    }
    let passed = count(|case| case.verdict == report::Verdict::Pass);
    let false_errors: usize = report.cases.iter().map(|case| case.false_errors).sum();
    format!(
        "{passed} of {cases} cases as predicted (gaps within {}), {recovered} recovered, {false_errors} false errors, \
         in {took}\nPackets and data are real; balancers other than `{}` are models, with their sources in \
     --list",
        seconds(report::GAP_TOLERANCE),
        case::KERNEL
    )
}

fn save(out: &Path, report: &DrillReport, json: &str) -> anyhow::Result<()> {
    let write = |name: String, text: &str| {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("report.json".to_owned(), json)?;
    write("report.html".to_owned(), &report::html::render(report))?;
    report.cases.iter().enumerate().try_for_each(|(n, case)| {
        let stem = stem(n, &case.balancer, &case.options, &case.fault);
        write(format!("{stem}.txt"), &report::story::render(case))
    })
}

fn file_stem(n: usize, case: &Case) -> String {
    stem(n, &case.balancer.to_string(), &case.options_text, case.fault.name)
}

fn stem(n: usize, balancer: &str, options: &str, fault: &str) -> String {
    format!("{:02}-{balancer}-{}-{fault}", n + 1, options.replace([',', '='], "-"))
}

/// Runs cases, `jobs` at a time, with a line of progress each. The first that cannot be run ends the drill.
fn run_parallel(cases: &[Case], setups: &[Setup], jobs: usize) -> Result<Vec<CaseReport>, Failure> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<CaseReport, RunError>)>> = Mutex::default();
    let progress = Progress::new(cases.len());
    let worker = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(n) else { return };
            let line = progress.begin(n, case);
            let outcome = run::run(case, &setups[n], &|stage| line.stage(stage));
            line.end(&outcome);
            if outcome.is_err() {
                next.store(cases.len(), Ordering::Relaxed);
            }
            done.lock().unwrap_or_else(|e| e.into_inner()).push((n, outcome));
        }
    };
    thread::scope(|scope| (0..jobs.min(cases.len())).for_each(|_| drop(scope.spawn(worker))));
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(n, outcome)| outcome.map_err(|e| could_not_run(&cases[n], e))).collect()
}

fn could_not_run(case: &Case, error: RunError) -> Failure {
    let named = format!("{} · {} · {}", case.balancer, case.options_text, case.fault.name);
    Failure::Cannot(anyhow::Error::new(error).context(named))
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[test]
    fn help_names_the_defaults_that_are_used() {
        let help = Args::augment_args(clap::Command::new("drill")).render_long_help().to_string();
        let help: Vec<&str> = help.split_whitespace().collect();
        let named = |word: &str| help.iter().any(|w| w.trim_matches(['[', ']', ';', ',']) == word);
        let defaults =
            case::DEFAULT_BALANCERS.iter().chain(&case::DEFAULT_OPTIONS).chain([&case::DEFAULT_FAULT]);
        for default in defaults {
            assert!(named(default), "{default}\n{help:?}");
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error_and_a_full_disk_is() {
        assert!(written(Ok(())).is_ok());
        assert!(written(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(matches!(written(Err(io::ErrorKind::StorageFull.into())), Err(Failure::Cannot(_))));
    }
}
