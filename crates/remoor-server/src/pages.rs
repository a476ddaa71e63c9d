//! Pages of a file on their way to a socket: referenced, never copied.
//!
//! A pipe takes references to pages of the page cache (splice(2)) and gives them to the socket, as sendfile(2) does with
//! a pipe of its own. Here the two halves are apart: READ fills the pipe, so it waits for the disk where a call may wait,
//! and knows how many bytes it got, and any error, before the reply's head is written. What the socket does not take yet
//! stays in the pipe, whatever happens to the file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Most bytes one pipe holds, in whole pages. What an unprivileged process may have (`/proc/sys/fs/pipe-max-size`).
pub(crate) const PIPE_BYTES: usize = 1 << 20;
/// Most pipes of one pool, two descriptors each; a READ that finds none is copied.
const MAX_PIPES: usize = 128;
/// Most pipes that are kept empty for the next READs.
const MAX_IDLE: usize = 16;

/// Pipes to be used again.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Pipe>>,
    /// Pipes that exist, idle or not.
    made: AtomicUsize,
}

#[derive(Debug)]
struct Pipe {
    from: OwnedFd,
    to: OwnedFd,
}

/// A part of a file, in a pipe. Dropping it gives the pipe back if it is empty.
#[derive(Debug)]
pub struct Pages {
    /// There until dropped.
    pipe: Option<Pipe>,
    pool: Arc<Pool>,
    len: usize,
    /// Bytes that were taken out.
    taken: AtomicUsize,
}

/// What a file gave.
pub(crate) struct Spliced {
    pub(crate) pages: Pages,
    /// The file ended before as much as was asked.
    pub(crate) ended: bool,
}

impl Pool {
    /// At most `count` bytes of the file, fewer only where it ends or the pipe is full: a part that begins within a page
    /// takes a page more. `None` if there is no pipe to be had, or the file can't be read in this way.
    pub(crate) fn splice(
        self: &Arc<Self>,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> Result<Option<Spliced>, Errno> {
        let Some(pipe) = self.pipe() else { return Ok(None) };
        let mut pages = Pages { pipe: Some(pipe), pool: self.clone(), len: 0, taken: AtomicUsize::new(0) };
        let mut at = offset;
        while pages.len < count {
            let Some(pipe) = &pages.pipe else { break };
            match splice(file, Some(&mut at), &pipe.to, None, count - pages.len, SpliceFlags::NONBLOCK) {
                Ok(0) => return Ok(Some(Spliced { pages, ended: true })),
                Ok(n) => pages.len += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if pages.len > 0 => break,
                // An error that reading on will meet again, if it lasts.
                Err(_) if pages.len > 0 => break,
                Err(Errno::INVAL | Errno::AGAIN | Errno::NOSYS) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Spliced { pages, ended: false }))
    }

    fn pipe(&self) -> Option<Pipe> {
        self.idle().pop().or_else(|| self.make())
    }

    fn make(&self) -> Option<Pipe> {
        if self.made.fetch_add(1, Relaxed) < MAX_PIPES
            && let Some(pipe) = new_pipe()
        {
            return Some(pipe);
        }
        self.made.fetch_sub(1, Relaxed);
        None
    }

    fn give_back(&self, pipe: Pipe, is_empty: bool) {
        let mut idle = self.idle();
        if is_empty && idle.len() < MAX_IDLE {
            return idle.push(pipe);
        }
        drop(idle);
        drop(pipe);
        self.made.fetch_sub(1, Relaxed);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Pipe>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` without descriptors, or without leave for a pipe of this size (pipe(7), `pipe-user-pages-soft`): a smaller one
/// would make more calls, not fewer.
fn new_pipe() -> Option<Pipe> {
    let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    let size = fcntl_setpipe_size(&to, PIPE_BYTES).ok()?;
    (size >= PIPE_BYTES).then_some(Pipe { from, to })
}

impl Pages {
    /// Bytes of the file.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves what `socket`, which must not block, takes of what is left; `more` follows. `WouldBlock` if it takes nothing.
    pub(crate) fn send(&self, socket: impl AsFd, more: bool) -> io::Result<usize> {
        let mut flags = SpliceFlags::NONBLOCK;
        flags.set(SpliceFlags::MORE, more);
        let Some(pipe) = &self.pipe else { return Ok(0) };
        match splice(&pipe.from, None, socket, None, self.left(), flags)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.taken.fetch_add(n, Relaxed);
                Ok(n)
            }
        }
    }

    /// Takes what is left into memory.
    pub fn copy(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.left());
        while self.left() > 0
            && let Some(pipe) = &self.pipe
        {
            match retry_on_intr(|| read(&pipe.from, spare_capacity(&mut bytes)))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => _ = self.taken.fetch_add(n, Relaxed),
            }
        }
        Ok(bytes)
    }

    fn left(&self) -> usize {
        self.len.saturating_sub(self.taken.load(Relaxed))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let is_empty = self.left() == 0;
        if let Some(pipe) = self.pipe.take() {
            self.pool.give_back(pipe, is_empty);
        }
    }
}
