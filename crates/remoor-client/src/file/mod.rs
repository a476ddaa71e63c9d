//! Files by name and handle: everything a copy, a listing or a drill needs, one call each.
//!
//! A server that answers NFS3ERR_JUKEBOX is asked again, with longer and longer pauses, until it has another answer (RFC
//! 1813 section 2.6).
//!
//! | module | subject |
//! |---|---|
//! | `data` | READ, WRITE, COMMIT, and what may be lost between them |
//! | `list` | directories |

mod data;
mod list;

use std::time::Duration;

use bytes::Bytes;
use remoor_nfs::mnt::{self, MountStat};
use remoor_nfs::v3::{self, CreateHow, DirOp, Fattr, FileHandle, NfsStat, Sattr};
use remoor_rpc::program::Procedure;

use crate::call::{CallError, Client};

pub(crate) use data::IoSizes;
pub use data::Unstable;
pub use list::Listing;

/// First pause after NFS3ERR_JUKEBOX.
pub const JUKEBOX_MIN: Duration = Duration::from_millis(100);
/// Longest pause: `NFS_JUKEBOX_RETRY_TIME` of the Linux client.
pub const JUKEBOX_MAX: Duration = Duration::from_secs(5);

/// An operation that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No result.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The server refused.
    #[error("{procedure}: {status}")]
    Nfs {
        /// The procedure.
        procedure: &'static str,
        /// Its status.
        status: NfsStat,
    },
    /// The server refused the mount.
    #[error("mount of {path}: {status}{}", mount_remedy(*status))]
    Mount {
        /// What was to be mounted.
        path: String,
        /// Why not.
        status: MountStat,
    },
    /// The server does not serve MOUNT on the port of NFS.
    #[error("no MOUNT on the port of NFS: give the port of MOUNT, or start the portmapper on the server")]
    NoMountProgram,
    /// The server's answer makes no sense.
    #[error("{procedure}: {what}")]
    Server {
        /// The procedure.
        procedure: &'static str,
        /// What is wrong with the answer.
        what: &'static str,
    },
}

fn mount_remedy(status: MountStat) -> &'static str {
    match status {
        MountStat::Acces => {
            ": the server does not export it to this address, or the export is secure and the source port is above \
             1023 (mount with resvport, or export with insecure)"
        }
        MountStat::NoEnt => ": no such export; see the server's list with showmount -e",
        _ => "",
    }
}

impl Error {
    /// The server's status, if that is the error.
    pub fn status(&self) -> Option<NfsStat> {
        if let Self::Nfs { status, .. } = self { Some(*status) } else { None }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// An object and what the server said of it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its handle.
    pub handle: FileHandle,
    /// Its attributes, if the server sent them.
    pub attr: Option<Fattr>,
}

pub(crate) fn check<T, F>(procedure: &'static str, res: v3::Res<T, F>) -> Result<T> {
    res.into_result().map_err(|status| Error::Nfs { procedure, status })
}

/// What MNT granted for `path`.
pub(crate) fn granted(path: &str, res: mnt::MountRes) -> Result<mnt::MountOk> {
    res.0.map_err(|status| Error::Mount { path: path.to_owned(), status })
}

fn place(dir: &FileHandle, name: &[u8]) -> DirOp {
    DirOp { dir: dir.clone(), name: Bytes::copy_from_slice(name).into() }
}

impl Client {
    /// Calls `P` until the answer is not NFS3ERR_JUKEBOX. Each time is a new call: the server has executed nothing.
    async fn ask<P, T, F>(&self, args: P::Args) -> Result<T>
    where
        P: Procedure<Res = v3::Res<T, F>>,
        P::Args: Clone + Sync,
    {
        let mut pause = JUKEBOX_MIN;
        loop {
            let res = self.call::<P>(args.clone()).await?;
            if res.status() != NfsStat::Jukebox {
                return check(P::NAME, res);
            }
            drop(res);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(JUKEBOX_MAX);
        }
    }

    /// Attributes of an object.
    pub async fn getattr(&self, file: &FileHandle) -> Result<Fattr> {
        Ok(self.ask::<v3::Getattr, _, _>(v3::OnFile { file: file.clone() }).await?.attr)
    }

    /// Sets attributes of an object: what is `None` or [`v3::SetTime::Keep`] stays.
    pub async fn setattr(&self, file: &FileHandle, attr: Sattr) -> Result<()> {
        let args = v3::SetattrArgs { file: file.clone(), attr, guard: None };
        self.ask::<v3::Setattr, _, _>(args).await.map(drop)
    }

