//! Names: what is kept of answers to LOOKUP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use remoor_nfs::v3::{self, DirOp, Fattr, FileHandle, NfsStat, Res};

use super::attributes::Stamp;
use super::call::now;
use super::config::LookupCache;
use super::node::{Node, NodeId, Place};
use super::{Caller, Credential, Entry, Fs, Lookup, MAX_NAME};
use crate::errno::Errno;

/// Names of one directory that are kept.
const MAX_NAMES: usize = 1 << 21;
/// Names that are not there, of one directory, that are kept.
const MAX_MISSING: usize = 1 << 12;

/// Number of no node: half the size of an `Option` in what there are millions of.
const MISSING: NodeId = NodeId(0);

/// Names in one directory: true as long as the directory has not been changed by others, which shows in its attributes.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// [`MISSING`] is a name that is not there.
    known: HashMap<Arc<[u8]>, NodeId>,
    missing: usize,
    /// Answers to questions asked before this say nothing of the directory as it is.
    fence: u64,
}

impl Names {
    /// What is known of a name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<Option<NodeId>> {
        self.known.get(name).map(|node| (*node != MISSING).then_some(*node))
    }

    /// From now on only questions asked at `order` or later count.
    pub(crate) fn fence(&mut self, order: u64) {
        self.fence = self.fence.max(order);
    }

    /// Whether a reply to a question asked at `order` tells the state of the directory.
    pub(crate) fn counts(&self, order: u64) -> bool {
        order >= self.fence
    }

    /// Keeps what is known of a name.
    pub(crate) fn insert(&mut self, name: Arc<[u8]>, node: Option<NodeId>) {
        self.remove(&name);
        if self.known.len() >= MAX_NAMES {
            self.known.clear();
            self.missing = 0;
        }
        if node.is_none() {
            if self.missing >= MAX_MISSING {
                self.known.retain(|_, node| *node != MISSING);
                self.missing = 0;
            }
            self.missing += 1;
        }
        self.known.insert(name, node.unwrap_or(MISSING));
    }

    /// Nothing is known of a name any more.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        if self.known.remove(name) == Some(MISSING) {
            self.missing -= 1;
        }
    }

    /// All names.
    pub(crate) fn all(&self) -> Vec<Arc<[u8]>> {
        self.known.keys().cloned().collect()
    }

    /// The directory was changed by others, as the reply to the question asked at `order` tells. Returns all names.
    pub(crate) fn forget_all(&mut self, order: u64) -> Vec<Arc<[u8]>> {
        self.fence(order);
        self.missing = 0;
        std::mem::take(&mut self.known).into_keys().collect()
    }
}

/// A directory and a name in it, as calls have it.
pub(crate) fn place(dir: &Node, name: &[u8]) -> DirOp {
    DirOp { dir: dir.handle.clone(), name: Bytes::copy_from_slice(name).into() }
}

impl Fs {
    /// Finds `name` in `parent`.
    pub async fn lookup(&self, caller: &Caller, parent: NodeId, name: &[u8]) -> Result<Lookup, Errno> {
        let (dir, who) = (self.nodes.get(parent)?, self.who(caller));
        if name.len() > MAX_NAME {
            return Err(Errno::NAMETOOLONG);
        }
        self.may_search(&dir, &who).await?;
        self.look_up(&dir, name, &who).await
    }

    /// As [`Fs::lookup`], of one who may search `dir`.
    pub(crate) async fn look_up(&self, dir: &Node, name: &[u8], who: &Credential) -> Result<Lookup, Errno> {
        match self.known_name(dir, name) {
            Some(None) => {
                self.counters.names.hit(1);
                return Ok(Lookup::Missing { valid: self.name_valid(dir, None, false) });
            }
            Some(Some(id)) => {
                if let Some(entry) = self.known_entry(dir, id, who).await? {
                    self.counters.names.hit(1);
                    return Ok(Lookup::Found(entry));
                }
            }
            None => {}
        }
        self.counters.names.miss(1);
        self.ask_name(dir, name, who).await
    }

    /// What is kept of `name`, if `lookupcache` permits its use and the directory is known not to have changed.
    fn known_name(&self, dir: &Node, name: &[u8]) -> Option<Option<NodeId>> {
        let state = dir.state();
        state.attributes.fresh(now())?;
        let known = state.names.as_ref()?.get(name)?;
        let usable = match self.config().lookup_cache {
            LookupCache::All => true,
            LookupCache::Positive => known.is_some(),
            LookupCache::None => false,
        };
        usable.then_some(known)
    }

    /// The entry of a node that is known to have the name, if the kernel has not forgotten it and the server neither.
    async fn known_entry(&self, dir: &Node, id: NodeId, who: &Credential) -> Result<Option<Entry>, Errno> {
        let Ok(node) = self.nodes.get(id) else { return Ok(None) };
        match self.fresh_attributes(&node, who).await {
            Err(Errno::STALE) => return Ok(None),
            other => other?,
        }
        let attr = self.shown(&node)?;
        let valid = self.name_valid(dir, None, true);
        Ok(self.nodes.again(id).then_some(Entry { node: id, attr, valid }))
    }

