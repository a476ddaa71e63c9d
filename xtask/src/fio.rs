//! fio with its NFS engine. Debian's binary is built without it, so it is built from Debian's source package, whose
//! signature apt checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use xtask::architecture::root;

use crate::archive::{Archive, Kind};

/// Names the built program to tests.
pub(crate) const VARIABLE: &str = "REMOOR_FIO";

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

fn download(dir: &Path) -> anyhow::Result<PathBuf> {
    let _ = fs::remove_dir_all(dir);
    let archive = Archive::open(Kind::Source, &suite()?, dir)?;
    let archive = archive.download("fio", ".orig.tar.gz")?;
    let source = dir.join("source");
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
