//! Who an export is for: hosts, networks, wildcards, netgroups, or everybody.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::pattern::Pattern;
use crate::names::{self, Names, Pending};

/// Longest host name, in bytes (RFC 1035 section 2.3.4, without the root's dot).
const MAX_HOST_NAME: usize = 253;

/// A client specification of exports(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientSpec {
    /// One address.
    Address(IpAddr),
    /// A host name: every address it has.
    Host(Arc<str>),
    /// `address/prefix` or `address/netmask`.
    Network(IpNet),
    /// A host name with wildcards, compared with the confirmed names of the client's address.
    Wildcard(Pattern),
    /// `@NAME`: hosts that are members of a netgroup, netgroup(5).
    Netgroup(Arc<str>),
    /// `*`.
    Any,
}

/// The kinds of [`ClientSpec`], in the order of precedence that exports(5) gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "see ClientSpec")]
pub enum ClientKind {
    Host,
    Network,
    Wildcard,
    Netgroup,
    Any,
}

/// Why a client specification was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum ClientError {
    #[error(
        "client {0:?}: this system's C library has no netgroups; list addresses, networks (192.0.2.0/24) or names"
    )]
    NoNetgroups(String),
    #[error("client {0:?}: not a netgroup; write @NAME")]
    Netgroup(String),
    #[error(
        "client {0:?}: not a host name, an address, a network (192.0.2.0/24), a wildcard (*.example.org), @NETGROUP or *"
    )]
    HostName(String),
    #[error("client {0:?}: IPv6 addresses stand without brackets in exports; write {1}")]
    Brackets(String, String),
    #[error("client {0:?}: not an address with a prefix length or a netmask, as in 192.0.2.0/24")]
    Network(String),
    #[error("client {0:?}: in a wildcard, a class as in [a-z] must be closed and in order")]
    Wildcard(String),
    #[error("client {0:?}: Kerberos is not served; name hosts, and restrict them by address")]
    Gss(String),
}

impl ClientSpec {
    pub(super) fn parse(text: &str) -> Result<Self, ClientError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(group) = text.strip_prefix('@') {
            return netgroup(text, group);
        }
        if text.starts_with("gss/") {
            return Err(ClientError::Gss(text.into()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        if let Some(bare) = without_brackets(text) {
            return Err(ClientError::Brackets(text.into(), bare));
        }
        match text.split_once('/') {
            Some((address, mask)) => network(address, mask).ok_or_else(|| ClientError::Network(text.into())),
            None if Pattern::is_one(text) => wildcard(text),
            None => host(text),
        }
    }

    /// Its kind, which decides precedence.
    pub fn kind(&self) -> ClientKind {
        match self {
            Self::Address(_) | Self::Host(_) => ClientKind::Host,
            Self::Network(_) => ClientKind::Network,
            Self::Wildcard(_) => ClientKind::Wildcard,
            Self::Netgroup(_) => ClientKind::Netgroup,
            Self::Any => ClientKind::Any,
        }
    }

    /// Whether it names this client. Only names ask the name service; [`Pending`] if that has not answered yet.
    pub fn matches(&self, client: IpAddr, names: &dyn Names) -> Result<bool, Pending> {
        let client = client.to_canonical();
        self.matches_address(client).map_or_else(|| self.matches_name(client, names), Ok)
    }

    /// What can be told of a canonical address without names. Every call comes here, so it is to be inlined.
    #[inline]
    pub(crate) fn matches_address(&self, client: IpAddr) -> Option<bool> {
        match (self, client) {
            (Self::Address(address), _) => Some(*address == client),
            (Self::Network(IpNet::V4(net)), IpAddr::V4(client)) => Some(net.contains(&client)),
            (Self::Network(IpNet::V6(net)), IpAddr::V6(client)) => Some(net.contains(&client)),
            (Self::Network(_), _) => Some(false),
            (Self::Any, _) => Some(true),
            _ => None,
        }
    }

    /// As [`ClientSpec::matches`], for a canonical address and those that go by names.
    pub(super) fn matches_name(&self, client: IpAddr, names: &dyn Names) -> Result<bool, Pending> {
        Ok(match self {
            Self::Address(_) | Self::Network(_) | Self::Any => false,
            Self::Host(host) => names.addresses_of(host)?.contains(&client),
            Self::Wildcard(pattern) => names.names_of(client)?.iter().any(|name| pattern.matches(name)),
            Self::Netgroup(group) => names.is_member(group, client)?,
        })
    }

    /// Whether every client that `other` names is surely named by this one, too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Network(net), Self::Network(inner)) => net.contains(inner),
            (Self::Network(net), Self::Address(address)) => net.contains(address),
            (this, other) => this == other,
        }
    }

