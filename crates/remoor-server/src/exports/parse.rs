//! From text to [`Exports`]: files in the form of exports(5), and the short form of the command line.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::client::ClientError;
use super::entry::{Reader, shown};
use super::lexer::{self, OpenQuote};
use super::option::OptionError;
use super::{Exports, Origin};

/// Most lines, exports and clients are bounded by the size of the file, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 20;
/// Files of `/etc/exports.d`.
pub const MAX_FILES: usize = 1024;

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
    Read(#[source] io::Error),
    #[error("the file has more than {MAX_FILE_BYTES} bytes; split it in /etc/exports.d")]
    TooLong,
    #[error("more than {MAX_FILES} files end in .exports; join some")]
    TooManyFiles,
    #[error("a quote is not closed on this line: {0:?}")]
    OpenQuote(String),
    #[error("{0:?} is not an absolute path; an export begins with / (or memory:/)")]
    NotAbsolute(PathBuf),
    #[error("{0:?}: \"(\" without \")\" at the end of the word; options must not contain blanks")]
    OpenParenthesis(String),
    #[error("{0:?}: options stand in parentheses, as in host(ro)")]
    NoParenthesis(String),
    #[error("{0:?} is not UTF-8")]
    NotUtf8(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error("{0:?} has two different fsid= options; one export has one identity")]
    TwoFsids(PathBuf),
}

/// What files or arguments say, and everything that is wrong with them.
#[derive(Debug, Default)]
pub struct Parsed {
    /// What could be understood. What could not is missing, so it is to be used only if there are no errors.
    pub exports: Exports,
    /// In the order in which they were found.
    pub errors: Vec<ParseError>,
}

impl Parsed {
    /// Reads files in the form of exports(5), one after the other.
    pub fn from_files(files: &[PathBuf]) -> Self {
        let mut parsed = Self::default();
        files.iter().for_each(|file| parsed.read(file, |_| false));
        parsed
    }

    /// Reads what exportfs(8) reads below `root`: `/etc/exports` and `/etc/exports.d/*.exports`, sorted by name, without
    /// those that begin with a dot. What is missing is no error.
    pub fn from_system(root: &Path) -> Self {
        let mut parsed = Self::default();
        let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        parsed.read(&root.join("etc/exports"), missing);
        let dir = root.join("etc/exports.d");
        match extra_tables(&dir) {
            Ok(files) if files.len() > MAX_FILES => parsed.fail(&dir, ParseErrorKind::TooManyFiles),
            Ok(files) => files.iter().for_each(|file| parsed.read(file, missing)),
            Err(error) if missing(&error) => {}
            Err(error) => parsed.fail(&dir, ParseErrorKind::Read(error)),
        }
        parsed
    }

    /// Parses text in the form of exports(5); `file` is its name in messages.
    pub fn from_text(file: &Path, text: &[u8]) -> Self {
        let mut parsed = Self::default();
        parsed.text(file, text);
        parsed
    }

    /// The exports if nothing is wrong, else the first error.
    pub fn into_result(self) -> Result<Exports, ParseError> {
        self.errors.into_iter().next().map_or(Ok(self.exports), Err)
    }

    fn read(&mut self, file: &Path, ignore: impl Fn(&io::Error) -> bool) {
        match read_bounded(file) {
            Ok(text) if text.len() as u64 > MAX_FILE_BYTES => self.fail(file, ParseErrorKind::TooLong),
            Ok(text) => self.text(file, &text),
            Err(error) if ignore(&error) => {}
            Err(error) => self.fail(file, ParseErrorKind::Read(error)),
        }
    }

    fn text(&mut self, file: &Path, text: &[u8]) {
        for entry in lexer::entries(text) {
            match entry {
                Ok(entry) => Reader::new(self, file, entry.has_comment).entry(&entry),
                Err(OpenQuote { line, text }) => {
                    let kind = ParseErrorKind::OpenQuote(shown(&text));
                    self.errors.push(ParseError { origin: Origin::File(file.into(), line), kind });
                }
            }
        }
    }

    fn fail(&mut self, file: &Path, kind: ParseErrorKind) {
        self.errors.push(ParseError { origin: Origin::File(file.into(), 0), kind });
    }
}

/// At most one byte more than a file may have, whatever it is.
fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// The files of a directory that exportfs(8) takes for export tables, by name.
fn extra_tables(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name_bytes = name.as_bytes();
        if name_bytes.ends_with(b".exports") && !name_bytes.starts_with(b".") {
            files.push(dir.join(name));
        }
    }
    files.sort();
    Ok(files)
}

impl Exports {
    /// Reads a file in the form of exports(5).
    pub fn from_file(path: &Path) -> Result<Self, ParseError> {
        Parsed::from_files(&[path.into()]).into_result()
    }

