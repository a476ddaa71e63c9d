//! Error numbers, as the kernel takes them.

use std::fmt;
use std::io;

use rustix::io::Errno as Raw;

/// An error number, positive as in errno(3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(
    /// The number: what the kernel takes is 1 to 511.
    pub i32,
);

impl Errno {
    /// The greatest number the kernel takes in a reply: from 512 on they are its own (`fuse_dev_do_write`).
    const MAX: i32 = 511;

    /// The number as given, or EIO for one that the kernel would not take: it would leave the request unanswered.
    pub const fn from_raw(number: i32) -> Self {
        if number > 0 && number <= Self::MAX { Self(number) } else { Self::EIO }
    }

    /// The number of a failed system call, or EIO for an error that has none.
    pub fn from_io(error: &io::Error) -> Self {
        error.raw_os_error().map_or(Self::EIO, Self::from_raw)
    }
}

macro_rules! constants {
    ($($name:ident = $raw:ident, $what:literal;)*) => {
        impl Errno {
            $(#[doc = $what] pub const $name: Self = Self(Raw::$raw.raw_os_error());)*
        }

        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name => f.write_str(stringify!($name)),)*
                    Self(number) => write!(f, "errno {number}"),
                }
            }
        }
    };
}

constants! {
    EPERM = PERM, "Operation not permitted.";
    ENOENT = NOENT, "No such file or directory.";
    EINTR = INTR, "Interrupted by a signal.";
    EIO = IO, "Input or output error.";
    ENXIO = NXIO, "No such device or address; no data or hole from here on.";
    EBADF = BADF, "Not an open file.";
    EAGAIN = AGAIN, "Try again.";
    ENOMEM = NOMEM, "Out of memory.";
    EACCES = ACCESS, "Permission denied.";
    EBUSY = BUSY, "Busy.";
    EEXIST = EXIST, "Exists already.";
    EXDEV = XDEV, "Would cross file systems.";
    ENODEV = NODEV, "No such device; of `/dev/fuse`: unmounted.";
    ENOTDIR = NOTDIR, "Not a directory.";
    EISDIR = ISDIR, "Is a directory.";
    EINVAL = INVAL, "Invalid argument.";
    EFBIG = FBIG, "File too large.";
    ENOSPC = NOSPC, "No space left.";
    EROFS = ROFS, "Read-only file system.";
    EMLINK = MLINK, "Too many links.";
    ERANGE = RANGE, "The caller's buffer is too small.";
    ENAMETOOLONG = NAMETOOLONG, "Name too long.";
    ENOSYS = NOSYS, "Not implemented; the kernel often remembers this and does not ask again.";
    ENOTEMPTY = NOTEMPTY, "Directory not empty.";
    ELOOP = LOOP, "Too many symbolic links.";
    ENODATA = NODATA, "No such extended attribute.";
    EPROTO = PROTO, "Protocol error.";
    EOVERFLOW = OVERFLOW, "Value too large.";
    EOPNOTSUPP = OPNOTSUPP, "Not supported.";
    ENOTCONN = NOTCONN, "Not connected.";
    ETIMEDOUT = TIMEDOUT, "Timed out.";
    ECONNABORTED = CONNABORTED, "Aborted; of `/dev/fuse`: the connection was aborted.";
    ESTALE = STALE, "Stale file handle.";
    EDQUOT = DQUOT, "Quota exceeded.";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.0))
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_the_kernel_would_refuse_are_eio() {
        for refused in [i32::MIN, -1, 0, 512, i32::MAX] {
            assert_eq!(Errno::from_raw(refused), Errno::EIO);
        }
        assert_eq!(Errno::from_raw(116), Errno::ESTALE);
        assert_eq!(Errno::from_raw(511), Errno(511));
    }

    #[test]
    fn an_error_without_a_number_is_eio() {
        assert_eq!(Errno::from_io(&io::Error::other("x")), Errno::EIO);
        assert_eq!(Errno::from_io(&io::Error::from_raw_os_error(2)), Errno::ENOENT);
    }

    #[test]
    fn names_are_shown() {
        assert_eq!(format!("{:?} {:?}", Errno::ENOSYS, Errno(500)), "ENOSYS errno 500");
    }
}