    /// Whether it names the whole world: `*` or a network of prefix length 0.
    pub fn is_everybody(&self) -> bool {
        matches!(self, Self::Any) || matches!(self, Self::Network(net) if net.prefix_len() == 0)
    }
}

fn netgroup(text: &str, group: &str) -> Result<ClientSpec, ClientError> {
    if group.is_empty() || group.contains('\0') {
        return Err(ClientError::Netgroup(text.into()));
    }
    if !names::NETGROUPS {
        return Err(ClientError::NoNetgroups(text.into()));
    }
    Ok(ClientSpec::Netgroup(group.into()))
}

/// `address` or `address/prefix` if the text is that with the address in brackets.
fn without_brackets(text: &str) -> Option<String> {
    let (address, after) = text.strip_prefix('[')?.split_once(']')?;
    address.parse::<std::net::Ipv6Addr>().ok()?;
    (after.is_empty() || after.starts_with('/')).then(|| format!("{address}{after}"))
}

fn network(address: &str, mask: &str) -> Option<ClientSpec> {
    let address: IpAddr = address.parse().ok()?;
    let net = match mask.parse::<u8>() {
        Ok(prefix) => IpNet::new(address, prefix).ok()?,
        Err(_) => IpNet::with_netmask(address, mask.parse().ok()?).ok()?,
    };
    Some(ClientSpec::Network(net.trunc()))
}

fn wildcard(text: &str) -> Result<ClientSpec, ClientError> {
    Pattern::parse(text).map(ClientSpec::Wildcard).ok_or_else(|| ClientError::Wildcard(text.into()))
}

/// Letters, digits, hyphens and dots (RFC 1123 section 2.1), and underscores, which resolvers take. A name of digits and
/// dots only is an address with a slip.
fn host(text: &str) -> Result<ClientSpec, ClientError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels = name.split('.').all(|label| !label.is_empty() && !label.starts_with('-'));
    let lettered = name.contains(|c: char| c.is_ascii_alphabetic());
    if labels && lettered && name.len() <= MAX_HOST_NAME && name.chars().all(allowed) {
        Ok(ClientSpec::Host(text.into()))
    } else {
        Err(ClientError::HostName(text.into()))
    }
}

