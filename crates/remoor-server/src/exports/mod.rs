//! What is exported to whom: the form of exports(5), its options, and the choice for one client.
//!
//! Of several rules that name a client the one of the closest kind decides (host, network, wildcard, netgroup,
//! everybody), and of the same kind the first in the file, as exports(5) has it: not the longest prefix.

pub mod check;
mod client;
mod entry;
mod identity;
mod lexer;
mod mountpoint;
mod option;
mod options;
mod parse;
mod pattern;

use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use client::{ClientError, ClientKind, ClientSpec};
pub use identity::Fsid;
pub(crate) use identity::export_id;
pub use mountpoint::is_mount_point;
pub use option::{Apply, Argument, OPTIONS, OptionError, OptionRow, Status};
pub use options::{ANONYMOUS, MountPoint, Options};
pub use parse::{MAX_FILE_BYTES, MAX_FILES, ParseError, ParseErrorKind, Parsed};
pub use pattern::Pattern;

use crate::names::{Names, Pending};

/// Parsed exports. Nothing is known yet of whether the directories exist.
#[derive(Debug, Clone, Default)]
pub struct Exports {
    /// Each path once.
    pub list: Vec<Export>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Finding>,
    /// Options that are accepted and have no effect.
    pub notes: Vec<Finding>,
}

/// One exported directory.
#[derive(Debug, Clone)]
pub struct Export {
    /// Where its files are.
    pub storage: Storage,
    /// The directory, and the path clients mount.
    pub path: PathBuf,
    /// Who may use it, in the order of precedence: the first rule that names a client decides.
    pub rules: Vec<Rule>,
}

/// Where the files of an export are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In the directory of the export's path.
    Local,
    /// In memory (`memory:/PATH`): empty at every start, for tests and measurements.
    Memory,
}

/// The options that one client specification gets.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Who.
    pub client: ClientSpec,
    /// What they get.
    pub options: Options,
    /// Where it is written.
    pub origin: Origin,
    /// Whether a comment stands on its line or right above, which may be the reason for it.
    pub has_comment: bool,
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file and a line; line 0 is the file as a whole.
    File(PathBuf, usize),
    /// A command-line argument.
    Argument(String),
}

/// How much a [`Finding`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It cannot be served.
    Error,
    /// It is allowed but probably not meant, or a risk.
    Warning,
    /// It does nothing.
    Note,
}

/// Something about exports that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// Where it is written.
    pub origin: Origin,
    /// What it is.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

impl Exports {
    /// These and those of another source; a path that both have gets the rules of both, these first.
    pub fn merge(mut self, other: Self) -> Self {
        self.warnings.extend(other.warnings);
        self.notes.extend(other.notes);
        for export in other.list {
            match self.list.iter_mut().find(|e| e.is_same_place(&export)) {
                Some(same) if same.agrees_on_fsid(export.fsid()) => {
                    let doubles =
                        export.rules.into_iter().filter_map(|rule| same.add(rule)).collect::<Vec<_>>();
                    self.warnings.extend(doubles);
                }
                _ => self.list.push(export),
            }
        }
        self
    }

    /// Begins to look up the host names of the rules, in the background, so that no client has to wait for it.
    pub fn look_up_hosts(list: &[Export], names: &dyn Names) {
        let clients = list.iter().flat_map(|export| &export.rules).map(|rule| &rule.client);
        for client in clients {
            if let ClientSpec::Host(host) = client {
                names.recheck(host);
            }
        }
    }
}

impl Export {
    /// The `fsid=` of any of its rules.
    pub fn fsid(&self) -> Option<Fsid> {
        self.rules.iter().find_map(|rule| rule.options.fsid)
    }

    /// What has to be a mount point for this export to be there, for whichever rule says so.
    pub fn mountpoint(&self) -> Option<&Path> {
        let named = self.rules.iter().find_map(|rule| rule.options.mountpoint.as_ref())?;
        Some(match named {
            MountPoint::Export => &self.path,
            MountPoint::Path(path) => path,
        })
    }

    /// Whether [`Export::mountpoint`], if it has one, is a mount point at this moment.
    pub fn is_mounted(&self) -> bool {
        self.mountpoint().is_none_or(|path| is_mount_point(path).unwrap_or(false))
    }

    /// Says in the log that what has to be a mount point is none.
    pub(crate) fn tell_not_mounted(&self) {
        if let Some(path) = self.mountpoint() {
            let (export, path) = (self.path.display(), path.display());
            tracing::warn!(
                "not exporting {export}: {path} is not a mount point; mount it and load the exports again"
            );
        }
    }

    /// The rule that decides for a client.
    pub fn rule_for(&self, client: IpAddr, names: &dyn Names) -> Result<Option<&Rule>, Pending> {
        decide(&self.rules, client, names)
    }

