//! The same random operations on a directory and on the model in memory: every result and the final tree are the same.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use remoor_nfs::v3::{FileType, NfsStat, Sattr, StableHow, WccData};
use remoor_server::vfs::local::Scheme;
use remoor_server::vfs::memory::{DEFAULT_LIMIT_BYTES, MemoryVfs};
use remoor_server::vfs::{Caller, Made, Node, NodeHandle, Result, Vfs};

use crate::ops::{Attributes, NAMES, Op, Pick, op};
use crate::served::{Served, is_single_user, names, own, schemes};

fn callers() -> Vec<Caller> {
    let user = |uid, gids: &[u32]| Caller { uid, gid: uid, gids: gids.to_vec() };
    match is_single_user() {
        true => vec![own()],
        false => vec![user(0, &[]), user(1000, &[]), user(1001, &[1000])],
    }
}

/// What two file systems must agree on.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done,
    Object(Attributes),
    Bits(u32),
    Data(Bytes, bool),
    Names(Vec<Bytes>),
}

/// One of the two, with the objects it has shown; both have shown as many.
struct Side<'a> {
    vfs: &'a dyn Vfs,
    seen: Vec<NodeHandle>,
}

impl Side<'_> {
    fn object(&self, pick: Pick) -> &NodeHandle {
        &self.seen[pick % self.seen.len()]
    }

    fn place(&self, (dir, name): (Pick, Pick)) -> (&NodeHandle, &'static [u8]) {
        (self.object(dir), NAMES[name % NAMES.len()])
    }

    fn keep(&mut self, node: Result<Node>) -> Result<Outcome> {
        let node = node?;
        self.seen.push(node.handle);
        Ok(Outcome::Object((&node.attr).into()))
    }

    fn keep_made(&mut self, made: Result<Made>) -> Result<Outcome> {
        self.keep(made.map(|made| made.node))
    }

    fn run(&mut self, caller: &Caller, op: &Op) -> Result<Outcome> {
        let vfs = self.vfs;
        let done = |result: Result<WccData>| result.map(|_| Outcome::Done);
        match op {
            Op::Lookup(dir, name) => {
                let (dir, name) = self.place((*dir, *name));
                let node = vfs.lookup(caller, dir, name);
                self.keep(node)
            }
            Op::Create(dir, name, how) => {
                let (dir, name) = self.place((*dir, *name));
                let made = vfs.create(caller, dir, name, how);
                self.keep_made(made)
            }
            Op::Mkdir(dir, name, attr) => {
                let (dir, name) = self.place((*dir, *name));
                let made = vfs.mkdir(caller, dir, name, attr);
                self.keep_made(made)
            }
            Op::Symlink(dir, name) => {
                let (dir, name) = self.place((*dir, *name));
                let made = vfs.symlink(caller, dir, name, b"some/where", &Sattr::default());
                self.keep_made(made)
            }
            Op::Mknod(dir, name, what) => {
                let (dir, name) = self.place((*dir, *name));
                let made = vfs.mknod(caller, dir, name, what);
                self.keep_made(made)
            }
            Op::Remove(dir, name) => {
                let (dir, name) = self.place((*dir, *name));
                done(vfs.remove(caller, dir, name))
            }
            Op::Rmdir(dir, name) => {
                let (dir, name) = self.place((*dir, *name));
                done(vfs.rmdir(caller, dir, name))
            }
            Op::Rename(from, to) => {
                vfs.rename(caller, self.place(*from), self.place(*to)).map(|_| Outcome::Done)
            }
            Op::Link(node, to) => {
                let (dir, name) = self.place(*to);
                vfs.link(caller, self.object(*node), dir, name)
                    .map(|(attr, _)| Outcome::Object((&attr).into()))
            }
            Op::Setattr(node, attr) => {
                let after = vfs.setattr(caller, self.object(*node), attr, None)?.after;
                Ok(Outcome::Object((&after.unwrap()).into()))
            }
            Op::Write(node, at, data) => {
                let data = Bytes::copy_from_slice(data);
                let wcc = vfs
                    .write(caller, self.object(*node), *at, &data, StableHow::Unstable)
                    .map(|done| done.wcc);
                Ok(Outcome::Object((&wcc?.after.unwrap()).into()))
            }
            Op::Read(node, at, count) => vfs
                .read(caller, self.object(*node), *at, *count)
                .map(|read| Outcome::Data(read.data.into_bytes().unwrap(), read.eof)),
            Op::Access(node, bits) => {
                vfs.access(caller, self.object(*node), *bits).map(|(bits, _)| Outcome::Bits(bits))
            }
            Op::Readlink(node) => {
                vfs.readlink(caller, self.object(*node)).map(|(text, _)| Outcome::Data(text, true))
            }
            Op::Readdir(node) => self.list(caller, *node),
            Op::Commit(node) => done(vfs.commit(caller, self.object(*node))),
        }
    }

    fn list(&self, caller: &Caller, node: Pick) -> Result<Outcome> {
        let mut names = Vec::new();
        self.vfs.readdir(caller, self.object(node), 0, &mut |entry| {
            names.push(entry.name);
            std::ops::ControlFlow::Continue(())
        })?;
        names.sort();
        Ok(Outcome::Names(names))
    }

    /// Attributes of everything seen, which tells what became stale.
    fn objects(&self, caller: &Caller) -> Vec<std::result::Result<Attributes, NfsStat>> {
        self.seen.iter().map(|node| self.vfs.getattr(caller, node).map(|attr| (&attr).into())).collect()
    }
}

