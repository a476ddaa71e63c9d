//! `cargo xtask mount pjdfstest`: which cases of pjdfstest fail on the mount, on each server, and on the directory that
//! the servers export. What fails is compared with the list in docs/pjdfstest.md, which gives each case's reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use xtask::architecture::root;

use super::build;
use super::client::Client;
use super::place::{Places, Servers};
use super::tools::PJDFSTEST;
use crate::bench::load::Tools;
use crate::bench::server::Role;
use crate::bench::{progress, system};
use crate::report::Counts;

/// The list of what fails, with reasons.
const LIST: &str = "docs/pjdfstest.md";
/// The exported directory itself, in the list and in the report.
const NATIVE: &str = "native";
/// All mounts by this project's client, in the list.
const EVERY_MOUNT: &str = "mount";
/// A run that takes longer has hung.
const PATIENCE: Duration = Duration::from_mins(10);

/// Users and groups that every Debian has; what a POSIX file system may have; a nap longer than a tick of the clock that
/// Linux takes timestamps from.
const CONFIGURATION: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = false
expected_failures = []
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"], [\"games\", \"games\"]]
";

/// Where to run it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    places: Places,
    /// Print every failure as JSON
    #[arg(long)]
    json: bool,
}

/// How one run went.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Verdicts {
    passed: usize,
    skipped: usize,
    /// Case and what it said.
    failed: BTreeMap<String, String>,
}

/// One run, and what it is compared with.
#[derive(Debug, Serialize)]
struct Run {
    /// "native", or a client on a server.
    place: String,
    /// Names in the list that mean this place; without any it is not judged.
    listed_as: Vec<String>,
    seconds: f64,
    verdicts: Verdicts,
}

/// A row of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// A case, or the beginning of several with `*` at its end.
    case: String,
    /// "native", "mount", or "mount on SERVER".
    place: String,
    reason: String,
}

impl Options {
    /// What `cargo xtask test` runs: all of it, which takes seconds.
    pub(super) fn suite() -> Self {
        Self { places: Places::ours(), json: false }
    }
}

/// Installs the suite and builds what it runs on.
pub(super) fn prepare(options: &Options) -> anyhow::Result<()> {
    build(options.places.want_ceiling())?;
    PJDFSTEST.provide()
}

/// Runs it everywhere; a place that differs from the list is a failure.
pub(super) fn run(options: &Options) -> anyhow::Result<Counts> {
    let tools = Tools::built()?;
    let clients = options.places.clients(&tools)?;
    let servers = Servers::start(&options.places.servers, &tools)?;
    judge(&everywhere(&servers, &clients)?, options.json)
}

/// Runs it on the exported directory, and with every client on every server.
fn everywhere(servers: &Servers, clients: &[Client]) -> anyhow::Result<Vec<Run>> {
    let native = one(servers, NATIVE.into(), vec![NATIVE.into()], servers.native())?;
    let mut runs = vec![native];
    for client in clients {
        for (n, server) in servers.names().iter().enumerate() {
            let judged = client.role == Role::Subject;
            let listed = [EVERY_MOUNT.to_owned(), format!("{EVERY_MOUNT} on {server}")];
            let listed_as = if judged { listed.into() } else { Vec::new() };
            let mounted = servers.mount(n, client)?;
            let place = format!("{} on {server}", client.name);
            runs.push(mounted.guarded(PATIENCE, || one(servers, place, listed_as, &mounted.dir))?);
            mounted.unmount()?;
        }
    }
    Ok(runs)
}

fn one(servers: &Servers, place: String, listed_as: Vec<String>, dir: &Path) -> anyhow::Result<Run> {
    progress(&format!("pjdfstest: {place}"));
    let began = Instant::now();
    let verdicts = suite(servers.work(), dir).with_context(|| place.clone())?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Run { place, listed_as, seconds, verdicts })
}

