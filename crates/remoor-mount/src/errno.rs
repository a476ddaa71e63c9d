//! Error numbers of Linux, and what becomes of an NFS status or of a call without a result.

use std::fmt;

use remoor_client::CallError;
use remoor_nfs::mnt::MountStat;
use remoor_nfs::reconnect::CallFailure;
use remoor_nfs::v3::NfsStat;
use remoor_rpc::message::ReplyStatus;

/// An error number as a system call returns it, positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! numbers {
    ($($name:ident = $number:ident $meaning:literal,)*) => {
        #[allow(missing_docs, reason = "the names of errno(3) without their E")]
        impl Errno {
            $(pub const $name: Self = Self(libc::$number);)*
        }

        const NAMES: &[(i32, &str, &str)] = &[$((libc::$number, stringify!($number), $meaning),)*];
    };
}

numbers! {
    PERM = EPERM "operation not permitted",
    NOENT = ENOENT "no such file or directory",
    INTR = EINTR "interrupted",
    IO = EIO "input/output error",
    NXIO = ENXIO "no such device or address",
    BADF = EBADF "bad file descriptor",
    AGAIN = EAGAIN "try again",
    NOMEM = ENOMEM "out of memory",
    ACCES = EACCES "permission denied",
    EXIST = EEXIST "file exists",
    XDEV = EXDEV "cross-device link",
    NODEV = ENODEV "no such device",
    NOTDIR = ENOTDIR "not a directory",
    ISDIR = EISDIR "is a directory",
    INVAL = EINVAL "invalid argument",
    FBIG = EFBIG "file too large",
    NOSPC = ENOSPC "no space left on device",
    ROFS = EROFS "read-only file system",
    MLINK = EMLINK "too many links",
    NAMETOOLONG = ENAMETOOLONG "file name too long",
    NOSYS = ENOSYS "function not implemented",
    NOTEMPTY = ENOTEMPTY "directory not empty",
    LOOP = ELOOP "too many symbolic links",
    OVERFLOW = EOVERFLOW "value too large",
    PROTO = EPROTO "protocol error",
    PROTONOSUPPORT = EPROTONOSUPPORT "protocol not supported",
    OPNOTSUPP = EOPNOTSUPP "operation not supported",
    DQUOT = EDQUOT "disk quota exceeded",
    STALE = ESTALE "stale file handle",
    REMOTE = EREMOTE "object is remote",
    REMOTEIO = EREMOTEIO "remote input/output error",
    TIMEDOUT = ETIMEDOUT "connection timed out",
    BUSY = EBUSY "device or resource busy",
    TXTBSY = ETXTBSY "text file busy",
}

