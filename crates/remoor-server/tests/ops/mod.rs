//! Random operations on a file system, and what of an object's attributes two file systems must agree on.

use proptest::collection::vec;
use proptest::prelude::*;
use remoor_nfs::v3::{CreateHow, Device, DeviceData, Fattr, FileType, MknodData, Sattr, SetTime, Time};

/// Indices are taken modulo what there is: callers, objects seen so far, names.
pub(crate) type Pick = usize;

#[derive(Debug, Clone)]
pub(crate) enum Op {
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

pub(crate) const NAMES: &[&[u8]] = &[b"a", b"b", b"c", b"d", b"\xff\xfe", b"..", b"."];

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

pub(crate) fn op() -> impl Strategy<Value = Op> {
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

#[derive(Debug, PartialEq)]
pub(crate) struct Attributes {
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    pub(crate) rdev: (u32, u32),
    /// When a client set it; the two clocks differ.
    pub(crate) mtime: Option<Time>,
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
