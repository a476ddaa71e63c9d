//! `cargo xtask guest`: real Linux kernels as NFS clients, and as the machine that loses power under a server.
//!
//! A guest is a kernel in User-mode Linux, an ordinary process. It runs in a network namespace with no way out, and
//! everything that is started ends with this process ([`sandbox`]).
//!
//! | module | subject |
//! |---|---|
//! | [`kernel`] | where kernels come from |
//! | [`image`] | a guest's root: busybox, mount.nfs, modules |
//! | [`cpio`] | the format of that root |
//! | [`sandbox`] | namespaces, TAP devices |
//! | [`machine`] | a booted guest |
//! | [`service`] | `remoor serve` beside it, and `remoor-guest` |
//! | [`crew`] | writers around one crash after another |
//! | [`exercise`] | scenario: kernel clients do what applications do |
//! | [`restart`] | scenario: the server is killed under load |
//! | [`power`] | scenario: the server's machine loses power under load |

mod cpio;
pub(crate) mod crew;
mod exercise;
mod image;
mod kernel;
mod machine;
mod power;
mod restart;
pub(crate) mod sandbox;
pub(crate) mod service;

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use xtask::architecture::root;

use crate::report::Counts;
use crate::{cargo, packages};
use kernel::{KERNELS, Kernel};

/// What to do with guests.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// List the kernels and whether they are there.
    List,
    /// Mount with resvport and with noresvport, on secure and insecure exports, and exercise the mounts.
    Run(exercise::Options),
    /// Kill the server with SIGKILL under load, again and again, and compare what was acknowledged with what is there.
    Restart(restart::Options),
    /// The same, and what is killed is the machine on whose disk the server keeps its files.
    Power(power::Options),
    /// What `cargo xtask test` runs: all of the above, on every kernel, in less time.
    Suite,
    /// A shell in a guest that has mounted an export, on this terminal.
    Shell(Which),
}

/// A choice of kernel.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// The client's kernel.
    #[arg(long, default_value = "6.1", value_parser = KERNELS.map(|kernel| kernel.release))]
    kernel: String,
}

impl Which {
    fn kernel(&self) -> anyhow::Result<&'static Kernel> {
        KERNELS.iter().find(|kernel| kernel.release == self.kernel).context("no such kernel")
    }
}

/// What a mount needs beside the options users write: locks are not served.
const MORE_OPTIONS: &str = "nolock";

/// Where everything that guests need is kept.
fn cache() -> PathBuf {
    root().join("target/guest")
}

/// Runs a task; the counts are of checks. `arguments` make this program do the same again.
pub(crate) fn run(task: &Task, arguments: &[OsString]) -> anyhow::Result<Counts> {
    if let Task::List = task {
        return kernel::list().map(|()| Counts::default());
    }
    if sandbox::inside() {
        sandbox::end_with_parent();
        let counts = scenario(task)?;
        sandbox::leave(counts)?;
        return Ok(counts);
    }
    if let Some(reason) = impossible() {
        bail!("no guest can run here, {reason}");
    }
    // The sandbox has no network: what is fetched is fetched before.
    fetch()?;
    build()?;
    let _turn = wait_for_turn()?;
    sandbox::enter(arguments)
}

/// Scenarios keep their files in one place: two at a time would have each other's. The turn ends with the file.
fn wait_for_turn() -> anyhow::Result<File> {
    let path = cache().join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("waiting for another scenario to end");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Gets every kernel that is not there yet. It takes the network.
pub(crate) fn fetch() -> anyhow::Result<()> {
    KERNELS.iter().try_for_each(|kernel| kernel.provide().map(drop))
}

/// The step of `cargo xtask test`.
pub(crate) fn run_suite() -> anyhow::Result<Counts> {
    run(&Task::Suite, &["guest".into(), "suite".into()])
}

fn scenario(task: &Task) -> anyhow::Result<Counts> {
    match task {
        Task::List => Ok(Counts::default()),
        Task::Run(options) => exercise::run(options),
        Task::Restart(options) => restart::run(options),
        Task::Power(options) => power::run(options),
        Task::Suite => suite(),
        Task::Shell(which) => exercise::shell(which.kernel()?),
    }
}

/// Why guests cannot run here, if so.
pub(crate) fn impossible() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("because Debian has User-mode Linux for x86-64 only".into());
    }
    if !packages::is_root() {
        return Some("because namespaces with TAP devices need root".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("because /dev/net/tun is missing (modprobe tun)".into());
    }
    let needed = ["busybox", "cc", "ip", "mke2fs", "mount.nfs", "unshare", "apt-get", "dpkg-deb"];
    let missing = needed.into_iter().find(|program| !packages::has_program(program));
    missing.map(|program| format!("because the program {program} is missing"))
}

/// What part of `cargo xtask test` this is. Each scenario is sized so that all together take minutes.
fn suite() -> anyhow::Result<Counts> {
    let mut counts = exercise::suite()?;
    counts += restart::run(&restart::Options::suite())?;
    counts += power::run(&power::Options::suite())?;
    counts += power::run(&power::Options::suite_async())?;
    Ok(counts)
}

/// Builds the programs under test for release.
pub(crate) fn build() -> anyhow::Result<()> {
    let arguments = ["build", "--quiet", "--release", "--package", "remoor", "--package", "remoor-guest"];
    let status = cargo().args(arguments).status().context("cannot run cargo build")?;
    ensure!(status.success(), "the programs under test cannot be built: see above");
    Ok(())
}

/// The programs under test.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The server, and the mount.
    pub(crate) remoor: PathBuf,
    /// What runs on a mount.
    pub(crate) guest: PathBuf,
}

impl Programs {
    /// Where [`build`] leaves them.
    pub(crate) fn built() -> Self {
        let built = |name| root().join("target/release").join(name);
        Self { remoor: built("remoor"), guest: built("remoor-guest") }
    }
}

/// An empty directory for a scenario. What is left in it afterwards are its logs.
fn fresh(name: &str) -> anyhow::Result<PathBuf> {
    let dir = cache().join("run").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// What a guest does that mounts `export` of `server`, with `more` options, and writes until it is killed.
fn mounting_job(server: Ipv4Addr, export: &str, guest: Ipv4Addr, more: &str) -> String {
    let options = format!("defaults,vers=3,noresvport,_netdev,{MORE_OPTIONS}{more}");
    let port = crew::CONTROL_PORT;
    format!(
        "mkdir -p /mnt/export\necho '{server}:{export} /mnt/export nfs {options} 0 0' >/etc/fstab\n\
         /bin/mount /mnt/export || exit 1\n\
         /host/remoor-guest write --dir /mnt/export --control {guest}:{port} --prefix mounted\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_can_be_named() {
        for kernel in KERNELS {
            let which = Which { kernel: kernel.release.into() };
            assert_eq!(which.kernel().unwrap().release, kernel.release);
        }
        assert!(Which { kernel: "2.4".into() }.kernel().is_err());
    }
}
