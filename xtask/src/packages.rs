//! Debian packages that tests call programs of.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// A package, the program of it that is looked for (or another file, by its whole path), and what cannot run without it.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    pub(crate) needed_by: &'static str,
}

/// Every package that a test may need.
pub(crate) const PACKAGES: &[Package] = &[
    Package { name: "busybox-static", program: "busybox", needed_by: "guests: their shell" },
    Package { name: "e2fsprogs", program: "mke2fs", needed_by: "guests: the disk that power is lost of" },
    Package { name: "fuse3", program: "fusermount3", needed_by: "tests of mounting as an ordinary user" },
    Package { name: "g++", program: "c++", needed_by: "the fuzz targets: libFuzzer is C++" },
    Package { name: "gcc", program: "cc", needed_by: "guests: a shim for hosts with AMX" },
    Package { name: "git", program: "git", needed_by: "guests: git clone on a mount" },
    Package {
        name: "haproxy",
        program: "haproxy",
        needed_by: "tests of the PROXY protocol with a foreign relay",
    },
    Package { name: "iproute2", program: "ip", needed_by: "guests: their network" },
    Package {
        name: "libnfs-dev",
        program: "/usr/include/nfsc/libnfs.h",
        needed_by: "fio with its NFS engine, which is built from source, and the load generator of the bench",
    },
    Package {
        name: "libnfs-utils",
        program: "nfs-ls",
        needed_by: "tests of the server with a foreign client",
    },
    Package {
        name: "make",
        program: "make",
        needed_by: "fio with its NFS engine, which is built from source, and the load generator of the bench",
    },
    Package {
        name: "nfs-common",
        program: "mount.nfs",
        needed_by: "tests of the portmapper with Debian's tools; guests: mounting",
    },
    Package { name: "nftables", program: "nft", needed_by: "tests of the drill with the kernel's balancer" },
    Package {
        name: "rpcbind",
        program: "rpcbind",
        needed_by: "tests of the portmapper and of registration with Debian's tools",
    },
    Package {
        name: "tshark",
        program: "tshark",
        needed_by: "tests that compare a capture with a foreign reader",
    },
];

/// The packages whose program is not there.
pub(crate) fn missing() -> Vec<&'static Package> {
    PACKAGES.iter().filter(|p| !has_program(p.program)).collect()
}

/// Whether a program can be called; also looks where an ordinary user's PATH does not. A whole path stands for itself.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.into_iter().any(|dir| dir.join(name).is_file())
}

/// Whether this process may install packages and use every kernel interface.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "package {} (apt-get install {0}), needed by {}", self.name, self.needed_by)
    }
}

/// Installs what is missing if this is root on Debian, and says what it installs.
pub(crate) fn provide() -> anyhow::Result<()> {
    let wanted = missing();
    if wanted.is_empty() || !is_root() || !Path::new("/etc/debian_version").exists() {
        return Ok(());
    }
    install(&wanted)
}

fn install(packages: &[&Package]) -> anyhow::Result<()> {
    let names: Vec<&str> = packages.iter().map(|p| p.name).collect();
    println!("installing {}", names.join(" "));
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], &names[..]].concat())
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("--quiet=2").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().context("cannot run apt-get")?;
    ensure!(status.success(), "apt-get {} ended with {status}: install by hand", arguments.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path_only_if_there() {
        assert!(has_program("sh"));
        assert!(!has_program("no-such-program-anywhere"));
    }

    #[test]
    fn a_package_is_listed_once() {
        assert!(PACKAGES.is_sorted_by(|a, b| a.name < b.name), "keep the table in order");
    }
}
