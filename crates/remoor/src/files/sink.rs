//! A file that is being written, here or on a server. It gets its name when it is whole.

use std::fs::{self, File, FileTimes, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use remoor_nfs::v3::{self, CreateHow, NfsStat, Sattr, SetTime};
use tokio::task::{JoinSet, spawn_blocking};

use super::folder::{Folder, sattr, setattr, system_time};
use super::item::{Attrs, shown};
use super::read::Chunks;
use super::server::{Object, checked, place, status};
use super::session::Session;
use super::temporary::{self, Temporary};
use super::write::Writer;

/// Writes of a local file in flight.
const IN_FLIGHT: usize = 8;
/// Only its owner may look at a file that is not whole.
const UNFINISHED: u32 = 0o600;

/// A file that is being written.
#[derive(Debug)]
pub(crate) enum Sink {
    Local(Local),
    Remote(Box<Remote>),
}

#[derive(Debug)]
pub(crate) struct Local {
    file: Arc<File>,
    in_flight: JoinSet<std::io::Result<()>>,
    /// Where it is written, and where it is to be.
    at: PathBuf,
    to: PathBuf,
    temporary: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Remote {
    dir: Object,
    file: Object,
    writer: Writer,
    name: Vec<u8>,
    temporary: Option<(u64, Vec<u8>)>,
}

impl Sink {
    /// Begins the file `name` of `folder`, in its place if `inplace`; `small` if it is known to be of one chunk.
    pub(crate) async fn create(
        session: &Session,
        folder: &Folder,
        name: &[u8],
        inplace: bool,
        small: bool,
    ) -> Result<Self> {
        match folder {
            Folder::Local(dir) => Local::create(session, Folder::path(dir, name), inplace).map(Self::Local),
            Folder::Remote(dir) => {
                let remote = Remote::create(session, dir, name, inplace, small).await?;
                Ok(Self::Remote(Box::new(remote)))
            }
        }
    }

    pub(crate) async fn write(&mut self, offset: u64, data: Bytes) -> Result<()> {
        match self {
            Self::Local(local) => local.write(offset, data).await,
            Self::Remote(remote) => remote.writer.write(offset, data).await,
        }
    }

    /// Returns when everything is on stable storage. `size` is given where the end may be a hole.
    pub(crate) async fn finish(&mut self, size: Option<u64>) -> Result<()> {
        match self {
            Self::Local(local) => local.finish(size).await,
            Self::Remote(remote) => {
                remote.writer.finish().await?;
                match size {
                    Some(_) => setattr(&remote.file, Sattr { size, ..Sattr::default() }).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// What was written, from where it was written to.
    pub(crate) fn read_back(&self, size: u64) -> Result<Chunks> {
        match self {
            Self::Remote(remote) => {
                let mut file = remote.file.clone();
                file.attr.size = size;
                Ok(Chunks::remote(&file, 0, None))
            }
            Self::Local(local) => {
                let file =
                    File::open(&local.at).with_context(|| format!("cannot open {}", shown(&local.at)))?;
                Ok(Chunks::local(file, size, shown(&local.at)))
            }
        }
    }

    /// Sets permissions and times, and gives the file its name, replacing what has it.
    pub(crate) async fn publish(
        self,
        session: &Session,
        mode: Option<u32>,
        times: Option<Attrs>,
    ) -> Result<()> {
        match self {
            Self::Local(local) => local.publish(session, mode, times),
            Self::Remote(remote) => remote.publish(session, mode, times).await,
        }
    }

    /// Removes what was written, unless it was written in place.
    pub(crate) async fn discard(self, session: &Session) {
        let (id, temporary) = match self {
            Self::Local(Local { temporary: Some(id), at, .. }) => (id, Temporary::Local(at)),
            Self::Remote(remote) => {
                let Remote { dir, temporary: Some((id, name)), .. } = *remote else { return };
                (id, Temporary::Remote { export: dir.export, dir: dir.handle, name })
            }
            Self::Local(_) => return,
        };
        if temporary.remove().await {
            session.temporaries.forget(id);
        }
    }
}

impl Local {
    fn create(session: &Session, to: PathBuf, inplace: bool) -> Result<Self> {
        let context = || format!("cannot create {}", shown(&to));
        let mut options = File::options();
        options.read(true).write(true);
        let (file, at, temporary) = if inplace {
            (options.create(true).truncate(true).open(&to).with_context(context)?, to.clone(), None)
        } else {
            let dir = to.parent().context("a file is in a directory")?;
            let at = Folder::path(dir, &temporary::name());
            let id = session.temporaries.note(Temporary::Local(at.clone()));
            match options.create_new(true).mode(UNFINISHED).open(&at) {
                Ok(file) => (file, at, Some(id)),
                Err(e) => {
                    session.temporaries.forget(id);
                    return Err(e).with_context(context);
                }
            }
        };
        Ok(Self { file: Arc::new(file), in_flight: JoinSet::new(), at, to, temporary })
    }

    async fn write(&mut self, offset: u64, data: Bytes) -> Result<()> {
        while self.in_flight.len() >= IN_FLIGHT {
            self.reap().await?;
        }
        let file = self.file.clone();
        self.in_flight.spawn_blocking(move || file.write_all_at(&data, offset));
        Ok(())
    }

    async fn reap(&mut self) -> Result<()> {
        match self.in_flight.join_next().await {
            Some(written) => written.context("a write was given up")?.with_context(|| self.cannot("write")),
            None => Ok(()),
        }
    }

    fn cannot(&self, what: &str) -> String {
        format!("cannot {what} {}", shown(&self.to))
    }

    async fn finish(&mut self, size: Option<u64>) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.reap().await?;
        }
        let file = self.file.clone();
        // A rename that reaches the disk before the data would leave an empty file after a crash.
        let synced = spawn_blocking(move || {
            size.map_or(Ok(()), |size| file.set_len(size)).and_then(|()| file.sync_all())
        });
        synced.await.context("a write was given up")?.with_context(|| self.cannot("write"))
    }

    fn publish(self, session: &Session, mode: Option<u32>, times: Option<Attrs>) -> Result<()> {
        if let Some(mode) = mode {
            self.file
                .set_permissions(Permissions::from_mode(mode))
                .with_context(|| self.cannot("set the mode of"))?;
        }
        if let Some(Attrs { atime, mtime, .. }) = times {
            let times = FileTimes::new().set_accessed(system_time(atime)).set_modified(system_time(mtime));
            self.file.set_times(times).with_context(|| self.cannot("set the times of"))?;
        }
        if let Some(id) = self.temporary {
            fs::rename(&self.at, &self.to).with_context(|| self.cannot("replace"))?;
            session.temporaries.forget(id);
        }
        Ok(())
    }
}

impl Remote {
    async fn create(
        session: &Session,
        dir: &Object,
        name: &[u8],
        inplace: bool,
        small: bool,
    ) -> Result<Self> {
        let (at, how) = if inplace {
            (name.to_vec(), CreateHow::Unchecked(Sattr { size: Some(0), ..Sattr::default() }))
        } else {
            // Sent twice it finds its own file, whatever the server remembers (RFC 1813 section 3.3.8).
            let verf = RandomState::new().hash_one(std::process::id()).to_be_bytes();
            (temporary::name(), CreateHow::Exclusive(verf))
        };
        let temporary = (!inplace).then(|| {
            let (export, dir, name) = (dir.export.clone(), dir.handle.clone(), at.clone());
            (session.temporaries.note(Temporary::Remote { export, dir, name }), at.clone())
        });
        let created = async {
            let args = v3::CreateArgs { place: place(&dir.handle, &at), how };
            let res = dir.client().call::<v3::Create>(args).await?;
            checked("cannot create", &dir.url.child(name), res)?;
            dir.lookup(&at).await
        };
        let mut file = match created.await {
            Ok(file) => file,
            Err(error) => {
                // Refused, so that there is nothing to remove.
                if let (Some((id, _)), Some(_)) = (&temporary, status(&error)) {
                    session.temporaries.forget(*id);
                }
                return Err(error);
            }
        };
        file.url = dir.url.child(name);
        let writer = Writer::new(dir.export.clone(), file.handle.clone(), file.url.clone(), small);
        Ok(Self { dir: dir.clone(), file, writer, name: name.to_vec(), temporary })
    }

    async fn publish(self, session: &Session, mode: Option<u32>, times: Option<Attrs>) -> Result<()> {
        let mut attr = sattr(mode, times);
        if times.is_none() && self.temporary.is_some() {
            // An exclusive CREATE may keep its verifier in the times (RFC 1813 section 3.3.8).
            (attr.atime, attr.mtime) = (SetTime::Server, SetTime::Server);
        }
        if attr != Sattr::default() {
            setattr(&self.file, attr).await?;
        }
        if let Some((id, from)) = &self.temporary {
            self.rename(from).await?;
            session.temporaries.forget(*id);
        }
        Ok(())
    }

    async fn rename(&self, from: &[u8]) -> Result<()> {
        let Self { dir, name, file, .. } = self;
        let args = v3::RenameArgs { from: place(&dir.handle, from), to: place(&dir.handle, name) };
        let res = dir.client().call::<v3::Rename>(args).await?;
        match checked("cannot replace", &file.url, res) {
            // Executed, its reply lost, and executed again by a server that keeps no replies.
            Err(error) if status(&error) == Some(NfsStat::NoEnt) => {
                let there = dir.lookup_if_there(name).await?;
                if there.is_some_and(|there| there.handle == file.handle) { Ok(()) } else { Err(error) }
            }
            renamed => renamed.map(drop),
        }
    }
}
