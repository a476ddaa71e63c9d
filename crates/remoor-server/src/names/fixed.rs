//! Name services for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Names, Pending};

/// Names that do not change, and a count of the questions.
#[derive(Default)]
pub(crate) struct FixedNames {
    hosts: BTreeMap<String, Vec<IpAddr>>,
    members: BTreeSet<(String, IpAddr)>,
    pub(crate) asked: AtomicUsize,
    pub(crate) rechecked: AtomicUsize,
}

impl FixedNames {
    pub(crate) fn host(&mut self, name: &str, address: &str) {
        self.hosts.entry(name.into()).or_default().push(address.parse().unwrap());
    }

    pub(crate) fn member(&mut self, netgroup: &str, address: &str) {
        self.members.insert((netgroup.into(), address.parse().unwrap()));
    }
}

impl Names for FixedNames {
    fn names_of(&self, client: IpAddr) -> Result<Arc<[String]>, Pending> {
        self.asked.fetch_add(1, Relaxed);
        let its = self.hosts.iter().filter(|(_, addresses)| addresses.contains(&client));
        Ok(its.map(|(name, _)| name.clone()).collect())
    }

    fn addresses_of(&self, host: &Arc<str>) -> Result<Arc<[IpAddr]>, Pending> {
        self.asked.fetch_add(1, Relaxed);
        Ok(self.hosts.get(&**host).cloned().unwrap_or_default().into())
    }

    fn is_member(&self, netgroup: &Arc<str>, client: IpAddr) -> Result<bool, Pending> {
        self.asked.fetch_add(1, Relaxed);
        Ok(self.members.contains(&(netgroup.to_string(), client)))
    }

    fn recheck(&self, _: &Arc<str>) {
        self.rechecked.fetch_add(1, Relaxed);
    }
}

/// A name service that is never done.
pub(crate) struct NeverAnswers;

impl Names for NeverAnswers {
    fn names_of(&self, _: IpAddr) -> Result<Arc<[String]>, Pending> {
        Err(Pending)
    }

    fn addresses_of(&self, _: &Arc<str>) -> Result<Arc<[IpAddr]>, Pending> {
        Err(Pending)
    }

    fn is_member(&self, _: &Arc<str>, _: IpAddr) -> Result<bool, Pending> {
        Err(Pending)
    }
}
