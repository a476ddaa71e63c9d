//! From text to [`Exports`]: files in the form of exports(5), and the short form of the command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::client::{ClientError, ClientSpec};
use super::lexer::{self, Entry, OpenQuote};
use super::option::{self, OptionError, Options};
use super::{Export, Exports, Origin, Rule, Storage, Warning};

/// Most lines, exports and clients are bounded by the size of the file, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why exports were not taken: where, and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {kind}")]
pub struct ParseError {
    /// File and line, or the argument.
    pub origin: Origin,
    /// What is wrong.
    #[source]
    pub kind: ParseErrorKind,
}

/// What can be wrong with an export.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum ParseErrorKind {
    #[error("cannot read exports: {0}")]
    Read(#[source] std::io::Error),
    #[error("the file has {0} bytes, more than {MAX_FILE_BYTES}")]
    TooLong(u64),
    #[error("a quote is not closed on this line")]
    OpenQuote,
    #[error("{0:?} is not an absolute path; an export begins with / (or memory:/)")]
    NotAbsolute(PathBuf),
    #[error("{0:?}: \"(\" without \")\" at the end of the word; options must not contain blanks")]
    OpenParenthesis(String),
    #[error("{0:?} is not UTF-8")]
    NotUtf8(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error("{0:?} has two different fsid= options; one export has one identity")]
    TwoFsids(PathBuf),
}

