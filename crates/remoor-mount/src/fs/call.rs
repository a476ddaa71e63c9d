//! One call to the server, and what its reply tells of the objects involved.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use remoor_client::{CallError, Client};
use remoor_nfs::v3::{self, Fattr, FileHandle, MAX_IO, NfsStat, OnFile, Res, WccData};
use remoor_rpc::program::Procedure;

use super::attributes::{Keep, Learned, Stamp};
use super::credentials::Credentials;
use super::data::Pool;
use super::directory::{Directories, MAX_CHUNK, MIN_CHUNK};
use super::leaving::Leaving;
use super::lookup::Names;
use super::node::{Node, Nodes};
use super::open::Opens;
use super::silly::{Journal, Unique};
use super::{Config, Credential, Fs, Kernel, Lacks, Limits, MAX_NAME, ROOT};
use crate::errno::Errno;
use crate::status::Counters;

/// First and longest wait before an operation that was answered with NFS3ERR_JUKEBOX is tried again.
const JUKEBOX: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Now, on the clock timers run by.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Fs {
    /// The file system under `root`, which `client` has mounted.
    pub async fn new(
        client: Client,
        root: FileHandle,
        config: Config,
        kernel: Arc<dyn Kernel>,
    ) -> Result<Arc<Self>, Errno> {
        Self::with_journal(client, root, config, kernel, Journal::none()).await
    }

    /// As [`Fs::new`]; `journal` keeps the names that a crash would leave behind.
    pub async fn with_journal(
        client: Client,
        root: FileHandle,
        config: Config,
        kernel: Arc<dyn Kernel>,
        journal: Journal,
    ) -> Result<Arc<Self>, Errno> {
        let credentials = Credentials::new(config.several_users);
        let own = credentials.own();
        let on_root = OnFile { file: root.clone() };
        let got = client.call_as::<v3::Getattr>(&own.auth, on_root.clone()).await?;
        let attr = got.into_result()?.attr;
        let info = client.call_as::<v3::Fsinfo>(&own.auth, on_root.clone()).await?;
        let paths = client.call_as::<v3::Pathconf>(&own.auth, on_root).await?;
        let limits = Limits::new(&config, info.into_result().ok(), paths.into_result().ok());
        let fs = Self {
            nodes: Nodes::new(&root, &attr),
            credentials,
            opens: Opens::default(),
            data: Pool::default(),
            directories: Directories::default(),
            lacks: Lacks::default(),
            journal,
            leaving: Leaving::default(),
            questions: AtomicU64::new(1),
            unique: Unique::new(),
            client,
            config: ArcSwap::from_pointee(config),
            counters: Counters::default(),
            limits,
            kernel,
        };
        let root = fs.nodes.get(ROOT)?;
        fs.learn(&root, &attr, fs.ask());
        Ok(Arc::new(fs))
    }

    /// The stamp of a question that is asked now.
    pub(crate) fn ask(&self) -> Stamp {
        Stamp { order: self.questions.fetch_add(1, Relaxed), at: now() }
    }

    /// Does `work` to its end, also when nobody waits for it any more: it consists of several calls, and half of them
    /// is worse than none.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        work: impl Future<Output = Result<T, Errno>> + Send + 'static,
    ) -> Result<T, Errno> {
        tokio::spawn(work).await.unwrap_or(Err(Errno::IO))
    }

    /// Calls `P`. NFS3ERR_JUKEBOX is not returned: it means "not yet".
    pub(crate) async fn call<P, T, F>(&self, who: &Credential, args: P::Args) -> Result<Res<T, F>, Errno>
    where
        P: Procedure<Res = Res<T, F>>,
        P::Args: Clone,
    {
        let (mut wait, longest) = JUKEBOX;
        let since = now();
        loop {
            let reply = self.client.call_as::<P>(&who.auth, args.clone()).await;
            let reply = reply.map_err(|error| no_result(&error))?;
            if reply.status() != NfsStat::Jukebox {
                return Ok(reply);
            }
            if self.config().patience.is_some_and(|patience| now() - since + wait > patience) {
                return Err(Errno::from(NfsStat::Jukebox));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
    }

    /// The error of an operation on `node` that was answered with `status`.
    pub(crate) fn refused(&self, node: &Node, status: NfsStat) -> Errno {
        let errno = Errno::from(status);
        if errno == Errno::STALE {
            self.is_stale(node);
        }
        errno
    }

    /// The server does not know the handle of `node` any more: the name that led to it is looked up again next time.
    pub(crate) fn is_stale(&self, node: &Node) {
        node.set_stale();
        node.state().attributes.expire();
        if node.id == ROOT {
            tracing::error!(
                "the server does not know the root of this mount any more (ESTALE): unmount, and mount again"
            );
        }
        let Some(place) = node.place() else { return };
        if let Ok(parent) = self.nodes.get(place.parent) {
            parent.state().names.get_or_insert_default().remove(&place.name);
        }
        self.kernel.invalidate_entry(place.parent, &place.name);
    }

    /// The rules by which attributes of `node` are kept.
    pub(crate) fn keep(&self, node: &Node) -> Keep {
        Keep::of(&self.config(), node.kind)
    }

    /// A reply to a question asked at `asked` told attributes of `node`.
    pub(crate) fn learn(&self, node: &Node, attr: &Fattr, asked: Stamp) {
        if (attr.kind, attr.fileid) != (node.kind, node.fileid) {
            // The server has given the handle to something else.
            return self.is_stale(node);
        }
        let learned = node.state().attributes.learn(attr, asked, self.keep(node));
        self.react(node, learned, asked);
    }

    /// As [`Fs::learn`], of what a reply may leave out.
    pub(crate) fn learn_if_told(&self, node: &Node, attr: Option<&Fattr>, asked: Stamp) {
        if let Some(attr) = attr {
            self.learn(node, attr, asked);
        }
    }

    /// Begins a change of `node` by us; to be ended with what the reply tells.
    pub(crate) fn change<'a>(&'a self, node: &'a Node) -> Change<'a> {
        node.state().attributes.begin_change();
        Change { fs: self, node, asked: self.ask(), ended: false }
    }

    fn react(&self, node: &Node, learned: Learned, asked: Stamp) {
        match learned {
            Learned::Nothing | Learned::Ours => {}
            Learned::Theirs if node.is_dir() => self.directory_changed(node, asked),
            Learned::Theirs => {
                node.state().changed = true;
                self.data_changed(node);
                self.kernel.invalidate_data(node.id);
            }
        }
    }

    fn directory_changed(&self, dir: &Node, asked: Stamp) {
        let names = dir.state().names.get_or_insert_default().forget_all(asked.order);
        self.kernel.invalidate_attributes(dir.id);
        for name in names {
            self.kernel.invalidate_entry(dir.id, &name);
        }
    }

    /// What is known of names in `dir`, after a change of ours to them.
    pub(crate) fn our_name(&self, dir: &Node, change: impl FnOnce(&mut Names)) {
        let fence = self.ask().order;
        let mut state = dir.state();
        let names = state.names.get_or_insert_default();
        names.fence(fence);
        change(names);
    }
}

/// A change of ours to a node that is not answered yet. Dropped, it may have happened or not.
#[derive(Debug)]
#[must_use = "ends at once when dropped"]
pub struct Change<'a> {
    fs: &'a Fs,
    node: &'a Node,
    asked: Stamp,
    ended: bool,
}

