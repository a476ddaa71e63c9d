//! What a change did to an object, for the caches of clients.

use remoor_nfs::v3::{Fattr, WccAttr, WccData};

use super::super::Result;
use super::LocalVfs;
use super::cache::Open;
use super::changes::Change;
use super::stat::stat;

/// A change that goes on, with the object's attributes from before.
#[derive(Debug)]
pub(super) struct Window<'a> {
    open: &'a Open,
    before: Fattr,
    change: Change<'a>,
}

impl LocalVfs {
    /// Begins a change of the object, which must be alive.
    pub(super) fn window<'a>(&'a self, open: &'a Open) -> Result<Window<'a>> {
        let change = self.changes.begin(open.id.ino);
        Window::new(self, open, change)
    }

    /// As [`LocalVfs::window`], with no other change through this server until it ends.
    pub(super) fn guarded_window<'a>(&'a self, open: &'a Open) -> Result<Window<'a>> {
        let change = self.changes.begin_alone(open.id.ino);
        Window::new(self, open, change)
    }
}

impl<'a> Window<'a> {
    fn new(vfs: &'a LocalVfs, open: &'a Open, change: Change<'a>) -> Result<Self> {
        let before = vfs.store.alive(open)?.attr;
        Ok(Self { open, before, change })
    }

    /// What is changed.
    pub(super) fn open(&self) -> &'a Open {
        self.open
    }

    /// The attributes from before.
    pub(super) fn before(&self) -> &Fattr {
        &self.before
    }

    /// Ends the change.
    pub(super) fn close(self) -> WccData {
        let after = stat(self.open.fd()).ok().map(|stat| stat.attr);
        wcc(&self.before, after, &self.change)
    }
}

/// The attributes from before are told only if the change was alone until those from after were there.
pub(super) fn wcc(before: &Fattr, after: Option<Fattr>, change: &Change<'_>) -> WccData {
    let known = after.is_some() && change.is_alone();
    WccData { before: known.then(|| WccAttr::from(before)), after }
}