    /// Which of the bits `wanted` of [`v3::access`] the server grants.
    pub async fn access(&self, file: &FileHandle, wanted: u32) -> Result<u32> {
        let args = v3::AccessArgs { file: file.clone(), access: wanted };
        Ok(self.ask::<v3::Access, _, _>(args).await?.access & wanted)
    }

    /// Finds `name` in `dir`.
    pub async fn lookup(&self, dir: &FileHandle, name: &[u8]) -> Result<Node> {
        let ok = self.ask::<v3::Lookup, _, _>(place(dir, name)).await?;
        Ok(Node { handle: ok.file, attr: ok.attr })
    }

    /// A symbolic link's text.
    pub async fn readlink(&self, link: &FileHandle) -> Result<Bytes> {
        Ok(self.ask::<v3::Readlink, _, _>(v3::OnFile { file: link.clone() }).await?.path.0)
    }

    /// Creates a regular file with mode 0644; it must not exist.
    pub async fn create(&self, dir: &FileHandle, name: &[u8]) -> Result<Node> {
        let attr = Sattr { mode: Some(0o644), ..Sattr::default() };
        self.create_how(dir, name, CreateHow::Guarded(attr)).await
    }

    /// Creates a regular file, or takes the one that is there, as `how` says. With `UNCHECKED` and a size of 0 an
    /// existing file is emptied.
    pub async fn create_how(&self, dir: &FileHandle, name: &[u8], how: CreateHow) -> Result<Node> {
        let ok = self.ask::<v3::Create, _, _>(v3::CreateArgs { place: place(dir, name), how }).await?;
        self.made(ok, dir, name).await
    }

    /// Makes a directory with mode 0755.
    pub async fn mkdir(&self, dir: &FileHandle, name: &[u8]) -> Result<Node> {
        let attr = Sattr { mode: Some(0o755), ..Sattr::default() };
        let ok = self.ask::<v3::Mkdir, _, _>(v3::MkdirArgs { place: place(dir, name), attr }).await?;
        self.made(ok, dir, name).await
    }

    /// Makes a symbolic link to `text`.
    pub async fn symlink(&self, dir: &FileHandle, name: &[u8], text: &[u8]) -> Result<Node> {
        let path = Bytes::copy_from_slice(text).into();
        let args = v3::SymlinkArgs { place: place(dir, name), attr: Sattr::default(), path };
        let ok = self.ask::<v3::Symlink, _, _>(args).await?;
        self.made(ok, dir, name).await
    }

    /// Gives a file one more name.
    pub async fn link(&self, file: &FileHandle, dir: &FileHandle, name: &[u8]) -> Result<()> {
        let args = v3::LinkArgs { file: file.clone(), to: place(dir, name) };
        self.ask::<v3::Link, _, _>(args).await.map(drop)
    }

    /// A server may leave the handle out of its reply; it is then looked up.
    async fn made(&self, ok: v3::CreateOk, dir: &FileHandle, name: &[u8]) -> Result<Node> {
        match ok.file {
            Some(handle) => Ok(Node { handle, attr: ok.attr }),
            None => self.lookup(dir, name).await,
        }
    }

    /// Gives an object another name, replacing what has it.
    pub async fn rename(&self, from: (&FileHandle, &[u8]), to: (&FileHandle, &[u8])) -> Result<()> {
        let args = v3::RenameArgs { from: place(from.0, from.1), to: place(to.0, to.1) };
        self.ask::<v3::Rename, _, _>(args).await.map(drop)
    }

    /// Removes a name that is not a directory's.
    pub async fn remove(&self, dir: &FileHandle, name: &[u8]) -> Result<()> {
        self.ask::<v3::Remove, _, _>(place(dir, name)).await.map(drop)
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, dir: &FileHandle, name: &[u8]) -> Result<()> {
        self.ask::<v3::Rmdir, _, _>(place(dir, name)).await.map(drop)
    }

    /// How full the file system of an object is.
    pub async fn fsstat(&self, file: &FileHandle) -> Result<v3::FsstatOk> {
        self.ask::<v3::Fsstat, _, _>(v3::OnFile { file: file.clone() }).await
    }

    /// Limits of names and links in the file system of an object.
    pub async fn pathconf(&self, file: &FileHandle) -> Result<v3::PathconfOk> {
        self.ask::<v3::Pathconf, _, _>(v3::OnFile { file: file.clone() }).await
    }
}
