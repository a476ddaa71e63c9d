//! The session: requests from `/dev/fuse` to the file system, and its replies back.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use tokio::io::{Interest, Ready};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, yield_now};

use crate::decode::{Header, Init, Malformed, Request};
use crate::device::{Device, Received};
use crate::interrupt::Outstanding;
use crate::negotiate::{self, Answer};
use crate::pool::{Buffer, Pool};
use crate::{Errno, Filesystem, InterruptPolicy, Negotiated, NodeId, Notifier, Operation, Reply, sys};

/// What can be chosen about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Longest WRITE, in bytes: rounded up to a page, and down to what the kernel allows (1 MiB unless the sysctl
    /// `fs.fuse.max_pages_limit` of Linux 6.13 says more).
    pub max_write: u32,
    /// Read-ahead and other requests nobody waits for, at a time.
    pub max_background: u16,
    /// From how many of these on the kernel holds read-ahead back.
    pub congestion_threshold: u16,
    /// O_TRUNC arrives with OPEN, instead of as a SETATTR before it.
    pub atomic_o_trunc: bool,
    /// The file system clears setuid and setgid bits where it is told `kill_suidgid`; else the kernel does by SETATTR.
    pub handle_killpriv: bool,
    /// Directories are read by READDIRPLUS. By the kernel's own judgement (FUSE_READDIRPLUS_AUTO) it would be the first
    /// buffer of each directory only until a name was looked up, and du(1) looks up none before it has read them all.
    pub readdirplus: bool,
    /// Which interrupts end a request.
    pub interrupts: InterruptPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_write: 1 << 20,
            max_background: 64,
            congestion_threshold: 48,
            atomic_o_trunc: true,
            handle_killpriv: false,
            readdirplus: true,
            interrupts: InterruptPolicy::default(),
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The file system was unmounted, or `umount -f` cut the connection of one that is in use.
    Unmounted,
    /// The connection was aborted through `/sys/fs/fuse/connections`.
    Aborted,
}

/// What a message needs beside the write it carries: header, `struct fuse_write_in`; a page keeps it simple.
const BESIDE_DATA: usize = 4096;

/// Requests read before other tasks have their turn.
const BATCH: usize = 16;

/// A request of more bytes than this ends a batch.
const LARGE: usize = 64 << 10;

/// A connection that is served by this thread's runtime, which may be a `current_thread` one. More threads help with
/// [`Session::reader`].
#[derive(Debug)]
pub struct Session<F: Filesystem> {
    reader: Reader<F>,
    notifier: Notifier,
}

impl<F: Filesystem> Session<F> {
    /// A session of a mounted connection: `device` comes from [`crate::mount`].
    ///
    /// # Errors
    /// If the descriptor cannot be made non-blocking, or no thread can be started.
    pub fn new(device: OwnedFd, filesystem: Arc<F>, config: Config) -> io::Result<Self> {
        let device = Arc::new(Device::new(device)?);
        let (pages, page) = (negotiate::pages_limit(), rustix::param::page_size() as u32);
        let max_write = negotiate::max_write(&config, pages, page);
        let shared = Shared {
            filesystem,
            config,
            pages,
            page,
            negotiated: OnceLock::new(),
            max_read: AtomicU32::new(pages.saturating_mul(page)),
            outstanding: Outstanding::new(config.interrupts),
            pool: Pool::new(max_write as usize + BESIDE_DATA),
            readers: AtomicUsize::new(0),
        };
        let notifier = Notifier::start(&device)?;
        Ok(Self { reader: Reader::new(device, Arc::new(shared)), notifier })
    }

    /// Tells the kernel what changed elsewhere.
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// One more reader of the same connection, to be run on another thread's runtime.
    ///
    /// # Errors
    /// If there is no descriptor for it.
    pub fn reader(&self) -> io::Result<Reader<F>> {
        let device = self.reader.device.another()?;
        Ok(Reader::new(Arc::new(device), self.reader.shared.clone()))
    }

    /// Serves until the file system is unmounted. Requests that are executing then are dropped.
    ///
    /// # Errors
    /// If the kernel is too old for this protocol, or reading fails in a way that is not the connection's end.
    pub async fn run(self) -> io::Result<Ended> {
        let mut watching = JoinSet::new();
        let shared = self.reader.shared.clone();
        watching.spawn(async move { shared.outstanding.watch().await });
        let Self { reader, notifier: _notifier } = self;
        reader.run().await
    }
}

