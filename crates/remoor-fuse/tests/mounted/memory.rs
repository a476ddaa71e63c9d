//! A small file system in memory. Files whose name ends with `gated` answer READ, or
//! FLUSH if it begins with `flush`, only once the gate is open; those whose
//! name begins with `direct` are read past the page cache, so that the caller itself waits for the READ.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use remoor_fuse::{
    Attributes, Caller, DirectoryBuffer, DirectoryEntry, Entry, Errno, Filesystem, Negotiated, NodeId,
    OpenFlags, Operation, Reply, SetAttributes, Statfs, Time, TimeOrNow,
};
use tokio::sync::Semaphore;

const VALID: Duration = Duration::from_secs(3600);
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// The file system, and what a test looks at.
pub(crate) struct Memory {
    tree: Mutex<Tree>,
    /// Requests for gated files wait for a permit.
    pub(crate) gate: Semaphore,
    /// Those that wait.
    pub(crate) waiting: Waiting,
    arrived: Sender<()>,
    /// Names of the operations that came, and notes about some.
    pub(crate) seen: Mutex<BTreeSet<String>>,
    pub(crate) destroyed: AtomicBool,
}

/// Counts what waits now.
#[derive(Clone, Default)]
pub(crate) struct Waiting(pub(crate) Arc<AtomicUsize>);

struct Waits(Waiting);

impl Waiting {
    fn enter(&self) -> Waits {
        self.0.fetch_add(1, Ordering::SeqCst);
        Waits(self.clone())
    }

