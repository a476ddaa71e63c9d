//! What the server grants to whom: ACCESS and the answers to it that are kept.

use remoor_nfs::v3::{Access, AccessArgs, FileType, Res, Time, access};

use super::node::Node;
use super::{Credential, Fs};
use crate::errno::Errno;

/// Identities one node keeps an answer for.
const MAX_GRANTS: usize = 16;
/// Search permission of owner, group and others.
const SEARCH_FOR_ALL: u32 = 0o111;

/// Answers to ACCESS about one node.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    kept: Vec<Grant>,
}

#[derive(Debug)]
struct Grant {
    identity: u64,
    granted: u32,
    /// Any change of mode or owner moves it.
    ctime: Time,
}

impl Grants {
    fn of(&self, identity: u64, ctime: Time) -> Option<u32> {
        let grant = self.kept.iter().find(|grant| grant.identity == identity)?;
        (grant.ctime == ctime).then_some(grant.granted)
    }

    fn keep(&mut self, grant: Grant) {
        self.kept.retain(|kept| kept.identity != grant.identity);
        if self.kept.len() == MAX_GRANTS {
            self.kept.remove(0);
        }
        self.kept.push(grant);
    }
}

/// All that can be asked of an object of this type.
fn every_bit(kind: FileType) -> u32 {
    let bits = access::READ | access::MODIFY | access::EXTEND;
    match kind {
        FileType::Directory => bits | access::LOOKUP | access::DELETE,
        _ => bits | access::EXECUTE,
    }
}

impl Fs {
    /// Everything the server grants `who` on `node`, as kept or asked.
    pub(crate) async fn granted(&self, node: &Node, who: &Credential) -> Result<u32, Errno> {
        let known = self.known_grant(node, who);
        self.counters.access.count(known.is_some());
        match known {
            Some(granted) => Ok(granted),
            None => self.ask_access(node, who).await,
        }
    }

    fn known_grant(&self, node: &Node, who: &Credential) -> Option<u32> {
        let state = node.state();
        let (attr, _) = state.attributes.fresh(super::call::now())?;
        state.grants.as_ref()?.of(who.identity, attr.ctime)
    }

    /// Asks the server, which tells the attributes of `node` too.
    pub(crate) async fn ask_access(&self, node: &Node, who: &Credential) -> Result<u32, Errno> {
        let asked = self.ask();
        let args = AccessArgs { file: node.handle.clone(), access: every_bit(node.kind) };
        match self.call::<Access, _, _>(who, args).await? {
            Res::Ok(ok) => {
                self.learn_if_told(node, ok.attr.as_ref(), asked);
                if let Some(attr) = ok.attr {
                    let grant = Grant { identity: who.identity, granted: ok.access, ctime: attr.ctime };
                    node.state().grants.get_or_insert_default().keep(grant);
                }
                Ok(ok.access)
            }
            Res::Fail(status, attr) => {
                self.learn_if_told(node, attr.as_ref(), asked);
                Err(self.refused(node, status))
            }
        }
    }

    /// Whether every user may search `dir`, as far as its mode tells.
    pub(crate) fn open_to_all(&self, dir: &Node) -> bool {
        let state = dir.state();
        let held = state.attributes.held();
        held.is_some_and(|attr| attr.mode & SEARCH_FOR_ALL == SEARCH_FOR_ALL)
    }

    /// EACCES unless `who` may search `dir`. The kernel asks no permission of us before a lookup, and a name kept for
    /// one user must not be told to another.
    pub(crate) async fn may_search(&self, dir: &Node, who: &Credential) -> Result<(), Errno> {
        if !self.config().several_users || self.open_to_all(dir) {
            return Ok(());
        }
        match self.granted(dir, who).await? & access::LOOKUP {
            0 => Err(Errno::ACCES),
            _ => Ok(()),
        }
    }
}
