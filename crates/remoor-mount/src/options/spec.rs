//! What is mounted: `server:/export`, `[2001:db8::1]:/export`, `a,b:/export` or `nfs://server/export`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::url;

/// Most servers of one mount.
pub const MOST_HOSTS: usize = 16;
/// Longest host name, in bytes (RFC 1035 section 2.3.4).
pub const LONGEST_HOST: usize = 255;
/// Longest path of an export, in bytes: `MNTPATHLEN` of RFC 1813 section 5.1.1.
pub const LONGEST_PATH: usize = 1024;

/// Server and export of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The server, by each of its names and addresses; one at least. Several are tried in turn, and have to be **one**
    /// server, in which every file has the same handle by each of them: nodes that share a state directory, or one node
    /// in several networks. `mount` of Linux takes the first and ignores the others.
    pub hosts: Vec<Host>,
    /// The export: an absolute path, without a slash at its end.
    pub path: String,
    /// Options that a URL brings along, as `-o` would have them.
    pub options: String,
}

/// Name or address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host(String);

impl Host {
    /// As a resolver takes it: an IPv6 address has no brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its address, if it is written as one. A link-local one with its interface (`fe80::1%eth0`) is for the resolver.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

/// Why this cannot be mounted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum SpecError {
    #[error("{spec:?} names no server and export; write SERVER:/EXPORT or nfs://SERVER/EXPORT")]
    NoExport { spec: String },
    #[error(
        "the export {path:?} of {spec:?} is not an absolute path; write {:?}", absolute(.spec, .path)
    )]
    Relative { spec: String, path: String },
    #[error("{host:?} in {spec:?} is an IPv6 address; write [{host}]:/EXPORT")]
    Brackets { spec: String, host: String },
    #[error("{host:?} in {spec:?} is no host name and no IP address{}", hint(.host))]
    Host { spec: String, host: String },
    #[error("{spec:?} names {count} servers; at most {MOST_HOSTS} are tried")]
    Hosts { spec: String, count: usize },
    #[error("the path of {spec:?} is {length} bytes long; MOUNT takes {LONGEST_PATH} at most (RFC 1813)")]
    Long { spec: String, length: usize },
    #[error("the path of {spec:?} has a NUL character, which no path can have")]
    Nul { spec: String },
    #[error("{spec:?} repeats the export; write {instead:?}")]
    Repeated { spec: String, instead: String },
    #[error("{url:?}: {why}; it is written nfs://SERVER[:PORT]/EXPORT[?OPTION=VALUE&...]")]
    Url { url: String, why: &'static str },
    #[error("{argument:?} in {url:?}: {why}")]
    UrlArgument { url: String, argument: String, why: &'static str },
}

fn absolute(spec: &str, path: &str) -> String {
    format!("{}:/{path}", spec.strip_suffix(path).and_then(|host| host.strip_suffix(':')).unwrap_or("SERVER"))
}

fn hint(host: &str) -> &'static str {
    match host {
        "" => "; the server stands before the path, as in SERVER:/EXPORT or nfs://SERVER/EXPORT",
        _ if host.contains('@') => "; NFS has no user names in addresses, remove what stands before the @",
        _ if host.contains(['[', ']']) => "; in brackets stands an IPv6 address, as in [2001:db8::1]:/EXPORT",
        _ => "",
    }
}

impl FromStr for Host {
    type Err = ();

