//! Making a mount, from the options to a mount point that can be used; and what can be done with it then.
//!
//! | module | subject |
//! |---|---|
//! | `server` | connecting to the server, and asking it for the export |

mod server;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use remoor_client::Client;
use remoor_fuse::{MountError, MountFlags, MountPlan, Unmount};
use remoor_nfs::v3::FileHandle;
use tokio::runtime;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::control::{self, Changes, MountEntry, mountinfo};
use crate::errno::Errno;
use crate::fs::Fs;
use crate::fs::silly::{self, Journal};
use crate::fuse::{Adapter, ToKernel};
use crate::options::{Flags, MountOptions, RemountError, Spec};
use crate::status::Status;

/// How far the kernel reads ahead, in KiB: one request of the size that the kernel has at most by default. At its usual
/// 128 KiB a stream costs eight times as many.
const READ_AHEAD_KIB: u32 = 1024;

/// What is to be mounted.
#[derive(Debug, Clone)]
pub struct Mounting {
    /// As it was written, and as /proc/mounts will show it.
    pub source: String,
    /// Server and export.
    pub spec: Spec,
    /// How, with what holds for the user who mounts ([`MountOptions::mounted_by`]).
    pub options: MountOptions,
    /// Mount point: an absolute path without symbolic links.
    pub target: PathBuf,
    /// Where it is noted which names of open files a crash would leave on the server; nowhere if none.
    pub journals: Option<PathBuf>,
}

/// Why a try did not make a mount.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The server did not answer; it may later.
    #[error("{0}")]
    ForNow(String),
    /// It would be refused again.
    #[error("{0}")]
    ForGood(String),
    /// Who asks may not mount here.
    #[error("{0}")]
    NotPermitted(String),
}

/// How a mount has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was unmounted.
    Unmounted,
    /// It cannot be served any more, for this reason.
    Failed(String),
}

