//! The load generators: built when the bench begins, and run once for each load.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, Serialize};
use xtask::architecture::root;

use super::rows::Client;
use super::server::Running;
use super::{Arguments, bound_to_this, progress, system};
use crate::cargo;

/// The peer that crates.io has, its version, and its program.
const NFS3_SERVER: [&str; 2] = ["cargo-nfs3-server", "0.2.3"];
/// libfuse's passthrough over its low-level interface.
const PASSTHROUGH: &str = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c";
/// A load that takes so many seconds longer than it should has hung.
const PATIENCE_SECS: f64 = 60.0;
/// Files that READDIRPLUS lists.
pub(crate) const ENTRIES: usize = 100_000;
/// The same with `--quick`.
pub(crate) const QUICK_ENTRIES: usize = 10_000;

/// Where everything is that the bench runs.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Built by this bench.
    dir: PathBuf,
    /// Release builds of this workspace.
    release: PathBuf,
}

/// What a load generator tells of one load.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) calls: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) client_cpu_seconds: f64,
    #[serde(default)]
    pub(crate) server_cpu_seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

impl Tools {
    /// Where they are, once built.
    pub(crate) fn built() -> anyhow::Result<Self> {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => std::path::absolute(dir)?,
            None => root().join("target"),
        };
        Ok(Self { dir: target.join("bench"), release: target.join("release") })
    }

    /// Compiles the load generators and this server.
    pub(crate) fn build() -> anyhow::Result<Self> {
        let tools = Self::built()?;
        std::fs::create_dir_all(&tools.dir)
            .with_context(|| format!("cannot make {}", tools.dir.display()))?;
        tools.compile("nfsload", "-lnfs").context("nfsload needs a C compiler and Debian's libnfs-dev")?;
        tools.compile("ceiling", "-lpthread")?;
        progress("building remoor and remoor-load");
        let status =
            cargo().args(["build", "--quiet", "--release", "-p", "remoor", "-p", "remoor-load"]).status();
        ensure!(status.context("cannot run cargo build")?.success(), "remoor does not build: see above");
        Ok(tools)
    }

    fn compile(&self, name: &str, library: &str) -> anyhow::Result<()> {
        let source = root().join("xtask/src/bench/load").join(name).with_extension("c");
        let (source, to) = (source.to_string_lossy(), self.dir.join(name));
        system("cc", &["-O2", "-g", "-Wall", "-o", &to.to_string_lossy(), &source, library])
    }

    /// Installs nfs3_server's program below the target directory if it is wanted and not there. Without it the bench
    /// goes on, and says that it was not measured.
    pub(crate) fn provide_peers(&self, wanted: &[String]) {
        if self.nfs3_server().exists()
            || !(wanted.is_empty() || wanted.iter().any(|name| name == "nfs3_server"))
        {
            return;
        }
        progress("installing nfs3_server below target/bench");
        let [package, version] = NFS3_SERVER;
        let mut command = cargo();
        command.args(["install", "--quiet", "--locked", package, "--version", version, "--root"]);
        if !command.arg(self.dir.join("peers")).status().is_ok_and(|status| status.success()) {
            progress(&format!("cargo install {package} failed: it is not measured"));
        }
    }

    /// The ceiling of mounts: libfuse's example, built from the source that Debian's libfuse3-dev has.
    pub(crate) fn build_passthrough(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let to = self.passthrough();
        let flags = ["-O2", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-I/usr/include/fuse3"];
        let files = ["-o", &to.to_string_lossy(), PASSTHROUGH, "-lfuse3", "-lpthread"];
        system("cc", &[&flags[..], &files[..]].concat())
            .context("the passthrough needs a C compiler and Debian's libfuse3-dev")
    }

    pub(crate) fn passthrough(&self) -> PathBuf {
        self.dir.join("passthrough_ll")
    }

    /// The peer of mounts: below the target directory, or on the path.
    pub(crate) fn fuse_nfs(&self) -> PathBuf {
        let own = self.dir.join("peers/bin/fuse-nfs");
        if own.exists() { own } else { "fuse-nfs".into() }
    }

    pub(crate) fn remoor(&self) -> PathBuf {
        self.release.join("remoor")
    }

    pub(crate) fn ceiling(&self) -> PathBuf {
        self.dir.join("ceiling")
    }

    pub(crate) fn nfs3_server(&self) -> PathBuf {
        self.dir.join("peers/bin").join(NFS3_SERVER[0])
    }

    pub(crate) fn nfsload(&self) -> PathBuf {
        self.dir.join("nfsload")
    }

    fn client(&self, client: Client) -> PathBuf {
        match client {
            Client::Libnfs => self.nfsload(),
            Client::Own => self.release.join("remoor-load"),
        }
    }

    /// A load generator's command line up to the loads.
    pub(crate) fn command(
        &self,
        client: Client,
        server: &Running,
        arguments: &Arguments,
        flags: &[&str],
    ) -> Command {
        let entries = if arguments.quick { QUICK_ENTRIES } else { ENTRIES };
        let mut command = bound_to_this("timeout");
        command.arg((arguments.secs() + PATIENCE_SECS).to_string()).arg(self.client(client));
        command.args(["--server-pid", &server.pid().to_string(), "--name", &server.peer.name]);
        command.args(["--secs", &arguments.secs().to_string(), "--uid", &arguments.uid.to_string()]);
        command.args(["--entries", &entries.to_string()]).args(flags);
        command.args(["--mountport", &server.mount_port().to_string()]);
        command.args(["127.0.0.1", &server.port.to_string()]).arg(&server.export);
        command
    }

    /// Runs one load against a server. Its samples are in the order of the load's rows.
    pub(crate) fn run(
        &self,
        client: Client,
        server: &Running,
        arguments: &Arguments,
        flags: &[&str],
        spec: &str,
    ) -> anyhow::Result<Vec<Sample>> {
        let output = self.command(client, server, arguments, flags).arg(spec).output();
        let output = output.with_context(|| format!("cannot run {}", self.client(client).display()))?;
        if output.status.success() {
            return samples(&String::from_utf8_lossy(&output.stdout));
        }
        let told = String::from_utf8_lossy(&output.stderr);
        Err(anyhow!(
            "{}",
            told.lines().last().unwrap_or("the load generator hung, or died without a word").to_owned()
        ))
    }
}