/// Paths with attributes and contents, as the most powerful caller sees them.
fn tree(
    vfs: &dyn Vfs,
    caller: &Caller,
    dir: &NodeHandle,
    path: &str,
    out: &mut Vec<(String, Attributes, Option<Bytes>)>,
) {
    let mut entries = names(vfs, dir);
    entries.sort();
    for name in entries {
        let node = vfs.lookup(caller, dir, &name).unwrap();
        let path = format!("{path}/{}", name.escape_ascii());
        let data =
            vfs.read(caller, &node.handle, 0, 1 << 20).ok().map(|read| read.data.into_bytes().unwrap());
        out.push((path.clone(), (&node.attr).into(), data));
        if node.attr.kind == FileType::Directory {
            tree(vfs, caller, &node.handle, &path, out);
        }
    }
}

fn compare(scheme: Scheme, ops: &[(Pick, Op)]) {
    let (served, callers) = (Served::new(), callers());
    let local = served.node("a", scheme);
    let memory = MemoryVfs::new(DEFAULT_LIMIT_BYTES, 1);
    let open = Sattr { mode: Some(0o777), ..Sattr::default() };
    let given = Sattr { uid: Some(own().uid), gid: Some(own().gid), ..open.clone() };
    let zero = Caller { uid: 0, gid: 0, gids: Vec::new() };
    memory.setattr(&zero, &memory.root().unwrap(), &given, None).unwrap();
    local.setattr(&own(), &local.root().unwrap(), &open, None).unwrap();
    let mut sides = [&local as &dyn Vfs, &memory].map(|vfs| Side { vfs, seen: vec![vfs.root().unwrap()] });
    for (n, (caller, op)) in ops.iter().enumerate() {
        let caller = &callers[caller % callers.len()];
        let [local, memory] = sides.each_mut().map(|side| side.run(caller, op));
        assert_eq!(local, memory, "operation {n} by {caller:?}: {op:?}");
        let [local, memory] = sides.each_ref().map(|side| side.objects(caller));
        assert_eq!(local, memory, "objects after operation {n} by {caller:?}: {op:?}");
    }
    if callers[0].is_root() {
        let [local, memory] = sides.each_ref().map(|side| {
            let mut out = Vec::new();
            tree(side.vfs, &callers[0], &side.seen[0], "", &mut out);
            out
        });
        assert_eq!(local, memory);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_directory_behaves_like_the_model(ops in vec((any::<Pick>(), op()), 1..150)) {
        for scheme in schemes() {
            compare(*scheme, &ops);
        }
    }
}
