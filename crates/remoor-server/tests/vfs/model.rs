//! The same random operations on a directory and on the model in memory: every result and the final tree are the same.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use remoor_nfs::v3::{
    CreateHow, Device, DeviceData, Fattr, FileType, MknodData, NfsStat, Sattr, SetTime, StableHow, Time,
    WccData,
};
use remoor_server::vfs::local::Scheme;
use remoor_server::vfs::memory::{DEFAULT_LIMIT_BYTES, MemoryVfs};
use remoor_server::vfs::{Caller, Made, Node, NodeHandle, Result, Vfs};

use crate::served::{Served, is_single_user, names, own, schemes};

/// Indices are taken modulo what there is: callers, objects seen so far, names.
type Pick = usize;

#[derive(Debug, Clone)]
enum Op {
    Lookup(Pick, Pick),
    Create(Pick, Pick, CreateHow),
    Mkdir(Pick, Pick, Sattr),
    Symlink(Pick, Pick),
    Mknod(Pick, Pick, MknodData),
    Remove(Pick, Pick),
    Rmdir(Pick, Pick),
    Rename((Pick, Pick), (Pick, Pick)),
    Link(Pick, (Pick, Pick)),
    Setattr(Pick, Sattr),
    Write(Pick, u64, Vec<u8>),
    Read(Pick, u64, u32),
    Access(Pick, u32),
    Readlink(Pick),
    Readdir(Pick),
    Commit(Pick),
}

const NAMES: &[&[u8]] = &[b"a", b"b", b"c", b"d", b"\xff\xfe", b"..", b"."];

fn callers() -> Vec<Caller> {
    let user = |uid, gids: &[u32]| Caller { uid, gid: uid, gids: gids.to_vec() };
    match is_single_user() {
        true => vec![own()],
        false => vec![user(0, &[]), user(1000, &[]), user(1001, &[1000])],
    }
}

fn set_time() -> impl Strategy<Value = SetTime> {
    let small = (1u32..1000, 0u32..1_000_000_000)
        .prop_map(|(seconds, nanos)| SetTime::Client(Time { seconds, nanos }));
    prop_oneof![3 => Just(SetTime::Keep), 1 => Just(SetTime::Server), 1 => small]
}

fn id() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![6 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(1000)), 1 => Just(Some(1001))]
}

/// Modes that leave most callers some rights, now and then with set-id and sticky bits.
fn mode() -> impl Strategy<Value = u32> {
    let special = prop_oneof![6 => Just(0), 1 => Just(0o1000), 1 => Just(0o2000), 1 => Just(0o4000)];
    (
        special,
        prop_oneof![
            Just(0o777),
            Just(0o755),
            Just(0o770),
            Just(0o700),
            Just(0o711),
            Just(0o444),
            0u32..0o1000
        ],
    )
        .prop_map(|(special, mode)| special | mode)
}

fn sattr() -> impl Strategy<Value = Sattr> {
    let size = prop::option::weighted(0.2, 0u64..20_000);
    (prop::option::of(mode()), id(), id(), size, set_time(), set_time())
        .prop_map(|(mode, uid, gid, size, atime, mtime)| Sattr { mode, uid, gid, size, atime, mtime })
}

fn how() -> impl Strategy<Value = CreateHow> {
    prop_oneof![
        sattr().prop_map(CreateHow::Unchecked),
        sattr().prop_map(CreateHow::Guarded),
        (0u8..2).prop_map(|n| CreateHow::Exclusive([0, 0, 0, 1, 0, 0, 0, n])),
    ]
}

fn special() -> impl Strategy<Value = MknodData> {
    let device = |attr| DeviceData { attr, device: Device { major: 1, minor: 3 } };
    prop_oneof![
        sattr().prop_map(MknodData::Fifo),
        sattr().prop_map(MknodData::Socket),
        sattr().prop_map(move |attr| MknodData::Character(device(attr))),
        Just(MknodData::Other(FileType::Regular)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let pick = || any::<Pick>();
    let place = || (pick(), pick());
    prop_oneof![
        4 => place().prop_map(|(dir, name)| Op::Lookup(dir, name)),
        6 => (pick(), pick(), how()).prop_map(|(dir, name, how)| Op::Create(dir, name, how)),
        5 => (pick(), pick(), sattr()).prop_map(|(dir, name, attr)| Op::Mkdir(dir, name, attr)),
        2 => place().prop_map(|(dir, name)| Op::Symlink(dir, name)),
        2 => (pick(), pick(), special()).prop_map(|(dir, name, what)| Op::Mknod(dir, name, what)),
        2 => place().prop_map(|(dir, name)| Op::Remove(dir, name)),
        2 => place().prop_map(|(dir, name)| Op::Rmdir(dir, name)),
        4 => (place(), place()).prop_map(|(from, to)| Op::Rename(from, to)),
        3 => (pick(), place()).prop_map(|(node, place)| Op::Link(node, place)),
        6 => (pick(), sattr()).prop_map(|(node, attr)| Op::Setattr(node, attr)),
        4 => (pick(), 0u64..20_000, vec(any::<u8>(), 0..300)).prop_map(|(node, at, data)| Op::Write(node, at, data)),
        4 => (pick(), 0u64..20_000, 0u32..9000).prop_map(|(node, at, count)| Op::Read(node, at, count)),
        2 => (pick(), 0u32..64).prop_map(|(node, bits)| Op::Access(node, bits)),
        1 => pick().prop_map(Op::Readlink),
        2 => pick().prop_map(Op::Readdir),
        1 => pick().prop_map(Op::Commit),
    ]
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

#[derive(Debug, PartialEq)]
struct Attributes {
    kind: FileType,
    mode: u32,
    nlink: u32,
    owner: (u32, u32),
    size: u64,
    rdev: (u32, u32),
    /// When a client set it; the two clocks differ.
    mtime: Option<Time>,
}

impl From<&Fattr> for Attributes {
    fn from(attr: &Fattr) -> Self {
        Self {
            kind: attr.kind,
            mode: attr.mode,
            nlink: attr.nlink,
            owner: (attr.uid, attr.gid),
            size: if attr.kind == FileType::Directory { 0 } else { attr.size },
            rdev: (attr.rdev.major, attr.rdev.minor),
            mtime: Some(attr.mtime).filter(|time| time.seconds < 1000),
        }
    }
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
                .map(|read| Outcome::Data(read.data, read.eof)),
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
        let data = vfs.read(caller, &node.handle, 0, 1 << 20).ok().map(|read| read.data);
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
