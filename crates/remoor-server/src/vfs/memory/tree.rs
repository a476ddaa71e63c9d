//! Objects, directories and the account of what they use.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use remoor_nfs::v3::{Device, Fattr, FileType, NfsStat, Time};

use super::super::Result;
use super::content::Content;

/// What an object is charged, in bytes.
pub(super) const OBJECT_COST: u64 = 512;
/// What a directory entry is charged beside its name, in bytes.
pub(super) const ENTRY_COST: u64 = 128;
/// Most hard links to one file; ext4's limit.
const MAX_LINKS: u32 = 65_000;
/// Number of the root, as ext4 has it.
pub(super) const ROOT: u64 = 2;

#[derive(Debug)]
pub(super) enum Body {
    File(Content),
    Directory(Directory),
    Symlink(Bytes),
    /// Device, fifo or socket.
    Special,
}

#[derive(Debug)]
pub(super) struct Object {
    /// `size`, `used` and `nlink` are kept current.
    pub(super) attr: Fattr,
    pub(super) body: Body,
}

/// Cookies of `.` and `..`; those of other entries are greater.
const DOTS: [(u64, Bytes); 2] = [(1, Bytes::from_static(b".")), (2, Bytes::from_static(b".."))];

/// Entries by name and by cookie, without `.` and `..`; a cookie is never used twice in one directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) parent: u64,
    names: BTreeMap<Bytes, u64>,
    entries: BTreeMap<u64, (Bytes, u64)>,
    last_cookie: u64,
}