    async fn ask_name(&self, dir: &Node, name: &[u8], who: &Credential) -> Result<Lookup, Errno> {
        let asked = self.ask();
        match self.call::<v3::Lookup, _, _>(who, place(dir, name)).await? {
            Res::Ok(ok) => {
                self.learn_if_told(dir, ok.dir_attr.as_ref(), asked);
                let attr = self.told_or_asked(&ok.file, ok.attr, who).await?;
                Ok(Lookup::Found(self.enter(dir, name, &ok.file, &attr, asked)?))
            }
            Res::Fail(NfsStat::NoEnt, attr) => {
                self.learn_if_told(dir, attr.as_ref(), asked);
                self.keep_name(dir, name.into(), None, asked);
                Ok(Lookup::Missing { valid: self.name_valid(dir, Some(asked), false) })
            }
            Res::Fail(status, attr) => {
                self.learn_if_told(dir, attr.as_ref(), asked);
                Err(self.refused(dir, status))
            }
        }
    }

    /// Attributes of an object a reply named, which the reply may have left out.
    pub(crate) async fn told_or_asked(
        &self,
        file: &FileHandle,
        attr: Option<Fattr>,
        who: &Credential,
    ) -> Result<Fattr, Errno> {
        if let Some(attr) = attr {
            return Ok(attr);
        }
        let reply = self.call::<v3::Getattr, _, _>(who, v3::OnFile { file: file.clone() }).await?;
        Ok(reply.into_result()?.attr)
    }

    /// The entry of what a reply to a question asked at `asked` found under `name`.
    pub(crate) fn enter(
        &self,
        dir: &Node,
        name: &[u8],
        file: &FileHandle,
        attr: &Fattr,
        asked: Stamp,
    ) -> Result<Entry, Errno> {
        let node = self.nodes.enter(file, attr);
        self.learn(&node, attr, asked);
        self.entered(dir, name, &node, asked)
    }

    /// The entry of a node the kernel has just been counted to know, which had the name `name` at `asked`.
    pub(crate) fn entered(&self, dir: &Node, name: &[u8], node: &Node, asked: Stamp) -> Result<Entry, Errno> {
        let name: Arc<[u8]> = name.into();
        if self.keep_name(dir, name.clone(), Some(node.id), asked) {
            node.state().place = Some(Place { parent: dir.id, name });
        }
        let valid = self.name_valid(dir, Some(asked), true);
        self.shown(node).map(|attr| Entry { node: node.id, attr, valid }).inspect_err(|_| {
            self.forget(node.id, 1);
        })
    }

    /// Keeps what a reply to a question asked at `asked` told of a name, unless it has been overtaken.
    fn keep_name(&self, dir: &Node, name: Arc<[u8]>, node: Option<NodeId>, asked: Stamp) -> bool {
        let mut state = dir.state();
        let names = state.names.get_or_insert_default();
        let counts = names.counts(asked.order);
        if counts {
            names.insert(name, node);
        }
        counts
    }

    /// How long the kernel may keep a name, or that it is not there, as told at `asked`: as long as the directory's
    /// attributes are kept. Where the directory may not be searched by all it must ask each time, because it does not
    /// ask about permission.
    pub(crate) fn name_valid(&self, dir: &Node, asked: Option<Stamp>, found: bool) -> Duration {
        let kept = match self.config().lookup_cache {
            LookupCache::All => true,
            LookupCache::Positive => found,
            LookupCache::None => false,
        };
        if !kept || self.config().several_users && !self.open_to_all(dir) {
            return Duration::ZERO;
        }
        let state = dir.state();
        let overtaken = |asked: Stamp| state.names.as_ref().is_some_and(|names| !names.counts(asked.order));
        match state.attributes.fresh(now()) {
            Some((_, left)) if !asked.is_some_and(overtaken) => left,
            _ => Duration::ZERO,
        }
    }

    /// The kernel forgets `times` of the times it was told of `node`.
    pub fn forget(&self, node: NodeId, times: u64) {
        let Some(node) = self.nodes.forget(node, times) else { return };
        let Some(Place { parent, name }) = node.place() else { return };
        let Ok(dir) = self.nodes.get(parent) else { return };
        if let Some(names) = &mut dir.state().names
            && names.get(&name) == Some(Some(node.id))
        {
            names.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn a_name_is_there_or_not_there_or_unknown() {
        let mut names = Names::default();
        names.insert(name("a"), Some(NodeId(7)));
        names.insert(name("b"), None);
        assert_eq!(names.get(b"a"), Some(Some(NodeId(7))));
        assert_eq!(names.get(b"b"), Some(None));
        assert_eq!(names.get(b"c"), None);
        names.insert(name("b"), Some(NodeId(8)));
        assert_eq!((names.get(b"b"), names.missing), (Some(Some(NodeId(8))), 0));
    }

    #[test]
    fn answers_to_questions_from_before_a_change_do_not_count() {
        let mut names = Names::default();
        names.fence(5);
        assert!(!names.counts(4) && names.counts(5));
        names.insert(name("a"), None);
        assert_eq!(names.forget_all(9), [name("a")]);
        assert!(!names.counts(8) && names.counts(9));
        names.fence(3);
        assert!(!names.counts(8), "a fence never goes back");
    }

    #[test]
    fn names_that_are_not_there_are_bounded() {
        let mut names = Names::default();
        names.insert(name("there"), Some(NodeId(2)));
        for n in 0..3 * MAX_MISSING {
            names.insert(n.to_string().as_bytes().into(), None);
        }
        assert!(names.known.len() <= MAX_MISSING + 1, "{}", names.known.len());
        assert_eq!(names.get(b"there"), Some(Some(NodeId(2))), "names that are there stay");
    }
}
