//! Serves a mount: tries to make it, tells that it can be used, answers on its control socket, and ends when it is
//! unmounted.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use remoor_control::{ControlSocket, Door};
use remoor_mount::control;
use remoor_mount::mounting::{Ended, Mounted, Mounting, Refused};
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
/// How long what was written may take to reach the server when the process is asked to end.
const FLUSH: Duration = Duration::from_secs(20);
/// How long programs may use their open files after the mount was detached.
const LINGER: Duration = Duration::from_secs(5);

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
    // A thread that waits for a resolver or the kernel must not hold up the end.
    runtime.shutdown_background();
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
        let doors = Doors::open(&mounted, Arc::new(desk), self.order);
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
            ended = mounted.served() => ended,
            () = stop.asked() => end(&mut mounted).await,
            () = wishes.unmount() => end(&mut mounted).await,
        };
        // The kernel drops what it has not sent of closes, and an unmount waits for nobody that was killed.
        if !mounted.handle().finish(FLUSH).await {
            tracing::error!("not everything was written back within {} s: data is lost", FLUSH.as_secs());
        }
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

/// Writes back what was written, unmounts, and serves open files for a moment more.
async fn end(mounted: &mut Mounted) -> Ended {
    let handle = mounted.handle();
    let unmount = async {
        if !handle.flush(FLUSH).await {
            tracing::error!("not everything was written back within {} s: data is lost", FLUSH.as_secs());
        }
        if let Err(error) = handle.unmount().await {
            tracing::error!("{error}");
        }
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        biased;
        ended = mounted.served() => ended,
        () = unmount => Ended::Failed(format!("it is still in use {} s after it was unmounted", LINGER.as_secs())),
    }
}

/// Signals that ask the process to end.
struct Stop([Signal; 2]);

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]))
    }

    fn asked(&mut self) -> impl Future<Output = ()> {
        let [terminate, interrupt] = &mut self.0;
        async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
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
    fn open(mounted: &Mounted, desk: Arc<Desk>, order: &Order) -> Result<Self, Failed> {
        let metrics = order.metrics.map(|address| super::desk::metrics(address, desk.clone())).transpose()?;
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
