//! Where copies go: a directory, here or on a server.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use remoor_nfs::v3::{self, FileType, NfsStat, Sattr, SetTime, Time};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::item::{Attrs, shown};
use super::server::{Object, checked, place, status};

/// A directory that copies are put into.
#[derive(Debug, Clone)]
pub(crate) enum Folder {
    Local(PathBuf),
    Remote(Object),
}

/// What a name stands for already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Existing {
    pub(crate) directory: bool,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl Folder {
    /// The local path of `name` in `dir`.
    pub(crate) fn path(dir: &Path, name: &[u8]) -> PathBuf {
        dir.join(std::ffi::OsStr::from_bytes(name))
    }

    /// What `name` stands for. A link stands for itself.
    pub(crate) async fn existing(&self, name: &[u8]) -> Result<Option<Existing>> {
        match self {
            Self::Remote(dir) => Ok(dir
                .lookup_if_there(name)
                .await?
                .map(|found| Existing { directory: found.is_dir(), mode: found.attr.mode })),
            Self::Local(dir) => match fs::symlink_metadata(Self::path(dir, name)) {
                Ok(meta) => Ok(Some(Existing { directory: meta.is_dir(), mode: meta.mode() & 0o7777 })),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e).with_context(|| format!("cannot look at {}", shown(&Self::path(dir, name)))),
            },
        }
    }

    /// The directory `name`; it is made unless it is there, which is told.
    pub(crate) async fn mkdir(&self, name: &[u8], mode: u32) -> Result<(Self, bool)> {
        match self {
            Self::Remote(dir) => remote_mkdir(dir, name, mode).await,
            Self::Local(dir) => local_mkdir(&Self::path(dir, name), mode),
        }
    }

    /// Makes the symbolic link `name`, in place of what is no directory.
    pub(crate) async fn symlink(&self, name: &[u8], target: &[u8], times: Option<Attrs>) -> Result<()> {
        match self.existing(name).await? {
            Some(Existing { directory: true, .. }) => {
                bail!("{} is a directory; a link cannot replace it", self.shown(name))
            }
            Some(_) => self.remove(name).await?,
            None => {}
        }
        match self {
            Self::Remote(dir) => remote_symlink(dir, name, target, times).await,
            Self::Local(dir) => local_symlink(&Self::path(dir, name), target, times),
        }
    }

    async fn remove(&self, name: &[u8]) -> Result<()> {
        match self {
            Self::Remote(dir) => remove(dir, name).await,
            Self::Local(dir) => {
                let path = Self::path(dir, name);
                fs::remove_file(&path).with_context(|| format!("cannot replace {}", shown(&path)))
            }
        }
    }

    /// Sets permissions, and times if `times`.
    pub(crate) async fn set(&self, mode: u32, times: Option<Attrs>) -> Result<()> {
        match self {
            Self::Remote(dir) => setattr(dir, sattr(Some(mode), times)).await,
            Self::Local(dir) => {
                let done = fs::set_permissions(dir, Permissions::from_mode(mode));
                done.and_then(|()| times.map_or(Ok(()), |times| set_local_times(dir, &times)))
                    .with_context(|| format!("cannot set mode and times of {}", shown(dir)))
            }
        }
    }

    /// The name in this directory, as people are told.
    pub(crate) fn shown(&self, name: &[u8]) -> String {
        match self {
            Self::Local(dir) => shown(&Self::path(dir, name)),
            Self::Remote(dir) => dir.url.child(name).to_string(),
        }
    }
}

/// Removes what is no directory.
pub(crate) async fn remove(dir: &Object, name: &[u8]) -> Result<()> {
    let res = dir.client().call::<v3::Remove>(place(&dir.handle, name)).await?;
    checked("cannot remove", &dir.url.child(name), res).map(drop)
}

/// What SETATTR is to set.
pub(crate) fn sattr(mode: Option<u32>, times: Option<Attrs>) -> Sattr {
    let set =
        |time: fn(&Attrs) -> Time| times.as_ref().map_or(SetTime::Keep, |attrs| SetTime::Client(time(attrs)));
    Sattr { mode, atime: set(|attrs| attrs.atime), mtime: set(|attrs| attrs.mtime), ..Sattr::default() }
}

pub(crate) async fn setattr(object: &Object, attr: Sattr) -> Result<()> {
    let args = v3::SetattrArgs { file: object.handle.clone(), attr, guard: None };
    let res = object.client().call::<v3::Setattr>(args).await?;
    checked("cannot set the attributes of", &object.url, res).map(drop)
}

async fn remote_mkdir(dir: &Object, name: &[u8], mode: u32) -> Result<(Folder, bool)> {
    let attr = Sattr { mode: Some(mode), ..Sattr::default() };
    let args = v3::MkdirArgs { place: place(&dir.handle, name), attr };
    let res = dir.client().call::<v3::Mkdir>(args).await?;
    let made = checked("cannot make the directory", &dir.url.child(name), res);
    let existed = match made {
        Ok(_) => false,
        Err(error) if status(&error) == Some(NfsStat::Exist) => true,
        Err(error) => return Err(error),
    };
    let found = dir.lookup(name).await?;
    if found.attr.kind != FileType::Directory {
        bail!("{} is not a directory; a directory cannot replace it", found.url);
    }
    Ok((Folder::Remote(found), existed))
}

fn local_mkdir(path: &Path, mode: u32) -> Result<(Folder, bool)> {
    let existed = match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => false,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => true,
        Err(e) => return Err(e).with_context(|| format!("cannot make the directory {}", shown(path))),
    };
    // A link to a directory is none: it may lead out of what is copied into.
    if existed && !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        bail!("{} is not a directory; a directory cannot replace it", shown(path));
    }
    Ok((Folder::Local(path.to_owned()), existed))
}

async fn remote_symlink(dir: &Object, name: &[u8], target: &[u8], times: Option<Attrs>) -> Result<()> {
    let attr = sattr(Some(0o777), times);
    let path = bytes::Bytes::copy_from_slice(target).into();
    let args = v3::SymlinkArgs { place: place(&dir.handle, name), attr, path };
    let res = dir.client().call::<v3::Symlink>(args).await?;
    checked("cannot make the link", &dir.url.child(name), res)?;
    if times.is_some() {
        // Not every file system can set the times of a link, and nothing depends on them.
        let _ = setattr(&dir.lookup(name).await?, sattr(None, times)).await;
    }
    Ok(())
}

fn local_symlink(path: &Path, target: &[u8], times: Option<Attrs>) -> Result<()> {
    let made = std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path);
    made.and_then(|()| times.map_or(Ok(()), |times| set_local_times(path, &times)))
        .with_context(|| format!("cannot make the link {}", shown(path)))
}

/// Sets the times of a local object, of a link itself.
pub(crate) fn set_local_times(path: &Path, attrs: &Attrs) -> std::io::Result<()> {
    let time = |time: Time| Timespec { tv_sec: i64::from(time.seconds), tv_nsec: i64::from(time.nanos) };
    let times = Timestamps { last_access: time(attrs.atime), last_modification: time(attrs.mtime) };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// As the standard library has times.
pub(crate) fn system_time(time: Time) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::new(u64::from(time.seconds), time.nanos.min(999_999_999))
}
