//! `nfs://SERVER[:PORT]/PATH[?OPTIONS]`, after RFC 2224, with the options of a mount.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use remoor_client::{OptionError, Options};
use remoor_nfs::mnt::MAX_PATH;

/// IANA's port of NFS.
const PORT: u16 = 2049;
/// How it begins.
const SCHEME: &[u8] = b"nfs://";

/// An object of a server. Path components are bytes, as they are on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Where the server is.
    pub(crate) server: Arc<ServerName>,
    /// Components of its path, none of them empty, `.` or `..`.
    pub(crate) path: Vec<Vec<u8>>,
    /// The path ends with `/`: only a directory is meant.
    pub(crate) directory: bool,
}

/// What a connection needs. Two URLs with equal ones share a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerName {
    /// Name or address, without the brackets of IPv6.
    pub(crate) host: String,
    /// NFS.
    pub(crate) port: u16,
    /// MOUNT, if it has a port of its own.
    pub(crate) mount_port: Option<u16>,
    /// The connection's.
    pub(crate) options: Options,
    /// A source port range was named.
    pub(crate) range_given: bool,
}

/// A URL that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("{0:?} is not an nfs:// URL; write {instead}", instead = instead(.0))]
    Scheme(String),
    #[error("{0:?} names no server; write nfs://SERVER/EXPORT/PATH")]
    NoServer(String),
    #[error("{0:?}: {1:?} is not a port, 1 to 65535")]
    Port(String, String),
    #[error("{0:?}: % is followed by two hexadecimal digits; a % itself is written %25")]
    Escape(String),
    #[error("{0:?}: a name may not contain {1}")]
    Name(String, &'static str),
    #[error("{0:?}: the path has more than {MAX_PATH} bytes, the most that MOUNT takes")]
    Long(String),
    #[error("{0:?}: {1} is not supported here; only NFS version 3 over TCP is")]
    Version(String, String),
    #[error("{0:?}: {1}")]
    Option(String, OptionError),
}

/// As a URL what is written as for mount(8).
fn instead(text: &str) -> String {
    match text.split_once(":/") {
        Some((server, path)) if !server.is_empty() && !server.contains('/') => {
            format!("nfs://{server}/{}", path.trim_start_matches('/'))
        }
        _ => "nfs://SERVER[:PORT]/EXPORT/PATH[?OPTIONS]".to_owned(),
    }
}

/// Whether this is meant as a URL rather than as a local path.
pub(crate) fn is_url(text: &OsStr) -> bool {
    text.as_bytes().get(..SCHEME.len()).is_some_and(|head| head.eq_ignore_ascii_case(SCHEME))
}

impl Url {
    /// Reads `text`; `defaults` are options that those of the URL override.
    pub(crate) fn parse(text: &OsStr, defaults: &str) -> Result<Self, UrlError> {
        let shown = || text.to_string_lossy().into_owned();
        if !is_url(text) {
            return Err(UrlError::Scheme(shown()));
        }
        let (location, query) = split(&text.as_bytes()[SCHEME.len()..], b'?');
        let (authority, path) = split(location, b'/');
        let path = path.unwrap_or_default();
        let (host, port) = authority_of(authority, &shown)?;
        let server = ServerName::new(host, port, defaults, query.unwrap_or_default(), &shown)?;
        let components = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        let path_of = components.map(|part| component(part, &shown)).collect::<Result<Vec<_>, _>>()?;
        if path_of.iter().map(|part| part.len() + 1).sum::<usize>() > MAX_PATH {
            return Err(UrlError::Long(shown()));
        }
        Ok(Self { server: Arc::new(server), directory: path.ends_with(b"/"), path: path_of })
    }

    /// The same server's object at another path.
    pub(crate) fn at(&self, path: &[Vec<u8>]) -> Self {
        Self { path: path.to_vec(), directory: false, ..self.clone() }
    }

    /// The object `name` in this directory.
    pub(crate) fn child(&self, name: &[u8]) -> Self {
        let mut child = self.at(&self.path);
        child.path.push(name.to_vec());
        child
    }

    /// Its last component; empty for the root.
    pub(crate) fn name(&self) -> &[u8] {
        self.path.last().map_or(b"", Vec::as_slice)
    }

    /// The path as the server has it.
    pub(crate) fn path_bytes(&self) -> Vec<u8> {
        join(&self.path)
    }
}

/// Components as an absolute path.
pub(crate) fn join(path: &[Vec<u8>]) -> Vec<u8> {
    if path.is_empty() { b"/".to_vec() } else { path.iter().flat_map(|p| [b"/", &p[..]].concat()).collect() }
}

