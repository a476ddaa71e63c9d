//! The objects a kernel knows, by number and by handle.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use remoor_nfs::v3::{Fattr, FileHandle, FileType};

use super::access::Grants;
use super::attributes::Attributes;
use super::data::FileData;
use super::lookup::Names;
use super::silly::Silly;
use crate::errno::Errno;

/// Number of a node, never used again for another one, so a node's generation is always [`GENERATION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// The root of the mount.
pub const ROOT: NodeId = NodeId(1);
/// Generation of every node.
pub const GENERATION: u64 = 0;

/// Locks what no panic leaves half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An object of the server: the same handle is the same node.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its handle.
    pub handle: FileHandle,
    /// Its type, which never changes.
    pub kind: FileType,
    /// Its number on the server, which never changes.
    pub fileid: u64,
    /// How often the kernel was told of it and has not forgotten it. Changed under the table's lock.
    lookups: AtomicU64,
    /// The server does not know the handle any more.
    stale: AtomicBool,
    state: Mutex<State>,
    /// Data of a regular file, from its first open on.
    data: OnceLock<Box<FileData>>,
}

/// What is known of a node. Its lock is held for a few instructions, never over a call.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) attributes: Attributes,
    /// Where it was last seen. The root has no place.
    pub(crate) place: Option<Place>,
    /// Names in it, if it is a directory.
    pub(crate) names: Option<Box<Names>>,
    /// What the server has granted to whom.
    pub(crate) grants: Option<Box<Grants>>,
    /// Open files.
    pub(crate) opens: u32,
    /// Somebody else has changed it since it was last opened.
    pub(crate) changed: bool,
    /// The name it has while it is open and its last name was removed.
    pub(crate) silly: Option<Box<Silly>>,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub parent: NodeId,
    /// The name.
    pub name: Arc<[u8]>,
}

impl Node {
    fn new(id: NodeId, handle: &FileHandle, kind: FileType, fileid: u64) -> Self {
        Self {
            id,
            // A slice of the reply would keep all of the reply.
            handle: Bytes::copy_from_slice(&handle.0).into(),
            kind,
            fileid,
            lookups: AtomicU64::new(0),
            stale: AtomicBool::new(false),
            state: Mutex::default(),
            data: OnceLock::new(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Data of this file.
    pub(crate) fn data(&self) -> &FileData {
        self.data.get_or_init(Box::default)
    }

    /// Data of this file, if it was ever opened.
    pub(crate) fn data_if_opened(&self) -> Option<&FileData> {
        self.data.get().map(|data| &**data)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether the server has said that it does not know the handle any more.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Relaxed)
    }

    pub(crate) fn set_stale(&self) {
        self.stale.store(true, Relaxed);
    }

    /// Where it was last seen.
    pub fn place(&self) -> Option<Place> {
        self.state().place.clone()
    }
}

/// A node found by its handle.
#[derive(Debug)]
struct ByHandle(Arc<Node>);

impl Borrow<FileHandle> for ByHandle {
    fn borrow(&self) -> &FileHandle {
        &self.0.handle
    }
}

impl Hash for ByHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.handle.hash(state);
    }
}

impl PartialEq for ByHandle {
    fn eq(&self, other: &Self) -> bool {
        self.0.handle == other.0.handle
    }
}

impl Eq for ByHandle {}

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    by_id: HashMap<NodeId, Arc<Node>>,
    by_handle: HashSet<ByHandle>,
    next: u64,
}

impl Nodes {
    /// Only the root, which is never forgotten.
    pub fn new(root: &FileHandle, attr: &Fattr) -> Self {
        let mut table = Table { by_id: HashMap::new(), by_handle: HashSet::new(), next: ROOT.0 };
        table.enter(root, attr).lookups.store(1, Relaxed);
        Self { table: Mutex::new(table) }
    }

    /// The node of this number; ESTALE if the kernel has forgotten it.
    pub fn get(&self, id: NodeId) -> Result<Arc<Node>, Errno> {
        lock(&self.table).by_id.get(&id).cloned().ok_or(Errno::STALE)
    }

    /// The node of this handle, if it is known.
    pub fn find(&self, handle: &FileHandle) -> Option<Arc<Node>> {
        lock(&self.table).by_handle.get(handle).map(|found| found.0.clone())
    }

    /// The node of this handle, of which the kernel is about to be told once more: it must be [`Nodes::forget`]ed as
    /// often.
    pub fn enter(&self, handle: &FileHandle, attr: &Fattr) -> Arc<Node> {
        let mut table = lock(&self.table);
        let node = table.enter(handle, attr);
        node.lookups.fetch_add(1, Relaxed);
        node
    }