impl Mounting {
    /// Tries once, and waits for the server no longer than `within`. `trying` is told what is tried.
    pub async fn attempt(
        &self,
        within: Duration,
        trying: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Mounted, Refused> {
        let server = server::reach(&self.spec, &self.options, within, Arc::new(trying)).await?;
        let kernel = Arc::new(ToKernel::default());
        let (client, root) = (server.client.clone(), server.root.clone());
        let journal = self.journal(&client, &root);
        let fs = Fs::with_journal(client, root, self.options.fs_config(), kernel.clone(), journal);
        // The server has answered a moment ago, and may have gone since.
        let fs = tokio::time::timeout(within, fs).await.unwrap_or(Err(Errno::IO));
        let fs = fs.map_err(|error| Refused::ForNow(format!("the root of {}: {error}", self.source)))?;
        let made = self.mount().await?;
        self.serve(server, fs, &kernel, made)
    }

    /// The journal of this mount. What mounts that crashed have left is removed meanwhile: it is nothing to wait for.
    fn journal(&self, client: &Client, root: &FileHandle) -> Journal {
        let Some(dir) = &self.journals else { return Journal::none() };
        if !self.options.flags.read_only {
            tokio::spawn(clean_up(dir.clone(), root.clone(), client.clone()));
        }
        Journal::create(dir, root).unwrap_or_else(|e| {
            tracing::warn!(
                "removed files that are open stay on the server after a crash: {}: {e}",
                dir.display()
            );
            Journal::none()
        })
    }

    /// Off this thread, because fusermount3 is a program, and the mount point may lie on a file system that hangs. If
    /// nobody waits for it any more, the mount is taken away as soon as it is made.
    async fn mount(&self) -> Result<Made, Refused> {
        let plan = self.plan();
        let mounting = spawn_blocking(move || Made::new(&plan)).await;
        let mounting = mounting.map_err(|e| Refused::ForGood(format!("mounting has broken off: {e}")))?;
        mounting.map_err(|error| match &error {
            MountError::AllowOther { .. } | MountError::NotOwned { .. } => {
                Refused::NotPermitted(error.to_string())
            }
            _ => Refused::ForGood(error.to_string()),
        })
    }

    fn plan(&self) -> MountPlan {
        MountPlan {
            flags: raised(self.options.flags),
            allow_other: self.options.allow_other == Some(true),
            default_permissions: self.options.default_permissions,
            ..MountPlan::new(self.source.clone(), self.target.clone())
        }
    }

    fn serve(
        &self,
        server: remoor_client::mount::Mounted,
        fs: Arc<Fs>,
        kernel: &ToKernel,
        mut made: Made,
    ) -> Result<Mounted, Refused> {
        let broken = |e: io::Error| Refused::ForGood(format!("cannot serve the mount: {e}"));
        let session = remoor_fuse::Session::new(
            made.device.try_clone().map_err(broken)?,
            Arc::new(Adapter::new(fs.clone())),
            remoor_fuse::Config::default(),
        );
        let session = session.map_err(broken)?;
        kernel.attach(session.notifier());
        if let Err(error) = remoor_fuse::set_read_ahead(&self.target, READ_AHEAD_KIB) {
            // Only root may.
            tracing::debug!("the kernel reads ahead as it does by default: {error}");
        }
        let entry = mountinfo::at(&self.target).map_err(broken)?;
        let entry = entry.ok_or_else(|| Refused::ForGood("it was unmounted at once".to_owned()))?;
        let shared = Shared {
            mounting: self.clone(),
            device: entry.device,
            server,
            fs,
            runtime: runtime::Handle::current(),
            options: Mutex::new(self.options.clone()),
            since: (Instant::now(), SystemTime::now()),
        };
        made.target = None;
        Ok(Mounted { handle: Handle(Arc::new(shared)), session: tokio::spawn(session.run()) })
    }
}

/// A mount that nobody serves yet. Dropped so, it is taken away: whoever comes there would wait for nobody.
struct Made {
    device: OwnedFd,
    /// `None` once it is served.
    target: Option<PathBuf>,
}

impl Made {
    fn new(plan: &MountPlan) -> Result<Self, MountError> {
        Ok(Self { device: remoor_fuse::mount(plan)?, target: Some(plan.target.clone()) })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(target) = self.target.take()
            && let Err(error) = remoor_fuse::unmount(&target, Unmount::Lazy)
        {
            tracing::error!("{error}");
        }
    }
}

async fn clean_up(dir: PathBuf, root: FileHandle, client: Client) {
    match silly::clean_up(&dir, &root, &client).await {
        Ok(0) => {}
        Ok(names) => tracing::info!("removed {names} files that an earlier mount left behind"),
        Err(e) => tracing::debug!("what earlier mounts left behind is not known: {}: {e}", dir.display()),
    }
}

fn raised(flags: Flags) -> MountFlags {
    let Flags { read_only, nosuid, nodev, noexec } = flags;
    MountFlags { read_only, nosuid, nodev, noexec, ..MountFlags::default() }
}

/// A mount that can be used, served by the runtime it was made on.
pub struct Mounted {
    handle: Handle,
    session: JoinHandle<io::Result<remoor_fuse::Ended>>,
}

impl Mounted {
    /// `major:minor` of its device.
    pub fn device(&self) -> &str {
        &self.handle.0.device
    }

    /// For other tasks and threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// When the mount has ended. The future may be dropped, and asked for again.
    pub async fn served(&mut self) -> Ended {
        match (&mut self.session).await {
            Ok(Ok(remoor_fuse::Ended::Unmounted)) => Ended::Unmounted,
            Ok(Ok(remoor_fuse::Ended::Aborted)) => {
                Ended::Failed("its connection was aborted through /sys/fs/fuse/connections".to_owned())
            }
            Ok(Err(e)) => Ended::Failed(e.to_string()),
            Err(e) => Ended::Failed(format!("an error in remoor itself: {e}")),
        }
    }
}

/// Looks at a mount and changes it, from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    mounting: Mounting,
    device: String,
    server: remoor_client::mount::Mounted,
    fs: Arc<Fs>,
    runtime: runtime::Handle,
    /// As they are now.
    options: Mutex<MountOptions>,
    since: (Instant, SystemTime),
}

