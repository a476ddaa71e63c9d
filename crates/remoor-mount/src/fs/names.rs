//! Names made, removed and changed by us.

use std::sync::Arc;

use remoor_nfs::v3::{
    self, CreateOk, Device, DeviceData, DirOp, Fattr, FileHandle, FileType, LinkArgs, MkdirArgs, MknodArgs,
    MknodData, NfsStat, RenameArgs, Res, Sattr, SymlinkArgs, WccData,
};

use super::attributes::Stamp;
use super::call::Change;
use super::lookup::place;
use super::node::{Node, NodeId, Place};
use super::{Caller, Credential, Entry, Fs};
use crate::errno::Errno;

/// Sticky bit: a name may be removed by the owner of its object or of the directory only.
const STICKY: u32 = 0o1000;

fn with_mode(mode: u32) -> Sattr {
    Sattr { mode: Some(mode), ..Sattr::default() }
}

impl Fs {
    /// ENAMETOOLONG unless the server takes names as long as `name`.
    pub(crate) fn name_fits(&self, name: &[u8]) -> Result<(), Errno> {
        if name.len() > self.limits.name as usize { Err(Errno::NAMETOOLONG) } else { Ok(()) }
    }

    /// Makes a named pipe, socket, device or regular file with permission bits `mode`.
    pub async fn mknod(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        kind: FileType,
        mode: u32,
        device: Device,
    ) -> Result<Entry, Errno> {
        let (dir, who) = (self.nodes.get(parent)?, self.who(caller));
        self.name_fits(name)?;
        let attr = with_mode(mode);
        let what = match kind {
            FileType::Block => MknodData::Block(DeviceData { attr, device }),
            FileType::Character => MknodData::Character(DeviceData { attr, device }),
            FileType::Socket => MknodData::Socket(attr),
            FileType::Fifo => MknodData::Fifo(attr),
            FileType::Regular => return self.make_file(&dir, name, attr, &who).await,
            FileType::Directory | FileType::Symlink => return Err(Errno::INVAL),
        };
        let change = self.change(&dir);
        let args = MknodArgs { place: place(&dir, name), what };
        let reply = self.call::<v3::Mknod, _, _>(&who, args).await?;
        self.made(&dir, name, change, reply, &who).await
    }

    async fn make_file(
        &self,
        dir: &Node,
        name: &[u8],
        attr: Sattr,
        who: &Credential,
    ) -> Result<Entry, Errno> {
        let change = self.change(dir);
        let args = v3::CreateArgs { place: place(dir, name), how: v3::CreateHow::Guarded(attr) };
        let reply = self.call::<v3::Create, _, _>(who, args).await?;
        self.made(dir, name, change, reply, who).await
    }

    /// Makes a directory with permission bits `mode`.
    pub async fn mkdir(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
    ) -> Result<Entry, Errno> {
        let (dir, who) = (self.nodes.get(parent)?, self.who(caller));
        self.name_fits(name)?;
        let change = self.change(&dir);
        let args = MkdirArgs { place: place(&dir, name), attr: with_mode(mode) };
        let reply = self.call::<v3::Mkdir, _, _>(&who, args).await?;
        self.made(&dir, name, change, reply, &who).await
    }

    /// Makes a symbolic link with text `text`.
    pub async fn symlink(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        text: &[u8],
    ) -> Result<Entry, Errno> {
        let (dir, who) = (self.nodes.get(parent)?, self.who(caller));
        self.name_fits(name)?;
        if text.len() > v3::MAX_NAME {
            return Err(Errno::NAMETOOLONG);
        }
        let change = self.change(&dir);
        let path = bytes::Bytes::copy_from_slice(text).into();
        let args = SymlinkArgs { place: place(&dir, name), attr: with_mode(0o777), path };
        let reply = self.call::<v3::Symlink, _, _>(&who, args).await?;
        self.made(&dir, name, change, reply, &who).await
    }

