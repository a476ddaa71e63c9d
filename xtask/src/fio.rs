//! fio with its NFS engine. Debian's binary is built without it, so it is built from Debian's source package, whose
//! signature apt checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use xtask::architecture::root;

/// Names the built program to tests.
pub(crate) const VARIABLE: &str = "REMOOR_FIO";
/// Whose source lists are asked.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org/debian";

/// The program, which is built the first time.
pub(crate) fn provide() -> anyhow::Result<PathBuf> {
    let dir = root().join("target/fio");
    let program = dir.join("fio");
    if !program.is_file() {
        println!("building fio with its NFS engine from Debian's source package, once");
        build(&dir).context("cannot build fio with its NFS engine")?;
    }
    Ok(program)
}

fn build(dir: &Path) -> anyhow::Result<()> {
    let source = download(dir)?;
    run(Command::new("./configure").arg("--disable-native").current_dir(&source))?;
    let jobs = std::thread::available_parallelism()?;
    run(Command::new("make").arg(format!("-j{jobs}")).arg("fio").current_dir(&source))?;
    let engines = Command::new("./fio").arg("--enghelp").current_dir(&source).output()?;
    let engines = String::from_utf8_lossy(&engines.stdout);
    ensure!(
        engines.lines().any(|line| line.trim() == "nfs"),
        "its configure found no libnfs; install libnfs-dev"
    );
    fs::rename(source.join("fio"), dir.join("fio"))?;
    fs::remove_dir_all(&source).context("cannot remove the source")
}

/// Fetches and unpacks the source package with lists of its own, so that the machine's apt configuration stays as it is.
fn download(dir: &Path) -> anyhow::Result<PathBuf> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir.join("lists/partial"))?;
    fs::create_dir_all(dir.join("cache/archives/partial"))?;
    let release = suite()?;
    fs::write(dir.join("sources.list"), format!("deb-src [signed-by={KEYRING}] {MIRROR} {release} main\n"))?;
    let option = |name: &str, path: &str| format!("-oDir::{name}={}", dir.join(path).display());
    let options = [
        option("Etc::sourcelist", "sources.list"),
        "-oDir::Etc::sourceparts=-".to_owned(),
        option("State::lists", "lists"),
        option("Cache", "cache"),
        "-oAPT::Sandbox::User=root".to_owned(),
    ];
    run(Command::new("apt-get").args(&options).arg("update"))?;
    run(Command::new("apt-get").args(&options).args(["source", "--download-only", "fio"]).current_dir(dir))?;
    let source = dir.join("source");
    let archive = find(dir, |name| name.starts_with("fio_") && name.ends_with(".orig.tar.gz"))?;
    fs::create_dir_all(&source)?;
    run(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(&source).arg("--strip-components=1"))?;
    Ok(source)
}

/// The code name of this Debian, of which libnfs is.
fn suite() -> anyhow::Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(str::to_owned).context("/etc/os-release names no VERSION_CODENAME: is this Debian?")
}

fn find(dir: &Path, is_it: impl Fn(&str) -> bool) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(dir)?.flatten();
    let found = entries
        .map(|entry| entry.path())
        .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&is_it));
    found.with_context(|| format!("apt-get source left no archive in {}", dir.display()))
}

/// Runs a step quietly; what it said is shown if it failed.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}:\n{}", output.status, said());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_shows_what_it_said() {
        let error =
            run(Command::new("sh").args(["-c", "echo no space >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("no space\n"), "{error}");
        let error = run(&mut Command::new("no-such-program-anywhere")).unwrap_err().to_string();
        assert!(error.contains("no-such-program-anywhere"), "{error}");
    }
}
