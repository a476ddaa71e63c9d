//! Objects by themselves: getattr, setattr, access, readlink, statfs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use remoor_nfs::v3::{Fsstat, FsstatOk, Getattr, OnFile, Readlink, Res, Sattr, Setattr, SetattrArgs, access};
use tokio::sync::oneshot;

use super::call::now;
use super::node::Node;
use super::open::OpenId;
use super::{Attr, Caller, Credential, Fs, NodeId};
use crate::errno::Errno;

/// How often attributes are asked for in a row while our own changes overtake the answers.
const MAX_ASKED: usize = 8;

impl Fs {
    /// The credential of `caller`.
    pub(crate) fn who(&self, caller: &Caller) -> Arc<Credential> {
        self.credentials.of(caller)
    }

    /// Attributes of a node.
    pub async fn getattr(&self, caller: &Caller, node: NodeId) -> Result<Attr, Errno> {
        let node = self.nodes.get(node)?;
        self.data_before_attributes(&node).await;
        self.fresh_attributes(&node, &self.who(caller)).await?;
        self.shown(&node)
    }

    /// The attributes of `node` as they are shown, and for how long they may be kept.
    ///
    /// A WRITE's reply changes the server's size first and what is held after: they are looked at in the other order, or
    /// data that is answered meanwhile would be in neither.
    pub(crate) fn shown(&self, node: &Node) -> Result<Attr, Errno> {
        let (held_end, dirty) = (self.data_end(node), self.data_dirty(node));
        let (mut attr, valid) = {
            let state = node.state();
            let valid = state.attributes.fresh(now()).map(|(_, left)| left).unwrap_or_default();
            (state.attributes.held().cloned().ok_or(Errno::IO)?, valid)
        };
        attr.uid = self.config().uid.unwrap_or(attr.uid);
        attr.gid = self.config().gid.unwrap_or(attr.gid);
        if node.state().silly.is_some() {
            attr.nlink = attr.nlink.saturating_sub(1);
        }
        attr.size = attr.size.max(held_end);
        let valid = if dirty { Duration::ZERO } else { valid };
        Ok(Attr { attr, valid })
    }

    /// Asks for the attributes of `node` unless they are known and fresh. An answer that a change of ours has overtaken
    /// tells nothing, and is asked for again.
    pub(crate) async fn fresh_attributes(&self, node: &Node, who: &Credential) -> Result<(), Errno> {
        let fresh = node.state().attributes.fresh(now()).is_some();
        self.counters.attributes.count(fresh);
        if fresh {
            return Ok(());
        }
        for _ in 0..MAX_ASKED {
            self.ask_attributes(node, who).await?;
            if !node.state().attributes.is_expired() {
                break;
            }
        }
        Ok(())
    }

    /// Asks for the attributes of `node`.
    pub(crate) async fn ask_attributes(&self, node: &Node, who: &Credential) -> Result<(), Errno> {
        let asked = self.ask();
        let reply = self.call::<Getattr, _, _>(who, OnFile { file: node.handle.clone() }).await?;
        let ok = reply.into_result().map_err(|status| self.refused(node, status))?;
        self.learn(node, &ok.attr, asked);
        if node.is_stale() { Err(Errno::STALE) } else { Ok(()) }
    }

    /// Sets attributes of a node; `open` is the open file it is done through, if any.
    pub async fn setattr(
        self: &Arc<Self>,
        caller: &Caller,
        node: NodeId,
        open: Option<OpenId>,
        set: Sattr,
    ) -> Result<Attr, Errno> {
        let node = self.nodes.get(node)?;
        let who = match open {
            Some(open) => self.open_file(open)?.who.clone(),
            None => self.who(caller),
        };
        if set != Sattr::default() {
            self.set(&node, &who, set).await?;
        }
        self.fresh_attributes(&node, &who).await?;
        self.shown(&node)
    }

