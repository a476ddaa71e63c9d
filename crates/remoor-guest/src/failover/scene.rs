//! Hosts, nodes, balancer, mount and writers, and one failover.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use remoor_drill::balancer::{Balancer, ModelBalancer};
use remoor_drill::fault::{Fault, Mended, Victim};
use remoor_drill::nodes::{Files, Server};
use remoor_drill::topology::{Node, SERVICE, SERVICE_PORT, Topology};
use remoor_flow::{Health, preset};

use super::crew::Writer;
use super::{Options, Told};
use crate::ledger::Ledger;
use crate::store::Mounted;

/// How long the mount may take to appear, and its program to end.
const MOUNT_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// After a fault, before the writers are asked to rest: long enough that each has calls in flight when the node breaks.
const AFTER_FAULT: Duration = Duration::from_millis(1500);

/// Everything that runs. Fields are dropped in this order: writers before the mount, the mount before the nodes.
pub(super) struct Scene {
    crew: Vec<Writer>,
    mount: Mount,
    balancer: ModelBalancer,
    servers: [Server; 2],
    topology: Topology,
    files: Files,
    program: PathBuf,
    active: Node,
}

impl Scene {
    pub(super) fn build(dir: &Path, options: &Options) -> anyhow::Result<Self> {
        let topology = Topology::build()?;
        let files = Files::create(&dir.join("nodes"), true)?;
        let start = |node| Server::start(&options.remoor, &topology, node, &files);
        let servers = [start(Node::A)?, start(Node::B)?];
        let mut balancer =
            ModelBalancer::start(&topology, preset::find(&options.balancer)?.config, options.seed)?;
        balancer.set_health(Node::B, Health::Down)?;
        let mount = Mount::start(&topology, &files, dir, options)?;
        let writers = 0..options.writers;
        let crew =
            writers.map(|n| Writer::start(topology.client(), &mount.dir, n)).collect::<Result<_, _>>()?;
        let program = options.remoor.clone();
        Ok(Self { crew, mount, balancer, servers, topology, files, program, active: Node::A })
    }

    /// The node that serves.
    pub(super) fn active(&self) -> Node {
        self.active
    }

    /// Breaks the node that serves, lets the other take over, waits until every writer has gone on and rests, compares
    /// what is there with what was acknowledged, mends the node, and lets the writers go on.
    pub(super) fn fail_over(&mut self, fault: &Fault) -> anyhow::Result<Told> {
        let broken = self.active;
        self.active = broken.other();
        fault.inject(&self.victim(broken))?;
        self.balancer.set_health(broken, Health::Down)?;
        self.balancer.set_health(self.active, Health::Up)?;
        thread::sleep(AFTER_FAULT);
        let told = self.rest_and_compare()?;
        let mended = fault.mend(&self.victim(broken))?;
        if mended == Mended::StartServer {
            self.servers[broken.index()] = Server::start(&self.program, &self.topology, broken, &self.files)?;
        }
        self.crew.iter_mut().try_for_each(Writer::resume)?;
        Ok(told)
    }

    fn victim(&self, node: Node) -> Victim<'_> {
        Victim { topology: &self.topology, node, server: self.servers[node.index()].id() }
    }

    fn rest_and_compare(&mut self) -> anyhow::Result<Told> {
        self.crew.iter_mut().try_for_each(Writer::ask_to_rest)?;
        let mut ledger = Ledger::default();
        for writer in &mut self.crew {
            ledger.merge(writer.rested()?);
        }
        let mut problems = ledger.failures.clone();
        for (place, dir) in [("on disk", &self.files.export), ("through the mount", &self.mount.dir)] {
            let losses = ledger.losses(&Mounted::new(dir)?)?;
            problems.extend(losses.into_iter().map(|loss| format!("{place}: {loss}")));
        }
        let Ledger { gap_ms, acknowledged, repeated, .. } = ledger;
        Ok(Told { gap_ms, acknowledged, repeated, problems })
    }

    /// Ends the writers and the mount, as a person would.
    pub(super) fn unmount(mut self) -> anyhow::Result<()> {
        self.crew.clear();
        self.mount.end()
    }
}

/// `remoor mount` on the client's host; unmounted when dropped.
struct Mount {
    dir: PathBuf,
    child: Child,
}

impl Mount {
    fn start(topology: &Topology, files: &Files, dir: &Path, options: &Options) -> anyhow::Result<Self> {
        let dir = dir.join("mnt");
        fs::create_dir(&dir)?;
        let before = fs::metadata(&dir)?;
        let ports = format!("port={SERVICE_PORT},mountport={SERVICE_PORT},{}", options.options);
        let mut command = Command::new(&options.remoor);
        command.args(["mount", "-f", "-o", &ports]);
        command.arg(format!("{}:{}", SERVICE.ip(), files.export.display())).arg(&dir).stdin(Stdio::null());
        let child = topology.client().spawn_process(command)?;
        let mut mount = Self { dir, child };
        let until = Instant::now() + MOUNT_LIMIT;
        while same(&before, &fs::metadata(&mount.dir)?) {
            ensure!(mount.child.try_wait()?.is_none(), "the mount ended early");
            ensure!(Instant::now() < until, "the mount does not appear");
            thread::sleep(POLL);
        }
        Ok(mount)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let status = Command::new("umount").arg(&self.dir).status().context("cannot run umount")?;
        ensure!(status.success(), "umount of {}: {status}", self.dir.display());
        let until = Instant::now() + MOUNT_LIMIT;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < until, "the mount's program does not end after umount");
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().and_then(|()| self.child.wait());
        let _ = Command::new("umount").arg("-l").arg(&self.dir).stderr(Stdio::null()).status();
    }
}

/// Whether both are of one file system.
fn same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    a.dev() == b.dev()
}