impl Change<'_> {
    /// When it was asked for.
    pub(crate) fn asked(&self) -> Stamp {
        self.asked
    }

    /// Was answered with `wcc`.
    pub(crate) fn end(mut self, wcc: &WccData) {
        self.finish(Some(wcc));
    }

    /// Was answered with the attributes after it alone, or without.
    pub(crate) fn end_with(self, attr: Option<&Fattr>) {
        self.end(&WccData { before: None, after: attr.cloned() });
    }

    fn finish(&mut self, wcc: Option<&WccData>) {
        self.ended = true;
        let now = self.fs.ask();
        let keep = self.fs.keep(self.node);
        let learned = self.node.state().attributes.end_change(wcc, self.asked, now, keep);
        self.fs.react(self.node, learned, self.asked);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(None);
        }
    }
}

impl Limits {
    fn new(config: &Config, info: Option<v3::FsinfoOk>, paths: Option<v3::PathconfOk>) -> Self {
        let most = |told: fn(&v3::FsinfoOk) -> u32| match info.as_ref().map(told) {
            None | Some(0) => MAX_IO as u32,
            Some(told) => told.min(MAX_IO as u32),
        };
        let name = paths.map_or(0, |paths| paths.name_max);
        Self {
            read: config.rsize.clamp(1, most(|info| info.rtmax)),
            write: config.wsize.clamp(1, most(|info| info.wtmax)),
            directory: most(|info| info.dtpref).clamp(MIN_CHUNK, MAX_CHUNK),
            // Some servers leave it 0 (`nfs_super_set_maxbytes`).
            file: info.as_ref().map(|info| info.maxfilesize).filter(|most| *most > 0).unwrap_or(u64::MAX),
            name: if name == 0 { MAX_NAME as u32 } else { name.min(MAX_NAME as u32) },
        }
    }
}

fn no_result(error: &CallError) -> Errno {
    tracing::debug!("{error}");
    Errno::from(error)
}

#[cfg(test)]
mod tests {
    use remoor_nfs::v3::{FsinfoOk, Time};

    use super::*;

    #[test]
    fn a_server_that_tells_no_largest_file_has_none() {
        let time_delta = Time { seconds: 0, nanos: 1 };
        for (told, most) in [(0, u64::MAX), (1 << 40, 1 << 40)] {
            let (rtmax, rtpref, rtmult, wtmax, wtpref, wtmult, dtpref) = (0, 0, 0, 0, 0, 0, 0);
            let (attr, maxfilesize, properties) = (None, told, 0);
            let info = FsinfoOk {
                attr,
                rtmax,
                rtpref,
                rtmult,
                wtmax,
                wtpref,
                wtmult,
                dtpref,
                maxfilesize,
                time_delta,
                properties,
            };
            assert_eq!(Limits::new(&Config::default(), Some(info), None).file, most);
        }
    }
}
