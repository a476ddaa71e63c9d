//! Servers to mount from, and mounts of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::client::{self, Client, Mounted, Target};
use crate::bench::load::Tools;
use crate::bench::progress;
use crate::bench::server::{self, Peer, Running};
use crate::bench::site::Site;

/// What this project's server is called here, where "remoor" is the client.
const OURS: &str = "ours";
/// Servers unless others are asked for.
const DEFAULT: [&str; 2] = [OURS, "ganesha"];

/// Which servers.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// Server to mount from: ours, or a peer of `bench server`; may be repeated [default: ours and ganesha]
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Vec<String>,
}

impl Which {
    /// Our server alone.
    pub(crate) fn ours() -> Self {
        Self { server: vec![OURS.into()] }
    }

    fn names(&self) -> Vec<String> {
        if self.server.is_empty() { DEFAULT.map(str::to_owned).into() } else { self.server.clone() }
    }
}

/// Where a task runs: on mounts of these servers by these clients.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Places {
    #[command(flatten)]
    pub(crate) servers: Which,
    /// Only these clients, by name; may be repeated [default: remoor]
    #[arg(long, value_name = "NAME")]
    client: Vec<String>,
    /// A further client, as in `bench mount`; may be repeated
    #[arg(long, value_name = "NAME=MOUNT-COMMAND", value_parser = client::parse)]
    peer: Vec<Client>,
}

impl Places {
    /// Our client on our server.
    pub(crate) fn ours() -> Self {
        Self { servers: Which::ours(), client: Vec::new(), peer: Vec::new() }
    }

    /// The clients, in the order in which they run.
    pub(crate) fn clients(&self, tools: &Tools) -> anyhow::Result<Vec<Client>> {
        client::choose_or_ours(tools, &self.client, &self.peer)
    }

    /// Whether the bench's ceiling is among them, which has to be built.
    pub(crate) fn want_ceiling(&self) -> bool {
        self.client.iter().any(|name| name == "passthrough")
    }
}

/// Servers at work, all of which export the same tmpfs.
pub(crate) struct Servers {
    // Dropped first: they end before what they export.
    all: Vec<Running>,
    site: Site,
    mounts: std::cell::Cell<u32>,
}

impl Servers {
    /// Starts them. One that does not start is an error.
    pub(crate) fn start(which: &Which, tools: &Tools) -> anyhow::Result<Self> {
        let site = Site::make(None)?;
        let mut all = Vec::new();
        for (n, name) in which.names().iter().enumerate() {
            progress(&format!("starting server {name}"));
            let peer = find(name, tools)?;
            let running = Running::serve(peer, n, &site);
            all.push(running.with_context(|| format!("cannot start the server {name}"))?);
        }
        Ok(Self { all, site, mounts: std::cell::Cell::new(0) })
    }

    /// The servers' names, in the order of their numbers.
    pub(crate) fn names(&self) -> Vec<String> {
        self.all.iter().map(|server| shown(&server.peer.name).to_owned()).collect()
    }

    /// The exported directory itself.
    pub(crate) fn native(&self) -> &Path {
        &self.site.dir
    }

    /// For files of the harness.
    pub(crate) fn work(&self) -> &Path {
        &self.site.work
    }

    /// Kills server number `n` and starts it again, with the same port, state and export.
    pub(crate) fn restart(&mut self, n: usize) -> anyhow::Result<()> {
        self.all[n].kill()?;
        let peer = self.all[n].peer.clone();
        self.all[n] = Running::serve(peer, n, &self.site).context("cannot start the server again")?;
        Ok(())
    }

    /// Open descriptors of all servers.
    pub(crate) fn descriptors(&self) -> usize {
        let of = |server: &Running| {
            std::fs::read_dir(format!("/proc/{}/fd", server.pid())).map_or(0, Iterator::count)
        };
        self.all.iter().map(of).sum()
    }

    /// Mounts the export of server number `n`.
    pub(crate) fn mount(&self, n: usize, client: &Client) -> anyhow::Result<Mounted> {
        let number = self.mounts.replace(self.mounts.get() + 1);
        Mounted::mount(client, &self.target(n), &self.mount_point(n, client), number)
            .with_context(|| format!("cannot mount {} with {}", self.names()[n], client.name))
    }

    /// Where that is mounted.
    pub(crate) fn mount_point(&self, n: usize, client: &Client) -> PathBuf {
        // Beside the exported directory, because the path of a socket has at most 107 bytes (unix(7)) and tests make some.
        self.site.dir.with_file_name("mnt").join(format!("{}-{}", client.name, self.names()[n]))
    }

    fn target(&self, n: usize) -> Target {
        let server = &self.all[n];
        Target {
            export: server.export.clone(),
            port: server.port,
            mount_port: server.mount_port(),
            source: self.site.dir.clone(),
        }
    }
}

fn shown(name: &str) -> &str {
    if name == "remoor" { OURS } else { name }
}

fn find(name: &str, tools: &Tools) -> anyhow::Result<Peer> {
    let mut known = server::known(tools, true);
    let names: Vec<String> = known.iter().map(|peer| shown(&peer.name).to_owned()).collect();
    match names.iter().position(|known| known == name) {
        Some(n) => Ok(known.swap_remove(n)),
        None => bail!("there is no server {name}: choose from {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_found_by_the_names_shown() {
        let tools = Tools::built().unwrap();
        for name in DEFAULT {
            assert_eq!(shown(&find(name, &tools).unwrap().name), name);
        }
        assert!(find("remoor", &tools).unwrap_err().to_string().contains("choose from ours"));
    }
}
