//! What can go wrong with a mount, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why nothing was mounted, unmounted or changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each says what its fields are")]
pub enum MountError {
    /// The directory is not there.
    #[error("cannot mount on {path}: there is no such directory; make it with: mkdir -p {path}", path = .path.display())]
    Missing { path: PathBuf },
    /// It is something else.
    #[error("cannot mount on {}: it is not a directory", .path.display())]
    NotDirectory { path: PathBuf },
    /// A mount whose process is gone is still there.
    #[error(
        "cannot mount on {path}: the process of an earlier mount there is gone; remove that with: umount -l {path} \
         (or, as the user who mounted: fusermount3 -u -z {path})",
        path = .path.display()
    )]
    Stale { path: PathBuf },
    /// It cannot be looked at.
    #[error("cannot mount on {}: {error}", .path.display())]
    Target { path: PathBuf, error: io::Error },
    /// The kernel has no FUSE.
    #[error(
        "cannot open /dev/fuse: it is not there; load the module with: modprobe fuse (in a container: pass the device in)"
    )]
    NoDevice,
    /// The device cannot be used.
    #[error(
        "cannot open /dev/fuse: {error}; its mode should be 0666, and a container must be permitted to use it"
    )]
    Device { error: io::Error },
    /// mount(2) failed.
    #[error("cannot mount {source_name} on {} with {options}: {error}", .target.display())]
    Mount { source_name: String, target: PathBuf, options: String, error: io::Error },
    /// There is no fusermount3.
    #[error(
        "cannot {what} {}: an ordinary user needs the program fusermount3; install the package fuse3, or do it as root",
        .target.display()
    )]
    NoFusermount { what: &'static str, target: PathBuf },
    /// fusermount3 could not be run.
    #[error("cannot {what} {}: running fusermount3 failed: {error}", .target.display())]
    Fusermount { what: &'static str, target: PathBuf, error: io::Error },
    /// The administrator has not permitted it.
    #[error(
        "cannot mount on {} with allow_other: ordinary users may use it only if /etc/fuse.conf has the line \
         user_allow_other; add that as root, or leave allow_other out",
        .target.display()
    )]
    AllowOther { target: PathBuf },
    /// The directory belongs to somebody else.
    #[error(
        "cannot mount on {}: an ordinary user can mount only on a directory that he may write to ({said}); choose one \
         of your own, or do it as root",
        .target.display()
    )]
    NotOwned { target: PathBuf, said: String },
    /// fusermount3 refused.
    #[error("cannot {what} {}: fusermount3 says: {said}", .target.display())]
    Refused { what: &'static str, target: PathBuf, said: String },
    /// Changing options failed.
    #[error("cannot change the options of the mount on {}: {error}", .target.display())]
    Remount { target: PathBuf, error: io::Error },
    /// umount(2) failed.
    #[error("cannot unmount {target}: {error}{}", remedy(.error, .target), target = .target.display())]
    Unmount { target: PathBuf, error: io::Error },
    /// The connection could not be cut.
    #[error(
        "cannot cut the connection of {}: {error}; it needs fusectl on /sys/fs/fuse/connections \
         (mount -t fusectl none /sys/fs/fuse/connections) and the user who mounted, or root",
        .target.display()
    )]
    Abort { target: PathBuf, error: io::Error },
}

impl MountError {
    /// Why `/dev/fuse` could not be opened.
    pub(super) fn device(error: io::Error) -> Self {
        use rustix::io::Errno;
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Self::NoDevice,
            _ => Self::Device { error },
        }
    }
}

fn remedy(error: &io::Error, target: &std::path::Path) -> String {
    use rustix::io::Errno;
    let target = target.display();
    match Errno::from_io_error(error) {
        Some(Errno::BUSY) => {
            format!("; see who uses it with: fuser -vm {target}, or detach it with: umount -l {target}")
        }
        Some(Errno::INVAL) => "; nothing is mounted there".into(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_remedy() {
        let of = |number| io::Error::from_raw_os_error(number);
        let busy = MountError::Unmount { target: "/mnt".into(), error: of(16) }.to_string();
        assert!(busy.contains("umount -l /mnt"), "{busy}");
        let none = MountError::Unmount { target: "/mnt".into(), error: of(22) }.to_string();
        assert!(none.ends_with("nothing is mounted there"), "{none}");
        assert!(MountError::device(of(2)).to_string().contains("modprobe fuse"));
        assert!(MountError::device(of(13)).to_string().contains("0666"));
    }
}