impl Exports {
    /// Reads a file in the form of exports(5).
    pub fn from_file(path: &Path) -> Result<Self, ParseError> {
        let failed = |kind| ParseError { origin: Origin::File(path.into(), 0), kind };
        let bytes = std::fs::metadata(path).map_err(|e| failed(ParseErrorKind::Read(e)))?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(failed(ParseErrorKind::TooLong(bytes)));
        }
        let text = std::fs::read(path).map_err(|e| failed(ParseErrorKind::Read(e)))?;
        Self::parse(path, &text)
    }

    /// Parses text in the form of exports(5); `file` is its name in messages.
    pub fn parse(file: &Path, text: &[u8]) -> Result<Self, ParseError> {
        let mut exports = Self::default();
        let at = |line| Origin::File(file.into(), line);
        let entries = lexer::entries(text)
            .map_err(|OpenQuote(line)| ParseError { origin: at(line), kind: ParseErrorKind::OpenQuote })?;
        for entry in entries {
            let origin = at(entry.line);
            exports.entry(&entry, &origin).map_err(|kind| ParseError { origin, kind })?;
        }
        Ok(exports)
    }

    /// Parses `DIR`, `DIR:OPTIONS` or `DIR:CLIENT(OPTIONS) ...`, as in `/srv/data:rw,insecure` and
    /// `/srv/data:192.0.2.0/24(rw)`. Without a client the export is for everybody who can reach the listen address,
    /// which is loopback unless another is given.
    pub fn from_args<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Result<Self, ParseError> {
        let mut exports = Self::default();
        for arg in args {
            let origin = Origin::Argument(arg.as_ref().into());
            exports.argument(arg.as_ref(), &origin).map_err(|kind| ParseError { origin, kind })?;
        }
        Ok(exports)
    }

    fn argument(&mut self, arg: &str, origin: &Origin) -> Result<(), ParseErrorKind> {
        let (memory, path) = arg.strip_prefix(MEMORY).map_or(("", arg), |path| (MEMORY, path));
        let (path, rest) = path.split_once(':').unwrap_or((path, ""));
        let (storage, path) = place(format!("{memory}{path}").into_bytes())?;
        if rest.contains('(') {
            for word in rest.split_ascii_whitespace() {
                self.client(&storage, &path, word, &Options::default(), origin)?;
            }
            return Ok(());
        }
        let mut options = Options::default();
        self.options(&mut options, rest, origin)?;
        self.add(storage, path, Rule { client: ClientSpec::Any, options, origin: origin.clone() })
    }

    fn entry(&mut self, entry: &Entry, origin: &Origin) -> Result<(), ParseErrorKind> {
        let Some((path, clients)) = entry.words.split_first() else { return Ok(()) };
        let (storage, path) = place(path.text.clone())?;
        let mut defaults = Options::default();
        let mut named = 0;
        for word in clients {
            let word = std::str::from_utf8(&word.text)
                .map_err(|_| ParseErrorKind::NotUtf8(String::from_utf8_lossy(&word.text).into()))?;
            if let Some(list) = word.strip_prefix('-') {
                self.options(&mut defaults, list, origin)?;
            } else {
                self.client(&storage, &path, word, &defaults, origin)?;
                named += 1;
            }
        }
        if named == 0 {
            self.warn(origin, format!("{path:?} names no client and is exported to everybody; write *"));
            self.add(
                storage,
                path,
                Rule { client: ClientSpec::Any, options: defaults, origin: origin.clone() },
            )?;
        }
        Ok(())
    }

    fn client(
        &mut self,
        storage: &Storage,
        path: &Path,
        word: &str,
        defaults: &Options,
        origin: &Origin,
    ) -> Result<(), ParseErrorKind> {
        let (client, list) = split_client(word)?;
        if client.is_empty() {
            self.warn(
                origin,
                format!(
                    "{word:?} stands alone and exports {path:?} to everybody; \
                 a blank before \"(\" separates options from their client"
                ),
            );
        }
        let mut options = defaults.clone();
        self.options(&mut options, list, origin)?;
        let client = ClientSpec::parse(if client.is_empty() { "*" } else { client })?;
        self.note_risks(path, client, &options, origin);
        self.add(storage.clone(), path.into(), Rule { client, options, origin: origin.clone() })
    }

    fn options(&mut self, options: &mut Options, list: &str, origin: &Origin) -> Result<(), ParseErrorKind> {
        for word in list.split(',').filter(|word| !word.is_empty()) {
            if let Some(reason) = option::apply(options, word)? {
                self.warn(origin, format!("option {word:?} has no effect: {reason}"));
            }
        }
        Ok(())
    }

    fn note_risks(&mut self, path: &Path, client: ClientSpec, options: &Options, origin: &Origin) {
        if options.subtree_check.is_none() {
            let text = format!(
                "{path:?} for {client}: neither subtree_check nor no_subtree_check is given; no_subtree_check is assumed"
            );
            self.warn(origin, text);
        }
        if !options.root_squash && client == ClientSpec::Any {
            self.warn(origin, format!("{path:?} gives root to everybody: no_root_squash for *"));
        }
    }

    fn warn(&mut self, origin: &Origin, text: String) {
        self.warnings.push(Warning { origin: origin.clone(), text });
    }

    fn add(&mut self, storage: Storage, path: PathBuf, rule: Rule) -> Result<(), ParseErrorKind> {
        let Some(at) = self.list.iter().position(|e| e.path == path && e.storage == storage) else {
            self.list.push(Export { storage, path, rules: vec![rule] });
            return Ok(());
        };
        if self.list[at].fsid() != rule.options.fsid
            && rule.options.fsid.is_some()
            && self.list[at].fsid().is_some()
        {
            return Err(ParseErrorKind::TwoFsids(path));
        }
        if self.list[at].rules.iter().any(|r| r.client == rule.client) {
            let text = format!("{path:?} is exported to {} twice; the first counts", rule.client);
            self.warn(&rule.origin.clone(), text);
            return Ok(());
        }
        self.list[at].rules.push(rule);
        Ok(())
    }
}

/// Before a path: the export is kept in memory, empty at every start.
const MEMORY: &str = "memory:";

fn place(text: Vec<u8>) -> Result<(Storage, PathBuf), ParseErrorKind> {
    let (storage, text) = match text.strip_prefix(MEMORY.as_bytes()) {
        Some(rest) => (Storage::Memory, rest.to_vec()),
        None => (Storage::Local, text),
    };
    let path = PathBuf::from(OsString::from_vec(text));
    if path.is_absolute() { Ok((storage, path)) } else { Err(ParseErrorKind::NotAbsolute(path)) }
}

