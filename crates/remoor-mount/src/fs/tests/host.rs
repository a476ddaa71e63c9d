//! A server, mounts of its export, and a kernel that notes what it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use remoor_client::Client;
use remoor_nfs::v3::{Fattr, FileHandle, FileType};
use remoor_rpc::auth::AuthSys;
use remoor_server::exports::Exports;
use remoor_server::vfs::memory::MemoryVfs;
use remoor_server::{Running, Server};
use tempfile::TempDir;

use super::relay::Relay;
use crate::errno::Errno;
use crate::fs::open::{OpenFlags, OpenId};
use crate::fs::silly::Journal;
use crate::fs::{Caller, Config, Entry, Fs, Groups, Kernel, Lookup, NodeId, ROOT};

/// A server of one export.
pub(super) struct Host {
    _state: TempDir,
    _data: Option<TempDir>,
    pub(super) running: Running,
    pub(super) address: SocketAddr,
    path: String,
}

impl Host {
    /// Of a file system in memory.
    pub(super) fn memory() -> Self {
        Self::memory_with("rw,insecure,no_root_squash")
    }

    pub(super) fn memory_with(options: &str) -> Self {
        let vfs = Arc::new(MemoryVfs::new(256 << 20, 1));
        let exports = Exports::from_args([format!("memory:/data:{options}")]).unwrap();
        let builder = |server: remoor_server::Builder| server.exports(exports).vfs("/data", vfs);
        Self::start(builder, None, "/data")
    }

    /// Of a directory.
    pub(super) fn directory() -> Self {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().to_string_lossy().into_owned();
        let exports = Exports::from_args([format!("{path}:rw,insecure,no_root_squash")]).unwrap();
        Self::start(|server| server.exports(exports), Some(data), &path)
    }

    fn start(
        build: impl FnOnce(remoor_server::Builder) -> remoor_server::Builder,
        data: Option<TempDir>,
        path: &str,
    ) -> Self {
        let state = tempfile::tempdir().unwrap();
        let server = Server::builder().listen("127.0.0.1:0".parse().unwrap()).state_dir(state.path());
        let running = build(server).start().unwrap();
        let address = running.local_addrs()[0];
        Self { _state: state, _data: data, running, address, path: path.to_owned() }
    }

    /// How often a procedure was called.
    pub(super) fn calls(&self, procedure: &str) -> u64 {
        let counters = self.running.counters();
        counters.calls.iter().filter(|row| row.procedure == procedure).map(|row| row.calls).sum()
    }

    pub(super) async fn mount(&self) -> Mount {
        self.mount_with(Config::default()).await
    }

    pub(super) async fn mount_with(&self, config: Config) -> Mount {
        self.mount_through(self.address, config, Journal::none()).await
    }

    /// A mount whose calls pass a relay.
    pub(super) async fn mount_relayed(&self, config: Config) -> (Mount, Relay) {
        let relay = Relay::start(self.address).await;
        (self.mount_through(relay.address, config, Journal::none()).await, relay)
    }

    pub(super) async fn mount_through(&self, address: SocketAddr, config: Config, journal: Journal) -> Mount {
        let (client, root) = self.client(address).await;
        let kernel = Arc::new(Told::default());
        let fs = Fs::with_journal(client, root, config, kernel.clone(), journal).await.unwrap();
        Mount { fs, kernel }
    }

    pub(super) async fn client(&self, address: SocketAddr) -> (Client, FileHandle) {
        let client = Client::connect(address, "noresvport".parse().unwrap()).unwrap();
        let client = client.with_identity(&AuthSys::new("test", 0, 0));
        let root = client.mount(&self.path).await.unwrap();
        (client, root)
    }
}

/// What a kernel was told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<Invalid>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Invalid {
    Attributes(NodeId),
    Data(NodeId),
    Entry(NodeId, Bytes),
}