/// One reader of a connection.
#[derive(Debug)]
pub struct Reader<F: Filesystem> {
    device: Arc<Device>,
    shared: Arc<Shared<F>>,
}

/// What all readers share.
#[derive(Debug)]
struct Shared<F> {
    filesystem: Arc<F>,
    config: Config,
    pages: u32,
    page: u32,
    negotiated: OnceLock<Negotiated>,
    max_read: AtomicU32,
    outstanding: Outstanding,
    pool: Arc<Pool>,
    readers: AtomicUsize,
}

impl<F: Filesystem> Reader<F> {
    fn new(device: Arc<Device>, shared: Arc<Shared<F>>) -> Self {
        shared.readers.fetch_add(1, Ordering::Relaxed);
        Self { device, shared }
    }

    /// Serves until the file system is unmounted.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run(self) -> io::Result<Ended> {
        // EPOLLERR is all that the end of a connection shows (`fuse_dev_poll`).
        let interest = Interest::READABLE | Interest::ERROR;
        let ready = sys::wait_for(self.device.clone(), interest)?;
        let mut buffer = self.shared.pool.take();
        loop {
            let mut guard = ready.ready(interest).await?;
            match self.batch(&mut buffer)? {
                Batch::More => yield_now().await,
                // The next wait lets others have their turn.
                Batch::Empty => guard.clear_ready_matching(Ready::READABLE | Ready::ERROR),
                Batch::Ended(ended) => return Ok(ended),
            }
        }
    }

    /// Serves some of the requests that are there.
    fn batch(&self, buffer: &mut Buffer) -> io::Result<Batch> {
        for _ in 0..BATCH {
            match self.device.receive(buffer.as_mut())? {
                Received::Message(length) => {
                    self.serve(buffer, length)?;
                    if length > LARGE {
                        return Ok(Batch::More);
                    }
                }
                Received::Again => {}
                Received::Empty => return Ok(Batch::Empty),
                Received::Ended(ended) => return Ok(Batch::Ended(ended)),
            }
        }
        Ok(Batch::More)
    }

    fn serve(&self, buffer: &mut Buffer, length: usize) -> io::Result<()> {
        let message = &buffer.as_ref()[..length];
        let header = match Header::decode(message) {
            Ok(header) => header,
            Err(e) => {
                tracing::warn!("a message of /dev/fuse is malformed and ignored: {e}");
                return Ok(());
            }
        };
        match header.request(message, self.shared.max_read.load(Ordering::Relaxed)) {
            Ok(Request::Write(write, data)) => self.execute(&header, write.with(buffer.detach(data))),
            Ok(Request::Operation(operation)) => self.execute(&header, operation),
            Ok(Request::Init(offered)) => return self.init(&header, &offered),
            Ok(other) => self.settle(&header, other),
            Err(e) => self.malformed(&header, e),
        }
        Ok(())
    }

    /// Requests that the file system does not answer.
    fn settle(&self, header: &Header, request: Request) {
        match request {
            Request::Forget(nodes) => nodes.into_iter().for_each(|(node, n)| self.forget(node, n)),
            Request::Interrupt(unique) => self.shared.outstanding.interrupt(unique),
            Request::Destroy => self.device.reply(header.unique, "DESTROY", Ok(Reply::Empty)),
            Request::NotifyReply | Request::Init(_) | Request::Operation(_) | Request::Write(..) => {}
            Request::Unsupported => self.device.reply(header.unique, "an operation", Err(Errno::ENOSYS)),
        }
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        self.shared.filesystem.forget(node, lookups);
    }

    /// A FORGET has no reply, and must not get one: the kernel would not find its request, which is harmless.
    fn malformed(&self, header: &Header, why: Malformed) {
        tracing::warn!("request {} with operation code {} is malformed: {why}", header.unique, header.opcode);
        self.device.reply(header.unique, "a malformed request", Err(Errno::EIO));
    }

    fn init(&self, header: &Header, offered: &Init) -> io::Result<()> {
        let shared = &self.shared;
        match negotiate::negotiate(offered, &shared.config, shared.pages, shared.page) {
            Answer::Agreed(agreed, out) => {
                if shared.negotiated.set(agreed).is_ok() {
                    shared.max_read.store(agreed.max_read, Ordering::Relaxed);
                    shared.filesystem.init(&agreed);
                }
                self.device.answer(header.unique, "INIT", 0, out.bytes(), &[]);
                Ok(())
            }
            Answer::AskAgain(out) => {
                self.device.answer(header.unique, "INIT", 0, out.bytes(), &[]);
                Ok(())
            }
            Answer::Refused => {
                self.device.reply(header.unique, "INIT", Err(Errno::EPROTO));
                Err(too_old(offered))
            }
        }
    }

    /// Executes an operation: most answer at once from a cache and cost no task.
    fn execute(&self, header: &Header, operation: Operation) {
        if self.shared.negotiated.get().is_none() {
            return self.device.reply(header.unique, operation.name(), Err(Errno::EIO));
        }
        let answer = Answering::new(self.device.clone(), header.unique, operation.name());
        let kept = operation.is_kept();
        let (filesystem, caller) = (self.shared.filesystem.clone(), header.caller);
        let mut future = Box::pin(async move { filesystem.call(caller, operation).await });
        let polling = AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        match catch_unwind(polling) {
            Ok(Poll::Ready(result)) => answer.with(result),
            Ok(Poll::Pending) if kept => drop(tokio::spawn(async move { answer.with(future.await) })),
            Ok(Poll::Pending) => self.spawn(header, answer, future),
            // As in a task of its own, a panic is that request's alone: it was logged, and the answer is EIO.
            Err(_) => drop(answer),
        }
    }

    fn spawn(
        &self,
        header: &Header,
        answer: Answering,
        future: Pin<Box<impl Future<Output = Result<Reply, Errno>> + Send + 'static>>,
    ) {
        let unique = header.unique;
        let cut = self.shared.outstanding.register(unique, header.caller.pid);
        let registered = Registered { shared: self.shared.clone(), unique };
        tokio::spawn(async move {
            let result = until_cut(future, cut).await;
            drop(registered);
            answer.with(result);
        });
    }
}