    fn is_same_place(&self, other: &Self) -> bool {
        self.path == other.path && self.storage == other.storage
    }

    fn agrees_on_fsid(&self, fsid: Option<Fsid>) -> bool {
        self.fsid().zip(fsid).is_none_or(|(a, b)| a == b)
    }

    /// Puts a rule where its precedence is. For a client that has one already the first counts; that is told.
    pub(crate) fn add(&mut self, rule: Rule) -> Option<Finding> {
        if let Some(first) = self.rules.iter().find(|r| r.client == rule.client) {
            let text = format!(
                "{} is exported to {} twice; the rule of {} counts",
                self.path.display(),
                rule.client,
                first.origin
            );
            let remedy = "remove one of them".into();
            return Some(Finding { level: Level::Warning, origin: rule.origin, text, remedy });
        }
        let at = self.rules.partition_point(|r| r.client.kind() <= rule.client.kind());
        self.rules.insert(at, rule);
        None
    }
}

/// The rule that decides for a client, of rules in the order of precedence. An answer of the name service that is still
/// to come leaves it undecided, since a rule further down may give more or less than the client is to have. So does a
/// name service that fails, if no rule names the client: applications would not survive NFS3ERR_STALE, and a server that
/// just took over may be up before its name service is.
pub(crate) fn decide<'a>(
    rules: &'a [Rule],
    client: IpAddr,
    names: &dyn Names,
) -> Result<Option<&'a Rule>, Pending> {
    let client = client.to_canonical();
    for rule in rules {
        let by_address = rule.client.matches_address(client);
        if by_address.map_or_else(|| rule.client.matches_name(client, names), Ok)? {
            return Ok(Some(rule));
        }
    }
    let mut sure = true;
    for rule in rules {
        if let ClientSpec::Host(host) = &rule.client {
            names.recheck(host);
        }
        sure &= names.is_sure(&rule.client, client);
    }
    if sure { Ok(None) } else { Err(Pending) }
}

/// As one line of exports(5).
impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.storage == Storage::Memory {
            f.write_str(entry::MEMORY)?;
        }
        write_word(f, self.path.as_os_str().as_bytes())?;
        self.rules.iter().try_for_each(|rule| {
            f.write_str(" ")?;
            write_word(f, format!("{}({})", rule.client, rule.options).as_bytes())
        })
    }
}

