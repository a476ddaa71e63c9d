//! What is to be mounted, however it was asked for.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use remoor_mount::control::{MountEntry, mountinfo};
use remoor_mount::mounting;
use remoor_mount::options::{Parsed, Spec};

use super::exit::{self, Failed};
use super::report::{Report, Reporter, show};
use super::{background, daemon, remount};

/// What is to be mounted, as it was said.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    /// As what the program was called: stands before what it says.
    pub(super) program: String,
    /// `server:/export`.
    pub(super) spec: String,
    /// Mount point.
    pub(super) dir: PathBuf,
    /// After all `-o`.
    pub(super) options: String,
    /// Unknown options are ignored.
    pub(super) sloppy: bool,
    /// Everything but mounting.
    pub(super) fake: bool,
    /// Every step is told.
    pub(super) verbose: bool,
    /// Log of the background.
    pub(super) log_file: Option<PathBuf>,
    /// Where metrics are told.
    pub(super) metrics: Option<SocketAddr>,
}

/// An order that makes sense.
pub(super) struct Checked {
    pub(super) spec: Spec,
    pub(super) parsed: Parsed,
    /// Without symbolic links.
    pub(super) target: PathBuf,
}

impl Order {
    /// Mounts, and returns when the mount can be used; a process in the background serves it.
    pub(super) fn in_background(mut self) -> Result<(), Failed> {
        let Some(checked) = self.check()? else { return Ok(()) };
        self.dir = checked.target;
        background::start(&self.program, self.verbose, &self.arguments())
    }

    /// Mounts, and serves the mount until it is unmounted.
    pub(super) fn in_front(self) -> Result<(), Failed> {
        let Some(checked) = self.check()? else { return Ok(()) };
        let reporter = Reporter::in_front(&self.program, self.verbose);
        daemon::serve(&self, checked, reporter)
    }

    /// As the process in the background, which was started with [`Self::arguments`]. The command says what went wrong.
    pub(super) fn detached(self) -> Result<(), Failed> {
        let mut reporter = Reporter::on_stdout().map_err(Failed::system)?;
        let outcome = self.parse().and_then(|checked| daemon::detach(&self, checked, &mut reporter));
        if let Err(Failed { code, message }) = outcome {
            tracing::error!("{message}");
            let _ = reporter.tell(&Report::Failed { code, message });
            std::process::exit(code.into());
        }
        Ok(())
    }

    /// `None` if nothing is left to be done: it is for show, or a remount, which is done here.
    fn check(&self) -> Result<Option<Checked>, Failed> {
        let checked = self.parse()?;
        for option in &checked.parsed.ignored {
            self.warn(format!("unknown option {option:?} is ignored (-s)"));
        }
        if self.fake {
            return Ok(None);
        }
        if checked.parsed.is_remount() {
            return remount::remount(self, &checked).map(|()| None);
        }
        self.make_room(&checked)?;
        Ok(Some(checked))
    }

    fn parse(&self) -> Result<Checked, Failed> {
        let spec: Spec = self.spec.parse().map_err(Failed::usage)?;
        let parsed = Parsed::new(&spec, &self.options, self.sloppy).map_err(Failed::usage)?;
        Ok(Checked { spec, parsed, target: resolved(&self.dir)? })
    }

    /// Takes away mounts whose process is gone; refuses to mount the same once more, which FUSE would do above the first.
    fn make_room(&self, checked: &Checked) -> Result<(), Failed> {
        let target = checked.target.display();
        while let Some(mount) = there(checked)? {
            if !mounting::remove_dead(&mount).map_err(|e| Failed::new(exit::FAILED, e.to_string()))? {
                return refuse_twice(checked, &mount);
            }
            let source = mount.source.to_string_lossy();
            self.warn(format!("removed the mount of {source} on {target}, whose process was gone"));
        }
        Ok(())
    }

    pub(super) fn warn(&self, what: String) {
        show(&self.program, self.verbose, &Report::Warning(what));
    }

    /// Tells a step that was done.
    #[allow(clippy::print_stderr, reason = "-v asks for it")]
    pub(super) fn say(&self, what: &str) {
        if self.verbose {
            eprintln!("{}: {what}", self.program);
        }
    }