impl<F: Filesystem> Drop for Reader<F> {
    fn drop(&mut self) {
        if self.shared.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.outstanding.close();
            if self.shared.negotiated.get().is_some() {
                self.shared.filesystem.destroy();
            }
        }
    }
}

/// What is left after some requests were served.
enum Batch {
    More,
    Empty,
    Ended(Ended),
}

/// A request that is registered as executing.
struct Registered<F: Filesystem> {
    shared: Arc<Shared<F>>,
    unique: u64,
}

impl<F: Filesystem> Drop for Registered<F> {
    fn drop(&mut self) {
        self.shared.outstanding.finished(self.unique);
    }
}

/// A request that is owed an answer: EIO, if what was to answer it panicked or its runtime ended.
struct Answering {
    device: Arc<Device>,
    unique: u64,
    name: &'static str,
    answered: bool,
}

impl Answering {
    fn new(device: Arc<Device>, unique: u64, name: &'static str) -> Self {
        Self { device, unique, name, answered: false }
    }

    fn with(mut self, result: Result<Reply, Errno>) {
        self.answered = true;
        self.device.reply(self.unique, self.name, result);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.answered {
            self.device.reply(self.unique, self.name, Err(Errno::EIO));
        }
    }
}

/// The future's result, or EINTR once it is cut; it is dropped before this returns.
async fn until_cut<T>(
    mut future: Pin<Box<impl Future<Output = Result<T, Errno>>>>,
    mut cut: oneshot::Receiver<()>,
) -> Result<T, Errno> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Pending => Pin::new(&mut cut).poll(cx).map(|_| Err(Errno::EINTR)),
        ready => ready,
    })
    .await
}

fn too_old(offered: &Init) -> io::Error {
    let (major, minor) = (offered.major, offered.minor);
    io::Error::other(format!(
        "this kernel speaks FUSE {major}.{minor}, and 7.31 is needed: Linux 5.4 or later"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_future_that_is_cut_is_dropped_before_its_answer() {
        let (cutting, cut) = oneshot::channel();
        let held = Arc::new(());
        let theirs = held.clone();
        let future = Box::pin(async move {
            std::future::pending::<()>().await;
            drop(theirs);
            Ok(())
        });
        let running = tokio::spawn(until_cut(future, cut));
        cutting.send(()).unwrap();
        assert_eq!(running.await.unwrap(), Err(Errno::EINTR));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn a_result_that_is_there_is_not_cut() {
        let (cutting, cut) = oneshot::channel();
        cutting.send(()).unwrap();
        assert_eq!(until_cut(Box::pin(async { Ok(5) }), cut).await, Ok(5));
    }
}