/// Runs the suite in a new directory below `dir`; `work` is for its configuration.
fn suite(work: &Path, dir: &Path) -> anyhow::Result<Verdicts> {
    let (configuration, other, dir) = (work.join("pjdfstest.toml"), work.join("other"), free_name(dir));
    fs::write(&configuration, CONFIGURATION).context("cannot write pjdfstest's configuration")?;
    second_file_system(&other)?;
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // Users that the cases become work in directories below it.
    system("chmod", &["777", &dir.to_string_lossy()])?;
    let mut command = Command::new(PJDFSTEST.program());
    command.arg("-c").arg(&configuration).arg("-s").arg(&other).arg("-p").arg(&dir);
    let output = command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", PJDFSTEST.program().display()))?;
    let told = read(&String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(told.passed + told.failed.len() > 0, "pjdfstest ran no case: {}", said.trim());
    // What a failed case left may be impossible to remove.
    let _ = fs::remove_dir_all(&dir);
    Ok(told)
}

/// A short one: see [`Servers::mount_point`].
fn free_name(dir: &Path) -> PathBuf {
    (0..).map(|n| dir.join(format!("p{n}"))).find(|path| !path.exists()).unwrap_or_else(|| dir.join("p"))
}

/// For the cases of EXDEV.
fn second_file_system(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    fs::create_dir(dir)?;
    system("mount", &["-t", "tmpfs", "tmpfs", &dir.to_string_lossy()])
}

/// Reads `CASE   VERDICT`, and the indented lines after a case that failed.
fn read(output: &str) -> Verdicts {
    let mut told = Verdicts::default();
    let mut failing: Option<String> = None;
    for line in output.lines() {
        let mut words = line.split_whitespace();
        let case = words.next().filter(|word| word.contains("::") && !line.starts_with(char::is_whitespace));
        match (case, words.next(), words.next()) {
            (Some(_), Some("ok"), None) => (told.passed, failing) = (told.passed + 1, None),
            (Some(_), Some("skipped"), None) => (told.skipped, failing) = (told.skipped + 1, None),
            (Some(case), Some("FAILED"), None) => {
                told.failed.insert(case.into(), String::new());
                failing = Some(case.into());
            }
            _ => {
                let text = failing.as_ref().and_then(|case| told.failed.get_mut(case));
                text.into_iter().for_each(|text| add_words(text, line.trim()));
            }
        }
    }
    told
}

/// Adds a line of what a case said, as far as it tells something.
fn add_words(text: &mut String, line: &str) {
    if !line.is_empty() && !line.starts_with("Backtrace") && !line.starts_with("Summary") && text.len() < 160
    {
        text.push_str(if text.is_empty() { "" } else { "; " });
        text.push_str(line);
    }
}

/// Compares with the list and prints.
fn judge(runs: &[Run], json: bool) -> anyhow::Result<Counts> {
    let text = fs::read_to_string(root().join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    let known = list(&text);
    let mut counts = Counts::default();
    if json {
        println!("{}", serde_json::to_string_pretty(runs)?);
    }
    for run in runs {
        let strange = compare(run, &known);
        counts += Counts::of(strange.is_empty());
        if !json {
            show(run, &known, &strange);
        }
    }
    Ok(counts)
}

fn show(run: &Run, known: &[Known], strange: &[String]) {
    let Verdicts { passed, skipped, failed } = &run.verdicts;
    println!(
        "\n{}: {} failed, {passed} passed, {skipped} skipped, {:.0} s",
        run.place,
        failed.len(),
        run.seconds
    );
    for (case, said) in failed {
        let reason = known.iter().find(|known| known.means(case, &run.listed_as));
        println!("  {case}: {}", reason.map_or(said, |known| &known.reason));
    }
    strange.iter().for_each(|text| println!("  DIFFERS: {text}"));
}

/// What differs from the list, both ways.
fn compare(run: &Run, known: &[Known]) -> Vec<String> {
    if run.listed_as.is_empty() {
        return Vec::new();
    }
    let failed = &run.verdicts.failed;
    let is_known = |case: &str| known.iter().any(|known| known.means(case, &run.listed_as));
    let new = failed.iter().filter(|(case, _)| !is_known(case));
    let new = new.map(|(case, said)| format!("{case} fails and is not in {LIST}: {said}"));
    let mine = known.iter().filter(|known| run.listed_as.contains(&known.place));
    let fixed = mine.filter(|known| !failed.keys().any(|case| known.means(case, &run.listed_as)));
    let fixed = fixed.map(|known| format!("{} passes: take it out of {LIST}", known.case));
    new.chain(fixed).collect()
}

impl Known {
    fn means(&self, case: &str, places: &[String]) -> bool {
        let fits = match self.case.strip_suffix('*') {
            Some(beginning) => case.starts_with(beginning),
            None => case == self.case,
        };
        fits && places.contains(&self.place)
    }
}

/// The rows of the list: `` | `case` | place | reason | ``.
fn list(text: &str) -> Vec<Known> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let case = cells.next()?.trim_end_matches('`').to_owned();
        let place = cells.next()?.to_owned();
        let reason = cells.next()?.trim_end_matches(['|', ' ']).to_owned();
        Some(Known { case, place, reason })
    };
    text.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
unlink::remove_type::symlink                                                  ok
link::exdev_target                                                       skipped
\tNo secondary file-system has been configured.
open::uid_gid_eq_euid_egid                                                FAILED
\tassertion `left == right` failed
  left: 0
 right: 65534
Backtrace:
\t at x::y ok
chmod::a                                                                      ok
rename::b                                                                 FAILED

Summary: 2 failed, 1 skipped, 2 passed, 0 expected failures, 5 total
";

    fn run(places: &[&str]) -> Run {
        Run {
            place: "x".into(),
            listed_as: places.iter().map(|place| (*place).into()).collect(),
            seconds: 1.0,
            verdicts: read(OUTPUT),
        }
    }

    #[test]
    fn verdicts_are_counted_and_failures_speak() {
        let told = read(OUTPUT);
        assert_eq!((told.passed, told.skipped, told.failed.len()), (2, 1, 2));
        assert_eq!(told.failed["rename::b"], "");
        let said = &told.failed["open::uid_gid_eq_euid_egid"];
        assert!(said.starts_with("assertion `left == right` failed; left: 0; right: 65534"), "{said}");
    }

    #[test]
    fn a_difference_is_told_both_ways() {
        let known = list(
            "| case | where | reason |\n|---|---|---|\n| `open::*` | mount | because |\n\
             | `chmod::a` | mount on ours | because |\n| `rename::b` | native | because |\n",
        );
        assert_eq!(known.len(), 3);
        let told = compare(&run(&["mount", "mount on ours"]), &known);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("rename::b fails") && told[1].starts_with("chmod::a passes"));
        assert_eq!(compare(&run(&["mount"]), &known).len(), 1);
        assert!(compare(&run(&[]), &known).is_empty(), "what is no subject is not judged");
    }

    #[test]
    fn every_row_of_the_list_has_a_place_and_a_reason() {
        let text = fs::read_to_string(root().join(LIST)).unwrap();
        for known in list(&text) {
            let place = known.place.strip_prefix("mount on ").map_or(known.place.as_str(), |_| EVERY_MOUNT);
            assert!([NATIVE, EVERY_MOUNT].contains(&place) && known.reason.len() > 10, "{known:?}");
        }
    }
}
