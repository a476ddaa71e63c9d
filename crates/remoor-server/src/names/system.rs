//! The name service of the C library: getaddrinfo(3), getnameinfo(3), innetgr(3).

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::fetcher::{Fetched, Fetcher, Keep, Waiters};
use super::sys::{self, LookupError};
use super::{Names, Pending};
use crate::exports::ClientSpec;

/// How long names, addresses and memberships are true; the C library does not tell the DNS's own times.
const TTL: Duration = Duration::from_secs(300);
/// Host names of exports whose addresses are kept.
const HOSTS: Keep = Keep { ttl: TTL, max: NonZeroUsize::new(4096).unwrap() };
/// Clients whose names are kept.
const CLIENTS: Keep = Keep { ttl: TTL, max: NonZeroUsize::new(4096).unwrap() };
/// Memberships that are kept, a client and a netgroup each.
const MEMBERSHIPS: Keep = Keep { ttl: TTL, max: NonZeroUsize::new(8192).unwrap() };

/// The name service of this system, with what it answered before.
pub struct SystemNames {
    addresses: Fetcher<Arc<str>, Arc<[IpAddr]>>,
    names: Fetcher<IpAddr, Arc<[String]>>,
    memberships: Fetcher<(Arc<str>, IpAddr), bool>,
}

impl Default for SystemNames {
    fn default() -> Self {
        let waiters = Waiters::default();
        let membership = |(group, client): &(Arc<str>, IpAddr)| membership(group, *client);
        Self {
            addresses: Fetcher::new(HOSTS, &waiters, |host: &Arc<str>| addresses(host)),
            names: Fetcher::new(CLIENTS, &waiters, |client: &IpAddr| confirmed_names(*client)),
            memberships: Fetcher::new(MEMBERSHIPS, &waiters, membership),
        }
    }
}

impl Names for SystemNames {
    fn names_of(&self, client: IpAddr) -> Result<Arc<[String]>, Pending> {
        self.names.get(&client.to_canonical())
    }

    fn addresses_of(&self, host: &Arc<str>) -> Result<Arc<[IpAddr]>, Pending> {
        self.addresses.get(host)
    }

    fn is_member(&self, netgroup: &Arc<str>, client: IpAddr) -> Result<bool, Pending> {
        self.memberships.get(&(netgroup.clone(), client.to_canonical()))
    }

    fn recheck(&self, host: &Arc<str>) {
        self.addresses.refresh(host);
    }

    fn is_sure(&self, rule: &ClientSpec, client: IpAddr) -> bool {
        match rule {
            ClientSpec::Host(host) => self.addresses.is_sure(host),
            ClientSpec::Wildcard(_) => self.names.is_sure(&client),
            ClientSpec::Netgroup(group) => self.memberships.is_sure(&(group.clone(), client)),
            ClientSpec::Address(_) | ClientSpec::Network(_) | ClientSpec::Any => true,
        }
    }
}

/// The name service of this system, asked anew each time and waited for: for tools, not for a server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

impl Names for Direct {
    fn names_of(&self, client: IpAddr) -> Result<Arc<[String]>, Pending> {
        Ok(value(confirmed_names(client.to_canonical())))
    }

    fn addresses_of(&self, host: &Arc<str>) -> Result<Arc<[IpAddr]>, Pending> {
        Ok(value(addresses(host)))
    }

    fn is_member(&self, netgroup: &Arc<str>, client: IpAddr) -> Result<bool, Pending> {
        Ok(value(membership(netgroup, client.to_canonical())))
    }
}

fn value<V>(fetched: Fetched<V>) -> V {
    match fetched {
        Fetched::Answer(value) | Fetched::Failed(value) => value,
    }
}

fn addresses(host: &str) -> Fetched<Arc<[IpAddr]>> {
    match sys::addresses(host) {
        Ok(addresses) => Fetched::Answer(addresses.iter().map(IpAddr::to_canonical).collect()),
        Err(LookupError::NoName) => {
            tracing::warn!("host name {host} of an export does not exist, so it names no client");
            Fetched::Answer(Arc::new([]))
        }
        Err(error) => {
            tracing::warn!("cannot look up host name {host} of an export: {error}; will try again");
            Fetched::Failed(Arc::new([]))
        }
    }
}

/// The name of an address, if that name has the address.
fn confirmed_names(client: IpAddr) -> Fetched<Arc<[String]>> {
    let confirmed = sys::name(client).and_then(|name| Ok((sys::addresses(&name)?, name)));
    match confirmed {
        Ok((addresses, name)) if addresses.iter().any(|a| a.to_canonical() == client) => {
            Fetched::Answer(Arc::new([name]))
        }
        Ok((_, name)) => {
            tracing::warn!(%client, "its address is said to be that of {name}, which has not got it; ignored");
            Fetched::Answer(Arc::new([]))
        }
        Err(LookupError::NoName) => Fetched::Answer(Arc::new([])),
        Err(error) => {
            tracing::debug!(%client, "cannot look up its name: {error}; will try again");
            Fetched::Failed(Arc::new([]))
        }
    }
}

/// As rpc.mountd's `check_netgroup`: the name, the name without its domain, and the address as text.
fn membership(netgroup: &str, client: IpAddr) -> Fetched<bool> {
    let names = confirmed_names(client);
    let failed = matches!(names, Fetched::Failed(_));
    let names = value(names);
    let labels = names.iter().filter_map(|name| name.split_once('.')).map(|(label, _)| label.to_owned());
    let mut hosts = names.iter().cloned().chain(labels).chain([client.to_string()]);
    match hosts.any(|host| sys::in_netgroup(netgroup, &host)) {
        false if failed => Fetched::Failed(false),
        is_member => Fetched::Answer(is_member),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    /// For documentation only, RFC 5737: no host has it.
    const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn localhost_is_known_forward_and_backward() {
        assert!(Direct.addresses_of(&"localhost".into()).unwrap().contains(&LOCALHOST));
        let names = Direct.names_of(LOCALHOST).unwrap();
        assert!(names.iter().any(|name| name.starts_with("localhost")), "{names:?}");
        assert_eq!(Direct.names_of("::ffff:127.0.0.1".parse().unwrap()).unwrap(), names);
    }

    #[test]
    fn what_does_not_exist_has_nothing() {
        // RFC 6761 section 6.4: no resolver may answer for this domain.
        assert!(Direct.addresses_of(&"no-such-host.invalid".into()).unwrap().is_empty());
        assert!(Direct.names_of(NOBODY).unwrap().is_empty());
        assert_eq!(Direct.is_member(&"no-such-netgroup".into(), LOCALHOST), Ok(false));
    }

    #[test]
    fn what_was_answered_is_kept() {
        let (names, localhost) = (SystemNames::default(), "localhost".into());
        let answered = loop {
            if let Ok(addresses) = names.addresses_of(&localhost) {
                break addresses;
            }
        };
        assert!(answered.contains(&LOCALHOST));
        assert!(Arc::ptr_eq(&answered, &names.addresses_of(&localhost).unwrap()));
        names.recheck(&localhost);
        assert!(Arc::ptr_eq(&answered, &names.addresses_of(&localhost).unwrap()), "learnt just now");
    }
}