/// What would end a word, or is not ASCII, as octal escapes, as exportfs(8) writes it.
fn write_word(f: &mut fmt::Formatter<'_>, word: &[u8]) -> fmt::Result {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'#');
    word.iter().try_for_each(|byte| match byte {
        byte if plain(*byte) => write!(f, "{}", char::from(*byte)),
        byte => write!(f, "\\{byte:03o}"),
    })
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Argument(arg) => write!(f, "export {arg:?}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.origin, self.text, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::names::fixed::{FixedNames, NeverAnswers};

    fn parse(text: &str) -> Exports {
        Exports::parse(Path::new("x"), text.as_bytes()).unwrap()
    }

    fn names() -> FixedNames {
        let mut names = FixedNames::default();
        names.host("web.example.org", "192.0.2.7");
        names.member("trusted", "192.0.2.7");
        names.member("trusted", "198.51.100.3");
        names
    }

    /// The anonuid of the rule that decides, by which the tests tell rules apart.
    fn decided(text: &str, client: &str) -> Option<u32> {
        let exports = parse(text);
        let rule = exports.list[0].rule_for(client.parse().unwrap(), &names()).unwrap();
        rule.map(|rule| rule.options.anonuid)
    }

    #[test]
    fn the_closest_kind_decides_wherever_it_stands() {
        let rules = [
            "192.0.2.7(anonuid=1)",
            "192.0.2.0/24(anonuid=2)",
            "*.example.org(anonuid=3)",
            "@trusted(anonuid=4)",
            "*(anonuid=5)",
        ];
        for first in 0..rules.len() {
            let forward = rules[first..].join(" ");
            let backward: Vec<&str> = rules[first..].iter().rev().copied().collect();
            let expected = Some(first as u32 + 1);
            assert_eq!(decided(&format!("/a {forward}"), "192.0.2.7"), expected);
            assert_eq!(decided(&format!("/a {}", backward.join(" ")), "192.0.2.7"), expected);
        }
        assert_eq!(decided("/a *(anonuid=1) web.example.org(anonuid=2)", "::ffff:192.0.2.7"), Some(2));
        assert_eq!(decided("/a 192.0.2.1", "192.0.2.2"), None);
    }

    #[test]
    fn of_the_same_kind_the_first_decides() {
        let two = |a, b| decided(&format!("/a {a}(anonuid=1) {b}(anonuid=2)"), "192.0.2.7");
        for (a, b) in [
            ("192.0.2.0/24", "192.0.2.0/28"),
            ("192.0.2.7", "web.example.org"),
            ("web.example.org", "192.0.2.7"),
            ("*.example.org", "web*"),
        ] {
            assert_eq!((two(a, b), two(b, a)), (Some(1), Some(1)), "{a} {b}");
        }
        let lines = "/a 192.0.2.0/24(anonuid=1)\n/b *\n/a 192.0.2.0/25(anonuid=2)";
        assert_eq!(decided(lines, "192.0.2.7"), Some(1));
    }

    #[test]
    fn names_are_asked_for_only_when_no_closer_rule_decides() {
        let names = names();
        let export = &parse("/a 192.0.2.0/24 @trusted *.example.org *").list[0];
        export.rule_for("192.0.2.9".parse().unwrap(), &names).unwrap().unwrap();
        assert_eq!(names.asked.load(Relaxed), 0);
        let client = "198.51.100.3".parse().unwrap();
        let rule = export.rule_for(client, &names).unwrap().unwrap();
        assert_eq!((rule.client.kind(), names.asked.load(Relaxed)), (ClientKind::Netgroup, 2));
    }

    #[test]
    fn an_answer_to_come_leaves_it_undecided() {
        let client = "192.0.2.7".parse().unwrap();
        let rule_for = |text| parse(text).list[0].rule_for(client, &NeverAnswers).map(|r| r.is_some());
        assert_eq!(rule_for("/a *.example.org(rw) *(ro)"), Err(Pending));
        assert_eq!(rule_for("/a web.example.org(ro) 192.0.2.0/24(rw)"), Err(Pending));
        assert_eq!(rule_for("/a *.example.org 192.0.2.0/24"), Ok(true));
    }

    #[test]
    fn a_name_service_that_fails_refuses_nobody() {
        struct Fails;
        impl Names for Fails {
            fn names_of(&self, _: IpAddr) -> Result<std::sync::Arc<[String]>, Pending> {
                Ok([].into())
            }
            fn addresses_of(&self, _: &std::sync::Arc<str>) -> Result<std::sync::Arc<[IpAddr]>, Pending> {
                Ok([].into())
            }
            fn is_member(&self, _: &std::sync::Arc<str>, _: IpAddr) -> Result<bool, Pending> {
                Ok(false)
            }
            fn is_sure(&self, rule: &ClientSpec, _: IpAddr) -> bool {
                rule.matches_address([192, 0, 2, 7].into()).is_some()
            }
        }
        let client = "192.0.2.7".parse().unwrap();
        let rule_for = |text: &str| parse(text).list[0].rule_for(client, &Fails).map(|r| r.is_some());
        for rule in ["web.example.org", "*.example.org", "@trusted"] {
            assert_eq!(rule_for(&format!("/a {rule} 192.0.2.9")), Err(Pending), "{rule}");
            assert_eq!(rule_for(&format!("/a {rule} *")), Ok(true), "{rule}");
        }
        assert_eq!(rule_for("/a 192.0.2.9 198.51.100.0/24"), Ok(false));
    }

    #[test]
    fn a_client_that_is_not_recognised_has_its_hosts_looked_up_again() {
        let names = names();
        let exports = parse("/a web.example.org db.example.org 192.0.2.9");
        let rule_for = |client: &str| exports.list[0].rule_for(client.parse().unwrap(), &names).unwrap();
        assert!(rule_for("192.0.2.7").is_some());
        assert_eq!(names.rechecked.load(Relaxed), 0);
        assert!(rule_for("192.0.2.8").is_none());
        assert_eq!(names.rechecked.load(Relaxed), 2);
        Exports::look_up_hosts(&exports.list, &names);
        assert_eq!(names.rechecked.load(Relaxed), 4);
    }

    #[test]
    fn sources_are_merged_by_path() {
        let one = parse("/a 192.0.2.1(anonuid=1)\n/b *(fsid=1)");
        let other = parse("/a *(anonuid=5) 192.0.2.1(anonuid=9)\n/b 192.0.2.1(fsid=2)\n/c *");
        let merged = one.merge(other);
        let lines: Vec<String> = merged.list.iter().map(|e| e.path.display().to_string()).collect();
        assert_eq!(lines, ["/a", "/b", "/b", "/c"], "two identities are left to whoever serves them");
        let anonuid: Vec<u32> = merged.list[0].rules.iter().map(|r| r.options.anonuid).collect();
        assert_eq!(anonuid, [1, 5]);
        assert!(merged.warnings.iter().any(|w| w.text.contains("exported to 192.0.2.1 twice")));
    }
}
