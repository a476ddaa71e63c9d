//! Kernels for User-mode Linux, from Debian's archive. They are unpacked below `target/guest`, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use super::cache;
use crate::archive::{Archive, Kind};

/// A kernel and the suite of Debian that has it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Major and minor version.
    pub(crate) release: &'static str,
    suite: &'static str,
    package: Package,
    /// The C library, where the host's may be older than the kernel's program needs.
    libc: Option<Package>,
}

/// A package that is unpacked. Its checksum is pinned; a later version that the archive has in its place is accepted
/// for the archive's signature, and said so.
#[derive(Debug)]
struct Package {
    name: &'static str,
    version: &'static str,
    sha256: &'static str,
}

/// Every kernel, oldest first. They differ in the source port of a reconnect: see docs/failover.md.
pub(crate) const KERNELS: [Kernel; 3] = [
    Kernel {
        release: "5.10",
        suite: "bullseye",
        package: Package {
            name: "user-mode-linux",
            version: "5.10um3+b1",
            sha256: "2cf4c2b2b36272b0b42c973d1239b4e73ad24c53d1a041a227f28bbee9b7082b",
        },
        libc: None,
    },
    Kernel {
        release: "6.1",
        suite: "bookworm",
        package: Package {
            name: "user-mode-linux",
            version: "6.1um4+b13",
            sha256: "0ce700f835c385ab09860ad33137817402403a29e424177510244bd75a81c687",
        },
        libc: None,
    },
    Kernel {
        release: "6.12",
        suite: "trixie",
        package: Package {
            name: "user-mode-linux",
            version: "6.12um1+b21",
            sha256: "2e43edfce116cb48362b932c24128a8dfe2de9bba2aba735cdb3b1b4a114238c",
        },
        libc: Some(Package {
            name: "libc6",
            version: "2.41-12+deb13u4",
            sha256: "967aa62605721081c3eb2a17650611a792aa802d76a6511d1840242623d204c9",
        }),
    },
];

/// Where the libraries of Debian's packages for x86-64 are.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Made last, so that what was interrupted is done again.
const COMPLETE: &str = "complete";

/// A kernel's files.
#[derive(Debug, Clone)]
pub(super) struct Unpacked {
    /// The program that is the kernel.
    pub(super) program: PathBuf,
    /// Its modules, below which `modules.dep` is.
    pub(super) modules: PathBuf,
    /// Libraries it must run with instead of the host's.
    pub(super) libraries: Option<PathBuf>,
}

/// Prints every kernel.
pub(super) fn list() -> anyhow::Result<()> {
    for kernel in &KERNELS {
        let state = if kernel.dir().join(COMPLETE).exists() { "unpacked" } else { "not fetched yet" };
        let Kernel { release, suite, package, .. } = kernel;
        println!("{release:<5} Debian {suite}, {} {}: {state}", package.name, package.version);
    }
    Ok(())
}

impl Kernel {
    fn dir(&self) -> PathBuf {
        cache().join("kernel").join(self.release)
    }

    /// Gets and unpacks the kernel, unless that was done before.
    pub(super) fn provide(&self) -> anyhow::Result<Unpacked> {
        let dir = self.dir();
        if !dir.join(COMPLETE).exists() {
            self.unpack(&dir).with_context(|| format!("cannot get kernel {}", self.release))?;
        }
        let modules = only_entry(&dir.join("usr/lib/uml/modules"))?;
        let libraries = self.libc.is_some().then(|| dir.join("libc").join(LIBRARIES));
        Ok(Unpacked { program: dir.join("usr/bin/linux.uml"), modules, libraries })
    }

    fn unpack(&self, dir: &Path) -> anyhow::Result<()> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
        let archive = Archive::open(Kind::Binary, self.suite, &cache().join("apt").join(self.suite))?;
        unpack(&archive, &self.package, dir)?;
        if let Some(libc) = &self.libc {
            unpack(&archive, libc, &dir.join("libc"))?;
        }
        Ok(fs::write(dir.join(COMPLETE), "")?)
    }
}

fn only_entry(dir: &Path) -> anyhow::Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    Ok(entries.next().with_context(|| format!("{} is empty", dir.display()))??.path())
}

fn unpack(archive: &Archive, package: &Package, into: &Path) -> anyhow::Result<()> {
    let file = archive.download(package.name, ".deb")?;
    package.verify(&file)?;
    let status = Command::new("dpkg-deb").arg("--extract").args([&file, into]).status();
    ensure!(status.context("cannot run dpkg-deb")?.success(), "cannot unpack {}", file.display());
    Ok(fs::remove_file(file)?)
}

impl Package {
    /// The name of the file begins with name and version, the latter with its epoch's colon escaped.
    fn verify(&self, file: &Path) -> anyhow::Result<()> {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = hex(&Sha256::digest(&bytes));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(&format!("{}_{}_", self.name, self.version)) {
            println!("note: the archive has {name}, and {} is pinned; pin SHA256 {found}", self.version);
            return Ok(());
        }
        ensure!(
            found == self.sha256,
            "{name} has SHA256 {found}, and {} is pinned: do not use it",
            self.sha256
        );
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_package_with_other_bytes_is_refused() {
        let dir = std::env::temp_dir().join(format!("remoor-pinned-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let package = Package { name: "p", version: "1", sha256: &hex(&Sha256::digest(b"right")).leak()[..] };
        let verify = |name: &str, bytes: &[u8]| {
            let file = dir.join(name);
            fs::write(&file, bytes).unwrap();
            package.verify(&file)
        };
        assert!(verify("p_1_amd64.deb", b"right").is_ok());
        let refused = verify("p_1_amd64.deb", b"wrong").unwrap_err().to_string();
        assert!(refused.contains("do not use it"), "{refused}");
        assert!(verify("p_2_amd64.deb", b"later").is_ok());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn every_checksum_is_one() {
        for kernel in &KERNELS {
            for package in [Some(&kernel.package), kernel.libc.as_ref()].into_iter().flatten() {
                assert_eq!(package.sha256.len(), 64);
                assert!(package.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
            }
        }
    }
}
