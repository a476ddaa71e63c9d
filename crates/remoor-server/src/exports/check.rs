//! What a person should know of exports before they are served: `remoor exports check`.
//!
//! The parser tells what the text shows. Here is what needs more: the exported directories as they are, the name service,
//! and the exports beside each other.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FsWord, PROC_SUPER_MAGIC, statfs};

use super::{ClientSpec, Export, Exports, Finding, Fsid, Level, Options, Origin, Rule, Storage};
use crate::names::Names;

/// `statfs.f_type` of sysfs (Linux: `include/uapi/linux/magic.h`).
const SYSFS_MAGIC: FsWord = 0x6265_6572;

/// Everything about exports that were parsed, the parser's own findings included: errors first, then warnings, then notes,
/// each in the order of files and lines. Looks at the exported directories and asks `names` for every host name.
pub fn review(exports: &Exports, names: &dyn Names) -> Vec<Finding> {
    let mut review = Review { findings: exports.warnings.iter().chain(&exports.notes).cloned().collect() };
    let places: Vec<Place<'_>> = exports.list.iter().map(Place::new).collect();
    for place in &places {
        review.directory(place);
        review.rules(place.export, names);
    }
    review.overlaps(&places);
    review.same_directories(&places);
    review.same_fsids(&exports.list);
    review.findings.sort_by(|a, b| (a.level, line(&a.origin)).cmp(&(b.level, line(&b.origin))));
    review.findings
}

fn line(origin: &Origin) -> (Option<&Path>, usize) {
    match origin {
        Origin::File(file, line) => (Some(file), *line),
        Origin::Argument(_) => (None, 0),
    }
}

/// An export, and its directory as far as there is one.
struct Place<'a> {
    export: &'a Export,
    real: io::Result<(PathBuf, Metadata)>,
}

impl<'a> Place<'a> {
    fn new(export: &'a Export) -> Self {
        let real = export.path.canonicalize().and_then(|path| Ok((path.clone(), path.metadata()?)));
        Self { export, real }
    }

    /// The path without symbolic links, which is what clients mount.
    fn path(&self) -> &Path {
        self.real.as_ref().map_or(&self.export.path, |(path, _)| path)
    }

    /// Unknown if the directory is missing or in memory.
    fn device(&self) -> Option<u64> {
        let local = self.export.storage == Storage::Local;
        self.real.as_ref().ok().filter(|_| local).map(|(_, metadata)| metadata.dev())
    }
}

struct Review {
    findings: Vec<Finding>,
}

impl Review {
    fn tell(&mut self, level: Level, origin: &Origin, text: String, remedy: impl Into<String>) {
        self.findings.push(Finding { level, origin: origin.clone(), text, remedy: remedy.into() });
    }

    fn warn(&mut self, origin: &Origin, text: String, remedy: impl Into<String>) {
        self.tell(Level::Warning, origin, text, remedy);
    }

    fn directory(&mut self, place: &Place<'_>) {
        let export = place.export;
        if export.storage == Storage::Memory {
            return;
        }
        let (origin, path) = (&origin(export), export.path.display());
        if let Some(mountpoint) = export.mountpoint().filter(|_| !export.is_mounted()) {
            let text = format!("{path} is not exported now: {} is not a mount point", mountpoint.display());
            return self.warn(origin, text, "mount its file system, then load the exports again");
        }
        match &place.real {
            Err(error) => {
                let text = format!("{path} cannot be exported: {error}");
                self.tell(Level::Error, origin, text, "make the directory, or remove the line");
            }
            Ok((_, metadata)) if !metadata.is_dir() => {
                let text = format!("{path} is not a directory");
                self.tell(Level::Error, origin, text, "export the directory it is in");
            }
            Ok((real, _)) if real.parent().is_none() => {
                let text = format!(
                    "{path} is the whole host: the server's state directory lies in it, and remoor serve refuses that"
                );
                self.tell(Level::Error, origin, text, "export the directories that clients need");
            }
            Ok((real, _)) if is_of_the_kernel(real) => {
                let text = format!("{path} has no files of its own: the kernel shows itself there");
                self.warn(origin, text, "export the directories that clients need");
            }
            Ok((real, _)) if *real != export.path => {
                let text =
                    format!("{path} leads over a symbolic link; clients mount it as {}", real.display());
                self.warn(origin, text, format!("write {}", real.display()));
            }
            Ok(_) => {}
        }
    }