    /// The entry of what a reply says was made.
    pub(crate) async fn made(
        &self,
        dir: &Node,
        name: &[u8],
        change: Change<'_>,
        reply: Res<CreateOk, WccData>,
        who: &Credential,
    ) -> Result<Entry, Errno> {
        let asked = change.asked();
        let ok = self.created(dir, change, reply).inspect_err(|_| {
            self.our_name(dir, |names| names.remove(name));
        })?;
        self.our_name(dir, |names| names.remove(name));
        match (ok.file, ok.attr) {
            (Some(file), Some(attr)) => self.made_known(dir, name, (&file, &attr), asked),
            (Some(file), None) => self.made_handle(dir, name, &file, who).await,
            // A server may leave the handle out (RFC 1813 section 3.3.8).
            (None, _) => match self.look_up(dir, name, who).await? {
                super::Lookup::Found(entry) => Ok(entry),
                super::Lookup::Missing { .. } => Err(Errno::STALE),
            },
        }
    }

    /// The entry of what was made under `name`, whose attributes a reply to a question asked at `asked` told.
    pub(crate) fn made_known(
        &self,
        dir: &Node,
        name: &[u8],
        (file, attr): (&FileHandle, &Fattr),
        asked: Stamp,
    ) -> Result<Entry, Errno> {
        self.our_name(dir, |names| names.remove(name));
        let node = self.nodes.enter(file, attr);
        self.learn(&node, attr, asked);
        self.entered(dir, name, &node, self.ask())
    }

    /// The entry of what was made under `name`, of which only the handle is known.
    pub(crate) async fn made_handle(
        &self,
        dir: &Node,
        name: &[u8],
        file: &FileHandle,
        who: &Credential,
    ) -> Result<Entry, Errno> {
        self.our_name(dir, |names| names.remove(name));
        let asked = self.ask();
        let attr = self.told_or_asked(file, None, who).await?;
        self.enter(dir, name, file, &attr, asked)
    }

    /// Removes a name that is not a directory's. A file that is open keeps a silly name until it is closed.
    pub async fn unlink(self: &Arc<Self>, caller: &Caller, parent: NodeId, name: &[u8]) -> Result<(), Errno> {
        let (dir, who) = (self.nodes.get(parent)?, self.who(caller));
        let node = self.named(&dir, name, &who).await?;
        if let Some(node) = &node
            && self.must_stay(&dir, node, &who).await?
        {
            let (fs, name, node) = (self.clone(), Arc::from(name), node.clone());
            return Self::to_the_end(async move { fs.silly_rename(dir, name, node, who).await }).await;
        }
        let change = self.change(&dir);
        let reply = self.call::<v3::Remove, _, _>(&who, place(&dir, name)).await?;
        self.removed(&dir, name, node.as_deref(), change, reply)
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, caller: &Caller, parent: NodeId, name: &[u8]) -> Result<(), Errno> {
        let (dir, who) = (self.nodes.get(parent)?, self.who(caller));
        let node = match self.leaving.is_empty() {
            true => self.kept_node(&dir, name),
            false => self.settled(self.named(&dir, name, &who).await?).await,
        };
        let change = self.change(&dir);
        let reply = self.call::<v3::Rmdir, _, _>(&who, place(&dir, name)).await?;
        self.removed(&dir, name, node.as_deref(), change, reply)
    }

    fn removed(
        &self,
        dir: &Node,
        name: &[u8],
        node: Option<&Node>,
        change: Change<'_>,
        reply: Res<WccData, WccData>,
    ) -> Result<(), Errno> {
        let (status, wcc) = match reply {
            Res::Ok(wcc) => (NfsStat::Ok, wcc),
            Res::Fail(status, wcc) => (status, wcc),
        };
        change.end(&wcc);
        self.our_name(dir, |names| match status {
            NfsStat::Ok => names.insert(name.into(), None),
            // Whatever was known of the name is in doubt.
            _ => names.remove(name),
        });
        if let Some(node) = node {
            node.state().attributes.expire_with_ctime(self.ask());
        }
        if status == NfsStat::Ok { Ok(()) } else { Err(self.refused(dir, status)) }
    }

    /// `node`; if it is a directory, without the silly names of files that were closed before.
    async fn settled(&self, node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        if let Some(dir) = node.as_ref().filter(|node| node.is_dir()) {
            self.leaving.wait(dir.id).await;
        }
        node
    }

    /// The node that is known to have `name`.
    fn kept_node(&self, dir: &Node, name: &[u8]) -> Option<Arc<Node>> {
        let id = dir.state().names.as_ref()?.get(name)??;
        self.nodes.get(id).ok()
    }