    /// What the process in the background is started with.
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = ["mount", "--detached", &self.program].map(OsString::from).into();
        let mut add = |flag: &str, value: Option<OsString>| {
            if let Some(value) = value {
                arguments.extend([flag.into(), value]);
            }
        };
        add("-o", Some(self.options.clone().into()).filter(|_| !self.options.is_empty()));
        add("--log-file", self.log_file.clone().map(Into::into));
        add("--metrics", self.metrics.map(|address| address.to_string().into()));
        arguments.extend(self.sloppy.then(|| "-s".into()));
        arguments.extend(["--".into(), self.spec.clone().into(), self.dir.clone().into()]);
        arguments
    }
}

/// The mount point without symbolic links. The mount point itself is not looked at, but for where it leads to: what is
/// mounted there may have lost its server, and would not answer.
pub(crate) fn resolved(dir: &Path) -> Result<PathBuf, Failed> {
    let failed = |e| Failed::new(exit::FAILED, format!("mount point {}: {e}", dir.display()));
    let parts = dir.parent().zip(dir.file_name()).filter(|_| std::fs::read_link(dir).is_err());
    match parts {
        Some((parent, name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize().map_err(failed)?.join(name))
        }
        None => dir.canonicalize().map_err(failed),
    }
}

impl Checked {
    /// Whether the mount is of the same server and export, however they were written.
    pub(super) fn is_of(&self, mount: &MountEntry) -> bool {
        let source = mount.source.to_str().and_then(|source| source.parse::<Spec>().ok());
        source.is_some_and(|source| source.hosts == self.spec.hosts && source.path == self.spec.path)
    }
}

/// The mount of ours that is there.
fn there(checked: &Checked) -> Result<Option<MountEntry>, Failed> {
    mountinfo::at(&checked.target).map_err(|e| {
        Failed::new(
            exit::FILES,
            format!("cannot read /proc/self/mountinfo, which lists what is mounted: {e}"),
        )
    })
}

fn refuse_twice(checked: &Checked, mount: &MountEntry) -> Result<(), Failed> {
    if !checked.is_of(mount) {
        return Ok(());
    }
    Err(Failed::new(
        exit::FAILED,
        format!(
            "{} is already mounted on {}; change it with -o remount, or unmount it first",
            checked.spec,
            checked.target.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_background_is_told_everything() {
        let order = Order {
            program: "mount.remoor".into(),
            spec: "h:/e".into(),
            dir: "/mnt".into(),
            options: "ro,soft".into(),
            sloppy: true,
            metrics: Some(([127, 0, 0, 1], 9).into()),
            ..Order::default()
        };
        let words = order.arguments().join(" ".as_ref()).into_string().unwrap();
        assert_eq!(words, "mount --detached mount.remoor -o ro,soft --metrics 127.0.0.1:9 -s -- h:/e /mnt");
    }

    #[test]
    fn one_export_is_known_however_it_is_written() {
        let checked = |spec: &str| {
            let spec: Spec = spec.parse().unwrap();
            Checked { parsed: Parsed::new(&spec, "", false).unwrap(), spec, target: "/m".into() }
        };
        let mounted = |source: &str| MountEntry {
            device: "0:57".to_owned(),
            target: "/m".into(),
            source: source.into(),
            options: String::new(),
            user: 0,
        };
        for source in ["h:/e", "nfs://h/e", "nfs://h:2050/e?ro", "h:/e/"] {
            assert!(checked("h:/e").is_of(&mounted(source)), "{source}");
        }
        for source in ["i:/e", "h:/f", "h", ""] {
            assert!(!checked("h:/e").is_of(&mounted(source)), "{source}");
        }
    }

    #[test]
    fn links_to_the_mount_point_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("a")).unwrap();
        std::os::unix::fs::symlink(real.join("a"), real.join("l")).unwrap();
        assert_eq!(resolved(&real.join("l")).unwrap(), real.join("a"));
        assert_eq!(resolved(&real.join("l/../a/")).unwrap(), real.join("a"));
        assert_eq!(resolved(&real.join("a/.")).unwrap(), real.join("a"));
        assert_eq!(resolved(&real.join("none")).unwrap(), real.join("none"), "mounting will say it");
        assert_eq!(resolved(&real.join("none/x")).unwrap_err().code, exit::FAILED);
    }
}
