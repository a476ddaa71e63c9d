//! What is exported to whom: the form of exports(5), its options, and the choice for one client.

mod client;
mod identity;
mod lexer;
mod option;
mod parse;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

pub use client::{ClientError, ClientSpec};
pub use identity::Fsid;
pub(crate) use identity::export_id;
pub use option::{ANONYMOUS, Apply, OPTIONS, OptionError, OptionRow, Options, Status};
pub use parse::{MAX_FILE_BYTES, ParseError, ParseErrorKind};

/// Parsed exports. Nothing is known yet of whether the directories exist.
#[derive(Debug, Clone, Default)]
pub struct Exports {
    /// Each path once.
    pub list: Vec<Export>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Warning>,
}

/// One exported directory.
#[derive(Debug, Clone)]
pub struct Export {
    /// Where its files are.
    pub storage: Storage,
    /// The directory, and the path clients mount.
    pub path: PathBuf,
    /// Who may use it, in the order of the file.
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
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file and a line; line 0 is the file as a whole.
    File(PathBuf, usize),
    /// A command-line argument.
    Argument(String),
}

/// Something that is allowed but probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where it is written.
    pub origin: Origin,
    /// What it is.
    pub text: String,
}

impl Exports {
    /// These and those of another source.
    pub fn merge(mut self, other: Self) -> Self {
        self.list.extend(other.list);
        self.warnings.extend(other.warnings);
        self
    }
}

impl Export {
    /// The `fsid=` of any of its rules.
    pub fn fsid(&self) -> Option<Fsid> {
        self.rules.iter().find_map(|rule| rule.options.fsid)
    }

    /// The options for a client; `None` if the export is not for it.
    pub fn options_for(&self, client: IpAddr) -> Option<&Options> {
        closest(&self.rules, client)
    }
}

/// The rule that names the client most closely, as exportfs(8) does; of equals the first.
pub(crate) fn closest(rules: &[Rule], client: IpAddr) -> Option<&Options> {
    let client = client.to_canonical();
    let matching = rules.iter().rev().filter_map(|rule| Some((rule.client.closeness(client)?, rule)));
    matching.max_by_key(|(closeness, _)| *closeness).map(|(_, rule)| &rule.options)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Argument(arg) => write!(f, "export {arg:?}"),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_closest_rule_decides() {
        let text = "/a *(ro) 192.0.2.0/24(rw,anonuid=24) 192.0.2.0/28(rw,anonuid=28) 192.0.2.1(rw,anonuid=1)";
        let exports = Exports::parse(Path::new("x"), text.as_bytes()).unwrap();
        let anonuid = |client: &str| exports.list[0].options_for(client.parse().unwrap()).map(|o| o.anonuid);
        assert_eq!(anonuid("192.0.2.1"), Some(1));
        assert_eq!(anonuid("::ffff:192.0.2.1"), Some(1));
        assert_eq!(anonuid("192.0.2.2"), Some(28));
        assert_eq!(anonuid("192.0.2.99"), Some(24));
        assert_eq!(anonuid("198.51.100.1"), Some(ANONYMOUS));
        let exports = Exports::parse(Path::new("x"), b"/a 192.0.2.1(rw)").unwrap();
        assert!(exports.list[0].options_for("192.0.2.2".parse().unwrap()).is_none());
    }
}