impl Directory {
    pub(super) fn new(parent: u64) -> Self {
        Self { parent, names: BTreeMap::new(), entries: BTreeMap::new(), last_cookie: DOTS[1].0 }
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<u64> {
        self.names.get(name).map(|cookie| self.entries[cookie].1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Entries after `cookie`, `.` and `..` included, of this directory, which is object `id`: cookie, name, object.
    pub(super) fn after(&self, id: u64, cookie: u64) -> impl Iterator<Item = (u64, Bytes, u64)> {
        let from = (std::ops::Bound::Excluded(cookie), std::ops::Bound::Unbounded);
        let dots = DOTS.into_iter().zip([id, self.parent]).map(|((cookie, name), id)| (cookie, name, id));
        let entries = self.entries.range(from).map(|(cookie, (name, id))| (*cookie, name.clone(), *id));
        dots.filter(move |(dot, ..)| *dot > cookie).chain(entries)
    }

    fn insert(&mut self, name: &[u8], id: u64) {
        let name = Bytes::copy_from_slice(name);
        self.last_cookie += 1;
        self.names.insert(name.clone(), self.last_cookie);
        self.entries.insert(self.last_cookie, (name, id));
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(cookie) = self.names.remove(name) {
            self.entries.remove(&cookie);
        }
    }
}

/// All objects. Between calls every entry's object exists, and every object but the root has an entry.
#[derive(Debug)]
pub(super) struct Tree {
    objects: HashMap<u64, Object>,
    last_id: u64,
    last_time: Time,
    used: u64,
    limit: u64,
}

impl Tree {
    pub(super) fn new(limit: u64) -> Self {
        let zero = Time { seconds: 0, nanos: 0 };
        let mut tree =
            Self { objects: HashMap::new(), last_id: ROOT, last_time: zero, used: OBJECT_COST, limit };
        let attr = tree.fresh_attr(ROOT, FileType::Directory, 0o755);
        tree.objects.insert(ROOT, Object { attr, body: Body::Directory(Directory::new(ROOT)) });
        tree
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    pub(super) fn count(&self) -> u64 {
        self.objects.len() as u64
    }

    /// Takes `bytes` from what is free.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.free() {
            return Err(NfsStat::NoSpc);
        }
        self.used += bytes;
        Ok(())
    }

    pub(super) fn refund(&mut self, bytes: u64) {
        self.used -= bytes;
    }

    /// The clock, but never the same time twice, so that every change changes ctime.
    pub(super) fn tick(&mut self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Time { seconds: since.as_secs() as u32, nanos: since.subsec_nanos() };
        let last = self.last_time;
        let next = match last.nanos + 1 {
            1_000_000_000 => Time { seconds: last.seconds + 1, nanos: 0 },
            nanos => Time { nanos, ..last },
        };
        self.last_time = now.max(next);
        self.last_time
    }

    pub(super) fn get(&self, id: u64) -> Result<&Object> {
        self.objects.get(&id).ok_or(NfsStat::Stale)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Result<&mut Object> {
        self.objects.get_mut(&id).ok_or(NfsStat::Stale)
    }

    pub(super) fn directory(&self, id: u64) -> Result<&Directory> {
        match &self.get(id)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(NfsStat::NotDir),
        }
    }

    fn directory_mut(&mut self, id: u64) -> Result<&mut Directory> {
        match &mut self.get_mut(id)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(NfsStat::NotDir),
        }
    }

    fn fresh_attr(&mut self, fileid: u64, kind: FileType, mode: u32) -> Fattr {
        let now = self.tick();
        Fattr {
            kind,
            mode,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: 0,
            gid: 0,
            size: 0,
            used: 0,
            rdev: Device { major: 0, minor: 0 },
            fsid: 0,
            fileid,
            atime: now,
            mtime: now,
            ctime: now,
        }
    }

    /// A new object under a name that is free. A directory's body tells its parent.
    pub(super) fn add(
        &mut self,
        dir: u64,
        name: &[u8],
        kind: FileType,
        mode: u32,
        body: Body,
    ) -> Result<&mut Object> {
        let text = if let Body::Symlink(text) = &body { text.len() as u64 } else { 0 };
        self.charge(OBJECT_COST + text + ENTRY_COST + name.len() as u64)?;
        self.last_id += 1;
        let id = self.last_id;
        let attr = Fattr { size: text, used: text, ..self.fresh_attr(id, kind, mode) };
        self.objects.insert(id, Object { attr, body });
        self.enter(dir, name, id)?;
        self.get_mut(id)
    }

    /// One more name for a file.
    pub(super) fn link(&mut self, id: u64, dir: u64, name: &[u8]) -> Result<()> {
        if self.get(id)?.attr.nlink >= MAX_LINKS {
            return Err(NfsStat::MLink);
        }
        self.charge(ENTRY_COST + name.len() as u64)?;
        let now = self.tick();
        let attr = &mut self.get_mut(id)?.attr;
        attr.nlink += 1;
        attr.ctime = now;
        self.enter(dir, name, id)
    }

    /// Takes a name away, and the object with its last name.
    pub(super) fn unlink(&mut self, dir: u64, name: &[u8], id: u64) -> Result<()> {
        self.refund(ENTRY_COST + name.len() as u64);
        self.leave(dir, name, id)?;
        let now = self.tick();
        let object = self.get_mut(id)?;
        object.attr.nlink -= 1;
        object.attr.ctime = now;
        if object.attr.nlink == 0 || matches!(object.body, Body::Directory(_)) {
            let used = object.attr.used;
            self.objects.remove(&id);
            self.refund(OBJECT_COST + used);
        }
        Ok(())
    }

    /// Moves a name, in place of `target` if there is one.
    pub(super) fn rename(
        &mut self,
        id: u64,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        target: Option<u64>,
    ) -> Result<()> {
        let (old, new) = (from.1.len() as u64, to.1.len() as u64);
        self.charge(new.saturating_sub(old))?;
        self.refund(old.saturating_sub(new));
        if let Some(target) = target {
            self.unlink(to.0, to.1, target)?;
        }
        self.leave(from.0, from.1, id)?;
        self.enter(to.0, to.1, id)?;
        let now = self.tick();
        let object = self.get_mut(id)?;
        object.attr.ctime = now;
        if let Body::Directory(directory) = &mut object.body {
            directory.parent = to.0;
        }
        Ok(())
    }

    /// Whether `ancestor` is `id` or above it.
    pub(super) fn is_within(&self, mut id: u64, ancestor: u64) -> Result<bool> {
        while id != ancestor && id != ROOT {
            id = self.directory(id)?.parent;
        }
        Ok(id == ancestor)
    }

    fn enter(&mut self, dir: u64, name: &[u8], id: u64) -> Result<()> {
        self.directory_mut(dir)?.insert(name, id);
        self.entries_changed(dir, id, 1)
    }

    fn leave(&mut self, dir: u64, name: &[u8], id: u64) -> Result<()> {
        self.directory_mut(dir)?.remove(name);
        self.entries_changed(dir, id, -1)
    }

    fn entries_changed(&mut self, dir: u64, id: u64, by: i32) -> Result<()> {
        let sub = self.get(id)?.attr.kind == FileType::Directory;
        let now = self.tick();
        let attr = &mut self.get_mut(dir)?.attr;
        attr.nlink = attr.nlink.saturating_add_signed(if sub { by } else { 0 });
        (attr.mtime, attr.ctime) = (now, now);
        Ok(())
    }
}
