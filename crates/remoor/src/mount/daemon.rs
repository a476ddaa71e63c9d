//! Serves a mount: tries to make it, tells that it can be used, answers on its control socket, and ends when it is
//! unmounted.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use remoor_control::{ControlSocket, Door};
use remoor_mount::control;
use remoor_mount::mounting::{Ended, Handle, Mounted, Mounting, Refused};
use rustix::{process, stdio};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::desk::{Desk, Wishes};
use super::exit::{self, Failed};
use super::log::{self, Filter, To};
use super::order::{Checked, Order};
use super::report::{Report, Reporter, null};
use crate::state_dir;

/// Pause after the first try that failed, and the longest one, as mount.nfs(8) has them for the background.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(30);
/// How long what was written may take to reach the server when the process is asked to end. With the times below and
/// [`remoor_client::mount::UNMOUNT_PATIENCE`] it has ended after 20 s, whatever the server does.
const FLUSH: Duration = Duration::from_secs(14);
/// How long programs may use their open files after the mount was detached.
const LINGER: Duration = Duration::from_secs(3);
/// How long what they wrote meanwhile may take.
const LAST_FLUSH: Duration = Duration::from_secs(1);
/// How long what killed programs have written may take after the mount is gone: as long as a call of a mount with the
/// defaults may be without an answer before it counts as failed.
const LATE_FLUSH: Duration = Duration::from_secs(180);
/// How long a thread that the kernel holds may hold up the end: one that mounts has to unmount first.
const LAST_THREADS: Duration = Duration::from_secs(3);

/// As a process in the background: away from the terminal, the directory and the process group of the command.
pub(super) fn detach(order: &Order, checked: Checked, reporter: &mut Reporter) -> Result<(), Failed> {
    process::setsid().map_err(|e| Failed::system(format!("cannot leave the session: {e}")))?;
    let target = checked.target.display().to_string();
    let to = order.log_file.as_deref().map_or(To::Syslog { target: &target }, To::File);
    let filter = log::start(to).map_err(|e| Failed::system(format!("{e:#}")))?;
    process::chdir("/").map_err(|e| Failed::system(format!("cannot go to /: {e}")))?;
    run(order, checked, reporter, &filter)
}

/// In front.
pub(super) fn serve(order: &Order, checked: Checked, mut reporter: Reporter) -> Result<(), Failed> {
    let to = order.log_file.as_deref().map_or(To::StandardError, To::File);
    let filter = log::start(to).map_err(|e| Failed::system(format!("{e:#}")))?;
    run(order, checked, &mut reporter, &filter)
}

fn run(order: &Order, checked: Checked, reporter: &mut Reporter, filter: &Filter) -> Result<(), Failed> {
    let cannot = |e: io::Error| Failed::system(format!("cannot start to serve the mount: {e}"));
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    let outcome = runtime.block_on(Service::new(order, checked, reporter, filter)?.run());
    runtime.shutdown_timeout(LAST_THREADS);
    outcome
}

struct Service<'a> {
    order: &'a Order,
    mounting: Mounting,
    reporter: &'a mut Reporter,
    filter: &'a Filter,
}

impl<'a> Service<'a> {
    fn new(
        order: &'a Order,
        checked: Checked,
        reporter: &'a mut Reporter,
        filter: &'a Filter,
    ) -> Result<Self, Failed> {
        let Checked { spec, parsed, target } = checked;
        let source = order.spec.clone();
        let options = parsed.options.mounted_by(process::geteuid().is_root());
        let journals = state_dir::default().map(|dir| dir.join("mounts"));
        let mounting = Mounting { source, spec, options, target, journals };
        Ok(Self { order, mounting, reporter, filter })
    }

    async fn run(mut self) -> Result<(), Failed> {
        let mut stop = Stop::new().map_err(Failed::system)?;
        let mut mounted = tokio::select! {
            biased;
            () = stop.asked() => return Err(interrupted()),
            mounted = self.keep_trying() => mounted?,
        };
        let (desk, mut wishes) = Desk::new(mounted.handle(), self.filter.clone());
        let metrics = self.order.metrics.or(self.mounting.options.metrics);
        let doors = Doors::open(&mounted, Arc::new(desk), metrics);
        match doors
            .and_then(|doors| self.reporter.tell(&Report::Ready).map(|()| doors).map_err(|_| interrupted()))
        {
            Ok(doors) => {
                self.leave_terminal();
                self.serve(mounted, &mut stop, &mut wishes).await;
                drop(doors);
                Ok(())
            }
            Err(failed) => {
                end(&mut mounted).await;
                Err(failed)
            }
        }
    }

    /// Until it is mounted, or it is no use to try on.
    async fn keep_trying(&mut self) -> Result<Mounted, Failed> {
        let give_up = Instant::now() + self.mounting.options.retry();
        let mut pause = FIRST_PAUSE;
        let mut first = true;
        loop {
            let refused = match self.attempt(first).await? {
                Ok(mounted) => return Ok(mounted),
                Err(refused) => refused,
            };
            if !refused.is_worth_a_retry() || Instant::now() + pause >= give_up {
                return Err(failed(&refused));
            }
            self.tell_failed_try(&refused, pause)?;
            tokio::time::sleep(pause).await;
            (pause, first) = ((pause * 2).min(LONGEST_PAUSE), false);
        }
    }