    /// The node that has `name`, if it can matter: while files are open, or were a moment ago, the server is asked where
    /// nothing is known.
    async fn named(&self, dir: &Node, name: &[u8], who: &Credential) -> Result<Option<Arc<Node>>, Errno> {
        let kept = self.kept_node(dir, name);
        if kept.is_some() || self.opens.is_empty() && self.leaving.is_empty() {
            return Ok(kept);
        }
        let reply = self.call::<v3::Lookup, _, _>(who, place(dir, name)).await?;
        Ok(reply.into_result().ok().and_then(|ok| self.nodes.find(&ok.file)))
    }

    /// Whether `node` is open and the name about to go is its last. Where the sticky bit keeps `who` from removing the
    /// name no other name is made, which they could not remove either.
    async fn must_stay(&self, dir: &Node, node: &Node, who: &Credential) -> Result<bool, Errno> {
        let open = |node: &Node| node.state().opens > 0 && node.kind == FileType::Regular;
        if !open(node) {
            return Ok(false);
        }
        match self.fresh_attributes(node, who).await {
            Err(Errno::STALE) => return Ok(false),
            other => other?,
        }
        let last = node.state().attributes.held().is_none_or(|attr| attr.nlink <= 1);
        Ok(open(node) && last && !held_by_sticky_bit(dir, node, who))
    }

    /// Gives an object another name, replacing what has it. There are no `flags` of renameat2(2) over NFS version 3.
    pub async fn rename(
        self: &Arc<Self>,
        caller: &Caller,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        if flags != 0 {
            return Err(Errno::INVAL);
        }
        self.name_fits(to.1)?;
        let who = self.who(caller);
        let at =
            |place: (NodeId, &[u8])| self.nodes.get(place.0).map(|dir| At { dir, name: Arc::from(place.1) });
        let (from, to) = (at(from)?, at(to)?);
        let replaced = self.settled(self.named(&to.dir, &to.name, &who).await?).await;
        if let Some(replaced) = replaced.clone()
            && self.must_stay(&to.dir, &replaced, &who).await?
        {
            let fs = self.clone();
            return Self::to_the_end(async move { fs.rename_over_open(from, to, replaced, who).await }).await;
        }
        self.rename_on_server(&from, &to, &who).await?;
        self.renamed(&from, &to, replaced.as_deref());
        Ok(())
    }

    /// RENAME, without what it means for names that are kept.
    pub(crate) async fn rename_on_server(&self, from: &At, to: &At, who: &Credential) -> Result<(), Errno> {
        let node = self.kept_node(&from.dir, &from.name);
        let sent_again = self.client.sent_again::<v3::Rename>();
        let change_from = self.change(&from.dir);
        let change_to = (from.dir.id != to.dir.id).then(|| self.change(&to.dir));
        let args = RenameArgs { from: from.place(), to: to.place() };
        let (status, wcc) = match self.call::<v3::Rename, _, _>(who, args).await? {
            Res::Ok(wcc) => (NfsStat::Ok, wcc),
            Res::Fail(status, wcc) => (status, wcc),
        };
        match change_to {
            Some(change_to) => {
                change_from.end(&wcc.from);
                change_to.end(&wcc.to);
            }
            // Both tell of one directory, and only together what came before and after.
            None => change_from.end(&wcc.to),
        }
        if status == NfsStat::Ok {
            return Ok(());
        }
        for at in [from, to] {
            self.our_name(&at.dir, |names| names.remove(&at.name));
        }
        if status == NfsStat::NoEnt && self.client.sent_again::<v3::Rename>() != sent_again {
            return self.renamed_before(node, from, to, who).await;
        }
        Err(status.into())
    }

    /// A RENAME that was sent more than once found nothing to rename. The first sending may have done it, and its reply
    /// was lost: then the object has its new name. That it has not must not be the end either: the kernel keeps that
    /// there was nothing at `to` (`fuse_rename_common` drops only what was there).
    async fn renamed_before(
        &self,
        node: Option<Arc<Node>>,
        from: &At,
        to: &At,
        who: &Credential,
    ) -> Result<(), Errno> {
        let reply = self.call::<v3::Lookup, _, _>(who, to.place()).await?;
        let found = reply.into_result().ok().map(|ok| ok.file);
        match node.filter(|node| found.as_ref() == Some(&node.handle)) {
            Some(node) => {
                // As before a RENAME, for what is to be known after it.
                self.our_name(&from.dir, |names| names.insert(from.name.clone(), Some(node.id)));
                Ok(())
            }
            None => {
                self.kernel.invalidate_entry(to.dir.id, &to.name);
                Err(Errno::NOENT)
            }
        }
    }