    /// Sets attributes, in order with what was written before. A size is set to the end, whether or not anybody waits:
    /// what is written next must find it set.
    pub(crate) async fn set(
        self: &Arc<Self>,
        node: &Arc<Node>,
        who: &Arc<Credential>,
        set: Sattr,
    ) -> Result<(), Errno> {
        let Some(size) = set.size else {
            self.data_before_attributes(node).await;
            return self.set_on_server(node, who, set).await;
        };
        if size > self.limits.file {
            return Err(Errno::FBIG);
        }
        let gate = self.close_gate(node).await;
        let (tell, told) = oneshot::channel();
        let (fs, node, who) = (self.clone(), node.clone(), who.clone());
        tokio::spawn(async move {
            let result = fs.set_on_server(&node, &who, set).await;
            if result.is_ok() {
                gate.set(size);
            }
            drop(gate);
            if tell.send(result).is_err() {
                // The kernel was told EINTR, and may have asked for the size since.
                fs.kernel.invalidate_data(node.id);
            }
        });
        told.await.unwrap_or(Err(Errno::IO))
    }

    async fn set_on_server(&self, node: &Node, who: &Credential, set: Sattr) -> Result<(), Errno> {
        let mode = set.mode;
        let change = self.change(node);
        let args = SetattrArgs { file: node.handle.clone(), attr: set, guard: None };
        match self.call::<Setattr, _, _>(who, args).await? {
            Res::Ok(wcc) => change.end(&wcc),
            Res::Fail(status, wcc) => {
                change.end(&wcc);
                return Err(self.refused(node, status));
            }
        }
        if mode.is_some() && node.is_dir() && self.config().several_users {
            self.ask_about_names(node);
        }
        Ok(())
    }

    /// The kernel must ask again for every name of `dir`: who may search it has changed.
    fn ask_about_names(&self, dir: &Node) {
        let names = dir.state().names.as_ref().map(|names| names.all()).unwrap_or_default();
        for name in names {
            self.kernel.invalidate_entry(dir.id, &name);
        }
    }

    /// EACCES unless the caller may do all of `mask`, as access(2) has it: 4 read, 2 write, 1 execute or search.
    pub async fn access(&self, caller: &Caller, node: NodeId, mask: u32) -> Result<(), Errno> {
        let node = self.nodes.get(node)?;
        let granted = self.granted(&node, &self.who(caller)).await?;
        let wanted = wanted(&node, mask & 4 != 0, mask & 2 != 0, mask & 1 != 0);
        if granted & wanted == wanted { Ok(()) } else { Err(Errno::ACCES) }
    }

    /// The text of a symbolic link.
    pub async fn readlink(&self, caller: &Caller, node: NodeId) -> Result<Bytes, Errno> {
        let (node, who, asked) = (self.nodes.get(node)?, self.who(caller), self.ask());
        match self.call::<Readlink, _, _>(&who, OnFile { file: node.handle.clone() }).await? {
            Res::Ok(ok) => {
                self.learn_if_told(&node, ok.attr.as_ref(), asked);
                Ok(ok.path.0)
            }
            Res::Fail(status, attr) => {
                self.learn_if_told(&node, attr.as_ref(), asked);
                Err(self.refused(&node, status))
            }
        }
    }

    /// Space and slots of the file system a node is in.
    pub async fn statfs(&self, caller: &Caller, node: NodeId) -> Result<FsstatOk, Errno> {
        let node = self.nodes.get(node)?;
        let args = OnFile { file: node.handle.clone() };
        let reply = self.call::<Fsstat, _, _>(&self.who(caller), args).await?;
        reply.into_result().map_err(|status| self.refused(&node, status))
    }
}

/// The ACCESS bits without which one may not read, write or execute `node`: those the kernel's client asks for
/// (`nfs_access_calc_mask`).
pub(crate) fn wanted(node: &Node, read: bool, write: bool, execute: bool) -> u32 {
    let (write_bits, execute_bits) = match node.is_dir() {
        true => (access::MODIFY | access::EXTEND | access::DELETE, access::LOOKUP),
        false => (access::MODIFY | access::EXTEND, access::EXECUTE),
    };
    let bits = |wanted: bool, bits: u32| if wanted { bits } else { 0 };
    bits(read, access::READ) | bits(write, write_bits) | bits(execute, execute_bits)
}
