//! A server that can be stopped and started again at the same address, and mounts of what it exports.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use remoor_client::Client;
use remoor_mount::Errno;
use remoor_mount::fs::node::NodeId;
use remoor_mount::fs::open::{OpenFlags, OpenId};
use remoor_mount::fs::{Caller, Config, Fs, Groups, Kernel, ROOT};
use remoor_rpc::auth::AuthSys;
use remoor_server::exports::Exports;
use remoor_server::vfs::memory::MemoryVfs;
use remoor_server::{Running, Server};
use tempfile::TempDir;

const OPTIONS: &str = "rw,insecure,no_root_squash";

pub(crate) struct Host {
    state: TempDir,
    export: Export,
    address: SocketAddr,
    running: Option<Running>,
}

enum Export {
    /// What is written is stable at once.
    Memory(Arc<MemoryVfs>),
    /// UNSTABLE stays unstable until COMMIT.
    Directory(TempDir),
}

impl Host {
    /// Exports a file system of so many bytes.
    pub(crate) fn in_memory(bytes: u64) -> Self {
        Self::serving(Export::Memory(Arc::new(MemoryVfs::new(bytes, 1))))
    }

    /// Exports a directory.
    pub(crate) fn on_disk() -> Self {
        Self::serving(Export::Directory(tempfile::tempdir().unwrap()))
    }

    fn serving(export: Export) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        let mut host = Self { state: tempfile::tempdir().unwrap(), export, address, running: None };
        host.start();
        host
    }

    pub(crate) fn start(&mut self) {
        let server = Server::builder().listen(self.address).state_dir(self.state.path());
        let export = |dir: &str| Exports::from_args([format!("{dir}:{OPTIONS}")]).unwrap();
        let server = match &self.export {
            Export::Memory(vfs) => server.exports(export("memory:/data")).vfs("/data", vfs.clone()),
            Export::Directory(dir) => server.exports(export(&dir.path().to_string_lossy())),
        };
        let running = server.start().unwrap();
        self.address = running.local_addrs()[0];
        self.running = Some(running);
    }

    pub(crate) fn stop(&mut self) {
        self.running.take().unwrap().stop();
    }

    /// How often a procedure was called since the server was started.
    pub(crate) fn calls(&self, procedure: &str) -> u64 {
        let counters = self.running.as_ref().unwrap().counters();
        counters.calls.iter().filter(|row| row.procedure == procedure).map(|row| row.calls).sum()
    }

    /// A file of the exported directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match &self.export {
            Export::Directory(dir) => dir.path().join(name),
            Export::Memory(_) => panic!("only a directory has paths"),
        }
    }

    pub(crate) async fn mount(&self) -> Mount {
        self.mount_with(Config::default()).await
    }

    pub(crate) async fn mount_with(&self, config: Config) -> Mount {
        self.mount_as("hard", config).await
    }

    pub(crate) async fn mount_as(&self, options: &str, config: Config) -> Mount {
        let options = format!("noresvport,{options}").parse().unwrap();
        let client = Client::connect(self.address, options).unwrap();
        let client = client.with_identity(&AuthSys::new("test", 0, 0));
        let path = match &self.export {
            Export::Memory(_) => "/data".to_owned(),
            Export::Directory(dir) => dir.path().to_string_lossy().into_owned(),
        };
        let root = client.mount(&path).await.unwrap();
        let kernel = Arc::new(Told::default());
        let fs = Fs::new(client, root, config, kernel.clone()).await.unwrap();
        Mount { fs, kernel }
    }
}

/// Counts what the kernel is told.
#[derive(Default)]
pub(crate) struct Told {
    data: AtomicUsize,
    entries: Mutex<Vec<(NodeId, Vec<u8>)>>,
}

impl Kernel for Told {
    fn invalidate_attributes(&self, _node: NodeId) {}

    fn invalidate_data(&self, _node: NodeId) {
        self.data.fetch_add(1, Relaxed);
    }

    fn invalidate_entry(&self, parent: NodeId, name: &[u8]) {
        self.entries.lock().unwrap().push((parent, name.to_vec()));
    }
}

impl Told {
    /// How often it was told that data it may keep is not true any more.
    pub(crate) fn data_invalidated(&self) -> usize {
        self.data.load(Relaxed)
    }
}

/// A mount, and the calls a kernel makes for system calls.
pub(crate) struct Mount {
    pub(crate) fs: Arc<Fs>,
    pub(crate) kernel: Arc<Told>,
}

pub(crate) const RDWR: OpenFlags = OpenFlags(2);
/// Octal, as in fcntl.h of Linux.
pub(crate) const APPEND: OpenFlags = OpenFlags(2 | 0o2000);
pub(crate) const SYNC: OpenFlags = OpenFlags(2 | 0o4_010_000);
pub(crate) const DIRECT: OpenFlags = OpenFlags(2 | 0o40_000);
const CREAT: i32 = 0o100;

pub(crate) fn root() -> Caller {
    user(0)
}

pub(crate) fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, groups: Groups::Known([].into()), pid: 0 }
}

/// An open file.
#[derive(Clone, Copy)]
pub(crate) struct File {
    pub(crate) node: NodeId,
    pub(crate) open: OpenId,
    pub(crate) flags: OpenFlags,
}

impl Mount {
    /// open(2) with O_CREAT.
    pub(crate) async fn open(&self, name: &str, flags: OpenFlags) -> File {
        let create = OpenFlags(flags.0 | CREAT);
        let made = self.fs.create(&root(), ROOT, name.as_bytes(), 0o666, create).await;
        let (entry, opened) = made.unwrap();
        File { node: entry.node, open: opened.id, flags }
    }

    /// Opens once more.
    pub(crate) async fn again(&self, file: File, caller: &Caller, flags: OpenFlags) -> File {
        let opened = self.fs.open(caller, file.node, flags).await.unwrap();
        File { open: opened.id, flags, ..file }
    }

    pub(crate) async fn try_write(&self, file: File, offset: u64, data: Bytes) -> Result<usize, Errno> {
        self.fs.write(file.open, offset, data, file.flags).await
    }

    pub(crate) async fn write(&self, file: File, offset: u64, data: impl Into<Bytes>) {
        let data = data.into();
        let len = data.len();
        assert_eq!(self.try_write(file, offset, data).await, Ok(len));
    }

    pub(crate) async fn read(&self, file: File, offset: u64, size: u32) -> Vec<u8> {
        self.fs.read(file.open, offset, size, file.flags).await.unwrap().concat()
    }

    pub(crate) async fn size(&self, file: File) -> u64 {
        self.fs.getattr(&root(), file.node).await.unwrap().attr.size
    }

    pub(crate) async fn fsync(&self, file: File) -> Result<(), Errno> {
        self.fs.fsync(file.open).await
    }

    /// close(2) of the only descriptor.
    pub(crate) async fn close(&self, file: File) -> Result<(), Errno> {
        let flushed = self.fs.flush(file.open).await;
        self.fs.release(file.open).await.unwrap();
        flushed
    }

    pub(crate) async fn truncate(&self, file: File, size: u64) {
        let set = remoor_nfs::v3::Sattr { size: Some(size), ..Default::default() };
        self.fs.setattr(&root(), file.node, Some(file.open), set).await.unwrap();
    }
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Bytes {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect::<Vec<_>>().into()
}