    /// One try, which is told in steps if it is the first; the outer error is that nobody waits for it any more.
    async fn attempt(&mut self, first: bool) -> Result<Result<Mounted, Refused>, Failed> {
        let (trying, mut tried) = tokio::sync::mpsc::unbounded_channel();
        let attempt = self.mounting.attempt(TRY, move |what| {
            // Nobody listens only if the attempt is over.
            let _ = trying.send(what);
        });
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                biased;
                Some(what) = tried.recv(), if first => {
                    self.reporter.tell(&Report::Trying(what)).map_err(|_| interrupted())?;
                }
                outcome = &mut attempt => return Ok(outcome),
            }
        }
    }

    fn tell_failed_try(&mut self, refused: &Refused, pause: Duration) -> Result<(), Failed> {
        tracing::warn!("{refused}; next try in {} s", pause.as_secs());
        let report = match self.mounting.options.bg {
            true => Report::Background(refused.to_string()),
            false => Report::Trying(format!("{refused}; next try in {} s", pause.as_secs())),
        };
        let told = self.reporter.tell(&report).map_err(|_| interrupted());
        if report.is_last() {
            self.leave_terminal();
        }
        told
    }

    /// Until the mount is gone.
    async fn serve(&self, mut mounted: Mounted, stop: &mut Stop, wishes: &mut Wishes) {
        tracing::info!("mounted {} on {}", self.mounting.spec, self.mounting.target.display());
        let ended = tokio::select! {
            biased;
            ended = mounted.served() => Some(ended),
            () = stop.asked() => None,
            () = wishes.unmount() => None,
        };
        let ended = match ended {
            Some(ended) => leave(&mounted.handle(), stop).await.map_or(ended, Ended::Failed),
            None => end(&mut mounted).await,
        };
        match ended {
            Ended::Unmounted => {
                // `umount -f` of a mount in use ends its calls, and leaves a mount point that nobody serves.
                if let Err(error) = mounted.handle().unmount().await {
                    tracing::warn!("{error}");
                }
                mounted.handle().tell_server().await;
                tracing::info!("unmounted");
            }
            Ended::Failed(why) => tracing::error!("the mount has ended: {why}"),
        }
    }

    /// What comes from now on goes to the log.
    fn leave_terminal(&self) {
        if let (Reporter::Pipe(_), Ok(null)) = (&self.reporter, null()) {
            let _ = stdio::dup2_stderr(null);
        }
    }
}

fn interrupted() -> Failed {
    Failed::new(exit::INTERRUPTED, "interrupted; nothing is mounted")
}

fn failed(refused: &Refused) -> Failed {
    let code = match refused {
        Refused::NotPermitted(_) => exit::USAGE,
        _ => exit::FAILED,
    };
    Failed::new(code, refused.to_string())
}

/// After the end of a mount nobody can write any more, but killed programs may have left what they had written. Tells
/// what went wrong.
async fn leave(handle: &Handle, stop: &mut Stop) -> Option<String> {
    within_moments(handle.clear_away()).await;
    if handle.status().kept.unstable_bytes == 0 {
        return None;
    }
    let written = tokio::select! {
        written = handle.flush(LATE_FLUSH) => written,
        () = stop.asked() => false,
    };
    (!written).then(|| "not everything was written back after it was unmounted: data is lost".to_owned())
}

/// Writes back what was written, unmounts, and serves open files for a moment more. Whoever unmounts meanwhile does not
/// cut the writing short.
async fn end(mounted: &mut Mounted) -> Ended {
    let handle = mounted.handle();
    let mut written = handle.flush(FLUSH).await;
    within_moments(handle.unmount()).await;
    let ended = tokio::time::timeout(LINGER, mounted.served()).await;
    // Without a server that answers, this would only wait again.
    written = written && handle.flush(LAST_FLUSH).await;
    if !written {
        tracing::error!("not everything was written back within {} s: data is lost", FLUSH.as_secs());
    }
    let in_use =
        |_| Ended::Failed(format!("it is still in use {} s after it was unmounted", LINGER.as_secs()));
    ended.unwrap_or_else(in_use)
}

/// Waits for an unmount, but not for a mount point in a directory that hangs.
async fn within_moments(unmounting: impl Future<Output = Result<(), impl std::fmt::Display>>) {
    match tokio::time::timeout(LINGER, unmounting).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("{error}"),
        Err(_) => tracing::error!("it is not unmounted: its directory cannot be looked up within {LINGER:?}"),
    }
}

/// Signals that ask the process to end.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> io::Result<Self> {
        // Systemd sends SIGHUP right after SIGTERM to what is left of a login session (systemd.kill(5)).
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [terminate, interrupt, hangup] = kinds.map(signal);
        Ok(Self([terminate?, interrupt?, hangup?]))
    }

    fn asked(&mut self) -> impl Future<Output = ()> {
        let [terminate, interrupt, hangup] = &mut self.0;
        async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
        }
    }
}

/// Where the mount can be looked at.
struct Doors {
    _control: Option<ControlSocket>,
    _metrics: Option<Door>,
}

impl Doors {
    /// A mount works without a control socket, but metrics that were asked for must be there.
    fn open(mounted: &Mounted, desk: Arc<Desk>, metrics: Option<SocketAddr>) -> Result<Self, Failed> {
        let metrics = metrics.map(|address| super::desk::metrics(address, desk.clone())).transpose()?;
        let control = control::own_directory()
            .ok_or_else(|| io::Error::other("neither XDG_RUNTIME_DIR nor HOME is set"));
        let control = control.and_then(|directory| open_control(&directory, mounted, desk));
        if let Err(error) = &control {
            tracing::warn!(
                "remoor status and -o remount will not reach this mount: no control socket: {error}"
            );
        }
        Ok(Self { _control: control.ok(), _metrics: metrics })
    }
}

fn open_control(directory: &Path, mounted: &Mounted, desk: Arc<Desk>) -> io::Result<ControlSocket> {
    let socket = control::open(directory, mounted.device(), desk)?;
    tracing::info!("control socket {}", socket.path().display());
    Ok(socket)
}