    /// Reads `/etc/exports` and `/etc/exports.d/*.exports` below `root`, see [`Parsed::from_system`].
    pub fn from_system(root: &Path) -> Result<Self, ParseError> {
        Parsed::from_system(root).into_result()
    }

    /// Parses text in the form of exports(5); `file` is its name in messages.
    pub fn parse(file: &Path, text: &[u8]) -> Result<Self, ParseError> {
        Parsed::from_text(file, text).into_result()
    }

    /// Parses `DIR`, `DIR:OPTIONS` or `DIR:CLIENT(OPTIONS) ...`, as in `/srv/data:rw,insecure` and
    /// `/srv/data:192.0.2.0/24(rw)`. Without a client the export is for everybody who can reach the listen address,
    /// which is loopback unless another is given.
    pub fn from_args<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Result<Self, ParseError> {
        let mut parsed = Parsed::default();
        for arg in args {
            let arg = arg.as_ref();
            Reader::new(&mut parsed, Path::new(""), false).argument(arg);
        }
        parsed.into_result()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::exports::{ClientSpec, Storage};

    #[test]
    fn every_error_is_told_and_the_rest_is_read() {
        let text = "/a *(rww,roo) 192.0.2.300\n/b \"x\nc *\n/d *(ro)\n";
        let parsed = |text: &str| Parsed::from_text(Path::new("/etc/exports"), text.as_bytes());
        let got: Vec<String> = parsed(text).errors.iter().map(ToString::to_string).collect();
        let lines: Vec<&str> = got.iter().map(|e| &e[.."/etc/exports:1".len()]).collect();
        assert_eq!(
            lines,
            ["/etc/exports:1", "/etc/exports:1", "/etc/exports:1", "/etc/exports:2", "/etc/exports:3"]
        );
        assert_eq!(parsed(text).exports.list.len(), 1, "nothing is exported by half a line");
        assert!(parsed(text).into_result().unwrap_err().to_string().contains("\"rww\""));
        assert_eq!(parsed("/a -rww").exports.list.len(), 0, "not to everybody by mistake");
    }

    #[test]
    fn the_files_of_a_system_are_read_in_order() {
        let root = tempfile::tempdir().unwrap();
        assert!(Exports::from_system(root.path()).unwrap().list.is_empty(), "nothing is there");
        let dir = root.path().join("etc/exports.d");
        fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        write("b.exports", "/b *\n/a 192.0.2.1\n");
        write("a.exports", "/x *\n");
        write(".c.exports", "/hidden *");
        write("d.export", "/other *");
        write("../exports", "/a *\n");
        let exports = Exports::from_system(root.path()).unwrap();
        let paths: Vec<&str> = exports.list.iter().map(|e| e.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/a", "/x", "/b"]);
        assert_eq!(exports.list[0].rules[0].origin, Origin::File(dir.join("b.exports"), 2));
        fs::create_dir(dir.join("z.exports")).unwrap();
        let error = Exports::from_system(root.path()).unwrap_err().to_string();
        assert!(error.contains("z.exports: cannot read exports: Is a directory"), "{error}");
    }

    #[test]
    fn files_are_bounded_even_those_without_end() {
        let error = Exports::from_file(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("more than 4194304 bytes"), "{error}");
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/exports.d");
        fs::create_dir_all(&dir).unwrap();
        (0..=MAX_FILES).for_each(|n| fs::write(dir.join(format!("{n}.exports")), "").unwrap());
        assert!(Exports::from_system(root.path()).unwrap_err().to_string().contains("more than 1024 files"));
    }

    #[test]
    fn the_short_form() {
        let one = |arg: &str| Exports::from_args([arg]).map(|e| e.list).map_err(|e| e.to_string());
        let exports = one("/srv/data:rw,insecure").unwrap();
        assert_eq!(exports[0].path.as_path(), Path::new("/srv/data"));
        assert_eq!(exports[0].rules[0].client, ClientSpec::Any);
        assert!(!exports[0].rules[0].options.secure && !exports[0].rules[0].options.read_only);
        assert!(one("/srv").unwrap()[0].rules[0].options.read_only);
        let exports = one("memory:/x:2001:db8::/32(rw) 192.0.2.1(ro)").unwrap();
        assert_eq!((exports[0].storage.clone(), exports[0].rules.len()), (Storage::Memory, 2));
        assert_eq!(
            one("/srv:rw,insecur").unwrap_err(),
            "export \"/srv:rw,insecur\": unknown option \"insecur\"; did you mean \"insecure\"?"
        );
        assert!(one("srv").unwrap_err().starts_with("export \"srv\": \"srv\" is not an absolute path"));
        assert!(Exports::from_args(["/srv:rw"]).unwrap().warnings.is_empty());
    }
}
