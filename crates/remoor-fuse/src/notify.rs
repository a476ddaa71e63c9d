//! Telling the kernel what changed without it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;

use rustix::io::Errno as Raw;

use crate::NodeId;
use crate::abi::{Out, notify};
use crate::device::Device;

/// Notifications that wait. What comes while so many do is dropped: the kernel then finds out when what it was told is
/// no longer valid.
const MAX_WAITING: usize = 16_384;

/// Tells the kernel that something it may have cached has changed elsewhere.
///
/// Dropping data or names waits for pages and directories that are locked by requests in progress, so that is done in
/// order on a thread of its own: done by a reader, it would wait for itself. What the kernel does not know is ignored.
#[derive(Clone, Debug)]
pub struct Notifier {
    device: Weak<Device>,
    waiting: SyncSender<(i32, Vec<u8>)>,
}

impl Notifier {
    /// A notifier and its thread, which ends with the last clone. It does not keep the connection open.
    pub(crate) fn start(device: &Arc<Device>) -> io::Result<Self> {
        let (waiting, receiver) = sync_channel(MAX_WAITING);
        let (device, theirs) = (Arc::downgrade(device), Arc::downgrade(device));
        thread::Builder::new().name("fuse-notify".into()).spawn(move || run(&theirs, &receiver))?;
        Ok(Self { device, waiting })
    }

    /// Attributes are asked for again at their next use. Done when this returns; never waits.
    pub fn invalidate_attributes(&self, node: NodeId) {
        send(&self.device, notify::INVAL_INODE, &inval_inode(node, -1, 0));
    }

    /// Drops attributes and the cached data from `offset` on; `length` 0 is up to the end.
    pub fn invalidate_data(&self, node: NodeId, offset: u64, length: u64) {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let end =
            u64::try_from(offset).ok().and_then(|offset| i64::try_from(offset.checked_add(length)?).ok());
        let length = end.map_or(0, |end| end - offset);
        self.enqueue(notify::INVAL_INODE, inval_inode(node, offset, length));
    }

    /// A name is looked up again at its next use, also one that was said not to exist.
    pub fn invalidate_entry(&self, parent: NodeId, name: &[u8]) {
        let mut out = Out::default();
        out.u64(parent.0);
        out.u32s(&[name.len() as u32, 0]);
        self.enqueue(notify::INVAL_ENTRY, with_name(out, name));
    }

    /// A name that stood for `child` is gone: what waits for it by inotify(7) is told.
    pub fn delete(&self, parent: NodeId, child: NodeId, name: &[u8]) {
        let mut out = Out::default();
        out.u64(parent.0);
        out.u64(child.0);
        out.u32s(&[name.len() as u32, 0]);
        self.enqueue(notify::DELETE, with_name(out, name));
    }

    fn enqueue(&self, code: i32, body: Vec<u8>) {
        if let Err(TrySendError::Full(_)) = self.waiting.try_send((code, body)) {
            tracing::warn!("{MAX_WAITING} notifications wait for the kernel: one more is dropped");
        }
    }
}

/// `struct fuse_notify_inval_inode_out`.
fn inval_inode(node: NodeId, offset: i64, length: i64) -> Vec<u8> {
    [node.0, offset as u64, length as u64].iter().flat_map(|v| v.to_ne_bytes()).collect()
}

/// The name follows the structure, with a NUL that is not counted.
fn with_name(mut out: Out, name: &[u8]) -> Vec<u8> {
    out.raw(name);
    out.raw(&[0]);
    out.into_bytes()
}

fn run(device: &Weak<Device>, waiting: &Receiver<(i32, Vec<u8>)>) {
    waiting.iter().for_each(|(code, body)| send(device, code, &body));
}

fn send(device: &Weak<Device>, code: i32, body: &[u8]) {
    let Some(device) = device.upgrade() else { return };
    match device.notify(code, body) {
        // ENOENT: not known to the kernel, or not by that name. ENOTDIR, ENOTEMPTY: what the name stands for is in use.
        Ok(()) | Err(Raw::NOENT | Raw::NOTDIR | Raw::NOTEMPTY | Raw::NODEV | Raw::NOTCONN | Raw::PERM) => {}
        Err(e) => tracing::debug!("the kernel refused notification {code}: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn notifier() -> (Arc<Device>, Notifier, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let device = Arc::new(Device::new(ours.into()).unwrap());
        let notifier = Notifier::start(&device).unwrap();
        (device, notifier, theirs)
    }

    fn message(stream: &mut UnixStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes[..4], (length as u32).to_ne_bytes());
        bytes
    }

    #[test]
    fn notifications_are_laid_out_as_the_kernel_reads_them() {
        let (_device, notifier, mut peer) = notifier();
        notifier.invalidate_attributes(NodeId(5));
        let bytes = message(&mut peer, 40);
        assert_eq!(bytes[4..16], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..], [5, -1, 0].map(i64::to_ne_bytes).concat());
        notifier.invalidate_data(NodeId(5), 4096, 8);
        assert_eq!(message(&mut peer, 40)[24..], [4096_u64, 8].map(u64::to_ne_bytes).concat());
        notifier.invalidate_entry(NodeId(5), b"abc");
        let bytes = message(&mut peer, 36);
        assert_eq!(bytes[24..], *b"\x03\0\0\0\0\0\0\0abc\0");
        notifier.delete(NodeId(5), NodeId(6), b"abc");
        assert_eq!(message(&mut peer, 44)[40..], *b"abc\0");
    }

    #[test]
    fn a_notifier_does_not_keep_the_connection() {
        let (device, notifier, mut peer) = notifier();
        drop(device);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        notifier.invalidate_attributes(NodeId(5));
        notifier.invalidate_entry(NodeId(5), b"abc");
    }
}
