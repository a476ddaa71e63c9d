//! Random operations against a model: one mount with every cache, and two mounts with none that take turns.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::host::{Host, Mount, user};
use crate::errno::Errno;
use crate::fs::config::LookupCache;
use crate::fs::{Config, Entry, NodeId, ROOT};

/// Names an operation can be about.
const NAMES: u8 = 4;
const ROOT_DIR: u32 = 0;

/// A name in the root, or in what has a name there.
type Spot = (Option<u8>, u8);

#[derive(Debug, Clone, Copy)]
enum Op {
    Make(Spot),
    Mkdir(Spot),
    Unlink(Spot),
    Rmdir(Spot),
    Rename(Spot, Spot),
    Link(Spot, Spot),
}

fn spot() -> impl Strategy<Value = Spot> {
    (prop::option::weighted(0.4, 0..NAMES), 0..NAMES)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => spot().prop_map(Op::Make),
        3 => spot().prop_map(Op::Mkdir),
        2 => spot().prop_map(Op::Unlink),
        1 => spot().prop_map(Op::Rmdir),
        3 => (spot(), spot()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => (spot(), spot()).prop_map(|(from, to)| Op::Link(from, to)),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    File(u32),
    Dir(u32),
}

/// Directories by number, and what has a name in them.
#[derive(Debug)]
struct Model {
    dirs: BTreeMap<u32, BTreeMap<u8, Object>>,
    next: u32,
}

impl Model {
    fn new() -> Self {
        Self { dirs: BTreeMap::from([(ROOT_DIR, BTreeMap::new())]), next: 1 }
    }

    /// The directory of a spot, if it is one.
    fn dir(&self, spot: Spot) -> Option<u32> {
        match spot.0.map(|name| self.dirs[&ROOT_DIR].get(&name)) {
            None => Some(ROOT_DIR),
            Some(Some(Object::Dir(dir))) => Some(*dir),
            Some(_) => None,
        }
    }

    fn get(&self, dir: u32, name: u8) -> Option<Object> {
        self.dirs[&dir].get(&name).copied()
    }

    fn make(&mut self, dir: u32, name: u8, new: fn(u32) -> Object) -> Result<(), Errno> {
        if self.get(dir, name).is_some() {
            return Err(Errno::EXIST);
        }
        let object = new(self.next);
        if let Object::Dir(new) = object {
            self.dirs.insert(new, BTreeMap::new());
        }
        self.next += 1;
        self.dirs.get_mut(&dir).unwrap().insert(name, object);
        Ok(())
    }

    fn remove(&mut self, dir: u32, name: u8, directory: bool) -> Result<(), Errno> {
        match (self.get(dir, name).ok_or(Errno::NOENT)?, directory) {
            (Object::File(_), true) => return Err(Errno::NOTDIR),
            (Object::Dir(_), false) => return Err(Errno::ISDIR),
            (Object::Dir(removed), true) if !self.dirs[&removed].is_empty() => return Err(Errno::NOTEMPTY),
            (Object::Dir(removed), true) => drop(self.dirs.remove(&removed)),
            (Object::File(_), false) => {}
        }
        self.dirs.get_mut(&dir).unwrap().remove(&name);
        Ok(())
    }

    fn rename(&mut self, from: (u32, u8), to: (u32, u8)) -> Result<(), Errno> {
        let object = self.get(from.0, from.1).ok_or(Errno::NOENT)?;
        let replaced = self.get(to.0, to.1);
        if replaced == Some(object) {
            return Ok(());
        }
        if object == Object::Dir(to.0) {
            return Err(Errno::INVAL);
        }
        match (object, replaced) {
            (_, None) => {}
            (Object::File(_), Some(Object::Dir(_))) => return Err(Errno::ISDIR),
            (Object::Dir(_), Some(Object::File(_))) => return Err(Errno::NOTDIR),
            (_, Some(Object::File(_))) => self.remove(to.0, to.1, false)?,
            (_, Some(Object::Dir(_))) => self.remove(to.0, to.1, true)?,
        }
        self.dirs.get_mut(&from.0).unwrap().remove(&from.1);
        self.dirs.get_mut(&to.0).unwrap().insert(to.1, object);
        Ok(())
    }

    fn link(&mut self, from: (u32, u8), to: (u32, u8)) -> Result<(), Errno> {
        let object = self.get(from.0, from.1).ok_or(Errno::NOENT)?;
        match (object, self.get(to.0, to.1)) {
            (Object::Dir(_), _) => Err(Errno::PERM),
            (_, Some(_)) => Err(Errno::EXIST),
            (Object::File(_), None) => {
                self.dirs.get_mut(&to.0).unwrap().insert(to.1, object);
                Ok(())
            }
        }
    }

    fn links(&self, object: Object) -> u32 {
        self.dirs.values().flat_map(|dir| dir.values()).filter(|other| **other == object).count() as u32
    }
}

fn name(number: u8) -> String {
    format!("n{number}")
}

async fn dir_of(mount: &Mount, spot: Spot) -> NodeId {
    match spot.0 {
        None => ROOT,
        Some(dir) => mount.find(ROOT, &name(dir)).await.unwrap().node,
    }
}

/// Does `op` on the mount, in directories that exist.
async fn perform(mount: &Mount, op: Op) -> Result<(), Errno> {
    let root = user(0);
    let device = remoor_nfs::v3::Device { major: 0, minor: 0 };
    let made = |entry: Result<Entry, Errno>| entry.map(drop);
    match op {
        Op::Make(at) => {
            let (dir, name) = (dir_of(mount, at).await, name(at.1));
            let kind = remoor_nfs::v3::FileType::Regular;
            made(mount.fs.mknod(&root, dir, name.as_bytes(), kind, 0o644, device).await)
        }
        Op::Mkdir(at) => {
            let dir = dir_of(mount, at).await;
            made(mount.fs.mkdir(&root, dir, name(at.1).as_bytes(), 0o755).await)
        }
        Op::Unlink(at) => mount.unlink(dir_of(mount, at).await, &name(at.1)).await,
        Op::Rmdir(at) => mount.fs.rmdir(&root, dir_of(mount, at).await, name(at.1).as_bytes()).await,
        Op::Rename(from, to) => {
            let (from_dir, to_dir) = (dir_of(mount, from).await, dir_of(mount, to).await);
            let (from, to) = (name(from.1), name(to.1));
            mount.fs.rename(&root, (from_dir, from.as_bytes()), (to_dir, to.as_bytes()), 0).await
        }
        Op::Link(from, to) => {
            let (from_dir, to_dir) = (dir_of(mount, from).await, dir_of(mount, to).await);
            let node = mount.find(from_dir, &name(from.1)).await?.node;
            made(mount.fs.link(&root, node, to_dir, name(to.1).as_bytes()).await)
        }
    }
}

/// What the model says, or nothing if a directory of the operation is none.
fn predict(model: &mut Model, op: Op) -> Option<Result<(), Errno>> {
    Some(match op {
        Op::Make(at) => model.make(model.dir(at)?, at.1, Object::File),
        Op::Mkdir(at) => model.make(model.dir(at)?, at.1, Object::Dir),
        Op::Unlink(at) => model.remove(model.dir(at)?, at.1, false),
        Op::Rmdir(at) => model.remove(model.dir(at)?, at.1, true),
        Op::Rename(from, to) => model.rename((model.dir(from)?, from.1), (model.dir(to)?, to.1)),
        Op::Link(from, to) => model.link((model.dir(from)?, from.1), (model.dir(to)?, to.1)),
    })
}

/// Which error a server chooses where several are right differs; that it is one does not.
fn agree(seen: Result<(), Errno>, predicted: Result<(), Errno>) -> bool {
    let plain = |result| matches!(result, Ok(()) | Err(Errno::NOENT | Errno::EXIST));
    if plain(predicted) { seen == predicted } else { seen.is_err() }
}

/// Every name of the model is there, with its links, and no other.
async fn compare(mount: &Mount, model: &Model) {
    for spot_dir in std::iter::once(None).chain((0..NAMES).map(Some)) {
        let Some(dir) = model.dir((spot_dir, 0)) else { continue };
        let node = dir_of(mount, (spot_dir, 0)).await;
        for number in 0..NAMES {
            let seen = mount.find(node, &name(number)).await;
            match model.get(dir, number) {
                None => assert_eq!(seen, Err(Errno::NOENT), "{spot_dir:?}/{number}"),
                Some(object) => {
                    let attr = mount.attr(seen.unwrap().node).await.unwrap();
                    let is_dir = matches!(object, Object::Dir(_));
                    assert_eq!(attr.kind == remoor_nfs::v3::FileType::Directory, is_dir);
                    if !is_dir {
                        assert_eq!(attr.nlink, model.links(object), "{spot_dir:?}/{number}");
                    }
                }
            }
        }
        let expected: Vec<String> = model.dirs[&dir].keys().map(|number| name(*number)).collect();
        assert_eq!(mount.names(node).await, expected);
    }
}

async fn run(mounts: &[Mount], ops: &[(usize, Op)]) {
    let mut model = Model::new();
    for (which, op) in ops {
        let Some(predicted) = predict(&mut model, *op) else { continue };
        let seen = perform(&mounts[which % mounts.len()], *op).await;
        assert!(agree(seen, predicted), "{op:?}: {seen:?}, not {predicted:?}");
        for mount in mounts {
            compare(mount, &model).await;
        }
    }
    for mount in mounts {
        assert_eq!(mount.told().len() * usize::from(mounts.len() == 1), 0, "our own changes are no others'");
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_mount_with_every_cache_agrees_with_the_model(ops in prop::collection::vec((0..2usize, op()), 1..40)) {
        block_on(async {
            let host = Host::memory();
            run(&[host.mount().await], &ops).await;
        });
    }

    #[test]
    fn two_mounts_without_caches_agree_with_the_model(ops in prop::collection::vec((0..2usize, op()), 1..30)) {
        block_on(async {
            let host = Host::directory();
            let config =
                Config { attribute_cache: false, lookup_cache: LookupCache::None, ..Config::default() };
            let mounts = [host.mount_with(config.clone()).await, host.mount_with(config).await];
            run(&mounts, &ops).await;
        });
    }
}
