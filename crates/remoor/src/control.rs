//! Reaching a running server: where its control socket is, and asking it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use remoor_server::control::{Answer, Request, call};
use rustix::system::uname;

use crate::{Failure, state_dir};

/// Which server is meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Control socket of the server [default: /run/remoor/NODE.sock as root, else
    /// $XDG_RUNTIME_DIR/remoor/NODE.sock or, without that, ~/.local/state/remoor/NODE.sock]
    #[arg(long, value_name = "PATH", help_heading = "Server")]
    control: Option<PathBuf>,
    /// Name of the server's node, as its --node says [default: the host's name]
    #[arg(long, value_name = "NAME", help_heading = "Server", conflicts_with = "control")]
    node: Option<String>,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECS", default_value_t = 10, help_heading = "Server", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Target {
    /// Whether the user says which server.
    pub(crate) fn is_named(&self) -> bool {
        self.control.is_some() || self.node.is_some()
    }

    /// How long to wait for an answer.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The server's answer. What it refuses is a failure.
    pub(crate) fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        let path = match &self.control {
            Some(path) => path.clone(),
            None => default_socket(self.node.as_deref())?,
        };
        match call(&path, request, self.patience()).map_err(|e| Failure::Cannot(anyhow!("{e}")))? {
            Answer::Error { usage: true, message } => Err(Failure::Usage(anyhow!(message))),
            Answer::Error { message, .. } => Err(Failure::Cannot(anyhow!(message))),
            answer => Ok(answer),
        }
    }
}

/// Where the server of a node has its control socket unless told otherwise.
pub(crate) fn default_socket(node: Option<&str>) -> Result<PathBuf, Failure> {
    let host = uname();
    let node = match node {
        Some(node) => node.to_owned(),
        None => host.nodename().to_string_lossy().into_owned(),
    };
    Ok(runtime_dir()?.join(format!("{node}.sock")))
}

/// Without a runtime directory the socket lies beside the state.
fn runtime_dir() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok("/run/remoor".into());
    }
    state_dir::absolute("XDG_RUNTIME_DIR")
        .map(|dir| dir.join("remoor"))
        .or_else(state_dir::default)
        .ok_or_else(|| {
            Failure::Usage(anyhow!(
                "neither XDG_RUNTIME_DIR nor HOME is set to an absolute path: name a socket with --control"
            ))
        })
}

/// An answer to another question.
pub(crate) fn unexpected(answer: &Answer) -> Failure {
    let answer = serde_json::to_string(answer).unwrap_or_default();
    let answer: String = answer.chars().take(200).collect();
    Failure::Cannot(anyhow!("the server answered another question: {answer}; is it of another version?"))
}

/// Writes to standard output; nobody reading on is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Cannot(anyhow!("cannot write: {e}"))),
        _ => Ok(()),
    }
}

/// As JSON, on lines of its own.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::cannot)?;
    print(&(text + "\n"))
}
