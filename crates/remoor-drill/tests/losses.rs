//! What a server loses behind a workload's back is found, on whatever path the loss would leave no trace.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use remoor_client::Client;
use remoor_drill::check::{Losses, check};
use remoor_drill::journal::Journal;
use remoor_drill::workload::{Files, Workload};
use remoor_server::exports::Exports;
use remoor_server::{Running, Server};
use tempfile::TempDir;
use tokio::task::LocalSet;

/// Generous: the machine may be busy. Nothing waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(1);

struct Bench {
    export: TempDir,
    _state: TempDir,
    server: Running,
    journal: Arc<Journal>,
}

impl Bench {
    fn start() -> Self {
        let (export, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let exports = Exports::from_args([format!("{}:rw,insecure,no_root_squash", export.path().display())]);
        let server = Server::builder().listen("127.0.0.1:0".parse().unwrap()).state_dir(state.path());
        let server = server.exports(exports.unwrap()).start().unwrap();
        Self { export, _state: state, server, journal: Arc::default() }
    }

    async fn mount(&self) -> Files {
        let options = "noresvport".parse().unwrap();
        let client = Client::connect(self.server.local_addrs()[0], options).unwrap();
        let root = client.mount(&self.export.path().to_string_lossy()).await.unwrap();
        Files::new(client, root, Arc::clone(&self.journal))
    }

    /// Runs `workload`; does `harm` to the first complete file, and ends once that file was removed again and both
    /// it and what is left were checked.
    fn losses(&self, workload: &str, done: impl Fn(&Journal) -> bool, harm: impl Fn(&Path)) -> Losses {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            for part in Workload::named(workload).unwrap().start(self.mount().await) {
                tokio::task::spawn_local(part);
            }
            let victim = until(|| complete_file(self.export.path())).await;
            harm(&victim);
            until(|| done(&self.journal).then_some(())).await;
        });
        check(&self.journal.snapshot(), self.export.path()).unwrap()
    }
}

async fn until<T>(found: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "nothing came of it");
        tokio::time::sleep(POLL).await;
    }
}

/// A file whose every byte was acknowledged.
fn complete_file(dir: &Path) -> Option<PathBuf> {
    let mut paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|e| e == "dat"))
}

/// Every writer keeps five files, so that by now each has removed the ones it began with.
fn oldest_removed(journal: &Journal) -> bool {
    journal.files() >= 60
}

fn writers_losses(harm: impl Fn(&Path)) -> Losses {
    Bench::start().losses("writers", oldest_removed, harm)
}

#[test]
fn an_undisturbed_workload_loses_nothing() {
    assert_eq!(writers_losses(|_| {}), Losses::default());
}

#[test]
fn a_file_that_was_lost_before_its_removal_is_a_loss_and_no_false_error() {
    let losses = writers_losses(|file| fs::remove_file(file).unwrap());
    assert_eq!(losses.count, 1, "{losses:?}");
    assert!(losses.named[0].contains("is not found"), "{losses:?}");
}

#[test]
fn bytes_that_changed_before_the_file_was_removed_are_a_loss() {
    for harm in ["writer", "", "too short"] {
        let losses = writers_losses(|file| fs::write(file, harm).unwrap());
        assert_eq!(losses.count, 1, "{harm}: {losses:?}");
    }
    let losses = writers_losses(|file| fs::write(file, [b'?'; 9001]).unwrap());
    assert!(losses.named[0].contains("9001 bytes, but only 9000"), "{losses:?}");
}

#[test]
fn a_removed_file_that_comes_back_is_a_loss() {
    let bench = Bench::start();
    let mut losses = bench.losses("writers", oldest_removed, |_| {});
    assert_eq!(losses, Losses::default());
    fs::write(bench.export.path().join("writer0-0.dat"), "").unwrap();
    losses = check(&bench.journal.snapshot(), bench.export.path()).unwrap();
    assert_eq!(losses.count, 1, "{losses:?}");
}