    fn rules(&mut self, export: &Export, names: &dyn Names) {
        for (n, rule) in export.rules.iter().enumerate() {
            self.reached(export, rule, &export.rules[..n]);
            self.resolved(rule, names);
            self.ports(export, rule);
            self.identity(export, rule);
            if !rule.options.sync && !rule.options.read_only {
                let text = format!(
                    "{} for {} is async: data that clients believe to be safe is lost when this host crashes",
                    export.path.display(),
                    rule.client
                );
                self.warn(&rule.origin, text, "write sync, unless the data can be made again");
            }
        }
    }

    /// A rule all of whose clients are named by rules of higher precedence.
    fn reached(&mut self, export: &Export, rule: &Rule, before: &[Rule]) {
        if let Some(first) = before.iter().find(|before| before.client.covers(&rule.client)) {
            let text = format!(
                "{} for {} is never used: {} at {} names the same clients and stands first",
                export.path.display(),
                rule.client,
                first.client,
                first.origin
            );
            self.warn(&rule.origin, text, format!("write {} before {}", rule.client, first.client));
        }
    }

    fn resolved(&mut self, rule: &Rule, names: &dyn Names) {
        if let ClientSpec::Host(host) = &rule.client
            && names.addresses_of(host).is_ok_and(|addresses| addresses.is_empty())
        {
            let text = format!("host name {host} does not resolve, so it names no client");
            self.warn(&rule.origin, text, "correct the name, or write the host's address");
        }
    }

    /// `insecure` lets every user of a host speak for every other, and that deserves a reason. Not so where everybody is
    /// anonymous anyway.
    fn ports(&mut self, export: &Export, rule: &Rule) {
        if rule.options.secure || rule.options.all_squash {
            return;
        }
        let (path, client) = (export.path.display(), &rule.client);
        if client.is_everybody() {
            let text = format!(
                "{path} is insecure to the world ({client}): any program on any host that reaches this server \
                 can act as any user"
            );
            self.warn(&rule.origin, text, "name the hosts or networks, or write secure or all_squash");
        } else if !rule.has_comment {
            let text = format!(
                "{path} for {client} is insecure without a rationale: any program there can act as any user"
            );
            self.warn(
                &rule.origin,
                text,
                "tell why in a comment on the line or right above it, or write secure",
            );
        }
    }

    fn identity(&mut self, export: &Export, rule: &Rule) {
        let options = &rule.options;
        if options.anonuid == 0 && (options.root_squash || options.all_squash) {
            let text = format!(
                "{} for {}: the anonymous user is root (anonuid=0)",
                export.path.display(),
                rule.client
            );
            self.warn(&rule.origin, text, "choose another anonuid; without one it is 65534");
        }
    }

    /// Exports of which one lies in the other, on the same file system, and which give something else.
    fn overlaps(&mut self, places: &[Place<'_>]) {
        let below = |b: &Place<'_>, a: &Place<'_>| {
            a.export.storage == b.export.storage
                && b.path() != a.path()
                && b.path().starts_with(a.path())
                && !give_the_same(a.export, b.export)
                && a.device().zip(b.device()).is_none_or(|(a, b)| a == b)
        };
        for b in places {
            let above = places.iter().filter(|a| below(b, a));
            let Some(a) = above.max_by_key(|a| a.path().components().count()) else { continue };
            let text = format!(
                "{} lies in {} ({}), whose clients reach its files as well, by the options there",
                b.export.path.display(),
                a.export.path.display(),
                origin(a.export)
            );
            self.warn(
                &origin(b.export),
                text,
                "export one of them, or give both the same clients and options",
            );
        }
    }

    fn same_directories(&mut self, places: &[Place<'_>]) {
        let local = |place: &&Place<'_>| place.real.is_ok() && place.export.storage == Storage::Local;
        let mut first: BTreeMap<&Path, &Place<'_>> = BTreeMap::new();
        for place in places.iter().filter(local) {
            let before = *first.entry(place.path()).or_insert(place);
            if !std::ptr::eq(before, place) {
                let text = format!(
                    "{} and {} ({}) are the same directory",
                    place.export.path.display(),
                    before.export.path.display(),
                    origin(before.export)
                );
                self.tell(Level::Error, &origin(place.export), text, "export it once");
            }
        }
    }

    fn same_fsids(&mut self, exports: &[Export]) {
        let mut first: Vec<(Fsid, &Export)> = Vec::new();
        for export in exports {
            let Some(fsid) = export.fsid() else { continue };
            match first.iter().find(|(other, _)| *other == fsid) {
                None => first.push((fsid, export)),
                Some((_, other)) => {
                    let text = format!(
                        "{} has the fsid={fsid} of {} ({}); handles of both would be the same",
                        export.path.display(),
                        other.path.display(),
                        origin(other)
                    );
                    self.tell(Level::Error, &origin(export), text, "give one of them another fsid=");
                }
            }
        }
    }
}

/// Whether proc(5) or sysfs(5) is mounted there.
fn is_of_the_kernel(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&found.f_type))
}

