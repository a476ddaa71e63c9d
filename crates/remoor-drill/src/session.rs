//! The client's host: one mount and a workload on it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use remoor_client::{Client, Observer, Options};
use remoor_nfs::reconnect::Notice;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::journal::Journal;
use crate::namespace::NamespaceError;
use crate::topology::{SERVICE, Topology};
use crate::workload::{Files, Workload};

/// How long the first mount may take.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the client's host does no work.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Its host could not be entered.
    #[error(transparent)]
    Host(#[from] NamespaceError),
    /// The mount failed.
    #[error("the client could not mount: {0}")]
    Mount(String),
}

/// What the client noticed, and when.
pub type Notices = Arc<Mutex<Vec<(Instant, Notice)>>>;

/// A mounted client with its workload running.
#[derive(Debug)]
pub struct Session {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Vec<String>>,
    notices: Notices,
}

impl Session {
    /// Mounts `export` through the balancer and starts `workload`.
    pub fn start(
        topology: &Topology,
        options: &Options,
        export: &Path,
        workload: &'static Workload,
        journal: Arc<Journal>,
    ) -> Result<Self, SessionError> {
        let (stop, stopped) = oneshot::channel();
        let (mounted, outcome) = mpsc::channel();
        let notices = Notices::default();
        let plan = Plan {
            options: options.clone(),
            export: export.to_string_lossy().into_owned(),
            workload,
            journal,
            observer: observer(&notices),
        };
        let thread = topology.client().spawn_thread("client", move || plan.run(&mounted, stopped))?;
        let gone = || SessionError::Mount("its thread ended early".to_owned());
        outcome.recv().map_err(|_| gone())?.map_err(SessionError::Mount)?;
        Ok(Self { stop, thread, notices })
    }

    /// Whether every part of the workload has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the workload where it is. Returns the errors that ended parts of it before.
    pub fn stop(self) -> (Vec<String>, Vec<(Instant, Notice)>) {
        // The thread may have ended by itself.
        self.stop.send(()).ok();
        let errors = self.thread.join().unwrap_or_else(|_| vec!["the client's thread panicked".to_owned()]);
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (errors, notices)
    }
}

fn observer(notices: &Notices) -> Observer {
    let notices = Arc::clone(notices);
    Arc::new(move |at, notice: &Notice| {
        notices.lock().unwrap_or_else(PoisonError::into_inner).push((at, notice.clone()));
    })
}

struct Plan {
    options: Options,
    export: String,
    workload: &'static Workload,
    journal: Arc<Journal>,
    observer: Observer,
}

impl Plan {
    fn run(self, mounted: &mpsc::Sender<Result<(), String>>, stopped: oneshot::Receiver<()>) -> Vec<String> {
        let built = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match built {
            Ok(runtime) => runtime,
            Err(e) => return report(mounted, format!("cannot start a runtime: {e}")),
        };
        LocalSet::new().block_on(&runtime, async {
            match self.mount().await {
                Ok(files) => {
                    drop(mounted.send(Ok(())));
                    work(self.workload, files, stopped).await
                }
                Err(error) => report(mounted, error),
            }
        })
    }

    async fn mount(&self) -> Result<Files, String> {
        let server = SocketAddr::V4(SERVICE);
        let client = Client::connect_observed(server, self.options.clone(), Arc::clone(&self.observer));
        let client = client.map_err(|e| e.to_string())?;
        let root = tokio::time::timeout(MOUNT_TIMEOUT, client.mount(&self.export)).await;
        let root = root.map_err(|_| format!("no answer from {server} in {} s", MOUNT_TIMEOUT.as_secs()))?;
        Ok(Files::new(client, root.map_err(|e| e.to_string())?, Arc::clone(&self.journal)))
    }
}

fn report(mounted: &mpsc::Sender<Result<(), String>>, error: String) -> Vec<String> {
    drop(mounted.send(Err(error)));
    Vec::new()
}

/// Runs the parts of the workload until told to stop or until all have failed.
async fn work(workload: &'static Workload, files: Files, stopped: oneshot::Receiver<()>) -> Vec<String> {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let parts: Vec<_> =
        workload.start(files).into_iter().map(|part| run_part(part, Arc::clone(&errors))).collect();
    let parts: Vec<_> = parts.into_iter().map(tokio::task::spawn_local).collect();
    let all = async {
        for part in parts {
            if part.await.is_err() {
                note(&errors, "a part of the workload panicked; please report this".to_owned());
            }
        }
    };
    tokio::select! {
        _ = stopped => {}
        () = all => {}
    }
    let errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
    errors.clone()
}

async fn run_part(part: crate::workload::Running, errors: Arc<Mutex<Vec<String>>>) {
    if let Err(error) = part.await {
        note(&errors, error.to_string());
    }
}

fn note(errors: &Mutex<Vec<String>>, error: String) {
    errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
}
