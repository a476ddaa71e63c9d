//! Pages of a file on their way to a socket: referenced, never copied.
//!
//! A pipe takes references to pages of the page cache (splice(2)) and gives them to the socket, as sendfile(2) does with
//! a pipe of its own. Here the two halves are apart: READ fills the pipe, so it waits for the disk where a call may wait,
//! and knows how many bytes it got, and any error, before the reply's head is written. What the socket does not take yet
//! stays in the pipe, whatever happens to the file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Most bytes one pipe holds, in whole pages. What an unprivileged process may have (`/proc/sys/fs/pipe-max-size`).
pub(crate) const PIPE_BYTES: usize = 1 << 20;
/// Most pipes of one pool, two descriptors each; a READ that finds none is copied.
const MAX_PIPES: usize = 128;
/// Most pipes that are kept empty for the next READs.
const MAX_IDLE: usize = 16;
/// The smallest page of any machine; with larger ones a pipe may be full sooner.
const LEAST_PAGE: u64 = 4096;

/// Pipes to be used again.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Arc<Pipe>>>,
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
    pipe: Arc<Pipe>,
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
    /// At most `count` bytes of the file, fewer only where it ends. `None` if they can't be had in this way: they begin
    /// within a page and take one page more than a pipe holds, there is no pipe to be had, or the file system has no
    /// splice.
    pub(crate) fn splice(
        self: &Arc<Self>,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> Result<Option<Spliced>, Errno> {
        if (offset % LEAST_PAGE) as usize + count > PIPE_BYTES {
            return Ok(None);
        }
        let Some(pipe) = self.pipe() else { return Ok(None) };
        let mut pages = Pages { pipe, pool: self.clone(), len: 0, taken: AtomicUsize::new(0) };
        let mut at = offset;
        while pages.len < count {
            let room = count - pages.len;
            match splice(file, Some(&mut at), &pages.pipe.to, None, room, SpliceFlags::NONBLOCK) {
                Ok(0) => return Ok(Some(Spliced { pages, ended: true })),
                Ok(n) => pages.len += n,
                Err(Errno::INTR) => {}
                // AGAIN is a pipe that is full already, for larger pages.
                Err(Errno::INVAL | Errno::AGAIN | Errno::NOSYS) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Spliced { pages, ended: false }))
    }

    fn pipe(&self) -> Option<Arc<Pipe>> {
        self.idle().pop().or_else(|| self.make())
    }

    fn make(&self) -> Option<Arc<Pipe>> {
        if self.made.fetch_add(1, Relaxed) < MAX_PIPES
            && let Some(pipe) = new_pipe()
        {
            return Some(Arc::new(pipe));
        }
        self.made.fetch_sub(1, Relaxed);
        None
    }

    fn give_back(&self, pipe: &Arc<Pipe>, is_empty: bool) {
        let mut idle = self.idle();
        if is_empty && idle.len() < MAX_IDLE {
            idle.push(pipe.clone());
        } else {
            self.made.fetch_sub(1, Relaxed);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Arc<Pipe>>> {
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
    /// The process must ignore SIGPIPE, as programs in Rust do: there is no flag against it here.
    pub(crate) fn send(&self, socket: impl AsFd, more: bool) -> io::Result<usize> {
        let mut flags = SpliceFlags::NONBLOCK;
        flags.set(SpliceFlags::MORE, more);
        match splice(&self.pipe.from, None, socket, None, self.left(), flags)? {
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
        while self.left() > 0 {
            match retry_on_intr(|| read(&self.pipe.from, spare_capacity(&mut bytes)))? {
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
        self.pool.give_back(&self.pipe, self.left() == 0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    const MIB: usize = 1 << 20;

    /// A file whose every word tells its place.
    fn file(len: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content(0, len)).unwrap();
        file
    }

    fn content(offset: usize, len: usize) -> Vec<u8> {
        (offset..offset + len).map(|at| ((at / 4096) ^ (at % 251)) as u8).collect()
    }

    fn splice(pool: &Arc<Pool>, file: &File, offset: usize, count: usize) -> Spliced {
        pool.splice(file.as_fd(), offset as u64, count).unwrap().unwrap()
    }

    #[test]
    fn every_byte_that_is_asked_for_up_to_the_end() {
        let (pool, file) = (Arc::<Pool>::default(), file(3 * MIB + 5));
        for (offset, count) in [(0, MIB), (MIB, 1), (5, MIB - 5), (4096 * 3 + 1, 70_000), (3 * MIB, 5)] {
            let Spliced { pages, ended } = splice(&pool, &file, offset, count);
            assert_eq!((pages.len(), ended), (count, false), "{count} bytes from {offset}");
            assert!(pages.copy().unwrap() == content(offset, count), "{count} bytes from {offset}");
        }
        let Spliced { pages, ended } = splice(&pool, &file, 3 * MIB, MIB);
        assert_eq!((pages.copy().unwrap(), ended), (content(3 * MIB, 5), true));
        let Spliced { pages, ended } = splice(&pool, &file, 9 * MIB, MIB);
        assert_eq!((pages.is_empty(), ended), (true, true));
    }

    #[test]
    fn a_part_that_no_pipe_has_room_for_is_left_to_be_copied() {
        let (pool, file) = (Arc::<Pool>::default(), file(3 * MIB));
        assert!(pool.splice(file.as_fd(), 1, MIB).unwrap().is_none());
        assert!(pool.splice(file.as_fd(), 0, MIB + 1).unwrap().is_none());
        let directory = File::open("/").unwrap();
        assert!(!matches!(pool.splice(directory.as_fd(), 0, MIB), Ok(Some(_))));
    }

    /// The reply's head has told the length by then.
    #[test]
    fn a_file_that_is_cut_off_takes_nothing_back() {
        let (pool, file) = (Arc::<Pool>::default(), file(MIB));
        let Spliced { pages, .. } = splice(&pool, &file, 0, MIB);
        file.set_len(10).unwrap();
        let copied = pages.copy().unwrap();
        assert_eq!(copied.len(), MIB);
        let whole = content(0, MIB);
        let kept = copied.iter().zip(&whole).all(|(copied, was)| *copied == *was || *copied == 0);
        assert!(kept, "what the file had, or the zeros that took its place");
        assert!(splice(&pool, &file, 0, MIB).ended);
    }

    #[test]
    fn a_socket_takes_what_it_has_room_for() {
        let (pool, file) = (Arc::<Pool>::default(), file(MIB));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let Spliced { pages, .. } = splice(&pool, &file, 0, MIB);
        let (mut sent, mut got, mut waits) = (0, Vec::new(), 0);
        while got.len() < MIB {
            match pages.send(&ours, false) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => waits += 1,
                Err(e) if sent == MIB => assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof),
                Err(e) => panic!("{e}"),
            }
            let mut buffer = vec![0; 10_000];
            let n = theirs.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..n]);
        }
        assert!(waits > 0 && sent == MIB && got == content(0, MIB));
    }

    #[test]
    fn pipes_are_used_again_unless_something_is_left_in_them() {
        let (pool, file) = (Arc::<Pool>::default(), file(MIB));
        splice(&pool, &file, 0, 100).pages.copy().unwrap();
        let first = Arc::as_ptr(&pool.idle()[0]);
        let again = splice(&pool, &file, 0, 100);
        assert_eq!((Arc::as_ptr(&again.pages.pipe), pool.idle().len()), (first, 0));
        drop(again);
        assert_eq!((pool.idle().len(), pool.made.load(Relaxed)), (0, 0), "it was not empty");
    }

    #[test]
    fn there_are_no_more_pipes_than_that() {
        let (pool, file) = (Arc::<Pool>::default(), file(100));
        let all: Vec<_> = (0..MAX_PIPES).map(|_| splice(&pool, &file, 0, 100)).collect();
        assert!(pool.splice(file.as_fd(), 0, 100).unwrap().is_none());
        all.iter().for_each(|spliced| _ = spliced.pages.copy().unwrap());
        drop(all);
        assert_eq!((pool.idle().len(), pool.made.load(Relaxed)), (MAX_IDLE, MAX_IDLE));
    }
}
