//! The file system as the kernel's FUSE client sees it. Thin: what an operation means is in [`crate::fs`].

mod convert;

use std::sync::{Arc, OnceLock};

use remoor_fuse::{
    Caller, DirectoryBuffer, Errno, Filesystem, NodeId, Notifier, OpenFlags as Opening, Operation, Reply,
};

use crate::errno::Errno as Failure;
use crate::fs::directory::DirEntry;
use crate::fs::open::{OpenFlags, OpenId, Opened};
use crate::fs::{self, Fs, Groups, Kernel, Lookup};
use convert::{device, entry, found, kind, plus, shown, space};

/// An operation's outcome before it is told in the kernel's terms.
type Outcome = Result<Reply, Failure>;

/// What the file system tells the kernel. Until [`ToKernel::attach`] there is no kernel, and nothing to tell.
#[derive(Debug, Default)]
pub struct ToKernel {
    notifier: OnceLock<Notifier>,
}

impl ToKernel {
    /// From now on the kernel behind `notifier` is told.
    pub fn attach(&self, notifier: Notifier) {
        // There is one session for a mount, so there is nothing to replace.
        let _ = self.notifier.set(notifier);
    }
}

impl Kernel for ToKernel {
    fn invalidate_attributes(&self, node: fs::NodeId) {
        if let Some(notifier) = self.notifier.get() {
            notifier.invalidate_attributes(NodeId(node.0));
        }
    }

    fn invalidate_data(&self, node: fs::NodeId) {
        if let Some(notifier) = self.notifier.get() {
            notifier.invalidate_attributes(NodeId(node.0));
            notifier.invalidate_data(NodeId(node.0), 0, 0);
        }
    }

    fn invalidate_entry(&self, parent: fs::NodeId, name: &[u8]) {
        if let Some(notifier) = self.notifier.get() {
            notifier.invalidate_entry(NodeId(parent.0), name);
        }
    }
}

/// A mounted file system, for a [`remoor_fuse::Session`].
#[derive(Debug)]
pub struct Adapter {
    fs: Arc<Fs>,
}

impl Adapter {
    /// Serves `fs`.
    pub fn new(fs: Arc<Fs>) -> Self {
        Self { fs }
    }
}

impl Filesystem for Adapter {
    async fn call(self: Arc<Self>, caller: Caller, operation: Operation) -> Result<Reply, Errno> {
        let caller =
            fs::Caller { uid: caller.uid, gid: caller.gid, pid: caller.pid, groups: Groups::OfThread };
        self.perform(&caller, operation).await.map_err(|failure| Errno::from_raw(failure.number()))
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        self.fs.forget(fs::NodeId(node.0), lookups);
    }
}

fn id(node: NodeId) -> fs::NodeId {
    fs::NodeId(node.0)
}

fn opening(flags: u32) -> OpenFlags {
    OpenFlags(flags as i32)
}

impl Adapter {
    async fn perform(&self, caller: &fs::Caller, operation: Operation) -> Outcome {
        match operation {
            Operation::Lookup { .. }
            | Operation::Getattr { .. }
            | Operation::Setattr { .. }
            | Operation::Readlink { .. }
            | Operation::Statfs { .. }
            | Operation::Access { .. } => self.on_node(caller, operation).await,
            Operation::Open { .. }
            | Operation::Create { .. }
            | Operation::Read { .. }
            | Operation::Write { .. }
            | Operation::Flush { .. }
            | Operation::Fsync { .. }
            | Operation::Fallocate { .. }
            | Operation::Lseek { .. }
            | Operation::Release { .. } => self.on_file(caller, operation).await,
            Operation::Opendir { .. }
            | Operation::Readdir { .. }
            | Operation::Readdirplus { .. }
            | Operation::Fsyncdir { .. }
            | Operation::Releasedir { .. } => self.on_directory(caller, operation).await,
            Operation::Setxattr { .. }
            | Operation::Getxattr { .. }
            | Operation::Listxattr { .. }
            | Operation::Removexattr { .. }
            // The kernel asks once, and answers EOPNOTSUPP itself from then on; else every write(2) would ask for
            // "security.capability" (`fuse_getxattr`, `file_remove_privs`).
            | Operation::CopyFileRange { .. } => Err(Failure::NOSYS),
            Operation::Syncfs { .. } => self.fs.sync_all().await.map(|()| Reply::Empty),
            other => self.on_name(caller, other).await,
        }
    }

    async fn on_node(&self, caller: &fs::Caller, operation: Operation) -> Outcome {
        match operation {
            Operation::Lookup { parent, name } => {
                Ok(Reply::Entry(match self.fs.lookup(caller, id(parent), &name).await? {
                    Lookup::Found(found) => entry(&found),
                    Lookup::Missing { valid } => remoor_fuse::Entry::negative(valid),
                }))
            }
            Operation::Getattr { node, .. } => {
                self.fs.getattr(caller, id(node)).await.map(|attr| shown(&attr))
            }
            Operation::Setattr { node, change } => {
                let open = change.fh.map(OpenId);
                self.fs
                    .setattr(caller, id(node), open, convert::change(&change))
                    .await
                    .map(|attr| shown(&attr))
            }
            Operation::Readlink { node } => {
                self.fs.readlink(caller, id(node)).await.map(|text| Reply::Data(vec![text]))
            }
            Operation::Statfs { node } => {
                let most = self.fs.limits.name;
                self.fs.statfs(caller, id(node)).await.map(|ok| Reply::Statfs(space(&ok, most)))
            }
            Operation::Access { node, mask } => {
                self.fs.access(caller, id(node), mask).await.map(|()| Reply::Empty)
            }
            _ => Err(Failure::NOSYS),
        }
    }