impl Handle {
    /// What the mount does. Asks nobody.
    pub fn status(&self) -> Status {
        let Shared { mounting, device, server, fs, since, .. } = &*self.0;
        let since_1970 = since.1.duration_since(UNIX_EPOCH).unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            source: mounting.source.clone(),
            target: mounting.target.to_string_lossy().into_owned(),
            device: device.clone(),
            options: self.options().to_string(),
            mounted_unix_ms: since_1970.as_millis() as u64,
            mounted_secs: since.0.elapsed().as_secs_f64(),
            client: server.client.snapshot(),
            counted: fs.counted(),
            kept: fs.kept(),
        }
    }

    /// Uses these options from now on, as far as they can be changed. Flags of the mount are the caller's to set.
    pub fn remount(&self, options: &str, sloppy: bool) -> Result<Changes, RemountError> {
        let mut current = self.options();
        let remount = current.remount(options, sloppy)?;
        let (client, connection) = (self.0.server.client.clone(), remount.options.connection.clone());
        self.0.runtime.spawn(async move {
            if let Err(error) = client.reconfigure(&connection).await {
                tracing::error!("the connection keeps its options: {error}");
            }
        });
        self.0.fs.reconfigure(remount.options.fs_config());
        let flags = remount.options.flags;
        *current = remount.options;
        Ok(Changes { removed: remount.removed, added: remount.added, flags: flags.into() })
    }

    /// Writes back what was written, for at most this long. Tells whether all of it was.
    pub async fn flush(&self, within: Duration) -> bool {
        self.0.fs.write_back(within).await
    }

    /// Takes the mount away from its mount point. Files that are open are served on.
    pub async fn unmount(&self) -> Result<(), MountError> {
        let (target, device) = (self.0.mounting.target.clone(), self.0.device.clone());
        let unmounting = spawn_blocking(move || match mountinfo::at(&target) {
            // Another mount may cover it by now, or it is gone.
            Ok(Some(entry)) if entry.device == device => remoor_fuse::unmount(&target, Unmount::Lazy),
            _ => Ok(()),
        });
        unmounting.await.unwrap_or(Ok(()))
    }

    /// Takes away what is left of a mount that has ended: `umount -f` of a mount in use, and an abort, leave it at its
    /// place. Another mount may be there by now, and even have its device number.
    pub async fn clear_away(&self) -> Result<(), MountError> {
        let (target, device) = (self.0.mounting.target.clone(), self.0.device.clone());
        let clearing = spawn_blocking(move || match mountinfo::at(&target) {
            Ok(Some(entry)) if entry.device == device && control::is_cut(&target) => {
                remoor_fuse::unmount(&target, Unmount::Lazy)
            }
            _ => Ok(()),
        });
        clearing.await.unwrap_or(Ok(()))
    }

    /// Tells the server that the export is not mounted here any more. It need not hear it, and has little time.
    pub async fn tell_server(&self) {
        if !self.0.server.unmount().await {
            tracing::debug!("the server was not told of the unmount");
        }
    }

    fn options(&self) -> MutexGuard<'_, MountOptions> {
        self.0.options.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the kernel use these flags for a mount, which takes root. The mount of an ordinary user stays without set-user-ID
/// programs and devices, as fusermount3 made it, whatever the process that serves it says.
pub fn set_flags(mount: &MountEntry, flags: Flags) -> Result<(), MountError> {
    remoor_fuse::remount(&mount.target, raised(permitted(mount, flags)))
}

fn permitted(mount: &MountEntry, flags: Flags) -> Flags {
    let of_user = mount.user != 0;
    Flags { nosuid: flags.nosuid || of_user, nodev: flags.nodev || of_user, ..flags }
}

/// Takes away a mount of ours whose process is gone, and tells whether it was such a one.
///
/// # Errors
/// If it cannot be unmounted.
pub fn remove_dead(mount: &MountEntry) -> Result<bool, MountError> {
    if !control::is_dead(mount) {
        return Ok(false);
    }
    remoor_fuse::unmount(&mount.target, Unmount::Lazy).map(|()| true)
}

impl Refused {
    /// Whether another try may have another outcome.
    pub fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::ForNow(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_mount_never_gets_set_user_id_programs_or_devices() {
        let of = |user| MountEntry {
            device: "0:57".to_owned(),
            target: "/m".into(),
            source: "h:/e".into(),
            options: String::new(),
            user,
        };
        let asked = Flags { read_only: true, ..Flags::default() };
        assert_eq!(permitted(&of(1000), asked), Flags { nosuid: true, nodev: true, ..asked });
        assert_eq!(permitted(&of(0), asked), asked);
    }
}
