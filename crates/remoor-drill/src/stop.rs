//! Ends threads that wait on sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A signal that is given once and seen by every poll from then on.
#[derive(Debug)]
pub(crate) struct StopSignal {
    event: OwnedFd,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    Stopped,
    Ready,
}

impl StopSignal {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Gives the signal.
    pub(crate) fn stop(&self) {
        // An eventfd write fails only when its counter would overflow, and then the signal is given already.
        rustix::io::write(&self.event, &1u64.to_ne_bytes()).ok();
    }

    /// Waits until one of `sources` is readable, `timeout` has passed (`None`: never) or the signal is given.
    pub(crate) fn wait(&self, sources: &[&dyn AsFd], timeout: Option<Timespec>) -> io::Result<Woken> {
        let mut fds = vec![PollFd::new(&self.event, PollFlags::IN)];
        fds.extend(sources.iter().map(|source| PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) if fds[0].revents().is_empty() => Ok(Woken::Ready),
            Ok(_) => Ok(Woken::Stopped),
            Err(rustix::io::Errno::INTR) => Ok(Woken::Ready),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_signal_stays_given() {
        let signal = StopSignal::new().unwrap();
        let at_once = Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        assert_eq!(signal.wait(&[], at_once).unwrap(), Woken::Ready);
        signal.stop();
        assert_eq!(signal.wait(&[], None).unwrap(), Woken::Stopped);
        assert_eq!(signal.wait(&[], None).unwrap(), Woken::Stopped);
    }
}
