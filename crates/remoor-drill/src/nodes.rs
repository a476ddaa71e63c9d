//! The two NFS servers: real `remoor serve` processes that export one directory.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::NamespaceError;
use crate::topology::{Node, SERVICE_PORT, Topology};

/// How long a server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(10);

/// Files of a case: the exported directory, the state both nodes share, and their logs.
#[derive(Debug, Clone)]
pub struct Files {
    /// The exported directory.
    pub export: PathBuf,
    state: PathBuf,
    exports: PathBuf,
    logs: PathBuf,
}

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file of the case could not be made.
    #[error("cannot make {path}: {source}; choose another directory with TMPDIR or --out")]
    File {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process could not be started.
    #[error(transparent)]
    Start(#[from] NamespaceError),
    /// The process ended or does not listen.
    #[error("the server of node {node} {what}; its log says: {log}")]
    Server {
        /// The node.
        node: Node,
        /// What is wrong.
        what: String,
        /// The end of its log.
        log: String,
    },
}

impl Files {
    /// Makes the files in `dir`. With `insecure` the export admits source ports above 1023.
    pub fn create(dir: &Path, insecure: bool) -> Result<Self, NodeError> {
        // Clients mount an export by its name without symbolic links, and its line must be absolute.
        let real = fs::create_dir_all(dir).and_then(|()| dir.canonicalize());
        let dir = &real.map_err(|source| file_error(dir, source))?;
        let files = Self {
            export: dir.join("export"),
            state: dir.join("state"),
            exports: dir.join("exports"),
            logs: dir.to_owned(),
        };
        for path in [&files.export, &files.state] {
            fs::create_dir_all(path).map_err(|source| file_error(path, source))?;
        }
        let line = files.export_line(insecure);
        fs::write(&files.exports, line).map_err(|source| file_error(&files.exports, source))?;
        Ok(files)
    }

    /// The line of exports(5) both nodes use.
    pub fn export_line(&self, insecure: bool) -> String {
        let port = if insecure { "insecure" } else { "secure" };
        format!("{} *(rw,sync,{port},no_root_squash,no_subtree_check)\n", escaped(&self.export))
    }

    fn log(&self, node: Node) -> PathBuf {
        self.logs.join(format!("node-{node}.log"))
    }

    /// The last lines of a node's log.
    fn log_end(&self, node: Node) -> String {
        let text = fs::read_to_string(self.log(node)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

/// A path as exports(5) wants it: whatever could end the word or mean something else is an octal escape.
fn escaped(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let escape =
        |&byte: &u8| if plain(byte) { char::from(byte).to_string() } else { format!("\\{byte:03o}") };
    path.as_os_str().as_bytes().iter().map(escape).collect()
}

fn file_error(path: &Path, source: io::Error) -> NodeError {
    NodeError::File { path: path.to_owned(), source }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    node: Node,
    child: Child,
}

impl Server {
    /// Starts `program serve` on `node` and waits until it listens.
    pub fn start(program: &Path, topology: &Topology, node: Node, files: &Files) -> Result<Self, NodeError> {
        let address = SocketAddr::new(Topology::node_link(node).far.address.into(), SERVICE_PORT);
        let log = files.log(node);
        let log = File::options().create(true).append(true).open(&log).map_err(|e| file_error(&log, e))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--listen").arg(address.to_string());
        command.arg("--exports").arg(&files.exports).arg("--state").arg(&files.state);
        command.arg("--node").arg(node.to_string()).args(["--control", "none"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = topology.node(node).spawn_process(command)?;
        let mut server = Self { node, child };
        server.wait_until_listening(topology, address, files)?;
        Ok(server)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Connects over the node's own loopback, which no capture of a drill sees.
    fn wait_until_listening(
        &mut self,
        topology: &Topology,
        address: SocketAddr,
        files: &Files,
    ) -> Result<(), NodeError> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            let tried = topology.node(self.node).run(|| TcpStream::connect_timeout(&address, START_POLL))?;
            let failed = |what| NodeError::Server { node: self.node, what, log: files.log_end(self.node) };
            match (tried, self.child.try_wait()) {
                (Ok(_), _) => return Ok(()),
                (_, Ok(Some(status))) => return Err(failed(format!("ended with {status}"))),
                (Err(e), _) if Instant::now() > until => return Err(failed(format!("does not listen: {e}"))),
                _ => thread::sleep(START_POLL),
            }
        }
    }
}

impl Drop for Server {
    /// Ends the process, stopped or not, and waits for it: nothing writes to the export afterwards.
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            tracing::warn!(node = %self.node, pid = self.child.id(), "the server could not be ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use remoor_server::exports::Exports;

    #[test]
    fn any_directory_can_be_exported() {
        let root = tempfile::tempdir().unwrap();
        for name in ["plain", "two words", "a#b", "quo\"te", "back\\slash", "grün"] {
            let files = Files::create(&root.path().join(name), true).unwrap();
            let exports = Exports::parse(&files.exports, files.export_line(true).as_bytes());
            assert!(exports.is_ok(), "{name}: {exports:?}");
        }
    }

    #[test]
    fn a_directory_behind_a_symbolic_link_is_exported_by_its_own_name() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let files = Files::create(&link.join("case"), true).unwrap();
        assert_eq!(files.export, real.canonicalize().unwrap().join("case/export"));
    }
}