    pub(crate) fn now(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Tree {
    nodes: HashMap<u64, Node>,
    lookups: HashMap<u64, u64>,
    last: u64,
}

#[derive(Clone, Default)]
struct Node {
    attributes: Attributes,
    gated: bool,
    direct: bool,
    flush: bool,
    data: Vec<u8>,
    names: BTreeMap<Vec<u8>, u64>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

type Done = Result<Reply, Errno>;

impl Memory {
    /// An empty file system whose root belongs to this user; the receiver tells of every gated READ that arrives.
    pub(crate) fn new() -> (Arc<Self>, Receiver<()>) {
        let (arrived, receiver) = channel();
        let mut tree = Tree { last: 1, ..Tree::default() };
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let attributes =
            Attributes { ino: 1, mode: DIRECTORY | 0o755, nlink: 2, uid, gid, ..Attributes::default() };
        tree.nodes.insert(1, Node { attributes, ..Node::default() });
        let memory = Self {
            tree: Mutex::new(tree),
            gate: Semaphore::new(0),
            waiting: Waiting::default(),
            arrived,
            seen: Mutex::default(),
            destroyed: AtomicBool::new(false),
        };
        (Arc::new(memory), receiver)
    }

    /// Changes a file behind the kernel's back; tells its node.
    pub(crate) fn change(&self, name: &str, data: &[u8]) -> NodeId {
        let mut tree = self.tree();
        let id = tree.nodes[&1].names[name.as_bytes()];
        let node = tree.nodes.get_mut(&id).unwrap();
        node.data = data.to_vec();
        node.attributes.size = data.len() as u64;
        NodeId(id)
    }

    /// Renames a file of the root behind the kernel's back.
    pub(crate) fn rename(&self, name: &str, new_name: &str) {
        let mut tree = self.tree();
        let names = &mut tree.nodes.get_mut(&1).unwrap().names;
        let id = names.remove(name.as_bytes()).unwrap();
        names.insert(new_name.as_bytes().to_vec(), id);
    }

    pub(crate) fn has_seen(&self, what: &str) -> bool {
        self.seen.lock().unwrap().contains(what)
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap()
    }

    fn note(&self, what: &str) {
        self.seen.lock().unwrap().insert(what.to_owned());
    }

    /// Waits for a gated file, without the lock.
    async fn pass_gate(&self, node: NodeId, flush: bool) {
        let gated = self.tree().nodes.get(&node.0).is_some_and(|n| n.gated && n.flush == flush);
        if gated {
            let _waits = self.waiting.enter();
            let _ = self.arrived.send(());
            let _permit = self.gate.acquire().await;
        }
    }
}

impl Filesystem for Memory {
    fn init(&self, negotiated: &Negotiated) {
        self.note("init");
        assert!(negotiated.max_write >= 4096 && negotiated.minor >= 31);
    }

    async fn call(self: Arc<Self>, caller: Caller, operation: Operation) -> Done {
        self.note(operation.name());
        match &operation {
            Operation::Write { data, .. } if data.len() == 1 << 20 => self.note("WRITE of 1 MiB"),
            Operation::Read { node, .. } => self.pass_gate(*node, false).await,
            Operation::Flush { node, .. } => self.pass_gate(*node, true).await,
            Operation::Lookup { name, .. } if &name[..] == b"panics" => panic!("as the test wants"),
            Operation::Lookup { name, .. } if &name[..] == b"panics later" => {
                tokio::task::yield_now().await;
                panic!("as the test wants");
            }
            // What is not answered at once takes another way.
            Operation::Statfs { .. } | Operation::Releasedir { .. } => tokio::task::yield_now().await,
            _ => {}
        }
        self.tree().execute(caller, operation)
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        self.note("forget");
        let mut tree = self.tree();
        let left = tree.lookups.get_mut(&node.0).expect("a node that was given");
        *left = left.checked_sub(lookups).expect("no more than was given");
        if *left == 0 {
            tree.lookups.remove(&node.0);
        }
    }

    fn destroy(&self) {
        assert!(!self.destroyed.swap(true, Ordering::SeqCst));
    }
}

impl Tree {
    fn execute(&mut self, caller: Caller, operation: Operation) -> Done {
        use Operation as O;
        match operation {
            O::Lookup { parent, name } => self.lookup(parent, &name),
            O::Getattr { node, .. } => self.getattr(node),
            O::Setattr { node, change } => self.setattr(node, &change),
            O::Readlink { node } => Ok(Reply::Data(vec![self.node(node)?.data.clone().into()])),
            O::Symlink { parent, name, target } => {
                self.make(caller, parent, &name, SYMLINK | 0o777, 0, &target).map(Reply::Entry)
            }
            O::Mknod { parent, name, mode, rdev, .. } => {
                self.make(caller, parent, &name, mode, rdev, b"").map(Reply::Entry)
            }
            O::Mkdir { parent, name, mode, .. } => {
                self.make(caller, parent, &name, DIRECTORY | mode, 0, b"").map(Reply::Entry)
            }
            O::Create { parent, name, mode, .. } => {
                let entry = self.make(caller, parent, &name, REGULAR | mode, 0, b"")?;
                Ok(Reply::Created(entry, entry.node.0, OpenFlags::default()))
            }
            O::Unlink { parent, name } | O::Rmdir { parent, name } => self.remove(parent, &name),
            O::Rename { parent, name, new_parent, new_name, flags } => {
                self.rename(parent, &name, new_parent, &new_name, flags)
            }
            O::Link { node, new_parent, new_name } => self.link(node, new_parent, &new_name),
            O::Readdir { node, offset, size, .. } => self.readdir(node, offset, size, false),
            O::Readdirplus { node, offset, size, .. } => self.readdir(node, offset, size, true),
            O::Statfs { .. } => Ok(Reply::Statfs(Statfs {
                blocks: 1000,
                bsize: 4096,
                frsize: 4096,
                namelen: 255,
                ..Statfs::default()
            })),
            other => self.on_open_file(other),
        }
    }

    fn on_open_file(&mut self, operation: Operation) -> Done {
        use Operation as O;
        match operation {
            O::Open { node, flags, .. } => {
                let truncated = flags & 0o1000 != 0;
                if truncated {
                    self.resize(node, 0)?;
                }
                Ok(Reply::Opened {
                    fh: node.0,
                    flags: OpenFlags {
                        keep_cache: !truncated,
                        direct_io: self.node(node)?.direct,
                        ..OpenFlags::default()
                    },
                })
            }
            O::Opendir { node, .. } => Ok(Reply::Opened { fh: node.0, flags: OpenFlags::default() }),
            O::Read { node, offset, size, .. } => self.read(node, offset, size),
            O::Write { node, offset, data, .. } => self.write(node, offset, &data),
            O::Fallocate { node, offset, length, mode: 0, .. } => {
                let size = self.node(node)?.attributes.size.max(offset + length);
                self.resize(node, size)
            }
            O::Lseek { node, offset, .. } => {
                let size = self.node(node)?.attributes.size;
                if offset < size { Ok(Reply::Offset(offset)) } else { Err(Errno::ENXIO) }
            }
            O::CopyFileRange { node, offset, to_node, to_offset, length, .. } => {
                let data = &self.node(node)?.data;
                let from = (offset as usize).min(data.len());
                let part = data[from..(from + length as usize).min(data.len())].to_vec();
                self.write(to_node, to_offset, &part)
            }
            O::Flush { .. }
            | O::Release { .. }
            | O::Releasedir { .. }
            | O::Fsync { .. }
            | O::Fsyncdir { .. }
            | O::Access { .. } => Ok(Reply::Empty),
            other => self.xattr(other),
        }
    }

    fn xattr(&mut self, operation: Operation) -> Done {
        use Operation as O;
        match operation {
            O::Setxattr { node, name, value, .. } => {
                self.node(node)?.xattrs.insert(name.to_vec(), value.to_vec());
                Ok(Reply::Empty)
            }
            O::Getxattr { node, name, size } => {
                let value = self.node(node)?.xattrs.get(&name[..]).cloned().ok_or(Errno::ENODATA)?;
                sized(value, size)
            }
            O::Listxattr { node, size } => {
                let names = self.node(node)?.xattrs.keys().flat_map(|k| [&k[..], b"\0"].concat()).collect();
                sized(names, size)
            }
            O::Removexattr { node, name } => {
                self.node(node)?.xattrs.remove(&name[..]).map(|_| Reply::Empty).ok_or(Errno::ENODATA)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn node(&mut self, id: NodeId) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&id.0).ok_or(Errno::ESTALE)
    }

    fn entry(&mut self, id: u64) -> Result<Entry, Errno> {
        let attributes = self.node(NodeId(id))?.attributes;
        *self.lookups.entry(id).or_default() += 1;
        Ok(Entry { node: NodeId(id), generation: 0, attributes, attributes_valid: VALID, entry_valid: VALID })
    }

    fn lookup(&mut self, parent: NodeId, name: &[u8]) -> Done {
        match self.node(parent)?.names.get(name).copied() {
            Some(id) => self.entry(id).map(Reply::Entry),
            None => Ok(Reply::Entry(Entry::negative(VALID))),
        }
    }

    fn getattr(&mut self, node: NodeId) -> Done {
        Ok(Reply::Attributes(self.node(node)?.attributes, VALID))
    }

    fn setattr(&mut self, node: NodeId, change: &SetAttributes) -> Done {
        if let Some(size) = change.size {
            self.resize(node, size)?;
        }
        let a = &mut self.node(node)?.attributes;
        let at = |time, old| match time {
            Some(TimeOrNow::At(time)) => time,
            Some(TimeOrNow::Now) => Time { seconds: 77, nanoseconds: 0 },
            None => old,
        };
        a.mode = change.mode.map_or(a.mode, |mode| a.mode & 0o170_000 | mode & 0o7777);
        (a.uid, a.gid) = (change.uid.unwrap_or(a.uid), change.gid.unwrap_or(a.gid));
        (a.atime, a.mtime) = (at(change.atime, a.atime), at(change.mtime, a.mtime));
        self.getattr(node)
    }

    fn make(
        &mut self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        rdev: u32,
        data: &[u8],
    ) -> Result<Entry, Errno> {
        if self.node(parent)?.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.last += 1;
        let id = self.last;
        let attributes = Attributes {
            ino: id,
            mode,
            rdev,
            nlink: 1,
            size: data.len() as u64,
            uid: caller.uid,
            gid: caller.gid,
            ..Attributes::default()
        };
        let (gated, flush) = (name.ends_with(b"gated"), name.starts_with(b"flush"));
        let direct = name.starts_with(b"direct");
        self.nodes
            .insert(id, Node { attributes, gated, direct, flush, data: data.to_vec(), ..Node::default() });
        self.node(parent)?.names.insert(name.to_vec(), id);
        self.entry(id)
    }

    fn remove(&mut self, parent: NodeId, name: &[u8]) -> Done {
        let id = *self.node(parent)?.names.get(name).ok_or(Errno::ENOENT)?;
        let node = self.node(NodeId(id))?;
        if !node.names.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        node.attributes.nlink -= 1;
        self.node(parent)?.names.remove(name);
        Ok(Reply::Empty)
    }

    fn rename(
        &mut self,
        parent: NodeId,
        name: &[u8],
        new_parent: NodeId,
        new_name: &[u8],
        flags: u32,
    ) -> Done {
        let no_replace = flags & 1 != 0;
        if no_replace && self.node(new_parent)?.names.contains_key(new_name) {
            return Err(Errno::EEXIST);
        }
        let id = self.node(parent)?.names.remove(name).ok_or(Errno::ENOENT)?;
        self.node(new_parent)?.names.insert(new_name.to_vec(), id);
        Ok(Reply::Empty)
    }

    fn link(&mut self, node: NodeId, new_parent: NodeId, new_name: &[u8]) -> Done {
        self.node(node)?.attributes.nlink += 1;
        self.node(new_parent)?.names.insert(new_name.to_vec(), node.0);
        self.entry(node.0).map(Reply::Entry)
    }

    fn readdir(&mut self, node: NodeId, offset: u64, size: u32, plus: bool) -> Done {
        let names: Vec<_> = self.node(node)?.names.clone().into_iter().collect();
        let mut buffer = DirectoryBuffer::new(size);
        for (at, (name, id)) in names.iter().enumerate().skip(offset as usize) {
            let mode = self.nodes[id].attributes.mode;
            let entry = DirectoryEntry { ino: *id, offset: at as u64 + 1, mode, name };
            let room = if plus {
                let given = self.entry(*id)?;
                let room = buffer.push_plus(&entry, &given);
                *self.lookups.get_mut(id).unwrap() -= u64::from(!room);
                room
            } else {
                buffer.push(&entry)
            };
            if !room {
                break;
            }
        }
        Ok(Reply::Directory(buffer))
    }

    /// In pieces, as from a network.
    fn read(&mut self, node: NodeId, offset: u64, size: u32) -> Done {
        let data = &self.node(node)?.data;
        let from = (offset as usize).min(data.len());
        let part = Bytes::copy_from_slice(&data[from..(from + size as usize).min(data.len())]);
        let piece = (part.len() / 3).max(1);
        Ok(Reply::Data(
            (0..part.len()).step_by(piece).map(|at| part.slice(at..(at + piece).min(part.len()))).collect(),
        ))
    }

    fn write(&mut self, node: NodeId, offset: u64, data: &[u8]) -> Done {
        let end = offset as usize + data.len();
        let node = self.node(node)?;
        node.data.resize(node.data.len().max(end), 0);
        node.data[offset as usize..end].copy_from_slice(data);
        node.attributes.size = node.data.len() as u64;
        Ok(Reply::Written(data.len() as u32))
    }

    fn resize(&mut self, node: NodeId, size: u64) -> Done {
        let node = self.node(node)?;
        node.data.resize(size as usize, 0);
        node.attributes.size = size;
        Ok(Reply::Empty)
    }
}

fn sized(value: Vec<u8>, size: u32) -> Done {
    match size as usize {
        0 => Ok(Reply::Length(value.len() as u32)),
        size if size < value.len() => Err(Errno::ERANGE),
        _ => Ok(Reply::Data(vec![value.into()])),
    }
}