    /// A name, an IPv4 address, or an IPv6 address with or without its brackets.
    fn from_str(text: &str) -> Result<Self, ()> {
        let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let host = bracketed.unwrap_or(text);
        let is_v6 = host.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        let refused = |c: char| c.is_control() || c.is_whitespace() || "/[],:@\"'#?%\\=&".contains(c);
        let zone = host.split_once('%').map_or("", |(_, zone)| zone);
        let is_name = !host.is_empty() && !host.starts_with('-') && !host.contains(refused);
        let fits = host.len() <= LONGEST_HOST && !zone.contains(refused) && !host.ends_with('%');
        match bracketed {
            Some(_) if is_v6 && fits => Ok(Self(host.into())),
            None if (is_v6 || is_name) && fits => Ok(Self(host.into())),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(&self.0) }
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(spec: &str) -> Result<Self, SpecError> {
        match spec.get(..6) {
            Some(scheme) if scheme.eq_ignore_ascii_case("nfs://") => url::parse(spec),
            _ => parse(spec),
        }
    }
}

fn parse(spec: &str) -> Result<Spec, SpecError> {
    let Some((hosts, path)) = spec.split_once(":/") else { return Err(without_export(spec)) };
    let its_hosts = hosts_of(spec, hosts)?;
    let path = path_of(spec, &format!("/{path}"))?;
    if let Some((first, rest)) = path.split_once(',')
        && let Ok(again) = parse(rest)
        && again.path == first
    {
        let others: Vec<String> = again.hosts.iter().map(Host::to_string).collect();
        let instead = format!("{hosts},{}:{first}", others.join(","));
        return Err(SpecError::Repeated { spec: spec.into(), instead });
    }
    Ok(Spec { hosts: its_hosts, path, options: String::new() })
}

fn without_export(spec: &str) -> SpecError {
    let end = spec.rfind(']').unwrap_or(0);
    match spec[end..].split_once(':') {
        Some((_, path)) if !path.is_empty() && !path.contains(':') => {
            SpecError::Relative { spec: spec.into(), path: path.into() }
        }
        _ => SpecError::NoExport { spec: spec.into() },
    }
}

/// The hosts of a list with commas.
pub(super) fn hosts_of(spec: &str, list: &str) -> Result<Vec<Host>, SpecError> {
    let count = list.split(',').count();
    if count > MOST_HOSTS {
        return Err(SpecError::Hosts { spec: spec.into(), count });
    }
    list.split(',').map(|host| host_of(spec, host)).collect()
}

fn host_of(spec: &str, text: &str) -> Result<Host, SpecError> {
    let (spec, host) = (spec.to_owned(), text.to_owned());
    match text.parse::<Host>() {
        Ok(host) if host.0.contains(':') && !text.starts_with('[') => {
            Err(SpecError::Brackets { spec, host: host.0 })
        }
        Ok(host) => Ok(host),
        Err(()) => Err(SpecError::Host { spec, host }),
    }
}

/// A path as mountd(8) knows it: the slash at its end is no part of it.
pub(super) fn path_of(spec: &str, path: &str) -> Result<String, SpecError> {
    let spec = spec.to_owned();
    let trimmed = path.trim_end_matches('/');
    match trimmed {
        _ if trimmed.contains('\0') => Err(SpecError::Nul { spec }),
        _ if trimmed.len() > LONGEST_PATH => Err(SpecError::Long { spec, length: trimmed.len() }),
        "" => Ok("/".into()),
        _ => Ok(trimmed.into()),
    }
}

impl fmt::Display for Spec {
    /// As /proc/mounts and fstab have it; without the options of a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        write!(f, "{}:{}", hosts.join(","), self.path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(text: &str) -> Spec {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn hosts(text: &str) -> Vec<String> {
        spec(text).hosts.iter().map(|host| host.as_str().to_owned()).collect()
    }

    #[test]
    fn servers_and_exports_are_told_apart() {
        assert_eq!((hosts("nas:/a"), spec("nas:/a").path), (vec!["nas".into()], "/a".into()));
        assert_eq!(hosts("[2001:db8::1]:/a"), ["2001:db8::1"]);
        assert_eq!(hosts("[fe80::1%eth0]:/a"), ["fe80::1%eth0"]);
        assert_eq!(hosts("a,192.0.2.1,[::1]:/x"), ["a", "192.0.2.1", "::1"]);
        assert_eq!(spec("nas:/").path, "/");
        assert_eq!(spec("nas://").path, "/");
        assert_eq!(spec("nas:/a/b//").path, "/a/b");
        assert_eq!(spec("nas:/a b,c:d").path, "/a b,c:d");
        let addresses = spec("a,192.0.2.1,[::1]:/x").hosts;
        assert_eq!(addresses[0].address(), None);
        assert_eq!(addresses[2].address(), "::1".parse().ok());
    }

    #[test]
    fn specs_are_shown_as_they_are_parsed() {
        for text in ["nas:/a", "[2001:db8::1]:/a", "a,[::1]:/x y", "[fe80::1%eth0]:/"] {
            assert_eq!(spec(text).to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_told_with_the_remedy() {
        let specs = [
            "nas",
            "",
            "nas:",
            "nas:export",
            "[::1]:export",
            "2001:db8::1:/a",
            ":/a",
            "a,:/x",
            "user@nas:/a",
            "[nas]:/a",
            "a b:/x",
            "a:/x,b:/x",
            "a:/x\0",
            "/dev/sda1",
            "-o:/x",
        ];
        let told = specs.map(|spec| spec.parse::<Spec>().unwrap_err().to_string()).join("\n");
        insta::assert_snapshot!(told);
        let many = format!("{}b:/x", "a,".repeat(MOST_HOSTS));
        assert_eq!(many.parse::<Spec>(), Err(SpecError::Hosts { spec: many, count: MOST_HOSTS + 1 }));
        let long = format!("a:/{}", "x".repeat(LONGEST_PATH));
        assert_eq!(long.parse::<Spec>(), Err(SpecError::Long { spec: long, length: LONGEST_PATH + 1 }));
    }

    proptest! {
        #[test]
        fn anything_is_parsed_or_refused(text in r#"(nfs://)?[a-c:/,\[\]%0-9?&=. \PC]{0,40}"#) {
            if let Ok(spec) = text.parse::<Spec>() {
                let again: Spec = spec.to_string().parse().unwrap();
                prop_assert_eq!((again.hosts, again.path), (spec.hosts, spec.path));
            }
        }
    }
}
