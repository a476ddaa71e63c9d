//! Test suites of file systems from crates.io, installed below the target directory.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use xtask::architecture::root;

use crate::bench::progress;
use crate::cargo;

/// A suite, its version, and its program's name, which is the crate's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    version: &'static str,
}

/// What POSIX says of system calls on files, one case each.
pub(crate) const PJDFSTEST: Tool = Tool { name: "pjdfstest", version: "0.2.2" };
/// Random operations on one file, whose content is known after each.
pub(crate) const FSX: Tool = Tool { name: "fsx", version: "0.3.2" };

impl Tool {
    /// Where its program is, once provided.
    pub(crate) fn program(&self) -> PathBuf {
        self.dir().join("bin").join(self.name)
    }

    /// A directory of each version.
    fn dir(&self) -> PathBuf {
        root().join("target/tools").join(format!("{}-{}", self.name, self.version))
    }

    /// Installs it the first time.
    pub(crate) fn provide(&self) -> anyhow::Result<()> {
        if self.program().is_file() {
            return Ok(());
        }
        progress(&format!("installing {} {} below target/tools, once", self.name, self.version));
        let mut command = cargo();
        command.args(["install", "--quiet", "--locked", self.name, "--version", self.version, "--root"]);
        let status = command.arg(self.dir()).status().context("cannot run cargo install")?;
        ensure!(status.success(), "cargo install {} {} failed: see above", self.name, self.version);
        Ok(())
    }
}
