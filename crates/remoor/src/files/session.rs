//! What the commands share while they run: connections, what has failed, what to tidy up, and signals.

use std::future::Future;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::progress::Progress;
use super::server::{Export, Object, Server};
use super::temporary::Temporaries;
use super::url::Url;
use crate::Failure;
use crate::drill::hangup_is_ignored;

/// Wait for temporary files to be removed after a signal; a second signal ends that wait.
const TIDY: Duration = Duration::from_secs(5);

/// One run of a command.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) progress: Progress,
    pub(crate) temporaries: Temporaries,
    patience: Duration,
    known: Mutex<Known>,
    failed: AtomicUsize,
}

/// Few: a command line names few servers.
#[derive(Debug, Default)]
struct Known {
    servers: Vec<Arc<Server>>,
    exports: Vec<(Url, Arc<Export>)>,
}

impl Session {
    fn new(patience: Duration) -> Self {
        Self {
            progress: Progress::new(),
            temporaries: Temporaries::default(),
            patience,
            known: Mutex::default(),
            failed: AtomicUsize::new(0),
        }
    }

    /// The object of `url`; its server and export are connected to and mounted once.
    pub(crate) async fn find(&self, url: &Url, follow: bool) -> Result<Object, Failure> {
        let export = self.export(url).await.map_err(Failure::Cannot)?;
        match Object::find(&export, url, follow).await {
            Ok(object) => Ok(object),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// The export that `url` is in.
    pub(crate) async fn export(&self, url: &Url) -> Result<Arc<Export>> {
        if let Some(export) = self.known(|known| known.export(url)) {
            return Ok(export);
        }
        let server = match self.known(|known| known.server(url)) {
            Some(server) => server,
            None => {
                let server = Arc::new(Server::connect(&url.server, self.patience, &self.progress).await?);
                self.known(|known| known.servers.push(server.clone()));
                server
            }
        };
        let export = Arc::new(server.mount(url).await?);
        self.known(|known| known.exports.push((url.clone(), export.clone())));
        Ok(export)
    }

    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells and counts a failure that does not keep the rest from being done.
    pub(crate) fn fail(&self, error: &anyhow::Error) -> Failure {
        self.failed.fetch_add(1, Relaxed);
        self.progress.say(&crate::said_once(error));
        Failure::Case
    }

    /// What the run came to.
    fn outcome(&self) -> Result<(), Failure> {
        if self.failed.load(Relaxed) == 0 { Ok(()) } else { Err(Failure::Case) }
    }

    async fn goodbye(&self) {
        for (_, export) in self.known(|known| std::mem::take(&mut known.exports)) {
            export.server.unmount(&export.path).await;
        }
    }
}

impl Known {
    fn server(&self, url: &Url) -> Option<Arc<Server>> {
        self.servers.iter().find(|server| server.asked == url.server).cloned()
    }

    /// A longer export may lie between what is mounted and another object, so only the same directory is sure to be in
    /// the same export.
    fn export(&self, url: &Url) -> Option<Arc<Export>> {
        let parent = |url: &Url| url.path.split_last().map(|(_, parent)| parent.to_vec());
        let same = |known: &Url| {
            known.server == url.server && (known.path == url.path || (parent(known) == parent(url)))
        };
        let fits = |export: &Export| url.path.starts_with(&export.path);
        let found = self.exports.iter().find(|(known, export)| same(known) && fits(export));
        found.map(|(_, export)| export.clone())
    }
}

/// Runs a command to its end, or to the signal that ends it: then temporary files are removed, and the exit code is 128
/// and the signal's number.
pub(crate) fn run<F, Work>(patience: Duration, work: F) -> Result<(), Failure>
where
    F: FnOnce(Arc<Session>) -> Work,
    Work: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::cannot)?;
    let outcome = runtime.block_on(async {
        let session = Arc::new(Session::new(patience));
        let mut signals = Signals::new()?;
        tokio::spawn(session.progress.clone().show_when_long());
        let outcome = tokio::select! {
            biased;
            signal = signals.next() => Err(signal),
            done = work(session.clone()) => Ok(done),
        };
        session.progress.end();
        match outcome {
            Ok(done) => {
                session.goodbye().await;
                done.and_then(|()| session.outcome())
            }
            Err(signal) => tidy(&session, &mut signals, signal).await,
        }
    });
    // A read of standard input cannot be called off.
    runtime.shutdown_background();
    outcome
}

async fn tidy(session: &Session, signals: &mut Signals, signal: i32) -> ! {
    let removed = async {
        session.temporaries.remove_all().await;
        session.goodbye().await;
    };
    tokio::select! {
        _ = signals.next() => {}
        _ = tokio::time::sleep(TIDY) => {}
        () = removed => {}
    }
    for left in session.temporaries.left() {
        session.progress.say(&format!("{left} could not be removed in time; remove it"));
    }
    std::process::exit(128 + signal)
}

/// The signals that end a command.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// nohup(1) ignores it so that the command goes on without its terminal.
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(Failure::cannot);
        let hangup = if hangup_is_ignored() { None } else { Some(on(SignalKind::hangup())?) };
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())?, hangup })
    }

    async fn next(&mut self) -> i32 {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = hangup => SignalKind::hangup(),
        }
        .as_raw_value()
    }
}
