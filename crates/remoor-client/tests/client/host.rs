//! Real servers for the tests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use remoor_client::{Client, Observer, Options};
use remoor_nfs::reconnect::Notice;
use remoor_rpc::auth::AuthSys;
use remoor_server::exports::Exports;
use remoor_server::vfs::memory::MemoryVfs;
use remoor_server::{Running, Server};
use tempfile::TempDir;

/// A server that can be stopped and started again at the same address, over the same files.
pub(crate) struct Host {
    pub(crate) state: Arc<TempDir>,
    pub(crate) export: Export,
    pub(crate) address: SocketAddr,
    pub(crate) running: Option<Running>,
}

pub(crate) enum Export {
    /// What is written is stable at once.
    Memory(Arc<MemoryVfs>),
    /// UNSTABLE stays unstable until COMMIT.
    Directory(TempDir),
}

impl Host {
    pub(crate) fn start(options: &str) -> Self {
        Self::serving(Export::Memory(Arc::new(MemoryVfs::new(64 << 20, 1))), options)
    }

    pub(crate) fn serving(export: Export, options: &str) -> Self {
        let mut host = Self {
            state: Arc::new(tempfile::tempdir().unwrap()),
            export,
            address: "127.0.0.1:0".parse().unwrap(),
            running: None,
        };
        host.restart(options);
        host
    }

    /// A host in memory at this address, or at a port of the kernel's choice there.
    pub(crate) fn at(address: SocketAddr, vfs: &Arc<MemoryVfs>, options: &str) -> Self {
        let export = Export::Memory(Arc::clone(vfs));
        let mut host = Self { state: Arc::new(tempfile::tempdir().unwrap()), export, address, running: None };
        host.restart(options);
        host
    }

    /// Another node: the same files and the same state, so that handles mean the same.
    pub(crate) fn node(&self, address: SocketAddr, options: &str) -> Self {
        let Export::Memory(vfs) = &self.export else { panic!("only files in memory can be shared") };
        let export = Export::Memory(Arc::clone(vfs));
        let mut host = Self { state: Arc::clone(&self.state), export, address, running: None };
        host.restart(options);
        host
    }

    pub(crate) fn stop(&mut self) {
        self.running.take().unwrap().stop();
    }

    pub(crate) fn restart(&mut self, options: &str) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        let server = Server::builder().listen(self.address).state_dir(self.state.path());
        let server = match &self.export {
            Export::Memory(vfs) => server.exports(exports("memory:/data", options)).vfs("/data", vfs.clone()),
            Export::Directory(dir) => server.exports(exports(&dir.path().to_string_lossy(), options)),
        };
        let running = server.start().unwrap();
        self.address = running.local_addrs()[0];
        self.running = Some(running);
    }

    pub(crate) fn calls(&self, procedure: &str) -> u64 {
        let counters = self.running.as_ref().unwrap().counters();
        counters.calls.iter().filter(|row| row.procedure == procedure).map(|row| row.calls).sum()
    }
}

pub(crate) fn exports(dir: &str, options: &str) -> Exports {
    Exports::from_args([format!("{dir}:{options}")]).unwrap()
}

pub(crate) fn options(text: &str) -> Options {
    text.parse().unwrap()
}

/// From and to which port, move by move.
pub(crate) type Moves = Arc<Mutex<Vec<(u16, u16)>>>;

/// A client, and the ports it moved between.
pub(crate) fn observed(host: &Host, text: &str) -> (Client, Moves) {
    let moves = Moves::default();
    let told = Arc::clone(&moves);
    let observer: Observer = Arc::new(move |_, notice: &Notice| {
        if let Notice::Moved { from_port, to_port, .. } = notice {
            told.lock().unwrap().push((*from_port, *to_port));
        }
    });
    (Client::connect_observed(host.address, options(text), observer).unwrap().with_identity(&root()), moves)
}

/// A client of the directory's owner: in memory that is user 0, whoever runs the tests.
pub(crate) fn client_of(host: &Host, text: &str) -> Client {
    Client::connect(host.address, options(text)).unwrap().with_identity(&root())
}

pub(crate) fn root() -> AuthSys {
    AuthSys::new("test", 0, 0)
}
