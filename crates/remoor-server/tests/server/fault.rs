//! A file system that makes reads of one file wait until told, or does not answer at all.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use remoor_nfs::v3::{CreateHow, Fattr, FsstatOk, MknodData, Sattr, StableHow, Time, WccData};
use remoor_rpc::Bytes;
use remoor_server::vfs::memory::MemoryVfs;
use remoor_server::vfs::{Caller, DirEntry, Made, Node, NodeHandle, ReadData, Result, Vfs, Written};

/// Reads at offset [`SLOW`] wait for [`Fault::let_go`]; all else is a [`MemoryVfs`].
pub(crate) struct Fault {
    inner: MemoryVfs,
    state: Mutex<State>,
    changed: Condvar,
    epoch: AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: usize,
    let_go: bool,
    silent: bool,
}

/// The offset that takes for ever.
pub(crate) const SLOW: u64 = 1 << 40;
/// The offset that panics.
pub(crate) const PANIC: u64 = 1 << 41;
/// The offset at which unstable data is lost right after it is written.
pub(crate) const LOST: u64 = 1 << 42;

impl Fault {
    pub(crate) fn new() -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { inner: MemoryVfs::new(64 << 20, 1), state, changed, epoch: AtomicU64::new(0) })
    }

    /// Returns when this many reads wait.
    pub(crate) fn await_waiting(&self, n: usize) {
        let state = self.state.lock().unwrap();
        let timeout = super::client::PATIENCE;
        let (state, _) = self.changed.wait_timeout_while(state, timeout, |s| s.waiting < n).unwrap();
        assert!(state.waiting >= n, "only {} reads wait", state.waiting);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().unwrap().waiting
    }

    pub(crate) fn let_go(&self) {
        self.state.lock().unwrap().let_go = true;
        self.changed.notify_all();
    }

    /// From now on questions about the file system wait, or no longer.
    pub(crate) fn be_silent(&self, silent: bool) {
        self.state.lock().unwrap().silent = silent;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |s| !s.let_go).unwrap();
        state.waiting -= 1;
    }
}

impl Vfs for Fault {
    fn read(&self, caller: &Caller, node: &NodeHandle, offset: u64, count: u32) -> Result<ReadData> {
        match offset {
            SLOW => self.wait(),
            PANIC => panic!("told to"),
            _ => {}
        }
        self.inner.read(caller, node, offset, count)
    }

    fn root(&self) -> Result<NodeHandle> {
        self.inner.root()
    }
    fn getattr(&self, caller: &Caller, node: &NodeHandle) -> Result<Fattr> {
        self.inner.getattr(caller, node)
    }
    fn setattr(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        attr: &Sattr,
        guard: Option<Time>,
    ) -> Result<WccData> {
        self.inner.setattr(caller, node, attr, guard)
    }
    fn lookup(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<Node> {
        self.inner.lookup(caller, dir, name)
    }
    fn access(&self, caller: &Caller, node: &NodeHandle, bits: u32) -> Result<(u32, Fattr)> {
        self.inner.access(caller, node, bits)
    }
    fn readlink(&self, caller: &Caller, node: &NodeHandle) -> Result<(Bytes, Fattr)> {
        self.inner.readlink(caller, node)
    }
    fn write(&self, c: &Caller, n: &NodeHandle, offset: u64, data: &Bytes, s: StableHow) -> Result<Written> {
        let written = self.inner.write(c, n, offset, data, s);
        if offset == LOST {
            self.epoch.fetch_add(1, SeqCst);
        }
        written
    }
    fn create(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], how: &CreateHow) -> Result<Made> {
        self.inner.create(caller, dir, name, how)
    }
    fn mkdir(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], attr: &Sattr) -> Result<Made> {
        self.inner.mkdir(caller, dir, name, attr)
    }
    fn symlink(&self, c: &Caller, dir: &NodeHandle, name: &[u8], text: &[u8], attr: &Sattr) -> Result<Made> {
        self.inner.symlink(c, dir, name, text, attr)
    }
    fn mknod(&self, caller: &Caller, dir: &NodeHandle, name: &[u8], what: &MknodData) -> Result<Made> {
        self.inner.mknod(caller, dir, name, what)
    }
    fn remove(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<WccData> {
        self.inner.remove(caller, dir, name)
    }
    fn rmdir(&self, caller: &Caller, dir: &NodeHandle, name: &[u8]) -> Result<WccData> {
        self.inner.rmdir(caller, dir, name)
    }
    fn rename(
        &self,
        caller: &Caller,
        from: (&NodeHandle, &[u8]),
        to: (&NodeHandle, &[u8]),
    ) -> Result<(WccData, WccData)> {
        self.inner.rename(caller, from, to)
    }
    fn link(
        &self,
        caller: &Caller,
        node: &NodeHandle,
        dir: &NodeHandle,
        name: &[u8],
    ) -> Result<(Fattr, WccData)> {
        self.inner.link(caller, node, dir, name)
    }
    fn readdir(
        &self,
        caller: &Caller,
        dir: &NodeHandle,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<bool> {
        self.inner.readdir(caller, dir, cookie, each)
    }
    fn fsstat(&self, caller: &Caller) -> Result<FsstatOk> {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |s| s.silent).unwrap());
        self.inner.fsstat(caller)
    }
    fn commit(&self, caller: &Caller, node: &NodeHandle) -> Result<WccData> {
        self.inner.commit(caller, node)
    }
    fn write_epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }
}
