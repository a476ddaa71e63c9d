//! Sockets and threads. This module knows records, not NFS: what a record means is a [`Service`].
//!
//! A worker takes an event, receives a batch of calls, executes them one after the other and sends their replies
//! together; no call changes threads between socket and file system, and no other worker wakes for it. That holds for
//! quick calls. One that is expected to be slow is executed after the connection was let go, so that another worker
//! goes on with what follows; one that turns out to be slow is noticed within two milliseconds, and loses what
//! follows it to another worker.
//!
//! | module | subject |
//! |---|---|
//! | `service` | the seam: what a record means |
//! | `worker` | what a worker does next |
//! | `batch` | executing the calls of one connection |
//! | `outbox` | what the service sends of its own accord |
//! | `monitor` | noticing stuck workers and lapses |
//! | `life` | accepting and closing connections |
//! | `proxy`, `relay` | who the client behind a relay is |
//! | `connection`, `lane`, `outgoing` | one connection: its socket, calls that wait, replies |
//! | `schedule`, `crew`, `pace`, `lapse`, `load` | decisions, without sockets and threads |

mod batch;
mod connection;
mod crew;
mod lane;
mod lapse;
mod life;
mod limits;
mod listener;
mod load;
mod monitor;
mod outbox;
mod outgoing;
mod pace;
#[cfg(test)]
mod pressure;
mod proxy;
mod relay;
mod schedule;
mod service;
mod sys;
mod worker;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use connection::Connection;
use crew::Worker;
use lapse::{Heartbeat, boottime_millis};
pub(crate) use limits::SHARE_FROM;
pub use limits::{DEFAULT_WORKERS, Limits, MIN_WORKERS};
use listener::Listener;
use load::Load;
use monitor::{Dormant, Slot};
pub(crate) use relay::Relay;
pub(crate) use schedule::ConnectionId;
pub(crate) use service::{Answer, End, How, Kind, Malformed, Network, Origin, Outbox, Service, Standing};
use worker::Roster;

const STOP: u64 = 0;
/// Wakes one worker that waits for epoll.
const KNOCK: u64 = 1;
const FIRST_LISTENER: u64 = 2;
const FIRST_CONNECTION: u64 = 1 << 32;

/// What all workers share.
struct Net<S> {
    service: Arc<S>,
    limits: Limits,
    epoll: OwnedFd,
    stop: OwnedFd,
    knock: OwnedFd,
    listeners: Vec<Listener>,
    relays: Vec<IpNet>,
    connections: RwLock<HashMap<ConnectionId, Arc<Connection>>>,
    roster: Mutex<Roster>,
    /// One for each worker.
    slots: Vec<Slot>,
    dormant: Dormant,
    /// Told when a connection's calls have executed while the server drains.
    drained: Condvar,
    draining: AtomicBool,
    /// Workers that handle an event, and so may have read a call that the schedule does not know yet.
    attending: AtomicUsize,
    stopping: AtomicBool,
    heartbeat: Heartbeat,
    load: Arc<Load>,
    /// Ids, because one that is closed must not be kept: its share of the load goes with it.
    throttled: Mutex<Vec<ConnectionId>>,
    any_throttled: AtomicBool,
    next_id: AtomicU64,
    started: Instant,
    swept_millis: AtomicU64,
    counts: ConnectionCounts,
}

/// Connections so far.
#[derive(Debug, Default)]
struct ConnectionCounts {
    accepted: AtomicU64,
    refused: AtomicU64,
    evicted: AtomicU64,
    broken: AtomicU64,
}

/// A running network side.
pub(crate) struct Handle<S: Service> {
    net: Arc<Net<S>>,
    workers: Vec<JoinHandle<()>>,
    ticker: Option<JoinHandle<()>>,
}

/// How many connections there are and were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Connections {
    /// Open now.
    pub open: u64,
    /// Accepted since the start.
    pub accepted: u64,
    /// Closed at once because [`Limits::connections`] were open and none of them idle.
    pub refused: u64,
    /// Closed for a new one, because they were idle.
    pub evicted: u64,
    /// Closed because of an error, a malformed record or a stalled peer.
    pub broken: u64,
}

/// How many connections there are and were, and whose those are that are open.
pub(crate) struct Census {
    pub(crate) connections: Connections,
    /// Clients' addresses; behind a relay those that it names.
    pub(crate) peers: Vec<SocketAddr>,
}

/// Where connections come in.
#[derive(Default)]
pub(crate) struct Entrances<'a> {
    /// To be bound.
    pub(crate) addresses: &'a [SocketAddr],
    /// Bound already.
    pub(crate) bound: Vec<TcpListener>,
    /// Peers that name the client first, by the PROXY protocol.
    pub(crate) relays: Vec<IpNet>,
}

/// Binds every address, takes the sockets that are bound already, and starts the workers.
pub(crate) fn start<S: Service>(
    service: Arc<S>,
    entrances: Entrances<'_>,
    workers: usize,
    limits: Limits,
) -> io::Result<Handle<S>> {
    let workers = workers.max(MIN_WORKERS);
    let net = Arc::new(Net::new(service, entrances, workers, limits)?);
    let network: Weak<dyn Network> = Arc::<Net<S>>::downgrade(&net);
    net.service.started(Outbox::new(network));
    let ticker = Some(spawn("nfs-tick".to_owned(), &net, Net::tick)?);
    let work = |n: Worker| spawn(format!("nfs-{n}"), &net, move |net| net.work(n));
    let workers = (0..workers).map(work).collect::<io::Result<_>>()?;
    Ok(Handle { net, workers, ticker })
}