fn split_client(word: &str) -> Result<(&str, &str), ParseErrorKind> {
    let open = || ParseErrorKind::OpenParenthesis(word.into());
    match word.split_once('(') {
        None => Ok((word, "")),
        Some((client, list)) => {
            Ok((client, list.strip_suffix(')').filter(|l| !l.contains(['(', ')'])).ok_or_else(open)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Exports, String> {
        Exports::parse(Path::new("/etc/exports"), text.as_bytes()).map_err(|e| e.to_string())
    }

    fn effective(text: &str) -> Vec<String> {
        let exports = parse(text).unwrap();
        let rules = exports.list.iter().flat_map(|e| e.rules.iter().map(move |r| (e, r)));
        rules.map(|(e, r)| format!("{} {} {}", e.path.display(), r.client, r.options)).collect()
    }

    fn warnings(text: &str) -> Vec<String> {
        parse(text).unwrap().warnings.iter().map(Warning::to_string).collect()
    }

    #[test]
    fn defaults_of_a_line_and_several_clients() {
        let text = "/a -no_subtree_check,rw 192.0.2.1 2001:db8::/32(insecure,ro) -async *()\n";
        assert_eq!(
            effective(text),
            [
                "/a 192.0.2.1 rw,sync,secure,root_squash,no_all_squash,no_subtree_check,anonuid=65534,anongid=65534",
                "/a 2001:db8::/32 ro,sync,insecure,root_squash,no_all_squash,no_subtree_check,anonuid=65534,anongid=65534",
                "/a * rw,async,secure,root_squash,no_all_squash,no_subtree_check,anonuid=65534,anongid=65534",
            ]
        );
        assert_eq!(warnings(text), [""; 0]);
    }

    #[test]
    fn errors_name_file_line_and_word() {
        let error = |text| parse(text).unwrap_err();
        assert_eq!(
            error("/a *(rw)\n\n/b *(rw,crossmnt)\n"),
            "/etc/exports line 3: option \"crossmnt\" is not yet supported: an export is one directory tree; \
             file systems mounted below it are exported by their own line; remove it"
        );
        assert_eq!(error("/a *(rww)"), "/etc/exports line 1: unknown option \"rww\"; did you mean \"rw\"?");
        assert_eq!(
            error("a *(rw)"),
            "/etc/exports line 1: \"a\" is not an absolute path; an export begins with / (or memory:/)"
        );
        assert!(error("/a *(rw, ro)").contains("\"*(rw,\": \"(\" without \")\""));
        assert_eq!(error("\n\"/a *"), "/etc/exports line 2: a quote is not closed on this line");
        assert!(
            error("/a host(rw)").starts_with("/etc/exports line 1: client \"host\": host names are not yet")
        );
        assert!(error("/a 192.0.2.1(fsid=1) *(fsid=2)").contains("two different fsid="));
    }

    #[test]
    fn warnings_of_the_classic_traps() {
        let text = "/a 192.0.2.1 (rw,no_subtree_check)";
        let got = warnings(text);
        assert_eq!(got.len(), 2, "{got:?}");
        assert!(got[0].starts_with("/etc/exports line 1: \"/a\" for 192.0.2.1: neither subtree_check"));
        assert!(got[1].contains("stands alone and exports \"/a\" to everybody"));
        assert!(warnings("/a")[0].contains("names no client"));
        assert!(warnings("/a *(no_subtree_check,no_root_squash)")[0].contains("gives root to everybody"));
        assert!(warnings("/a *(no_subtree_check,wdelay)")[0].contains("option \"wdelay\" has no effect"));
        assert!(
            warnings("/a *(no_subtree_check) *(rw,no_subtree_check)")[0].contains("twice; the first counts")
        );
    }

    #[test]
    fn the_short_form() {
        let one = |arg: &str| Exports::from_args([arg]).map(|e| e.list).map_err(|e| e.to_string());
        let exports = one("/srv/data:rw,insecure").unwrap();
        assert_eq!(
            (exports[0].path.as_path(), exports[0].rules[0].client),
            (Path::new("/srv/data"), ClientSpec::Any)
        );
        assert!(!exports[0].rules[0].options.secure && !exports[0].rules[0].options.read_only);
        assert!(one("/srv").unwrap()[0].rules[0].options.read_only);
        let exports = one("memory:/x:2001:db8::/32(rw) 192.0.2.1(ro)").unwrap();
        assert_eq!((exports[0].storage.clone(), exports[0].rules.len()), (Storage::Memory, 2));
        assert_eq!(
            one("/srv:rw,insecur").unwrap_err(),
            "export \"/srv:rw,insecur\": unknown option \"insecur\"; did you mean \"insecure\"?"
        );
        assert!(one("srv").unwrap_err().starts_with("export \"srv\": \"srv\" is not an absolute path"));
    }
}
