//! Where the servers run: a network and a mount namespace, the directory they export, and a disk that can stop.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, anyhow};

use super::server::end;
use super::{bound_to_this, system};
use crate::packages::{has_program, is_root};

/// A file system of this bench's own, which goes when its mount namespace does.
const PRIVATE: &str = "/run";
/// Size of the slow disk: every server's file for its waiting client. What is not used takes no memory.
const SLOW_MIB: &str = "512M";

/// Runs this program again in namespaces of its own; returns only why it cannot.
pub(crate) fn enter() -> anyhow::Error {
    if !is_root() {
        return anyhow!(
            "the bench needs root: namespaces, mounts, and servers that act as their clients' users"
        );
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => return anyhow!("cannot tell which program this is: {e}"),
    };
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private", "--"]).arg(program);
    command.args(std::env::args_os().skip(1)).arg("--inside");
    anyhow!("cannot run unshare of util-linux: {}", command.exec())
}

/// The directories of a run.
pub(crate) struct Site {
    /// What all servers export.
    pub(crate) dir: PathBuf,
    /// What some export too, on a file system that can be frozen.
    pub(crate) slow: PathBuf,
    /// Configuration, state and logs, a directory for each server.
    pub(crate) work: PathBuf,
    /// Whether `dir` is to be removed at the end.
    made: bool,
    /// nfs-ganesha does not start without one.
    rpcbind: Option<Child>,
}

impl Site {
    /// Makes everything; `dir` is the directory asked for.
    pub(crate) fn make(dir: Option<&Path>) -> anyhow::Result<Self> {
        system("ip", &["link", "set", "lo", "up"])?;
        let exported = dir.map(make_below).transpose()?;
        system("mount", &["-t", "tmpfs", "-o", "mode=755,size=80%", "tmpfs", PRIVATE])?;
        let path = |name: &str| Path::new(PRIVATE).join(name);
        let (slow, work) = (path("slow"), path("work"));
        let made = exported.is_some();
        let dir = exported.unwrap_or_else(|| path("export"));
        // ganesha and rpcbind expect theirs.
        for dir in [&dir, &slow, &work, &path("ganesha"), &path("rpcbind")] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut site = Self { dir, slow, work, made, rpcbind: None };
        site.make_slow_disk()?;
        site.rpcbind = rpcbind()?;
        Ok(site)
    }

    fn make_slow_disk(&self) -> anyhow::Result<()> {
        let image = self.work.join("slow.img");
        let (image, slow) = (image.to_string_lossy(), self.slow.to_string_lossy());
        system("truncate", &["-s", SLOW_MIB, &image])?;
        system("mkfs.ext4", &["-q", &image])?;
        system("mount", &["-o", "loop", &image, &slow])
    }

    /// The type of the exported directory's file system.
    pub(crate) fn file_system(&self) -> anyhow::Result<String> {
        let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(&self.dir).output();
        let output = output.context("cannot run stat")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Whether it has no stable storage at all.
    pub(crate) fn is_volatile(&self) -> anyhow::Result<bool> {
        Ok(self.file_system()? == "tmpfs")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut rpcbind) = self.rpcbind.take() {
            end(&mut rpcbind);
        }
        if self.made {
            // What stays is in a directory that says whose it is.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A directory of this run's own in the one asked for.
fn make_below(dir: &Path) -> anyhow::Result<PathBuf> {
    let real = dir.canonicalize().with_context(|| format!("--dir {}", dir.display()))?;
    let below = real.join(format!("remoor-bench.{}", std::process::id()));
    fs::create_dir(&below).with_context(|| format!("cannot make {}", below.display()))?;
    Ok(below)
}

fn rpcbind() -> anyhow::Result<Option<Child>> {
    if !has_program("rpcbind") {
        return Ok(None);
    }
    // It changes its user, and with that the kernel forgets that it is bound to this process; sh is not changed.
    let mut command = bound_to_this("sh");
    command.args(["-c", "rpcbind -f & trap \"kill $!\" TERM; wait"]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Some(command.spawn().context("cannot run setpriv of util-linux")?))
}
