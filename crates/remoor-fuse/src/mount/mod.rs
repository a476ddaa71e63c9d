//! Mounting and unmounting: by mount(2) as root, else by fusermount3.

mod error;
mod fusermount;
mod mountinfo;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno as Raw;
use rustix::mount::{MountFlags as Raised, UnmountFlags};

pub use error::MountError;
pub use mountinfo::{Mounted, mounted};

use crate::device;

/// What every mount has, of mount(8)'s options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags {
    /// `ro`
    pub read_only: bool,
    /// `nosuid`; always for an ordinary user.
    pub nosuid: bool,
    /// `nodev`; always for an ordinary user.
    pub nodev: bool,
    /// `noexec`
    pub noexec: bool,
    /// `noatime`
    pub noatime: bool,
    /// `nodiratime`; left out for an ordinary user.
    pub nodiratime: bool,
}

/// What is mounted where, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// What `/proc/mounts` shows as mounted: `server:/export`.
    pub source: String,
    /// The directory to mount on.
    pub target: PathBuf,
    /// The type is shown as `fuse.` and this.
    pub subtype: String,
    /// Options of the mount.
    pub flags: MountFlags,
    /// Users other than the one who mounts may use it. For an ordinary user `/etc/fuse.conf` must permit it.
    pub allow_other: bool,
    /// The kernel checks permissions by owner, group and mode; else the file system does.
    pub default_permissions: bool,
    /// Longest READ, in bytes; the kernel's own limit if none.
    pub max_read: Option<u32>,
}

impl MountPlan {
    /// A plan with nothing but the defaults, of the type `fuse.remoor`.
    pub fn new(source: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            subtype: "remoor".into(),
            flags: MountFlags::default(),
            allow_other: false,
            default_permissions: false,
            max_read: None,
        }
    }

    /// Options of the file system, which mount(2) and fusermount3 know alike.
    fn common(&self) -> Vec<String> {
        let max_read = self.max_read.map(|bytes| format!("max_read={bytes}"));
        let allow_other = self.allow_other.then(|| "allow_other".to_owned());
        let permissions = self.default_permissions.then(|| "default_permissions".to_owned());
        [allow_other, permissions, max_read].into_iter().flatten().collect()
    }

    /// The options of mount(2) for a connection.
    fn data(&self, device: &OwnedFd) -> String {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let fd = device.as_raw_fd();
        let own = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid}");
        [vec![own], self.common()].concat().join(",")
    }
}

impl MountFlags {
    fn raised(self) -> Raised {
        let all = [
            (self.read_only, Raised::RDONLY),
            (self.nosuid, Raised::NOSUID),
            (self.nodev, Raised::NODEV),
            (self.noexec, Raised::NOEXEC),
            (self.noatime, Raised::NOATIME),
            (self.nodiratime, Raised::NODIRATIME),
        ];
        all.iter().filter(|(on, _)| *on).fold(Raised::empty(), |flags, (_, flag)| flags | *flag)
    }
}

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nothing is in use.
    Plain,
    /// `umount -l`: the name is free at once, and what is in use lives on until closed.
    Lazy,
    /// `umount -f`: the connection is cut, so that whatever waits for it ends with an error; then as `Plain`.
    Force,
}

