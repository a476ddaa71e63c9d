//! `cargo xtask mount soak`: many programs work on the mount for a long time, while the server may be killed and started
//! again. None may fail or read anything but what was written, and what the mount's processes hold must not grow without
//! end.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::value_parser;
use serde::Serialize;
use serde_json::json;

use super::client::{Mounted, Vitals};
use super::place::{Places, Servers};
use super::spark;
use super::tools::FSX;
use crate::bench::load::Tools;
use crate::bench::progress;
use crate::report::Counts;

/// Between two samples.
const SAMPLE: Duration = Duration::from_secs(1);
/// Between two words on how it goes.
const TELL: Duration = Duration::from_mins(1);
/// How long the last round of work may take after the end.
const PATIENCE: Duration = Duration::from_mins(5);
/// Failures that are kept of each job.
const KEPT: usize = 3;
/// Bars of a line of figures.
const BARS: usize = 40;
/// In the last quarter of the time the middle figure may be so much above that of the second: a part of it, and some.
const GROWTH_PART: u64 = 10;
const GROWTH_KIB: u64 = 8 << 10;
const GROWTH_COUNT: u64 = 16;

/// A script for `sh -eu`, run again and again in a directory of its own on the mount. `$n` is the number of the round,
/// `$tools` has programs, `$tree` is a tree to read.
struct Job {
    name: &'static str,
    script: &'static str,
}

/// What works at the same time.
const JOBS: &[Job] = &[
    Job {
        name: "write, fsync, read",
        script: "
for i in 1 2 3 4 5 6 7 8; do
  dd if=/dev/urandom of=a.$i bs=24k count=7 conv=fsync status=none
  sum=$(sha256sum <a.$i)
  mv a.$i b.$i
  test \"$sum\" = \"$(sha256sum <b.$i)\"
done
rm b.*",
    },
    Job {
        name: "append",
        script: "
for i in $(seq 300); do echo \"line $i of round $n\" >>log; done
test $(wc -l <log) = 300
test \"$(tail -n 1 log)\" = \"line 300 of round $n\"
: >log
test ! -s log
rm log",
    },
    Job {
        name: "rename, link, symlink",
        script: "
mkdir d; echo $n >d/a; ln d/a d/b; ln -s a d/s
test \"$(cat d/s)\" = $n
echo new >d/c; mv -f d/c d/a
test \"$(cat d/s)\" = new; test \"$(cat d/b)\" = $n
mv d e; mkdir d; rmdir d
test $(ls e | wc -l) = 3
rm -r e",
    },
    Job {
        name: "open and unlinked",
        script: "
echo kept $n >f; exec 3<f; rm f
test ! -e f
test \"$(cat <&3)\" = \"kept $n\"
exec 3<&-",
    },
    Job {
        name: "mapped memory (fsx)",
        script: "\"$tools/fsx\" -q -S $n -N 1500 -P \"$tree/..\" file; rm file",
    },
    Job {
        name: "git",
        script: "
git init -q r; cd r
git config user.name x; git config user.email x@localhost
for i in 1 2 3; do seq $n $((n + 2000)) >f$i; git add f$i; git commit -q -m $i; done
git checkout -q -b other HEAD~1; echo $n >g; git add g; git commit -q -m g
git gc -q; git fsck --no-progress
git checkout -q -; test -e f3; test ! -e g
cd ..; rm -rf r",
    },
    Job {
        name: "tar, find, du",
        script: "
tar cf - -C \"$tree\" . | tar xf - 
test $(find . -type f | wc -l) = $(find \"$tree\" -type f | wc -l)
du -s . >/dev/null
diff -r \"$tree\" .
find . -mindepth 1 -delete",
    },
];
/// Files of the tree, in directories of ten.
const TREE: usize = 200;

/// How long, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    places: Places,
    /// Minutes with each client on each server
    #[arg(long, value_name = "M", default_value_t = 30, value_parser = value_parser!(u64).range(1..))]
    minutes: u64,
    /// Kill the server with SIGKILL and start it again so many times meanwhile
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u32).range(0..=1000))]
    restarts: u32,
    /// Print every sample as JSON
    #[arg(long)]
    json: bool,
}

