//! Names: what is kept of answers to LOOKUP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::node::NodeId;

/// Names of one directory that are kept.
const MAX_NAMES: usize = 1 << 21;
/// Names that are not there, of one directory, that are kept.
const MAX_MISSING: usize = 1 << 12;

/// Names in one directory: true as long as the directory has not been changed by others, which shows in its attributes.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// `None` is a name that is not there.
    known: HashMap<Arc<[u8]>, Option<NodeId>>,
    missing: usize,
    /// Answers to questions asked before this say nothing of the directory as it is.
    fence: u64,
}

impl Names {
    /// What is known of a name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<Option<NodeId>> {
        self.known.get(name).copied()
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
                self.known.retain(|_, node| node.is_some());
                self.missing = 0;
            }
            self.missing += 1;
        }
        self.known.insert(name, node);
    }

    /// Nothing is known of a name any more.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<NodeId> {
        let known = self.known.remove(name)?;
        self.missing -= usize::from(known.is_none());
        known
    }

    /// The directory was changed by others, as the reply to the question asked at `order` tells. Returns all names.
    pub(crate) fn forget_all(&mut self, order: u64) -> Vec<Arc<[u8]>> {
        self.fence(order);
        self.missing = 0;
        std::mem::take(&mut self.known).into_keys().collect()
    }
}

/// How long the kernel may keep a name.
pub(crate) const NOT_AT_ALL: Duration = Duration::ZERO;
