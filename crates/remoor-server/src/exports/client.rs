//! Who an export is for: addresses, networks, or everybody.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A client specification of exports(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientSpec {
    /// One address.
    Address(IpAddr),
    /// `address/prefix` or `address/netmask`.
    Network(IpNet),
    /// `*`.
    Any,
}

/// Why a client specification was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum ClientError {
    #[error("client {0:?}: netgroups are not yet supported; list addresses, networks (192.0.2.0/24) or *")]
    Netgroup(String),
    #[error(
        "client {0:?}: host names are not yet supported; write its address, a network (192.0.2.0/24) or *"
    )]
    HostName(String),
    #[error("client {0:?}: not an address with a prefix length or a netmask, as in 192.0.2.0/24")]
    Network(String),
}

impl ClientSpec {
    pub(super) fn parse(text: &str) -> Result<Self, ClientError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.starts_with('@') {
            return Err(ClientError::Netgroup(text.into()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        match text.split_once('/') {
            Some((address, mask)) => network(address, mask).ok_or_else(|| ClientError::Network(text.into())),
            None => Err(ClientError::HostName(text.into())),
        }
    }

    /// How closely it names this client, for exportfs(8)'s precedence: an address, then the longest prefix, then
    /// `*`; `None` if it does not.
    pub(super) fn closeness(&self, client: IpAddr) -> Option<u32> {
        match self {
            Self::Address(address) => (*address == client).then_some(u32::MAX),
            Self::Network(net) => net.contains(&client).then(|| 1 + u32::from(net.prefix_len())),
            Self::Any => Some(0),
        }
    }
}

fn network(address: &str, mask: &str) -> Option<ClientSpec> {
    let address: IpAddr = address.parse().ok()?;
    let net = match mask.parse::<u8>() {
        Ok(prefix) => IpNet::new(address, prefix).ok()?,
        Err(_) => IpNet::with_netmask(address, mask.parse().ok()?).ok()?,
    };
    Some(ClientSpec::Network(net.trunc()))
}

impl fmt::Display for ClientSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Network(net) => net.fmt(f),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closeness(spec: &str, client: &str) -> Option<u32> {
        ClientSpec::parse(spec).unwrap().closeness(client.parse().unwrap())
    }

    #[test]
    fn an_address_beats_a_network_beats_everybody() {
        assert_eq!(closeness("192.0.2.7", "192.0.2.7"), Some(u32::MAX));
        assert_eq!(closeness("::ffff:192.0.2.7", "192.0.2.7"), Some(u32::MAX));
        assert_eq!(closeness("192.0.2.7", "192.0.2.8"), None);
        assert_eq!(closeness("192.0.2.99/24", "192.0.2.8"), Some(25));
        assert_eq!(closeness("192.0.2.0/255.255.255.128", "192.0.2.8"), Some(26));
        assert_eq!(closeness("2001:db8::/32", "2001:db8::1"), Some(33));
        assert_eq!(closeness("2001:db8::/32", "192.0.2.8"), None);
        assert_eq!(closeness("0.0.0.0/0", "192.0.2.8"), Some(1));
        assert_eq!(closeness("*", "2001:db8::1"), Some(0));
    }

    #[test]
    fn what_cannot_be_matched_is_told() {
        let error = |spec| ClientSpec::parse(spec).unwrap_err().to_string();
        assert!(
            error("client.example.org").starts_with("client \"client.example.org\": host names are not yet")
        );
        assert!(error("*.example.org").contains("host names are not yet supported"));
        assert!(error("@trusted").starts_with("client \"@trusted\": netgroups are not yet supported"));
        assert!(error("192.0.2.0/33").contains("prefix length or a netmask"));
        assert!(error("192.0.2.0/255.0.255.0").contains("prefix length or a netmask"));
    }
}