    async fn on_name(&self, caller: &fs::Caller, operation: Operation) -> Outcome {
        let fs = &self.fs;
        match operation {
            Operation::Symlink { parent, name, target } => {
                found(fs.symlink(caller, id(parent), &name, &target).await)
            }
            Operation::Mknod { parent, name, mode, rdev, .. } => match kind(mode) {
                Some(kind) => {
                    found(fs.mknod(caller, id(parent), &name, kind, mode & 0o7777, device(rdev)).await)
                }
                None => Err(Failure::INVAL),
            },
            Operation::Mkdir { parent, name, mode, .. } => {
                found(fs.mkdir(caller, id(parent), &name, mode & 0o7777).await)
            }
            Operation::Link { node, new_parent, new_name } => {
                found(fs.link(caller, id(node), id(new_parent), &new_name).await)
            }
            Operation::Unlink { parent, name } => {
                fs.unlink(caller, id(parent), &name).await.map(|()| Reply::Empty)
            }
            Operation::Rmdir { parent, name } => {
                fs.rmdir(caller, id(parent), &name).await.map(|()| Reply::Empty)
            }
            Operation::Rename { parent, name, new_parent, new_name, flags } => {
                let (from, to) = ((id(parent), &name[..]), (id(new_parent), &new_name[..]));
                fs.rename(caller, from, to, flags).await.map(|()| Reply::Empty)
            }
            _ => Err(Failure::NOSYS),
        }
    }

    async fn on_file(&self, caller: &fs::Caller, operation: Operation) -> Outcome {
        let fs = &self.fs;
        match operation {
            Operation::Open { node, flags, .. } => {
                let opened = fs.open(caller, id(node), opening(flags)).await?;
                Ok(Reply::Opened { fh: opened.id.0, flags: how(&opened, opening(flags)) })
            }
            Operation::Create { parent, name, mode, flags, .. } => {
                let mode = mode & 0o7777;
                let (made, opened) = fs.create(caller, id(parent), &name, mode, opening(flags)).await?;
                Ok(Reply::Created(entry(&made), opened.id.0, how(&opened, opening(flags))))
            }
            Operation::Read { fh, offset, size, flags, .. } => {
                fs.read(OpenId(fh), offset, size, opening(flags)).await.map(Reply::Data)
            }
            Operation::Write { fh, offset, data, flags, .. } => {
                let written = fs.write(OpenId(fh), offset, data, opening(flags)).await?;
                Ok(Reply::Written(written as u32))
            }
            Operation::Flush { fh, .. } => fs.flush(OpenId(fh)).await.map(|()| Reply::Empty),
            Operation::Fsync { fh, .. } => fs.fsync(OpenId(fh)).await.map(|()| Reply::Empty),
            Operation::Fallocate { .. } => fs.fallocate().map(|()| Reply::Empty),
            Operation::Lseek { .. } => fs.lseek().map(Reply::Offset),
            Operation::Release { fh, .. } => fs.release(OpenId(fh)).await.map(|()| Reply::Empty),
            _ => Err(Failure::NOSYS),
        }
    }

    async fn on_directory(&self, caller: &fs::Caller, operation: Operation) -> Outcome {
        let fs = &self.fs;
        match operation {
            Operation::Opendir { node, .. } => {
                let opened = fs.opendir(caller, id(node)).await?;
                Ok(Reply::Opened { fh: opened.0, flags: Opening::default() })
            }
            Operation::Readdir { fh, offset, size, .. } => {
                let mut buffer = DirectoryBuffer::new(size);
                let mut take = |listed: &DirEntry| buffer.push(&convert::listed(listed));
                fs.readdir(OpenId(fh), offset, &mut take).await?;
                Ok(Reply::Directory(buffer))
            }
            Operation::Readdirplus { fh, offset, size, .. } => {
                let mut buffer = DirectoryBuffer::new(size);
                let mut take = |listed: &DirEntry| buffer.push_plus(&convert::listed(listed), &plus(listed));
                fs.readdirplus(OpenId(fh), offset, &mut take).await?;
                Ok(Reply::Directory(buffer))
            }
            // Names are stable on the server when the call that changed them returned.
            Operation::Fsyncdir { .. } => Ok(Reply::Empty),
            Operation::Releasedir { fh, .. } => fs.releasedir(OpenId(fh)).map(|()| Reply::Empty),
            _ => Err(Failure::NOSYS),
        }
    }
}

/// How the kernel treats an open file. A close of what cannot be written has nothing to flush.
fn how(opened: &Opened, flags: OpenFlags) -> Opening {
    Opening { keep_cache: opened.keep_data, noflush: !flags.write(), ..Opening::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_told_only_of_files_that_may_have_been_written() {
        let opened = Opened { id: OpenId(1), keep_data: true };
        for (flags, flushed) in [(libc::O_RDONLY, false), (libc::O_WRONLY, true), (libc::O_RDWR, true)] {
            let how = how(&opened, OpenFlags(flags));
            assert_eq!((how.noflush, how.keep_cache), (!flushed, true), "{flags}");
        }
    }
}