    /// The kernel is about to be told of a known node once more. False if it has forgotten it.
    pub fn again(&self, id: NodeId) -> bool {
        let table = lock(&self.table);
        let node = table.by_id.get(&id);
        node.map(|node| node.lookups.fetch_add(1, Relaxed)).is_some()
    }

    /// The kernel forgets `times` of the times it was told of the node. Returns it if it is gone with that.
    pub fn forget(&self, id: NodeId, times: u64) -> Option<Arc<Node>> {
        let mut table = lock(&self.table);
        let node = table.by_id.get(&id)?.clone();
        let left = node.lookups.load(Relaxed).saturating_sub(times);
        node.lookups.store(left, Relaxed);
        (left == 0 && id != ROOT).then(|| {
            table.remove(&node);
            node
        })
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        lock(&self.table).by_id.len()
    }

    /// There is always the root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// All nodes, for what concerns the whole mount.
    pub fn all(&self) -> Vec<Arc<Node>> {
        lock(&self.table).by_id.values().cloned().collect()
    }
}

impl Table {
    fn enter(&mut self, handle: &FileHandle, attr: &Fattr) -> Arc<Node> {
        if let Some(found) = self.by_handle.get(handle) {
            let same = (found.0.kind, found.0.fileid) == (attr.kind, attr.fileid);
            if same && !found.0.is_stale() {
                return found.0.clone();
            }
            // The server has given the handle to another object: as after ESTALE, nothing known of it is true.
            self.by_handle.remove(handle);
        }
        let node = Arc::new(Node::new(NodeId(self.next), handle, attr.kind, attr.fileid));
        self.next += 1;
        self.by_id.insert(node.id, node.clone());
        self.by_handle.insert(ByHandle(node.clone()));
        node
    }

    fn remove(&mut self, node: &Arc<Node>) {
        self.by_id.remove(&node.id);
        if self.by_handle.get(&node.handle).is_some_and(|found| found.0.id == node.id) {
            self.by_handle.remove(&node.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use remoor_nfs::v3::{Device, Time};

    use super::*;

    fn attr(kind: FileType, fileid: u64) -> Fattr {
        let time = Time { seconds: 0, nanos: 0 };
        let rdev = Device { major: 0, minor: 0 };
        let (mode, nlink, uid, gid, size, used, fsid) = (0o644, 1, 0, 0, 0, 0, 0);
        let (atime, mtime, ctime) = (time, time, time);
        Fattr { kind, mode, nlink, uid, gid, size, used, rdev, fsid, fileid, atime, mtime, ctime }
    }

    fn nodes() -> Nodes {
        Nodes::new(&"root".into(), &attr(FileType::Directory, 1))
    }

    #[test]
    fn a_node_lives_as_long_as_the_kernel_knows_it() {
        let nodes = nodes();
        let file = attr(FileType::Regular, 2);
        let id = nodes.enter(&"file".into(), &file).id;
        assert_eq!(nodes.enter(&"file".into(), &file).id, id);
        assert!(nodes.again(id));
        assert!(nodes.forget(id, 2).is_none() && nodes.get(id).is_ok());
        assert_eq!(nodes.forget(id, 1).map(|node| node.id), Some(id));
        assert_eq!(nodes.get(id).map(|node| node.id), Err(Errno::STALE));
        assert!(!nodes.again(id) && nodes.find(&"file".into()).is_none());
        assert_ne!(nodes.enter(&"file".into(), &file).id, id);
    }

    #[test]
    fn a_handle_with_another_object_is_another_node() {
        let nodes = nodes();
        let old = nodes.enter(&"h".into(), &attr(FileType::Regular, 2));
        let new = nodes.enter(&"h".into(), &attr(FileType::Regular, 3));
        assert_ne!(old.id, new.id);
        nodes.forget(old.id, 1);
        assert_eq!(nodes.find(&"h".into()).map(|node| node.id), Some(new.id), "the newer one stays");
        new.set_stale();
        assert_ne!(nodes.enter(&"h".into(), &attr(FileType::Regular, 3)).id, new.id);
    }

    #[test]
    fn the_root_is_never_forgotten() {
        let nodes = nodes();
        assert!(nodes.forget(ROOT, u64::MAX).is_none());
        assert_eq!((nodes.get(ROOT).unwrap().id, nodes.len()), (ROOT, 1));
    }

    #[test]
    fn a_million_nodes_fit_in_550_megabytes() {
        // The node behind its counts, its handle, its name here and in its directory, and slots of three tables that are
        // between half and seven eighths full.
        let heap = 16 + size_of::<Node>() + 64 + 16 + 24;
        let slots = 2 * (size_of::<(NodeId, usize)>() + size_of::<usize>()) + 2 * 24 + 6;
        assert!(heap + slots <= 550, "{heap} + {slots}");
    }
}