fn spawn<S: Service>(
    name: String,
    net: &Arc<Net<S>>,
    run: impl FnOnce(&Net<S>) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let net = net.clone();
    thread::Builder::new().name(name).spawn(move || run(&net))
}

impl<S: Service> Net<S> {
    fn new(service: Arc<S>, entrances: Entrances<'_>, workers: usize, limits: Limits) -> io::Result<Self> {
        let Entrances { addresses, bound, relays } = entrances;
        let bound = bound.into_iter().map(Listener::adopt);
        let bind = addresses.iter().map(|address| Listener::bind(*address));
        let listeners = bound.chain(bind).collect::<io::Result<Vec<_>>>()?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        let knock = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // By edge: each write wakes one worker, and nobody needs to read.
        epoll::add(&epoll, &knock, EventData::new_u64(KNOCK), EventFlags::IN | EventFlags::ET)?;
        for (listener, n) in listeners.iter().zip(FIRST_LISTENER..) {
            listener.register(&epoll, n)?;
        }
        let load = Arc::new(Load::new(limits.calls, limits.bytes));
        Ok(Self {
            service,
            roster: Mutex::new(Roster::new(workers, limits.running_per_connection)),
            slots: (0..workers).map(|_| Slot::default()).collect(),
            dormant: Dormant::default(),
            limits,
            epoll,
            stop,
            knock,
            listeners,
            relays,
            connections: RwLock::default(),
            drained: Condvar::new(),
            draining: AtomicBool::new(false),
            attending: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            heartbeat: Heartbeat::new(boottime_millis()),
            load,
            throttled: Mutex::default(),
            any_throttled: AtomicBool::new(false),
            next_id: AtomicU64::new(FIRST_CONNECTION),
            started: Instant::now(),
            swept_millis: AtomicU64::new(0),
            counts: ConnectionCounts::default(),
        })
    }

    fn snapshot(&self) -> Vec<Arc<Connection>> {
        self.connections.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn connections(&self) -> Connections {
        Connections {
            open: self.connection_count() as u64,
            accepted: self.counts.accepted.load(Relaxed),
            refused: self.counts.refused.load(Relaxed),
            evicted: self.counts.evicted.load(Relaxed),
            broken: self.counts.broken.load(Relaxed),
        }
    }

    fn connection_count(&self) -> usize {
        self.connections.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl<S: Service> Handle<S> {
    pub(crate) fn service(&self) -> &Arc<S> {
        &self.net.service
    }

    pub(crate) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.net.listeners.iter().map(|l| l.address).collect()
    }

    pub(crate) fn connections(&self) -> Connections {
        self.net.connections()
    }

    /// Counts the connections whenever it is called, on any thread.
    pub(crate) fn census(&self) -> impl Fn() -> Census + Send + Sync + 'static {
        let net = self.net.clone();
        move || Census {
            connections: net.connections(),
            peers: net.snapshot().iter().map(|connection| connection.caller().peer).collect(),
        }
    }

    /// Accepts and reads no more, lets what executes finish, sends its replies, closes. True if all was sent
    /// within [`Limits::drain`]; otherwise threads that are stuck in a call are left behind.
    pub(crate) fn stop(&mut self) -> bool {
        self.net.draining.store(true, SeqCst);
        for listener in &self.net.listeners {
            listener.close(&self.net.epoll);
        }
        self.net.snapshot().iter().for_each(|c| self.net.rearm(c));
        let drained = self.wait_drained();
        self.net.stopping.store(true, Relaxed);
        let _ = rustix::io::write(&self.net.stop, &1u64.to_ne_bytes());
        self.net.snapshot().iter().for_each(|c| {
            self.net.close(c, How::Closed);
        });
        self.net.slots.iter().for_each(Slot::wake);
        if let Some(ticker) = self.ticker.take() {
            ticker.thread().unpark();
            let _ = ticker.join();
        }
        for worker in self.workers.drain(..).filter(|_| drained) {
            let _ = worker.join();
        }
        drained
    }

    fn wait_drained(&self) -> bool {
        /// Replies that leave through epoll tell nobody, so they are looked for this often.
        const LOOK: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + self.net.limits.drain;
        let mut roster = locked(&self.net.roster);
        loop {
            let attending = self.net.attending.load(SeqCst) > 0;
            if !attending && roster.schedule.is_idle() && self.net.snapshot().iter().all(|c| c.unsent() == 0)
            {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            let waited = self.net.drained.wait_timeout(roster, LOOK);
            roster = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<S: Service> Drop for Handle<S> {
    fn drop(&mut self) {
        if !self.workers.is_empty() {
            self.stop();
        }
    }
}

/// An IPv4 address that is written as an IPv6 one, as it comes from sockets of both and from relays, as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// No invariant of this module spans a panic while a lock is held, so a poisoned lock is used on.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
