//! Sizes that are set, and who writes meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use remoor_nfs::v3::{self, Sattr};
use tokio::sync::Semaphore;

use super::host::{Host, Invalid, READ, WRITE, user};
use super::relay::{Deed, is};
use crate::fs::open::OpenId;
use crate::fs::{Config, Fs, ROOT};

/// Turns of all tasks in which a WRITE that does not wait is seen.
const TURNS: usize = 2000;

async fn write(fs: &Arc<Fs>, id: OpenId, data: &'static str) {
    let data = Bytes::from_static(data.as_bytes());
    fs.write(id, 0, data, WRITE).await.unwrap();
    fs.fsync(id).await.unwrap();
}

#[tokio::test]
async fn a_size_whose_setter_was_killed_is_set_before_what_is_written_later() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let (entry, id) = mount.create("f", WRITE).await.unwrap();
    write(&mount.fs, id, "long ago").await;
    mount.told();
    let (permits, asked, early) =
        (Arc::new(Semaphore::new(0)), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (delay, seen, wrote) = (permits.clone(), asked.clone(), early.clone());
    relay.rule(move |call| {
        if is::<v3::Setattr>(call) {
            seen.store(true, Relaxed);
            return Deed::Delay(delay.clone());
        }
        wrote.fetch_or(is::<v3::Write>(call), Relaxed);
        Deed::Pass
    });
    let fs = mount.fs.clone();
    let empty = Sattr { size: Some(0), ..Sattr::default() };
    let setting = tokio::spawn(async move { fs.setattr(&user(0), entry.node, None, empty).await });
    while !asked.load(Relaxed) {
        tokio::task::yield_now().await;
    }
    setting.abort();
    assert!(setting.await.is_err());
    let fs = mount.fs.clone();
    let writing = tokio::spawn(async move { write(&fs, id, "new").await });
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    assert!(!early.load(Relaxed), "the server may execute it first");
    permits.add_permits(1);
    writing.await.unwrap();
    assert_eq!(mount.told(), [Invalid::Data(entry.node)], "the kernel does not know of the new size");
    let other = host.mount().await;
    let node = other.find(ROOT, "f").await.unwrap().node;
    let reading = other.open(node, READ).await.unwrap();
    assert_eq!(other.fs.read(reading, 0, 100, READ).await.unwrap().concat(), b"new");
}
