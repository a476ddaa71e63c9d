//! Packages of any suite from the Debian archive that this host uses, with lists of their own: the host's lists and
//! sources stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Whose signatures count.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What of a suite is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Built packages.
    Binary,
    /// Source packages.
    Source,
}

/// One suite of the archive.
#[derive(Debug)]
pub(crate) struct Archive {
    kind: Kind,
    suite: String,
    dir: PathBuf,
}

impl Archive {
    /// Reads the suite's list of packages; it and what is downloaded are kept in `dir`.
    pub(crate) fn open(kind: Kind, suite: &str, dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        let deb = if kind == Kind::Source { "deb-src" } else { "deb" };
        fs::write(
            dir.join("sources.list"),
            format!("{deb} [signed-by={KEYRING}] {} {suite} main\n", mirror()?),
        )?;
        let archive = Self { kind, suite: suite.into(), dir: dir.into() };
        archive.apt(&["update"])?;
        Ok(archive)
    }

    /// Downloads a package, whose file begins with its name and `_` and ends as given.
    pub(crate) fn download(&self, package: &str, ending: &str) -> anyhow::Result<PathBuf> {
        println!("fetching {package} of Debian {}", self.suite);
        match self.kind {
            Kind::Binary => self.apt(&["download", &format!("{package}/{}", self.suite)])?,
            Kind::Source => self.apt(&["source", "--download-only", package])?,
        }
        let is_it = |name: &str| name.starts_with(&format!("{package}_")) && name.ends_with(ending);
        let entries = fs::read_dir(&self.dir)?.flatten();
        let found = entries
            .map(|e| e.path())
            .find(|path| path.file_name().is_some_and(|n| is_it(&n.to_string_lossy())));
        found.with_context(|| format!("apt-get left no {package}_*{ending} in {}", self.dir.display()))
    }

    fn apt(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let dir = self.dir.display();
        let options = [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            // Of suites that are no longer updated the lists grow old.
            "Acquire::Check-Valid-Until=false".into(),
            // Downloads go to a directory of root's.
            "APT::Sandbox::User=root".into(),
        ];
        let mut command = Command::new("apt-get");
        command.current_dir(&self.dir).arg("--quiet=2");
        command.args(options.iter().flat_map(|option| ["-o", option]));
        let status = command.args(arguments).status().context("cannot run apt-get")?;
        let what = arguments.join(" ");
        ensure!(status.success(), "apt-get {what} of Debian {} ended with {status}", self.suite);
        Ok(())
    }
}

/// The mirror of Debian's main archive that this host's apt is told to use, whether or not its lists are there.
fn mirror() -> anyhow::Result<String> {
    let arguments = ["indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let output = Command::new("apt-get").args(arguments).output().context("cannot run apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mirror = main_archive(&text)
        .context("apt-get knows no mirror of Debian's main archive; name one in /etc/apt/sources.list")?;
    Ok(mirror.to_owned())
}

/// The first that is not the archive of security updates.
fn main_archive(uris: &str) -> Option<&str> {
    uris.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_told_from_that_of_security() {
        let uris = "http://m.example/debian-security/\nhttp://m.example/debian/\nhttp://n.example/debian\n";
        assert_eq!(main_archive(uris), Some("http://m.example/debian/"));
        assert_eq!(main_archive("http://m.example/ubuntu/\n"), None);
    }
}
