//! `cargo xtask mount`: whether the mount keeps what POSIX and nfs(5) promise, and whether it lasts.
//!
//! Everything runs in namespaces of its own ([`sandbox`]), against servers on loopback that export a tmpfs.
//!
//! | module | subject |
//! |---|---|
//! | [`client`] | the clients: how each mounts, its processes, what they cost |
//! | [`place`] | servers, and mounts of them |
//! | [`sandbox`] | namespaces |
//! | [`tools`] | pjdfstest and fsx, installed below the target directory |

pub(crate) mod client;
pub(crate) mod place;
pub(crate) mod sandbox;

use anyhow::{Context, ensure};

use crate::bench::load::Tools;
use crate::bench::progress;
use crate::cargo;

/// Builds what is mounted and what serves; with the bench's ceiling, which may be missing.
pub(crate) fn build(ceiling: bool) -> anyhow::Result<()> {
    client::provide()?;
    progress("building remoor");
    let status = cargo().args(["build", "--quiet", "--release", "-p", "remoor"]).status();
    ensure!(status.context("cannot run cargo build")?.success(), "remoor does not build: see above");
    if ceiling && let Err(error) = Tools::built()?.build_passthrough() {
        progress(&format!("{error:#}: it is not measured"));
    }
    Ok(())
}