    /// What is known of names after a RENAME.
    pub(crate) fn renamed(&self, from: &At, to: &At, replaced: Option<&Node>) {
        let node = self.kept_node(&from.dir, &from.name);
        match self.left_by_rename(node.as_deref(), to, replaced) {
            Some(left) => self.our_name(&from.dir, |names| names.insert(from.name.clone(), left)),
            None => self.our_name(&from.dir, |names| names.remove(&from.name)),
        }
        self.our_name(&to.dir, |names| match &node {
            Some(node) => names.insert(to.name.clone(), Some(node.id)),
            None => names.remove(&to.name),
        });
        if let Some(node) = node {
            let mut state = node.state();
            state.place = Some(Place { parent: to.dir.id, name: to.name.clone() });
            state.attributes.expire_with_ctime(self.ask());
        }
        if let Some(replaced) = replaced {
            replaced.state().attributes.expire_with_ctime(self.ask());
        }
    }

    /// What has the old name of `node` after a RENAME to `to`, if that can be known: it goes away, but if both are names
    /// of one file nothing happens (RFC 1813 section 3.3.14).
    fn left_by_rename(
        &self,
        node: Option<&Node>,
        to: &At,
        replaced: Option<&Node>,
    ) -> Option<Option<NodeId>> {
        let kept = || to.dir.state().names.as_ref()?.get(&to.name);
        let before = replaced.map(|replaced| Some(replaced.id)).or_else(kept);
        match (node, before) {
            (Some(node), Some(Some(before))) => Some((node.id == before).then_some(before)),
            (_, Some(None)) => Some(None),
            (Some(node), None) if has_one_name(node) => Some(None),
            _ => None,
        }
    }

    /// Gives an object one more name.
    pub async fn link(
        &self,
        caller: &Caller,
        node: NodeId,
        parent: NodeId,
        name: &[u8],
    ) -> Result<Entry, Errno> {
        let (node, dir, who) = (self.nodes.get(node)?, self.nodes.get(parent)?, self.who(caller));
        self.name_fits(name)?;
        self.link_on_server(&node, &dir, name, &who).await?;
        self.fresh_attributes(&node, &who).await?;
        if !self.nodes.again(node.id) {
            return Err(Errno::STALE);
        }
        self.entered(&dir, name, &node, self.ask())
    }

    /// LINK, without what it means for names that are kept.
    pub(crate) async fn link_on_server(
        &self,
        node: &Node,
        dir: &Node,
        name: &[u8],
        who: &Credential,
    ) -> Result<(), Errno> {
        let (of_node, of_dir) = (self.change(node), self.change(dir));
        let args = LinkArgs { file: node.handle.clone(), to: place(dir, name) };
        let (status, wcc) = match self.call::<v3::Link, _, _>(who, args).await? {
            Res::Ok(wcc) => (NfsStat::Ok, wcc),
            Res::Fail(status, wcc) => (status, wcc),
        };
        of_node.end_with(wcc.attr.as_ref());
        of_dir.end(&wcc.dir_wcc);
        self.our_name(dir, |names| names.remove(name));
        match status {
            NfsStat::Ok => Ok(()),
            NfsStat::Stale | NfsStat::BadHandle => Err(self.refused(node, status)),
            status => Err(status.into()),
        }
    }
}

/// A name in a directory that is at hand.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) dir: Arc<Node>,
    pub(crate) name: Arc<[u8]>,
}

impl At {
    pub(crate) fn place(&self) -> DirOp {
        place(&self.dir, &self.name)
    }
}

/// Whether `node` is known to have no other name.
fn has_one_name(node: &Node) -> bool {
    node.is_dir() || node.state().attributes.held().is_some_and(|attr| attr.nlink == 1)
}

/// Whether the sticky bit of `dir` keeps `who` from removing the name of `node`.
fn held_by_sticky_bit(dir: &Node, node: &Node, who: &Credential) -> bool {
    let owner = |node: &Node| node.state().attributes.held().map(|attr| (attr.uid, attr.mode));
    match (owner(dir), owner(node)) {
        (Some((dir_owner, mode)), Some((owner, _))) => {
            mode & STICKY != 0 && ![0, dir_owner, owner].contains(&who.uid)
        }
        _ => false,
    }
}