/// What is not unreserved (RFC 3986 section 2.3) is escaped: the text names the object exactly and speaks to no terminal.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nfs://{}", self.server)?;
        for byte in join(&self.path) {
            match byte {
                b'/' | b'-' | b'.' | b'_' | b'~' => write!(f, "{}", byte as char)?,
                byte if byte.is_ascii_alphanumeric() => write!(f, "{}", byte as char)?,
                byte => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        let host = if brackets { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == PORT { f.write_str(&host) } else { write!(f, "{host}:{}", self.port) }
    }
}

impl ServerName {
    fn new(
        host: String,
        port: Option<u16>,
        defaults: &str,
        query: &[u8],
        shown: &impl Fn() -> String,
    ) -> Result<Self, UrlError> {
        let mut name =
            Self { host, port: PORT, mount_port: None, options: Options::default(), range_given: false };
        let query = String::from_utf8_lossy(query);
        let given = defaults.split(',').chain(query.split(['&', ','])).filter(|option| !option.is_empty());
        let mut connection = Vec::new();
        for option in given {
            if !name.take(option, shown)? {
                connection.push(option);
            }
        }
        name.port = port.unwrap_or(name.port);
        name.options = connection.join(",").parse().map_err(|e| UrlError::Option(shown(), e))?;
        Ok(name)
    }

    /// Takes an option that is none of the connection's.
    fn take(&mut self, option: &str, shown: &impl Fn() -> String) -> Result<bool, UrlError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let port = || port_of(value, shown);
        match (name, value) {
            ("port" | "nfsport", _) => self.port = port()?,
            ("mountport", _) => self.mount_port = Some(port()?),
            ("vers" | "nfsvers" | "version", "3") | ("proto", "tcp" | "tcp6") | ("defaults", "") => {}
            ("vers" | "nfsvers" | "version" | "proto", _) => {
                return Err(UrlError::Version(shown(), option.to_owned()));
            }
            _ => {
                self.range_given |= matches!(name, "resvport" | "noresvport");
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn split(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    let mut parts = text.splitn(2, |byte| *byte == at);
    (parts.next().unwrap_or_default(), parts.next())
}

fn authority_of(text: &[u8], shown: &impl Fn() -> String) -> Result<(String, Option<u16>), UrlError> {
    let text = str::from_utf8(text).map_err(|_| UrlError::NoServer(shown()))?;
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(['[', ']', '@']) || host.chars().any(char::is_control) {
        return Err(UrlError::NoServer(shown()));
    }
    Ok((host.to_owned(), port.map(|port| port_of(port, shown)).transpose()?))
}

fn port_of(text: &str, shown: &impl Fn() -> String) -> Result<u16, UrlError> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| UrlError::Port(shown(), text.to_owned()))
}

/// Undoes the escapes of one component.
fn component(text: &[u8], shown: &impl Fn() -> String) -> Result<Vec<u8>, UrlError> {
    let (mut name, mut rest) = (Vec::with_capacity(text.len()), text);
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            name.push(*byte);
            continue;
        }
        let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits =
            digits.and_then(|digits| str::from_utf8(digits).ok()).ok_or_else(|| UrlError::Escape(shown()))?;
        name.push(u8::from_str_radix(digits, 16).map_err(|_| UrlError::Escape(shown()))?);
        rest = &tail[2..];
    }
    match &name[..] {
        b".." => Err(UrlError::Name(shown(), "`..`: write the path without it")),
        b"." | b"" => Err(UrlError::Name(shown(), "`.` alone")),
        name if name.contains(&b'/') => Err(UrlError::Name(shown(), "/ (%2F)")),
        name if name.contains(&0) => Err(UrlError::Name(shown(), "a NUL byte (%00)")),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Url, UrlError> {
        Url::parse(OsStr::new(text), "")
    }

    #[test]
    fn parts_are_told_apart() {
        let url = parse("nfs://fs1:20049/srv//data/./a%20b/?noresvport&timeo=50").unwrap();
        assert_eq!((url.server.host.as_str(), url.server.port), ("fs1", 20049));
        assert_eq!(url.path, [&b"srv"[..], b"data", b"a b"]);
        assert!(url.directory && url.server.range_given && !url.server.options.reserved);
        let url = parse("NFS://[::1]:2050/").unwrap();
        assert_eq!((url.server.host.as_str(), url.server.port, url.path.len()), ("::1", 2050, 0));
        assert_eq!(url.to_string(), "nfs://[::1]:2050/");
        assert_eq!(parse("nfs://fs1").unwrap().server.port, 2049);
        let libnfs = parse("nfs://h/e?nfsport=7&mountport=8&version=3").unwrap().server;
        assert_eq!((libnfs.port, libnfs.mount_port), (7, Some(8)));
    }

    #[test]
    fn the_url_overrides_the_options_beside_it() {
        let url = |text: &str| Url::parse(OsStr::new(text), "noresvport,port=5").unwrap().server;
        assert_eq!(
            (url("nfs://h/e?resvport").options.reserved, url("nfs://h/e").options.reserved),
            (true, false)
        );
        assert_eq!((url("nfs://h/e").port, url("nfs://h:6/e").port), (5, 6));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("/srv/a", "is not an nfs:// URL"),
            ("fs1:/srv/a", "write nfs://fs1/srv/a"),
            ("nfs:///srv", "names no server"),
            ("nfs://h:0/srv", "\"0\" is not a port"),
            ("nfs://h/a%2", "% is followed"),
            ("nfs://h/a%2fb", "may not contain /"),
            ("nfs://h/%00", "NUL"),
            ("nfs://h/a/../b", "`..`"),
            ("nfs://h/a?vers=4.1", "vers=4.1 is not supported here"),
            ("nfs://h/a?noresvprt", "did you mean \"noresvport\"?"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(matches!(parse(&format!("nfs://h/{}", "a".repeat(2000))), Err(UrlError::Long(_))));
    }

    proptest! {
        #[test]
        fn what_is_shown_names_the_same_object(names in prop::collection::vec(prop::collection::vec(1u8.., 1..20), 0..6)) {
            let good = |n: &&Vec<u8>| !n.contains(&b'/') && n[..] != b"."[..] && n[..] != b".."[..];
            let path: Vec<Vec<u8>> = names.iter().filter(good).cloned().collect();
            let url = parse("nfs://h:99/").unwrap().at(&path);
            let shown = url.to_string();
            prop_assert!(shown.is_ascii() && !shown.contains(|c: char| c.is_ascii_control()));
            prop_assert_eq!(parse(&shown).unwrap(), url);
        }

        #[test]
        fn no_text_is_too_strange(text in prop::collection::vec(any::<u8>(), 0..80)) {
            let text = [b"nfs://", &text[..]].concat();
            let _ = Url::parse(OsStr::from_bytes(&text), "");
        }
    }
}