impl Errno {
    /// The number, positive.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, ..)| *number == self.0) {
            Some((_, name, _)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, ..)| *number == self.0) {
            Some((_, name, meaning)) => write!(f, "{name}: {meaning}"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl std::error::Error for Errno {}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<NfsStat> for Errno {
    /// As the kernel's client translates (`nfs_stat_to_errno`), except where it shows applications numbers that no
    /// header names: a handle that is none is a stale one, a type the server cannot make is EPERM as mknod(2) has it.
    fn from(status: NfsStat) -> Self {
        match status {
            NfsStat::Perm | NfsStat::BadType => Self::PERM,
            NfsStat::NoEnt => Self::NOENT,
            NfsStat::Nxio => Self::NXIO,
            NfsStat::Acces => Self::ACCES,
            NfsStat::Exist => Self::EXIST,
            NfsStat::XDev => Self::XDEV,
            NfsStat::NoDev => Self::NODEV,
            NfsStat::NotDir => Self::NOTDIR,
            NfsStat::IsDir => Self::ISDIR,
            NfsStat::Inval => Self::INVAL,
            NfsStat::FBig => Self::FBIG,
            NfsStat::NoSpc => Self::NOSPC,
            NfsStat::RoFs => Self::ROFS,
            NfsStat::MLink => Self::MLINK,
            NfsStat::NameTooLong => Self::NAMETOOLONG,
            NfsStat::NotEmpty => Self::NOTEMPTY,
            NfsStat::DQuot => Self::DQUOT,
            NfsStat::Stale | NfsStat::BadHandle => Self::STALE,
            NfsStat::Remote => Self::REMOTE,
            NfsStat::NotSupp => Self::OPNOTSUPP,
            NfsStat::ServerFault => Self::REMOTEIO,
            // Ok is no error; that it came here means that the reply contradicts itself.
            NfsStat::Ok
            | NfsStat::Io
            | NfsStat::NotSync
            | NfsStat::BadCookie
            | NfsStat::TooSmall
            | NfsStat::Jukebox
            | NfsStat::Unknown(_) => Self::IO,
        }
    }
}

impl From<MountStat> for Errno {
    fn from(status: MountStat) -> Self {
        match status {
            MountStat::Perm => Self::PERM,
            MountStat::NoEnt => Self::NOENT,
            MountStat::Acces => Self::ACCES,
            MountStat::NotDir => Self::NOTDIR,
            MountStat::Inval => Self::INVAL,
            MountStat::NameTooLong => Self::NAMETOOLONG,
            MountStat::NotSupp => Self::OPNOTSUPP,
            MountStat::ServerFault => Self::REMOTEIO,
            MountStat::Ok | MountStat::Io | MountStat::Unknown(_) => Self::IO,
        }
    }
}

impl From<&CallError> for Errno {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Failed { failure: CallFailure::SoftErr(_), .. } => Self::TIMEDOUT,
            CallError::Failed { failure: CallFailure::Terminal(_), .. } => Self::ACCES,
            CallError::Status { status: ReplyStatus::AuthError(_), .. } => Self::ACCES,
            CallError::Status { status: ReplyStatus::ProcUnavail, .. } => Self::OPNOTSUPP,
            CallError::Status {
                status: ReplyStatus::ProgUnavail | ReplyStatus::ProgMismatch { .. }, ..
            } => Self::PROTONOSUPPORT,
            CallError::Failed { .. }
            | CallError::Status { .. }
            | CallError::Malformed { .. }
            | CallError::ShutDown { .. } => Self::IO,
        }
    }
}

impl From<CallError> for Errno {
    fn from(error: CallError) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_status_keeps_its_meaning() {
        for (status, errno) in [
            (NfsStat::NoEnt, Errno::NOENT),
            (NfsStat::DQuot, Errno::DQUOT),
            (NfsStat::NameTooLong, Errno::NAMETOOLONG),
            (NfsStat::BadHandle, Errno::STALE),
            (NfsStat::Unknown(4711), Errno::IO),
        ] {
            assert_eq!(Errno::from(status), errno, "{status}");
        }
        assert_eq!(Errno::from(MountStat::Acces), Errno::ACCES);
    }

    #[test]
    fn soft_is_eio_and_softerr_is_etimedout() {
        let failed = |failure| Errno::from(CallError::Failed { procedure: "READ", failure });
        assert_eq!(failed(CallFailure::Soft(Duration::from_secs(180))), Errno::IO);
        assert_eq!(failed(CallFailure::SoftErr(Duration::from_secs(180))), Errno::TIMEDOUT);
        assert_eq!(failed(CallFailure::Disconnected), Errno::IO);
    }

    #[test]
    fn a_refused_credential_is_eacces() {
        let status = ReplyStatus::AuthError(remoor_rpc::message::AuthStat::TooWeak);
        assert_eq!(Errno::from(CallError::Status { procedure: "READ", status }), Errno::ACCES);
    }

    #[test]
    fn errors_are_shown_by_name() {
        assert_eq!(Errno::NOTEMPTY.to_string(), "ENOTEMPTY: directory not empty");
        assert_eq!(format!("{:?}", Errno::IO), "EIO");
        assert_eq!(Errno(9999).to_string(), "errno 9999");
    }
}