/// Whether two exports have the same clients with the same options.
fn give_the_same(a: &Export, b: &Export) -> bool {
    let same = |a: &Rule, b: &Rule| {
        a.client == b.client && Options { fsid: b.options.fsid, ..a.options.clone() } == b.options
    };
    a.rules.len() == b.rules.len() && a.rules.iter().zip(&b.rules).all(|(a, b)| same(a, b))
}

/// Where an export is written first. An export has a rule at least.
fn origin(export: &Export) -> Origin {
    let first = export.rules.iter().map(|rule| &rule.origin).min_by_key(|origin| line(origin));
    first.cloned().unwrap_or_else(|| Origin::File(export.path.clone(), 0))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::names::fixed::{FixedNames, NeverAnswers};

    /// A directory with `a`, `a/b` and `c`, and exports in which `DIR` stands for it.
    struct Case {
        dir: tempfile::TempDir,
        names: FixedNames,
    }

    impl Case {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("a/b")).unwrap();
            fs::create_dir(dir.path().join("c")).unwrap();
            let mut names = FixedNames::default();
            names.host("web", "192.0.2.7");
            Self { dir, names }
        }

        /// Findings of lines to which `no_subtree_check` is added.
        fn findings(&self, text: &str) -> Vec<Finding> {
            let dir = self.dir.path().canonicalize().unwrap();
            let text = text.replace("DIR", dir.to_str().unwrap()).replace('(', "(no_subtree_check,");
            let exports = Exports::parse(Path::new("exports"), text.as_bytes()).unwrap();
            review(&exports, &self.names)
        }

        fn one(&self, text: &str) -> Finding {
            <[Finding; 1]>::try_from(self.findings(text)).unwrap()[0].clone()
        }

        #[track_caller]
        fn tells(&self, level: Level, text: &str, expected: &str) {
            let finding = self.one(text);
            assert_eq!(finding.level, level);
            assert!(finding.text.contains(expected), "{finding}");
            assert!(finding.remedy.len() > 8, "{finding}");
        }
    }

    #[test]
    fn good_exports_have_no_findings() {
        let case = Case::new();
        assert_eq!(case.findings("DIR/a web(rw) 192.0.2.0/24(ro)\nDIR/c *(ro,insecure,all_squash)"), []);
        assert_eq!(
            case.findings("# for noresvport\nDIR/a web(rw,insecure)\nDIR/c web(insecure) # so, too"),
            []
        );
        assert_eq!(case.findings("memory:/x web(rw)\nmemory:/a/b web()"), []);
        assert_eq!(case.findings("DIR/a web(ro,async)"), [], "nothing is written, nothing is lost");
    }

    #[test]
    fn directories_are_looked_at() {
        let case = Case::new();
        fs::write(case.dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("a", case.dir.path().join("link")).unwrap();
        case.tells(Level::Error, "DIR/none web()", "/none cannot be exported: No such file");
        case.tells(Level::Error, "DIR/file web()", "is not a directory");
        case.tells(Level::Warning, "DIR/link web()", "clients mount it as");
        case.tells(Level::Warning, "DIR/a web(mp)", "is not a mount point");
        case.tells(Level::Warning, "DIR/none web(mp=DIR/none)", "is not a mount point");
        assert_eq!(case.findings("DIR/a web(mp=/proc)"), []);
    }

    #[test]
    fn ports_and_identities_are_questioned() {
        let case = Case::new();
        case.tells(Level::Warning, "DIR/a *(insecure) # why", "is insecure to the world (*)");
        case.tells(Level::Warning, "DIR/a 0.0.0.0/0(insecure)", "is insecure to the world");
        case.tells(Level::Warning, "DIR/a web(insecure)", "for web is insecure without a rationale");
        case.tells(Level::Warning, "DIR/a web(rw,async)", "is async: data that clients believe to be safe");
        case.tells(Level::Warning, "DIR/a web(anonuid=0)", "the anonymous user is root");
        case.tells(Level::Warning, "DIR/a *(no_root_squash)", "gives root to everybody");
    }

    #[test]
    fn hosts_that_do_not_resolve_are_told() {
        let case = Case::new();
        case.tells(Level::Warning, "DIR/a wbe()", "host name wbe does not resolve");
        let exports = Exports::parse(Path::new("x"), b"memory:/a wbe(no_subtree_check)").unwrap();
        assert_eq!(review(&exports, &NeverAnswers), [], "not known is not wrong");
    }

    #[test]
    fn rules_that_are_never_used_are_told() {
        let case = Case::new();
        let text = "DIR/a 192.0.2.0/24(ro) 192.0.2.0/28(rw)";
        case.tells(Level::Warning, text, "for 192.0.2.0/28 is never used: 192.0.2.0/24 at exports:1");
        assert!(case.findings("DIR/a 192.0.2.0/28(rw) 192.0.2.0/24(ro) 192.0.2.1()").is_empty());
    }

    #[test]
    fn exports_are_compared() {
        let case = Case::new();
        case.tells(Level::Warning, "DIR/a/b web()\n\nDIR web(rw)", "/a/b lies in");
        assert_eq!(case.one("DIR/a/b web()\n\nDIR web(rw)").origin, Origin::File("exports".into(), 1));
        let three = case.findings("DIR web(fsid=1)\nDIR/a web(rw)\nDIR/a/b web(fsid=2)");
        assert_eq!(three.len(), 2, "each is told of the closest above it");
        assert!(three[1].text.contains("/a (exports:2)"), "{}", three[1]);
        assert_eq!(case.findings("DIR web(fsid=1)\nDIR/a web(fsid=2)"), [], "nothing more is given");
        case.tells(Level::Error, "DIR/a web(fsid=1)\nDIR/c web(fsid=1)", "has the fsid=1 of");
        std::os::unix::fs::symlink("a", case.dir.path().join("link")).unwrap();
        let twice = case.findings("DIR/a web()\nDIR/link web()");
        assert_eq!(twice.iter().map(|f| f.level).collect::<Vec<_>>(), [Level::Error, Level::Warning]);
        assert!(twice[0].text.ends_with("are the same directory"), "{}", twice[0]);
    }

    #[test]
    fn another_file_system_below_is_no_overlap() {
        let exports =
            Exports::parse(Path::new("x"), b"/ h(no_subtree_check)\n/proc h(no_subtree_check)").unwrap();
        let mut names = FixedNames::default();
        names.host("h", "192.0.2.7");
        assert!(review(&exports, &names).iter().all(|finding| !finding.text.contains("lies in / ")));
    }

    #[test]
    fn what_gives_away_the_host_is_told() {
        let case = Case::new();
        case.tells(Level::Error, "/ web(ro)", "/ is the whole host: the server's state directory lies in it");
        case.tells(Level::Warning, "/proc web(ro)", "/proc has no files of its own");
        case.tells(Level::Warning, "/proc/sys web(ro)", "has no files of its own");
    }

    #[test]
    fn errors_stand_before_warnings_before_notes() {
        let case = Case::new();
        let levels: Vec<Level> =
            case.findings("DIR/a x(wdelay)\nDIR/none web()").iter().map(|f| f.level).collect();
        assert_eq!(levels, [Level::Error, Level::Warning, Level::Note]);
    }
}
