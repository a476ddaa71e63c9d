//! The machine on whose disk the server keeps its files loses power at random moments under load, and boots again. It is
//! a guest: what its memory held is lost, and its disk is a file here.
//!
//! What is modelled: everything that the guest's kernel had written to the disk stays, in the order it was written, and
//! everything else is lost (page cache, journal not committed, requests under way). What is not: a disk with a volatile
//! cache that loses or reorders what it had accepted. A server that answers before it has called fsync is found out; one
//! whose file system fails to flush the disk's cache is not.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;

use super::crew::{CONTROL_PORT, Crew, Moments, dialled_control};
use super::machine::{Guest, Model, Plan};
use super::sandbox::Link;
use super::service::{Control, Dialled, Place};
use super::{Programs, Which, mounting_job};
use crate::report::Counts;

/// Bytes of the disk. It is sparse.
const DISK_BYTES: u64 = 1 << 30;
/// The exported directory in the guest.
const EXPORT: &str = "/disk/exported";
/// What the guest says when its server listens.
const SERVING: &str = "guest: serving";
/// A machine that loses power says nothing. A kernel client whose call it had acknowledged sends nothing either before
/// `timeo`, by default for 60 s; the answer to that is the reset that makes it connect again.
const TIMEO: &str = ",timeo=20";
const SERVING_LIMIT: Duration = Duration::from_secs(30);

/// How often, and from which kernel.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The kernel of the client and of the server's machine.
    #[command(flatten)]
    which: Which,
    /// How often power is lost.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Seed of the moments at which it is [default: from the clock].
    #[arg(long)]
    seed: Option<u64>,
    /// Export with `async`: the server then answers early, and the scenario must find losses.
    #[arg(long)]
    r#async: bool,
}

impl Options {
    /// Sized for `cargo xtask test`.
    pub(super) fn suite() -> Self {
        Self { which: Which { kernel: "6.1".into() }, rounds: 3, seed: None, r#async: false }
    }

    /// Shows that the scenario finds losses.
    pub(super) fn suite_async() -> Self {
        Self { rounds: 1, r#async: true, ..Self::suite() }
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Counts> {
    let began = Instant::now();
    let mut scene = Scene::start(options)?;
    let mut moments = Moments::new(options.seed);
    let mut counts = Counts::default();
    let mut boots = Vec::new();
    for round in 1..=options.rounds {
        thread::sleep(moments.next());
        counts += scene.round(&format!("power lost, round {round}"))?;
        boots.push(scene.machine.boot);
    }
    let slowest = boots.iter().max().copied().unwrap_or_default().as_secs_f64();
    println!("power, {} rounds, slowest boot {slowest:.1} s: {}", options.rounds, scene.crew.summary(began)?);
    if options.r#async { expect_losses(counts) } else { Ok(counts) }
}

/// Of an `async` export, acknowledged changes must be lost: a scenario that finds no losses there would find none anywhere.
fn expect_losses(counts: Counts) -> anyhow::Result<Counts> {
    ensure!(counts.failed > 0, "an async export lost nothing: this scenario finds no losses");
    println!("as expected, {} of {} rounds lost something", counts.failed, counts.failed + counts.passed);
    Ok(Counts::PASSED)
}

struct Scene {
    programs: Programs,
    model: Model,
    share: PathBuf,
    disk: PathBuf,
    job: String,
    machine: Guest,
    crew: Crew,
    // Kept, because they are killed when dropped.
    _client: Guest,
    _dialled: Dialled,
    _client_link: Link,
    server: Link,
}

impl Scene {
    fn start(options: &Options) -> anyhow::Result<Self> {
        let programs = Programs::built();
        let dir = super::fresh("power")?;
        let (share, client_share) = (dir.join("server"), dir.join("client"));
        fs::create_dir(&share)?;
        fs::create_dir(&client_share)?;
        fs::copy(&programs.remoor, share.join("remoor"))?;
        fs::copy(&programs.guest, client_share.join("remoor-guest"))?;
        let disk = dir.join("disk");
        make_disk(&disk)?;
        let (client, server) = (Link::make(0)?, Link::make(1)?);
        let model =
            Model::new(options.which.kernel()?.provide()?, &[&programs.guest, &programs.remoor], &dir)?;
        let job = serving_job(if options.r#async { "async" } else { "sync" });
        let machine = boot(&model, &server, &share, &disk, &job)?;
        let mounting = mounting_job(server.guest, EXPORT, client.guest, TIMEO);
        let plan =
            Plan { link: &client, share: &client_share, disk: None, job: &mounting, interactive: false };
        let guest = Guest::boot(&model, &plan)?;
        let dialled = Dialled::start(&programs, (server.guest, 2049).into(), EXPORT, dialled_control())?;
        let controls = vec![
            Control::connect("kernel client", (client.guest, CONTROL_PORT).into())?,
            Control::connect("our client", dialled_control())?,
        ];
        let crew = Crew::new(controls, if options.r#async { "lost as expected" } else { "FAIL" })?;
        Ok(Self {
            programs,
            model,
            share,
            disk,
            job,
            machine,
            crew,
            _client: guest,
            _dialled: dialled,
            _client_link: client,
            server,
        })
    }

    fn round(&mut self, name: &str) -> anyhow::Result<Counts> {
        self.machine.kill()?;
        self.machine = boot(&self.model, &self.server, &self.share, &self.disk, &self.job)?;
        let address: SocketAddr = (self.server.guest, 2049).into();
        self.crew.round(name, &self.programs, &[Place::Export(address, EXPORT)], true)
    }
}

fn make_disk(file: &Path) -> anyhow::Result<()> {
    File::create_new(file)?.set_len(DISK_BYTES)?;
    let status = Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(file).stdin(Stdio::null()).status();
    ensure!(
        status.context("cannot run mke2fs (package e2fsprogs)")?.success(),
        "cannot format {}",
        file.display()
    );
    Ok(())
}

fn boot(model: &Model, link: &Link, share: &Path, disk: &Path, job: &str) -> anyhow::Result<Guest> {
    let plan = Plan { link, share, disk: Some(disk), job, interactive: false };
    let mut guest = Guest::boot(model, &plan)?;
    guest.line(SERVING, SERVING_LIMIT)?;
    Ok(guest)
}

/// Mounts the disk as a machine would after a power loss, and serves a directory of it.
fn serving_job(stability: &str) -> String {
    format!(
        "modprobe crc32c_generic 2>/dev/null\nmodprobe ext4 2>/dev/null\nmkdir -p /disk\n\
         mount -t ext4 /dev/ubda /disk || exit 1\nmkdir -p {EXPORT} /disk/state\n\
         echo '{EXPORT} *(rw,{stability},insecure,no_root_squash)' >/tmp/exports\n\
         RUST_LOG=info /host/remoor serve --listen 0.0.0.0:2049 --portmap --control none \
         --exports /tmp/exports --state /disk/state \
         >>/host/server.log 2>&1 &\n\
         server=$!\nuntil grep -q ':0801 .* 0A ' /proc/net/tcp; do kill -0 $server || exit 1; sleep 0.1; done\n\
         echo '{SERVING}'\nwait $server\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_async_export_that_loses_nothing_is_a_failure() {
        assert!(expect_losses(Counts { passed: 3, failed: 0, skipped: 0 }).is_err());
        assert_eq!(expect_losses(Counts { passed: 2, failed: 1, skipped: 0 }).unwrap(), Counts::PASSED);
    }
}
