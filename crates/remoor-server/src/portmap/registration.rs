//! Staying registered with the host's rpcbind.
//!
//! rpcbind forgets everything when it restarts and tells nobody, so its list is looked at every few seconds. What is
//! logged is what has changed.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use remoor_rpc::portmap::rpcb::Rpcb;

use super::plan::{Plan, ours, plan, wanted};
use super::rpcbind::{Error, Place, Rpcbind};

/// How often rpcbind's list is looked at: a client that asks meanwhile retries for longer.
const LOOK: Duration = Duration::from_secs(2);

/// NFS version 3 and MOUNT version 3 of this host, registered with its rpcbind for as long as this lives. A restart of
/// rpcbind is made good within two seconds; another server's registration is left alone, and taken over from nobody.
pub struct Registration {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Registration {
    /// Registers what is served over TCP at these addresses, now or as soon as rpcbind lets it.
    ///
    /// # Errors
    /// No thread can be started. That rpcbind cannot be reached or refuses is logged and tried again.
    pub fn start(nfs: &[SocketAddr]) -> io::Result<Self> {
        Self::start_at(Place::default(), nfs)
    }

    fn start_at(place: Place, nfs: &[SocketAddr]) -> io::Result<Self> {
        let wanted = wanted(nfs);
        let (stop, stopped) = channel();
        let keep = move || Keeper { place, wanted, state: State::New, has_set: false }.keep(&stopped);
        let thread = thread::Builder::new().name("rpcbind".to_owned()).spawn(keep)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Registration {
    /// Takes the registrations back.
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").finish_non_exhaustive()
    }
}

/// How things stood at the last look.
#[derive(Debug, PartialEq, Eq)]
enum State {
    New,
    Registered,
    /// The words are what was logged.
    Refused(String),
}

struct Keeper {
    place: Place,
    wanted: Vec<Rpcb>,
    state: State,
    /// Whether rpcbind may list what this server set.
    has_set: bool,
}

impl Keeper {
    fn keep(mut self, stopped: &Receiver<()>) {
        loop {
            let outcome = self.look();
            self.note(outcome);
            match stopped.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => break,
            }
        }
        self.end();
    }

    /// Looks at the list once and sets what is missing; how many were.
    fn look(&self) -> Result<usize, String> {
        let mut rpcbind = Rpcbind::connect(&self.place).map_err(|e| e.to_string())?;
        let listed = rpcbind.list().map_err(|e| e.to_string())?;
        match plan(&self.wanted, &listed) {
            Plan::Foreign(other) => Err(format!(
                "{} is registered with rpcbind by another server, which is left alone: stop that server, or, if it is \
                 gone, remove what it left (rpcinfo -d {} {})",
                shown(&other),
                other.program,
                other.version
            )),
            Plan::Set(missing) => set_all(&mut rpcbind, &missing).map(|()| missing.len()),
        }
    }

    fn note(&mut self, outcome: Result<usize, String>) {
        match outcome {
            Ok(0) if self.state == State::Registered => {}
            Ok(_) => {
                let again = if self.state == State::Registered { " again: it had lost them" } else { "" };
                let all: Vec<_> = self.wanted.iter().map(shown).collect();
                tracing::info!("registered with rpcbind{again}: {}", all.join(", "));
                (self.state, self.has_set) = (State::Registered, true);
            }
            Err(why) => {
                let refused = State::Refused(why);
                if self.state != refused {
                    if let State::Refused(why) = &refused {
                        tracing::warn!("not registered with rpcbind: {why}; trying again every {LOOK:?}");
                    }
                    self.state = refused;
                }
            }
        }
    }

    fn end(&self) {
        if !self.has_set {
            return;
        }
        match self.unset_all() {
            Ok(()) => tracing::info!("no longer registered with rpcbind"),
            Err(Error::Unreachable { .. }) if self.state != State::Registered => {}
            Err(e) => tracing::warn!(
                "what rpcbind lists of this server stays there, remove it with rpcinfo -d: {e}"
            ),
        }
    }

    fn unset_all(&self) -> Result<(), Error> {
        let mut rpcbind = Rpcbind::connect(&self.place)?;
        let listed = rpcbind.list()?;
        ours(&self.wanted, &listed).iter().try_for_each(|rpcb| rpcbind.unset(rpcb).map(drop))
    }
}

/// Sets all of them or leaves none.
fn set_all(rpcbind: &mut Rpcbind, missing: &[Rpcb]) -> Result<(), String> {
    for (n, rpcb) in missing.iter().enumerate() {
        let why = match rpcbind.set(rpcb) {
            Ok(true) => continue,
            Ok(false) => {
                format!("rpcbind refuses {}: only root may register, and only what is free", shown(rpcb))
            }
            Err(e) => e.to_string(),
        };
        for done in &missing[..n] {
            let _ = rpcbind.unset(done);
        }
        return Err(why);
    }
    Ok(())
}

fn shown(rpcb: &Rpcb) -> String {
    let program = match rpcb.program {
        100_003 => "NFS",
        100_005 => "MOUNT",
        _ => "another program",
    };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{program} {} at {} {}", rpcb.version, text(&rpcb.netid.0), text(&rpcb.address.0))
}
