//! From the kernel's errors to NFS statuses. Nothing else in the server knows errno.

use remoor_nfs::v3::NfsStat;
use rustix::io::Errno;

/// Pairs as knfsd has them (`nfserrno` in fs/nfsd/nfsproc.c), except where a comment says otherwise.
const TABLE: &[(Errno, NfsStat)] = &[
    (Errno::PERM, NfsStat::Perm),
    (Errno::NOENT, NfsStat::NoEnt),
    (Errno::IO, NfsStat::Io),
    (Errno::NXIO, NfsStat::Nxio),
    (Errno::TOOBIG, NfsStat::FBig),
    (Errno::BADF, NfsStat::Stale),
    (Errno::ACCESS, NfsStat::Acces),
    (Errno::EXIST, NfsStat::Exist),
    (Errno::XDEV, NfsStat::XDev),
    (Errno::NODEV, NfsStat::NoDev),
    (Errno::NOTDIR, NfsStat::NotDir),
    (Errno::ISDIR, NfsStat::IsDir),
    (Errno::INVAL, NfsStat::Inval),
    (Errno::FBIG, NfsStat::FBig),
    (Errno::NOSPC, NfsStat::NoSpc),
    (Errno::ROFS, NfsStat::RoFs),
    (Errno::MLINK, NfsStat::MLink),
    (Errno::NAMETOOLONG, NfsStat::NameTooLong),
    (Errno::NOTEMPTY, NfsStat::NotEmpty),
    (Errno::DQUOT, NfsStat::DQuot),
    (Errno::STALE, NfsStat::Stale),
    // A mount point is in the way: knfsd has the same status for version 3.
    (Errno::BUSY, NfsStat::Acces),
    // The server follows no symbolic link; one where something else was needed is the client's mistake.
    (Errno::LOOP, NfsStat::Inval),
    (Errno::OVERFLOW, NfsStat::Inval),
    (Errno::NOKEY, NfsStat::Acces),
    (Errno::OPNOTSUPP, NfsStat::NotSupp),
    (Errno::NOSYS, NfsStat::NotSupp),
    (Errno::NOTTY, NfsStat::NotSupp),
    // What passes: the client waits and sends the call again.
    (Errno::AGAIN, NfsStat::Jukebox),
    (Errno::INTR, NfsStat::Jukebox),
    (Errno::NOMEM, NfsStat::Jukebox),
    (Errno::NFILE, NfsStat::Jukebox),
    (Errno::MFILE, NfsStat::Jukebox),
    (Errno::TIMEDOUT, NfsStat::Jukebox),
    // Being executed, so not writable now.
    (Errno::TXTBSY, NfsStat::Jukebox),
];

/// The status that tells a client of `errno`; NFS3ERR_IO where RFC 1813 section 2.6 has none for it.
pub fn status(errno: Errno) -> NfsStat {
    TABLE.iter().find(|(known, _)| *known == errno).map_or(NfsStat::Io, |(_, status)| *status)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statuses of RFC 1813 section 2.6 that carry an errno's name; the numbers are Linux's (asm-generic/errno.h).
    #[test]
    fn statuses_named_after_an_errno_are_its_translation() {
        let named = [
            (1, NfsStat::Perm),
            (2, NfsStat::NoEnt),
            (5, NfsStat::Io),
            (6, NfsStat::Nxio),
            (13, NfsStat::Acces),
            (17, NfsStat::Exist),
            (18, NfsStat::XDev),
            (19, NfsStat::NoDev),
            (20, NfsStat::NotDir),
            (21, NfsStat::IsDir),
            (22, NfsStat::Inval),
            (27, NfsStat::FBig),
            (28, NfsStat::NoSpc),
            (30, NfsStat::RoFs),
            (31, NfsStat::MLink),
            (36, NfsStat::NameTooLong),
            (39, NfsStat::NotEmpty),
            (95, NfsStat::NotSupp),
            (116, NfsStat::Stale),
            (122, NfsStat::DQuot),
        ];
        for (raw, expected) in named {
            assert_eq!(status(Errno::from_raw_os_error(raw)), expected, "errno {raw}");
        }
    }

    #[test]
    fn every_errno_is_a_failure() {
        for raw in 1..4096 {
            assert_ne!(status(Errno::from_raw_os_error(raw)), NfsStat::Ok, "errno {raw}");
        }
    }

    #[test]
    fn no_errno_is_listed_twice() {
        for (n, (errno, _)) in TABLE.iter().enumerate() {
            assert!(TABLE[..n].iter().all(|(other, _)| other != errno), "{errno:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_rfc_is_an_io_error() {
        assert_eq!(status(Errno::UCLEAN), NfsStat::Io);
        assert_eq!(status(Errno::PIPE), NfsStat::Io);
    }
}