impl fmt::Display for ClientSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(host) => f.write_str(host),
            Self::Network(net) => net.fmt(f),
            Self::Wildcard(pattern) => pattern.fmt(f),
            Self::Netgroup(group) => write!(f, "@{group}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Network => "network",
            Self::Wildcard => "wildcard",
            Self::Netgroup => "netgroup",
            Self::Any => "everybody",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::fixed::FixedNames;

    fn kind(spec: &str) -> ClientKind {
        ClientSpec::parse(spec).unwrap().kind()
    }

    fn matches(spec: &str, client: &str) -> bool {
        let mut names = FixedNames::default();
        names.host("web.example.org", "192.0.2.7");
        names.host("web.example.org", "2001:db8::7");
        names.member("trusted", "192.0.2.7");
        ClientSpec::parse(spec).unwrap().matches(client.parse().unwrap(), &names).unwrap()
    }

    #[test]
    fn every_form_of_the_manual_page() {
        assert_eq!(kind("192.0.2.7"), ClientKind::Host);
        assert_eq!(kind("2001:db8::1"), ClientKind::Host);
        assert_eq!(kind("pc001"), ClientKind::Host);
        assert_eq!(kind("a_b.example.org."), ClientKind::Host);
        assert_eq!(kind("192.0.2.0/24"), ClientKind::Network);
        assert_eq!(kind("*.example.org"), ClientKind::Wildcard);
        assert_eq!(kind("build[0-9]"), ClientKind::Wildcard);
        assert_eq!(kind("@trusted"), ClientKind::Netgroup);
        assert_eq!(kind("*"), ClientKind::Any);
        assert!(ClientKind::Host < ClientKind::Network && ClientKind::Network < ClientKind::Wildcard);
        assert!(ClientKind::Wildcard < ClientKind::Netgroup && ClientKind::Netgroup < ClientKind::Any);
    }

    #[test]
    fn addresses_and_networks_match_without_names() {
        assert!(matches("192.0.2.7", "192.0.2.7") && !matches("192.0.2.7", "192.0.2.8"));
        assert!(matches("::ffff:192.0.2.7", "192.0.2.7") && matches("192.0.2.7", "::ffff:192.0.2.7"));
        assert!(matches("192.0.2.99/24", "192.0.2.8"));
        assert!(matches("192.0.2.0/255.255.255.128", "192.0.2.8"));
        assert!(!matches("192.0.2.0/255.255.255.128", "192.0.2.128"));
        assert!(matches("2001:db8::/32", "2001:db8::1") && !matches("2001:db8::/32", "192.0.2.8"));
        assert!(matches("0.0.0.0/0", "192.0.2.8") && matches("*", "2001:db8::1"));
    }

    #[test]
    fn names_match_by_the_name_service() {
        assert!(matches("web.example.org", "192.0.2.7") && matches("web.example.org", "2001:db8::7"));
        assert!(!matches("web.example.org", "192.0.2.8") && !matches("db.example.org", "192.0.2.7"));
        assert!(matches("*.example.org", "192.0.2.7") && !matches("*.example.com", "192.0.2.7"));
        assert!(!matches("*.example.org", "192.0.2.8"), "no name, no match");
        assert!(matches("@trusted", "192.0.2.7") && !matches("@trusted", "192.0.2.8"));
    }

    #[test]
    fn what_has_not_been_answered_is_told() {
        let client = "192.0.2.7".parse().unwrap();
        for spec in ["web.example.org", "*.example.org", "@trusted"] {
            let spec = ClientSpec::parse(spec).unwrap();
            assert_eq!(spec.matches(client, &crate::names::fixed::NeverAnswers), Err(Pending), "{spec}");
        }
        for spec in ["192.0.2.7", "192.0.2.0/24", "*"] {
            let spec = ClientSpec::parse(spec).unwrap();
            assert_eq!(spec.matches(client, &crate::names::fixed::NeverAnswers), Ok(true), "{spec}");
        }
    }

    #[test]
    fn what_cannot_be_matched_is_told() {
        let error = |spec: &str| ClientSpec::parse(spec).unwrap_err().to_string();
        assert!(error("a,b").starts_with("client \"a,b\": not a host name"));
        for slip in ["", "192.0.2.", "192.0.2.256", "-x", "a..b", "host(", "fe80::1%eth0", &"x".repeat(254)] {
            assert!(matches!(ClientSpec::parse(slip), Err(ClientError::HostName(_))), "{slip}");
        }
        assert!(error("192.0.2.0/33").contains("prefix length or a netmask"));
        assert!(error("192.0.2.0/255.0.255.0").contains("prefix length or a netmask"));
        assert!(error("web/24").contains("prefix length or a netmask"));
        assert!(error("[2001:db8::1]/64").ends_with("without brackets in exports; write 2001:db8::1/64"));
        assert!(error("web[z-a]").contains("closed and in order"));
        assert!(error("@").contains("not a netgroup"));
        assert!(error("gss/krb5").contains("Kerberos is not served"));
    }

    #[test]
    fn what_covers_what() {
        let covers = |a, b| ClientSpec::parse(a).unwrap().covers(&ClientSpec::parse(b).unwrap());
        assert!(covers("*", "web") && covers("192.0.2.0/24", "192.0.2.0/28") && covers("web", "web"));
        assert!(covers("192.0.2.0/24", "192.0.2.9"));
        assert!(!covers("192.0.2.0/28", "192.0.2.0/24") && !covers("192.0.2.0/24", "2001:db8::/32"));
        let everybody = |a| ClientSpec::parse(a).unwrap().is_everybody();
        assert!(everybody("*") && everybody("0.0.0.0/0") && everybody("::/0") && !everybody("10.0.0.0/8"));
    }
}
