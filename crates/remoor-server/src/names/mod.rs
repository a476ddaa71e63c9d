//! The system's name service, as exports(5) needs it: addresses of host names, names of clients, netgroups, and the
//! groups of users.
//!
//! Its answers can take seconds, and the threads that ask execute calls. So every answer is kept ([`fetcher`]): what is
//! known is told at once and looked up again in the background when it is old, and what is not known is waited for
//! shortly. [`Pending`] says that the answer is still to come. A lookup that fails keeps the answer from before; where
//! there is none, nobody is named, and [`Names::is_sure`] tells.

pub(crate) mod fetcher;
#[cfg(test)]
pub(crate) mod fixed;
pub mod groups;
mod sys;
mod system;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

pub use system::{Direct, SystemNames};

use crate::exports::ClientSpec;

/// Whether this system's C library has netgroups (innetgr(3)).
pub const NETGROUPS: bool = sys::NETGROUPS;

/// The name service has not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name service has not answered yet; try again")]
pub struct Pending;

/// Who has which name.
pub trait Names: Send + Sync {
    /// The names of a client, confirmed: each has this address among its own, because whoever rules the reverse zone of
    /// an address may write any name there. None if it has none, or if the lookup fails.
    fn names_of(&self, client: IpAddr) -> Result<Arc<[String]>, Pending>;

    /// The addresses of a host name. None if it does not exist, or if the lookup fails.
    fn addresses_of(&self, host: &Arc<str>) -> Result<Arc<[IpAddr]>, Pending>;

    /// Whether a client is a member of a netgroup, by its address, by one of its names, or by the first label of one.
    fn is_member(&self, netgroup: &Arc<str>, client: IpAddr) -> Result<bool, Pending>;

    /// A client was not recognised: hosts may have other addresses by now. Never waits.
    fn recheck(&self, _host: &Arc<str>) {}

    /// Whether the name service itself said that this rule does not name this canonical address, and not only failed to
    /// answer. Never waits.
    fn is_sure(&self, _rule: &ClientSpec, _client: IpAddr) -> bool {
        true
    }
}

/// The name service of this system, which all exports share.
pub fn system() -> &'static SystemNames {
    static NAMES: OnceLock<SystemNames> = OnceLock::new();
    NAMES.get_or_init(SystemNames::default)
}