/// Mounts, and gives the descriptor that a [`crate::Session`] serves. Root needs no program for it, an ordinary user
/// needs fusermount3. The kernel then waits for the session at the first use of the mount.
///
/// # Errors
/// Each says what to do about it.
pub fn mount(plan: &MountPlan) -> Result<OwnedFd, MountError> {
    check_target(&plan.target)?;
    if !rustix::process::geteuid().is_root() {
        return fusermount::mount(plan);
    }
    match mount_directly(plan) {
        Err(MountError::Mount { error, .. }) if is_refused(&error) && fusermount::is_there() => {
            fusermount::mount(plan)
        }
        result => result,
    }
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn mount_directly(plan: &MountPlan) -> Result<OwnedFd, MountError> {
    let device = device::open().map_err(MountError::device)?;
    let options = plan.data(&device);
    let data = CString::new(options.as_str()).map_err(|_| Raw::INVAL);
    let fstype = format!("fuse.{}", plan.subtype);
    let flags = plan.flags.raised();
    let mounting =
        data.and_then(|data| rustix::mount::mount(&plan.source, &plan.target, &fstype, flags, &*data));
    mounting.map_err(|e| MountError::Mount {
        source_name: plan.source.clone(),
        target: plan.target.clone(),
        options,
        error: e.into(),
    })?;
    Ok(device)
}

fn check_target(target: &Path) -> Result<(), MountError> {
    let path = target.to_owned();
    match fs::metadata(target) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(MountError::NotDirectory { path }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(MountError::Missing { path }),
        Err(e) if Raw::from_io_error(&e) == Some(Raw::NOTCONN) => Err(MountError::Stale { path }),
        Err(error) => Err(MountError::Target { path, error }),
    }
}

/// Changes the options of a mount, which takes root: those that are not among `flags` are taken away.
///
/// # Errors
/// What mount(2) says.
pub fn remount(target: &Path, flags: MountFlags) -> Result<(), MountError> {
    let done = rustix::mount::mount_remount(target, flags.raised(), c"");
    done.map_err(|e| MountError::Remount { target: target.to_owned(), error: e.into() })
}

/// Unmounts. Never touches the file system itself, which may not answer.
///
/// # Errors
/// Each says what to do about it.
pub fn unmount(target: &Path, how: Unmount) -> Result<(), MountError> {
    let target = mountinfo::absolute(target);
    if !rustix::process::geteuid().is_root() {
        if how == Unmount::Force {
            abort(&target)?;
        }
        return fusermount::unmount(&target, how == Unmount::Lazy);
    }
    let how = match how {
        Unmount::Plain => UnmountFlags::empty(),
        Unmount::Lazy => UnmountFlags::DETACH,
        Unmount::Force => UnmountFlags::FORCE,
    };
    let done = rustix::mount::unmount(&target, how | UnmountFlags::NOFOLLOW);
    done.map_err(|e| MountError::Unmount { target, error: e.into() })
}

/// Cuts the connection of a mount: what waits for it ends with ECONNABORTED, and its session ends. Whoever mounted may
/// do it, if fusectl is mounted on `/sys/fs/fuse/connections`.
///
/// # Errors
/// If nothing is mounted there, or the file cannot be written.
pub fn abort(target: &Path) -> Result<(), MountError> {
    let target = mountinfo::absolute(target);
    let wrap = |error| MountError::Abort { target: target.clone(), error };
    let found = mounted(&target).map_err(wrap)?;
    let found = found.ok_or_else(|| wrap(io::ErrorKind::NotFound.into()))?;
    fs::write(format!("/sys/fs/fuse/connections/{}/abort", found.minor), "1").map_err(wrap)
}

/// Sets how far a mount reads ahead, in KiB. FUSE_INIT can only make it less than the kernel's usual 128 KiB; more is
/// for root to set at the mount's own bdi. It does not touch the file system, so it can be called before it is served.
///
/// # Errors
/// If nothing is mounted there, or the bdi's file cannot be written, as in a container with a read-only `/sys`.
pub fn set_read_ahead(target: &Path, kib: u32) -> io::Result<()> {
    let target = mountinfo::absolute(target);
    let found = mounted(&target)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("nothing is mounted on {}", target.display()))
    })?;
    let file = format!("/sys/class/bdi/{}:{}/read_ahead_kb", found.major, found.minor);
    let told = |e: io::Error| io::Error::new(e.kind(), format!("cannot write {kib} to {file}: {e}"));
    fs::write(&file, kib.to_string()).map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> MountPlan {
        let flags = MountFlags { read_only: true, noexec: true, ..MountFlags::default() };
        MountPlan {
            flags,
            allow_other: true,
            max_read: Some(65_536),
            ..MountPlan::new("server:/a,b", "/mnt/x")
        }
    }

    #[test]
    fn options_of_the_file_system() {
        assert_eq!(plan().common(), ["allow_other", "max_read=65536"]);
        assert_eq!(
            MountPlan { default_permissions: true, allow_other: false, max_read: None, ..plan() }.common(),
            ["default_permissions"]
        );
        assert_eq!(plan().flags.raised(), Raised::RDONLY | Raised::NOEXEC);
    }

    #[test]
    fn a_target_must_be_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let missing = check_target(&dir.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("mkdir -p"), "{missing}");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let told = check_target(&file).unwrap_err().to_string();
        assert!(told.contains("not a directory") && told.contains("file"), "{told}");
        assert!(check_target(dir.path()).is_ok());
    }

    #[test]
    fn what_is_not_mounted_has_no_read_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let told = set_read_ahead(dir.path(), 1024).unwrap_err().to_string();
        assert!(told.contains("nothing is mounted"), "{told}");
        assert!(abort(dir.path()).is_err());
    }
}
