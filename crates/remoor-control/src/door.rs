//! Accepts visitors, gives each a thread, and lets in no more than a few at a time: for another the oldest has to go, so
//! that those who say nothing keep nobody out.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

/// Visitors at a time.
const MAX_VISITORS: usize = 16;
/// Threads of visitors at a time, those included that were sent away and are still busy. Above it nobody is let in.
const MAX_THREADS: usize = 4 * MAX_VISITORS;
/// Pause after `accept` failed, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A listening socket.
pub(crate) trait Listen: AsFd + Send + 'static {
    /// A connection.
    type Stream: AsFd + Send + 'static;
    /// The next connection.
    fn next(&self) -> io::Result<Self::Stream>;
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    fn next(&self) -> io::Result<TcpStream> {
        self.accept().map(|(stream, _)| stream)
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;
    fn next(&self) -> io::Result<UnixStream> {
        self.accept().map(|(stream, _)| stream)
    }
}

/// An open door. Dropping it closes it.
pub struct Door {
    /// Where it is, if in the network.
    pub address: Option<SocketAddr>,
    closed: Arc<AtomicBool>,
    socket: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Lets `visit` see to each connection.
    pub(crate) fn open<L: Listen>(
        name: &str,
        listener: L,
        visit: impl Fn(L::Stream) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let socket = listener.as_fd().try_clone_to_owned()?;
        let closed = Arc::new(AtomicBool::new(false));
        let seen = closed.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || accept_on(&listener, &seen, Arc::new(visit)))?;
        Ok(Self { address: None, closed, socket, thread: Some(thread) })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, SeqCst);
        // `accept` returns at once, on this and every further call.
        let _ = shutdown(&self.socket, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept_on<L: Listen>(
    listener: &L,
    closed: &AtomicBool,
    visit: Arc<impl Fn(L::Stream) + Send + Sync + 'static>,
) {
    let visitors = Arc::new(Visitors::default());
    while !closed.load(SeqCst) {
        match listener.next() {
            Ok(stream) => enter(stream, &visitors, &visit),
            Err(_) if closed.load(SeqCst) => return,
            Err(_) => thread::sleep(ACCEPT_PAUSE),
        }
    }
}

fn enter<S: AsFd + Send + 'static>(
    stream: S,
    visitors: &Arc<Visitors>,
    visit: &Arc<impl Fn(S) + Send + Sync + 'static>,
) {
    // Without a descriptor to send it away by, the visitor is not let in.
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
    let Some(leaving) = Visitors::admit(visitors, socket) else { return };
    let visit = visit.clone();
    // If no thread can be started, the visitor is sent away with what the closure holds.
    let _ = thread::Builder::new().name("visitor".to_owned()).spawn(move || {
        let _leaving = leaving;
        visit(stream);
    });
}

/// Who is inside.
#[derive(Default)]
struct Visitors {
    /// Their sockets, the oldest first.
    inside: Mutex<VecDeque<(u64, OwnedFd)>>,
    threads: AtomicUsize,
    next: AtomicU64,
}

impl Visitors {
    /// `None` if it cannot be let in.
    fn admit(visitors: &Arc<Self>, socket: OwnedFd) -> Option<Inside> {
        if visitors.threads.fetch_add(1, SeqCst) >= MAX_THREADS {
            visitors.threads.fetch_sub(1, SeqCst);
            return None;
        }
        let number = visitors.next.fetch_add(1, SeqCst);
        let mut inside = visitors.locked();
        if inside.len() >= MAX_VISITORS
            && let Some((_, oldest)) = inside.pop_front()
        {
            let _ = shutdown(oldest, Shutdown::Both);
        }
        inside.push_back((number, socket));
        Some(Inside { number, visitors: visitors.clone() })
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<(u64, OwnedFd)>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A visitor that is counted until it is gone.
struct Inside {
    number: u64,
    visitors: Arc<Visitors>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.visitors.locked().retain(|(number, _)| *number != self.number);
        self.visitors.threads.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::mpsc::channel;

    use super::*;

    /// What comes back, up to the end.
    fn answer(visitor: &mut TcpStream) -> Vec<u8> {
        visitor.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = Vec::new();
        let _ = visitor.read_to_end(&mut answer);
        answer
    }

    #[test]
    fn only_a_few_are_let_in_at_a_time_and_who_is_silent_keeps_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (entered, seen) = channel();
        let door = Door::open("test", listener, move |mut stream: TcpStream| {
            entered.send(()).unwrap();
            if stream.read_exact(&mut [0]).is_ok() {
                let _ = stream.write_all(b"x");
            }
        })
        .unwrap();
        let enter = || {
            let visitor = TcpStream::connect(address).unwrap();
            seen.recv().unwrap();
            visitor
        };
        let mut silent: Vec<_> = (0..MAX_VISITORS).map(|_| enter()).collect();
        let mut late = enter();
        late.write_all(b"?").unwrap();
        assert_eq!(answer(&mut late), b"x");
        assert_eq!(answer(&mut silent[0]), b"", "the oldest was sent away");
        silent[1].write_all(b"?").unwrap();
        assert_eq!(answer(&mut silent[1]), b"x");
        drop(door);
        assert!(TcpStream::connect(address).is_err(), "closed");
    }

    #[test]
    fn threads_are_bounded_whatever_they_do() {
        let visitors = Arc::new(Visitors::default());
        let socket = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let mut inside: Vec<_> =
            std::iter::from_fn(|| Visitors::admit(&visitors, socket())).take(2 * MAX_THREADS).collect();
        assert_eq!((inside.len(), visitors.locked().len()), (MAX_THREADS, MAX_VISITORS));
        inside.pop();
        assert!(Visitors::admit(&visitors, socket()).is_some());
    }
}