impl Kernel for Told {
    fn invalidate_attributes(&self, node: NodeId) {
        self.0.lock().unwrap().push(Invalid::Attributes(node));
    }
    fn invalidate_data(&self, node: NodeId) {
        self.0.lock().unwrap().push(Invalid::Data(node));
    }
    fn invalidate_entry(&self, parent: NodeId, name: &[u8]) {
        self.0.lock().unwrap().push(Invalid::Entry(parent, Bytes::copy_from_slice(name)));
    }
}

/// A mounted file system, used by root.
pub(super) struct Mount {
    pub(super) fs: Arc<Fs>,
    pub(super) kernel: Arc<Told>,
}

pub(super) fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, groups: Groups::Known(Arc::default()), pid: 0 }
}

pub(super) const READ: OpenFlags = OpenFlags(libc::O_RDONLY);
pub(super) const WRITE: OpenFlags = OpenFlags(libc::O_RDWR);
pub(super) const EXCL: OpenFlags = OpenFlags(libc::O_RDWR | libc::O_CREAT | libc::O_EXCL);

impl Mount {
    /// What the kernel was told since this was last asked.
    pub(super) fn told(&self) -> Vec<Invalid> {
        std::mem::take(&mut *self.kernel.0.lock().unwrap())
    }

    pub(super) async fn look(&self, parent: NodeId, name: &str) -> Result<Lookup, Errno> {
        self.fs.lookup(&user(0), parent, name.as_bytes()).await
    }

    pub(super) async fn find(&self, parent: NodeId, name: &str) -> Result<Entry, Errno> {
        match self.look(parent, name).await? {
            Lookup::Found(entry) => Ok(entry),
            Lookup::Missing { .. } => Err(Errno::NOENT),
        }
    }

    pub(super) async fn attr(&self, node: NodeId) -> Result<Fattr, Errno> {
        Ok(self.fs.getattr(&user(0), node).await?.attr)
    }

    pub(super) async fn make(&self, parent: NodeId, name: &str) -> Entry {
        let kind = FileType::Regular;
        let device = remoor_nfs::v3::Device { major: 0, minor: 0 };
        self.fs.mknod(&user(0), parent, name.as_bytes(), kind, 0o644, device).await.unwrap()
    }

    pub(super) async fn mkdir(&self, parent: NodeId, name: &str) -> Entry {
        self.fs.mkdir(&user(0), parent, name.as_bytes(), 0o755).await.unwrap()
    }

    pub(super) async fn create(&self, name: &str, flags: OpenFlags) -> Result<(Entry, OpenId), Errno> {
        let made = self.fs.create(&user(0), ROOT, name.as_bytes(), 0o644, flags).await;
        made.map(|(entry, opened)| (entry, opened.id))
    }

    pub(super) async fn open(&self, node: NodeId, flags: OpenFlags) -> Result<OpenId, Errno> {
        self.fs.open(&user(0), node, flags).await.map(|opened| opened.id)
    }

    pub(super) async fn unlink(&self, parent: NodeId, name: &str) -> Result<(), Errno> {
        self.fs.unlink(&user(0), parent, name.as_bytes()).await
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let (from, to) = ((ROOT, from.as_bytes()), (ROOT, to.as_bytes()));
        self.fs.rename(&user(0), from, to, 0).await
    }

    /// Names in a directory, as the server has them, sorted, without `.` and `..`.
    pub(super) async fn names(&self, node: NodeId) -> Vec<String> {
        let id = self.fs.opendir(&user(0), node).await.unwrap();
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let before = offset;
            let mut take = |entry: &crate::fs::directory::DirEntry| {
                offset = entry.offset;
                names.push(String::from_utf8_lossy(&entry.name).into_owned());
                true
            };
            self.fs.readdir(id, before, &mut take).await.unwrap();
            if offset == before {
                break;
            }
        }
        self.fs.releasedir(id).unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }
}

/// Lets time pass: what is kept for no longer than `time` is too old after it.
pub(super) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
