//! Attributes of objects: getattr, setattr, access, readlink, statfs, forget.

use std::sync::Arc;

use remoor_nfs::v3::{Getattr, OnFile};

use super::call::now;
use super::node::Node;
use super::{Attr, Caller, Credential, Fs, NodeId};
use crate::errno::Errno;

impl Fs {
    /// The credential of `caller`.
    pub(crate) fn who(&self, caller: &Caller) -> Arc<Credential> {
        self.credentials.of(caller)
    }

    /// Attributes of a node.
    pub async fn getattr(&self, caller: &Caller, node: NodeId) -> Result<Attr, Errno> {
        let node = self.nodes.get(node)?;
        self.data_before_attributes(&node).await?;
        self.fresh_attributes(&node, &self.who(caller)).await?;
        self.shown(&node)
    }

    /// The attributes of `node` as they are shown, and for how long they may be kept.
    pub(crate) fn shown(&self, node: &Node) -> Result<Attr, Errno> {
        let (mut attr, valid) = {
            let state = node.state();
            let valid = state.attributes.fresh(now()).map(|(_, left)| left).unwrap_or_default();
            (state.attributes.held().cloned().ok_or(Errno::IO)?, valid)
        };
        attr.uid = self.config.uid.unwrap_or(attr.uid);
        attr.gid = self.config.gid.unwrap_or(attr.gid);
        attr.size = self.data_size(node, attr.size);
        Ok(Attr { attr, valid })
    }

    /// Asks for the attributes of `node` unless they are known and fresh.
    pub(crate) async fn fresh_attributes(&self, node: &Node, who: &Credential) -> Result<(), Errno> {
        let fresh = node.state().attributes.fresh(now()).is_some();
        if fresh { Ok(()) } else { self.ask_attributes(node, who).await }
    }

    /// Asks for the attributes of `node`.
    pub(crate) async fn ask_attributes(&self, node: &Node, who: &Credential) -> Result<(), Errno> {
        let asked = self.ask();
        let reply = self.call::<Getattr, _, _>(who, OnFile { file: node.handle.clone() }).await?;
        let ok = reply.into_result().map_err(|status| self.refused(node, status))?;
        self.learn(node, &ok.attr, asked);
        if node.is_stale() { Err(Errno::STALE) } else { Ok(()) }
    }
}