/// One sample a line.
pub(crate) fn samples(text: &str) -> anyhow::Result<Vec<Sample>> {
    let parse = |line: &str| {
        serde_json::from_str(line).with_context(|| format!("the load generator told no sample: {line}"))
    };
    text.lines().map(parse).collect()
}

/// The files that READDIRPLUS will list: made here, because that is faster than by NFS.
pub(crate) fn make_entries(dir: &Path, n: usize) -> anyhow::Result<()> {
    let context = || format!("cannot make {n} files in {}", dir.display());
    std::fs::create_dir_all(dir).with_context(context)?;
    (0..n).try_for_each(|n| std::fs::File::create(dir.join(format!("n{n}"))).map(drop)).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nfsload_prints_is_read() {
        let line = r#"{"op":"null","depth":1,"connections":1,"size":0,"calls":8614,"bytes":0,"seconds":0.5,"calls_per_second":17228,"mib_per_second":0.0,"client_cpu_seconds":0.19,"server_cpu_seconds":0.23,"p50_us":57.3,"p99_us":77.8,"max_us":955.0}"#;
        let told = samples(&format!("{line}\n{line}\n")).unwrap();
        assert_eq!((told.len(), told[1].calls), (2, 8614));
        assert!(samples("Killed").is_err());
    }

    #[test]
    fn nfsload_tells_every_field_that_is_read() {
        let source = include_str!("load/nfsload.c");
        let sample = serde_json::to_value(Sample::default()).unwrap();
        for field in sample.as_object().unwrap().keys() {
            assert!(source.contains(&format!("\\\"{field}\\\":")), "{field}");
        }
    }
}
