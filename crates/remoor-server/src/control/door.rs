//! Accepts visitors, gives each a thread, and lets in no more than a few at a time.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

/// Visitors at a time; another is sent away at once.
const MAX_VISITORS: usize = 16;
/// Pause after `accept` failed, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A listening socket.
pub(super) trait Listen: AsFd + Send + 'static {
    /// A connection.
    type Stream: Send + 'static;
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
pub(crate) struct Door {
    /// Where it is, if in the network.
    pub(crate) address: Option<SocketAddr>,
    closed: Arc<AtomicBool>,
    socket: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Lets `visit` see to each connection.
    pub(super) fn open<L: Listen>(
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
    let inside = Arc::new(AtomicUsize::new(0));
    while !closed.load(SeqCst) {
        match listener.next() {
            Ok(stream) => enter(stream, &inside, &visit),
            Err(_) if closed.load(SeqCst) => return,
            Err(_) => thread::sleep(ACCEPT_PAUSE),
        }
    }
}

fn enter<S: Send + 'static>(
    stream: S,
    inside: &Arc<AtomicUsize>,
    visit: &Arc<impl Fn(S) + Send + Sync + 'static>,
) {
    if inside.fetch_add(1, SeqCst) >= MAX_VISITORS {
        inside.fetch_sub(1, SeqCst);
        return;
    }
    let (leaving, visit) = (Inside(inside.clone()), visit.clone());
    // If no thread can be started, the visitor is sent away with what the closure holds.
    let _ = thread::Builder::new().name("visitor".to_owned()).spawn(move || {
        let _leaving = leaving;
        visit(stream);
    });
}

/// Counts a visitor until it is gone.
struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn only_a_few_are_let_in_at_a_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (entered, seen) = channel();
        let (leave, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let door = Door::open("test", listener, move |mut stream: TcpStream| {
            entered.send(()).unwrap();
            let _ = wait.lock().unwrap().recv();
            let _ = stream.write_all(b"x");
        })
        .unwrap();
        let mut visitors: Vec<_> = (0..MAX_VISITORS).map(|_| TcpStream::connect(address).unwrap()).collect();
        (0..MAX_VISITORS).for_each(|_| seen.recv().unwrap());
        let mut late = TcpStream::connect(address).unwrap();
        assert_eq!(late.read(&mut [0]).unwrap(), 0, "sent away");
        drop(leave);
        visitors.iter_mut().for_each(|visitor| assert_eq!(visitor.read(&mut [0]).unwrap(), 1));
        drop(door);
        assert!(TcpStream::connect(address).is_err(), "closed");
    }
}