/// How a job went.
#[derive(Debug, Default, Clone, Serialize)]
struct Done {
    job: &'static str,
    rounds: u64,
    failed: u64,
    /// What the first failures said.
    said: Vec<String>,
}

/// How it all went.
#[derive(Debug, Serialize)]
struct Outcome {
    place: String,
    restarts: u32,
    jobs: Vec<Done>,
    samples: Vec<Vitals>,
    /// Why it failed; none, and it has not.
    failures: Vec<String>,
}

/// Works with each client on each server.
pub(super) fn run(options: &Options) -> anyhow::Result<Counts> {
    let tools = Tools::built()?;
    let clients = options.places.clients(&tools)?;
    let mut servers = Servers::start(&options.places.servers, &tools)?;
    let tree = servers.work().join("tree");
    make_tree(&tree)?;
    let mut counts = Counts::default();
    for client in &clients {
        for (n, server) in servers.names().iter().enumerate() {
            let place = format!("{} on {server}", client.name);
            let mounted = servers.mount(n, client)?;
            let site = Site { mounted: &mounted, tree: &tree, place };
            let outcome = soak(site, options, || servers.restart(n))?;
            mounted.unmount()?;
            counts += Counts::of(outcome.failures.is_empty());
            show(&outcome, options.json)?;
        }
    }
    Ok(counts)
}

fn make_tree(tree: &Path) -> anyhow::Result<()> {
    for n in 0..TREE {
        let dir = tree.join(format!("d{}", n / 10));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("f{n}")), vec![n as u8; n * 100]).context("cannot make a tree")?;
    }
    Ok(())
}

/// Where the jobs work.
struct Site<'a> {
    mounted: &'a Mounted,
    tree: &'a Path,
    /// For messages.
    place: String,
}

fn soak(
    site: Site<'_>,
    options: &Options,
    restart: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let time = Duration::from_mins(options.minutes);
    let clock = Clock::new(time, options.restarts);
    let all: Vec<Mutex<Done>> = JOBS.iter().map(|job| Mutex::new(Done::of(job))).collect();
    let stop = AtomicBool::new(false);
    let samples = site.mounted.guarded(time + PATIENCE, || {
        thread::scope(|scope| {
            for (job, done) in JOBS.iter().zip(&all) {
                let (dir, tree, until) = (&site.mounted.dir, site.tree, clock.until);
                let stop = &stop;
                let goes_on = move || Instant::now() < until && !stop.load(Ordering::Relaxed);
                scope.spawn(move || again_and_again(job, dir, tree, goes_on, done));
            }
            let samples = sample(&site, clock, &all, restart);
            stop.store(true, Ordering::Relaxed);
            samples
        })
    })?;
    let jobs: Vec<Done> = all.iter().map(|done| lock(done).clone()).collect();
    let failures = judge(&jobs, &samples);
    Ok(Outcome { place: site.place, restarts: options.restarts, jobs, samples, failures })
}

/// When it ends, and when the server is killed: at even intervals, and not at the end.
#[derive(Debug, Clone, Copy)]
struct Clock {
    until: Instant,
    interval: Duration,
    next: Option<Instant>,
}

impl Clock {
    fn new(time: Duration, restarts: u32) -> Self {
        let (now, interval) = (Instant::now(), time / (restarts + 1));
        Self { until: now + time, interval, next: (restarts > 0).then(|| now + interval) }
    }

    /// Whether the server is to be killed now.
    fn strikes(&mut self, now: Instant) -> bool {
        let strikes = self.next.is_some_and(|next| next <= now);
        if strikes {
            // Less than half an interval before the end there is no other.
            let next = self.next.map(|next| next + self.interval);
            self.next = next.filter(|next| *next + self.interval / 2 < self.until);
        }
        strikes
    }
}

