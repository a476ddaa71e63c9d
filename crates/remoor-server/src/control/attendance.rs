//! All that attends to those who look at a server: sockets, pages, and the monitor.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use remoor_control::Door;

use super::socket::{ControlError, ControlSocket};
use super::{Desk, pages};

/// What a server tells over HTTP at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// `/metrics` and `/health`.
    All,
    /// `/health`: for balancers, which need not know more.
    Health,
}

/// Where a server can be looked at.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// The control socket, and whether the server is not to start without it.
    pub(crate) control: Option<(PathBuf, bool)>,
    pub(crate) pages: Vec<(SocketAddr, Pages)>,
}

/// Open doors. Dropping it closes them.
pub(crate) struct Attendance {
    pages: Vec<Door>,
    _control: Option<ControlSocket>,
    _monitor: Monitoring,
}

/// Why a server cannot be looked at as it should.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum AttendError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("cannot tell metrics or health over HTTP at {address}: {source}; choose another address")]
    Http { address: SocketAddr, source: io::Error },
    #[error("cannot start a thread to watch the server: {0}")]
    Thread(io::Error),
}

impl Attendance {
    pub(crate) fn begin(places: &Places, desk: &Arc<Desk>) -> Result<Self, AttendError> {
        let page = |(address, pages): &(SocketAddr, Pages)| {
            pages::serve(*address, *pages, desk.clone())
                .map_err(|source| AttendError::Http { address: *address, source })
        };
        let pages = places.pages.iter().map(page).collect::<Result<Vec<Door>, _>>()?;
        for door in &pages {
            tracing::info!(
                "metrics or health at http://{}",
                door.address.map_or_else(String::new, |a| a.to_string())
            );
        }
        let _control = open_control(places, desk)?;
        Ok(Self { pages, _control, _monitor: Monitoring::start(desk).map_err(AttendError::Thread)? })
    }

    /// Addresses of the pages, with the ports the kernel chose.
    pub(crate) fn page_addrs(&self) -> Vec<SocketAddr> {
        self.pages.iter().filter_map(|door| door.address).collect()
    }
}

fn open_control(places: &Places, desk: &Arc<Desk>) -> Result<Option<ControlSocket>, ControlError> {
    let Some((path, needed)) = &places.control else { return Ok(None) };
    match ControlSocket::open(path, desk.clone()) {
        Ok(socket) => {
            tracing::info!("control socket {}", path.display());
            Ok(Some(socket))
        }
        Err(error) if *needed => Err(error),
        Err(error) => {
            tracing::warn!("remoor status and remoor exportfs will not reach this server: {error}");
            Ok(None)
        }
    }
}

/// The thread of the monitor.
struct Monitoring {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitoring {
    fn start(desk: &Arc<Desk>) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (desk, seen) = (desk.clone(), over.clone());
        let thread = thread::Builder::new().name("monitor".to_owned());
        let thread = thread.spawn(move || desk.monitor(|| !seen.load(Relaxed)))?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