/// What a panic of another thread left is as good as any.
fn lock(done: &Mutex<Done>) -> std::sync::MutexGuard<'_, Done> {
    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn sample(
    site: &Site<'_>,
    mut clock: Clock,
    all: &[Mutex<Done>],
    mut restart: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Vitals>> {
    let (mut samples, mut told) = (Vec::new(), Instant::now());
    while Instant::now() < clock.until {
        let now = site.mounted.vitals()?;
        samples.push(now);
        if clock.strikes(Instant::now()) {
            progress(&format!("{}: killing the server and starting it again", site.place));
            restart()?;
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            let rounds: u64 = all.iter().map(|done| lock(done).rounds).sum();
            let left = clock.until.saturating_duration_since(told).as_secs().div_ceil(60);
            progress(&format!("{}: {rounds} rounds, {} MiB, {left} min left", site.place, now.rss_kib >> 10));
        }
        thread::sleep(SAMPLE.min(clock.until.saturating_duration_since(Instant::now())));
    }
    Ok(samples)
}

impl Done {
    fn of(job: &Job) -> Self {
        Self { job: job.name, ..Self::default() }
    }

    fn note(&mut self, result: Result<(), String>) {
        self.rounds += 1;
        if let Err(said) = result {
            self.failed += 1;
            if self.said.len() < KEPT {
                self.said.push(format!("round {}: {said}", self.rounds));
            }
        }
    }
}

fn again_and_again(job: &Job, mounted: &Path, tree: &Path, goes_on: impl Fn() -> bool, done: &Mutex<Done>) {
    let index = JOBS.iter().position(|other| other.name == job.name).unwrap_or_default();
    let mut round = 0;
    while goes_on() {
        round += 1;
        let dir = mounted.join(format!("job{index}-{round}"));
        let result = in_directory(job, &dir, tree, round);
        lock(done).note(result);
    }
}

/// One round in a directory that it leaves empty.
fn in_directory(job: &Job, dir: &Path, tree: &Path, round: u64) -> Result<(), String> {
    fs::create_dir(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    let result = script(job, dir, tree, round);
    let removed = fs::remove_dir(dir).map_err(|e| format!("cannot remove {}: {e}", dir.display()));
    if removed.is_err() {
        // A failed round leaves its files.
        let _ = fs::remove_dir_all(dir);
    }
    result.and(removed)
}

fn script(job: &Job, dir: &Path, tree: &Path, round: u64) -> Result<(), String> {
    let mut command = Command::new("sh");
    command.args(["-euc", job.script]).current_dir(dir).stdin(Stdio::null());
    let tools = FSX.program();
    command.env("n", round.to_string()).env("tree", tree).env("tools", tools.parent().unwrap_or(&tools));
    let output = command.output().map_err(|e| format!("cannot run sh: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = told.lines().rev().take(2).collect();
    Err(format!("{}: {}", output.status, last.join(" / ")))
}

/// Why it failed.
fn judge(jobs: &[Done], samples: &[Vitals]) -> Vec<String> {
    let failed = jobs.iter().filter(|done| done.failed > 0);
    let failed = failed.map(|done| format!("{}: {} of {} rounds failed", done.job, done.failed, done.rounds));
    let idle = jobs.iter().filter(|done| done.rounds == 0);
    let idle = idle.map(|done| format!("{}: not one round was done", done.job));
    let growing = KINDS.iter().filter_map(|kind| {
        let figures: Vec<u64> = samples.iter().map(kind.of).collect();
        let (before, after) =
            (spark::median_of_quarter(&figures, 1)?, spark::median_of_quarter(&figures, 3)?);
        let most = before + before / GROWTH_PART + kind.slack;
        (after > most)
            .then(|| format!("{} grew from {before} to {after}, at most {most} is allowed", kind.name))
    });
    failed.chain(idle).chain(growing).collect()
}

/// Something that must not grow.
struct Kind {
    name: &'static str,
    of: fn(&Vitals) -> u64,
    slack: u64,
}

const KINDS: [Kind; 3] = [
    Kind { name: "memory, KiB", of: |vitals| vitals.rss_kib, slack: GROWTH_KIB },
    Kind { name: "descriptors", of: |vitals| vitals.fds, slack: GROWTH_COUNT },
    Kind { name: "threads", of: |vitals| vitals.threads, slack: GROWTH_COUNT },
];

fn show(outcome: &Outcome, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string(&json!(outcome))?);
    } else {
        print!("{}", text(outcome));
    }
    Ok(())
}

fn text(outcome: &Outcome) -> String {
    let verdict = if outcome.failures.is_empty() { "ok" } else { "FAILED" };
    let Outcome { place, samples, restarts, .. } = outcome;
    let mut lines = vec![format!("\n{place}, {} samples, {restarts} restarts: {verdict}", samples.len())];
    lines.push(format!("{:<14}{:>8}{:>12}{:>12}{:>8}", "", "least", "2nd quarter", "4th quarter", "most"));
    for kind in &KINDS {
        let figures: Vec<u64> = outcome.samples.iter().map(kind.of).collect();
        let [least, most] =
            [figures.iter().min(), figures.iter().max()].map(|figure| figure.map_or(0, |f| *f));
        let [second, last] = [1, 3].map(|n| spark::median_of_quarter(&figures, n).unwrap_or_default());
        let bars = spark::line(&figures, BARS);
        lines.push(format!("{:<14}{least:>8}{second:>12}{last:>12}{most:>8}  {bars}", kind.name));
    }
    for done in &outcome.jobs {
        lines.push(format!("{:<24}{:>8} rounds{:>6} failed", done.job, done.rounds, done.failed));
        lines.extend(done.said.iter().map(|said| format!("    {said}")));
    }
    lines.extend(outcome.failures.iter().map(|failure| format!("FAILED: {failure}")));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rss: impl Fn(u64) -> u64) -> Vec<Vitals> {
        (0..80).map(|n| Vitals { rss_kib: rss(n), fds: 10, threads: 4 }).collect()
    }

    fn done(failed: u64) -> Done {
        Done { job: "x", rounds: 5, failed, said: Vec::new() }
    }

    #[test]
    fn growth_without_end_fails_and_a_cache_that_fills_does_not() {
        assert_eq!(judge(&[done(0)], &samples(|n| 20_000 + n.min(20) * 5_000)), Vec::<String>::new());
        let told = judge(&[done(0)], &samples(|n| 20_000 + n * 1_000));
        assert!(told.len() == 1 && told[0].starts_with("memory, KiB grew from 50000 to 90000"), "{told:?}");
    }

    #[test]
    fn a_job_that_fails_or_does_nothing_fails_it_all() {
        let steady = samples(|_| 1);
        assert_eq!(judge(&[done(2)], &steady), ["x: 2 of 5 rounds failed"]);
        assert_eq!(judge(&[Done::of(&JOBS[0])], &steady).len(), 1);
    }

    #[test]
    fn the_server_is_killed_as_often_as_asked_for() {
        for restarts in [0, 1, 3, 20] {
            let time = Duration::from_secs(600);
            let mut clock = Clock::new(time, restarts);
            let began = clock.until - time;
            let strikes = (0..600).filter(|n| clock.strikes(began + Duration::from_secs(*n))).count();
            assert_eq!(strikes, restarts as usize);
        }
    }

    #[test]
    fn tables_fit_a_hundred_columns() {
        let jobs = JOBS.iter().map(Done::of).collect();
        let outcome =
            Outcome { place: "x".into(), restarts: 2, jobs, samples: samples(|n| n), failures: vec![] };
        let text = text(&outcome);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains('█') && text.contains("x, 80 samples, 2 restarts: ok"), "{text}");
    }

    #[test]
    fn a_round_that_fails_says_where() {
        let dir = std::env::temp_dir().join(format!("remoor-soak-{}", std::process::id()));
        let bad = Job { name: "bad", script: "echo 1 >kept; echo no luck >&2; test 1 = $n" };
        assert_eq!(in_directory(&bad, &dir, &dir, 2), Err("exit status: 1: no luck".into()));
        assert!(!dir.exists());
        let untidy = in_directory(&bad, &dir, &dir, 1).unwrap_err();
        assert!(untidy.contains("cannot remove"), "{untidy}");
    }
}
