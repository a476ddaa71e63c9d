//! What survives a server that goes away.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::host::{Host, Mount, RDWR, pattern};

const MIB: usize = 1 << 20;

/// Long enough for anything that does not wait.
const MOMENT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn unstable_data_that_a_restart_lost_is_written_again() {
    let mut host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    let data = pattern(8 * MIB);
    mount.write(file, 0, data.clone()).await;
    assert_eq!(mount.size(file).await, data.len() as u64, "which writes it");
    host.stop();
    // What a power failure does to data that was never committed.
    fs::write(host.path("a"), b"").unwrap();
    host.start();
    assert!(mount.read(file, 0, data.len() as u32).await == data, "the reader does not see the loss");
    mount.fsync(file).await.unwrap();
    assert!(fs::read(host.path("a")).unwrap() == data);
    assert_eq!(mount.fs.held_bytes(), 0);
}

#[tokio::test]
async fn a_killed_fsync_leaves_nothing_undone() {
    let mut host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    host.stop();
    mount.write(file, 0, &b"abc"[..]).await;
    for _ in 0..3 {
        let killed = tokio::time::timeout(MOMENT, mount.fsync(file)).await;
        assert!(killed.is_err(), "there is no server");
    }
    host.start();
    mount.fsync(file).await.unwrap();
    assert_eq!(fs::read(host.path("a")).unwrap(), b"abc");
    mount.close(file).await.unwrap();
}

#[tokio::test]
async fn a_killed_reader_leaves_nothing_behind() {
    let mut host = Host::on_disk();
    let data = pattern(4 * MIB);
    fs::write(host.path("a"), &data).unwrap();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    host.stop();
    for _ in 0..3 {
        assert!(tokio::time::timeout(MOMENT, mount.read(file, 0, MIB as u32)).await.is_err());
    }
    host.start();
    for n in 0..4 {
        assert!(mount.read(file, (n * MIB) as u64, MIB as u32).await == data[n * MIB..(n + 1) * MIB]);
    }
}

#[tokio::test]
async fn a_writer_waits_when_too_much_is_held_and_goes_on_when_the_server_is_back() {
    let mut host = Host::in_memory(1 << 30);
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    host.stop();
    // All writes share one buffer, so what is reckoned as held is not really there.
    let data = pattern(MIB);
    let mut written = 0;
    let write = |n: u64| mount.try_write(file, n * MIB as u64, data.clone());
    while tokio::time::timeout(MOMENT, write(written)).await.is_ok() {
        written += 1;
    }
    assert!((200..=256).contains(&written), "{written} MiB held");
    host.start();
    write(written).await.unwrap();
    mount.fsync(file).await.unwrap();
    assert_eq!(mount.fs.held_bytes(), 0);
    assert_eq!(mount.size(file).await, (written + 1) * MIB as u64);
    assert!(mount.read(file, written * MIB as u64, MIB as u32).await == data);
}

/// Writes a file in small pieces and reads it back, with an fsync now and then, each of which is counted.
async fn work(mount: Arc<Mount>, name: String, fsyncs: Arc<AtomicUsize>) {
    const PIECE: usize = 40_000;
    let data = pattern(4 * MIB);
    let file = mount.open(&name, RDWR).await;
    for at in (0..data.len()).step_by(PIECE) {
        let piece = data.slice(at..data.len().min(at + PIECE));
        mount.write(file, at as u64, piece.clone()).await;
        assert!(mount.read(file, at as u64, PIECE as u32).await == piece);
        if (at / PIECE).is_multiple_of(10) {
            mount.fsync(file).await.unwrap();
            fsyncs.fetch_add(1, Relaxed);
        }
    }
    mount.close(file).await.unwrap();
}

#[tokio::test]
async fn eight_writers_do_not_notice_restarts() {
    const RESTARTS: usize = 6;
    let mut host = Host::on_disk();
    let mount = Arc::new(host.mount().await);
    let fsyncs = Arc::new(AtomicUsize::new(0));
    let name = |n: usize| format!("file-{n}");
    let workers: Vec<_> =
        (0..8).map(|n| tokio::spawn(work(mount.clone(), name(n), fsyncs.clone()))).collect();
    for restart in 1..=RESTARTS {
        while fsyncs.load(Relaxed) < restart * 10 {
            tokio::task::yield_now().await;
        }
        host.stop();
        host.start();
    }
    for worker in workers {
        worker.await.unwrap();
    }
    for n in 0..8 {
        assert!(fs::read(host.path(&name(n))).unwrap() == pattern(4 * MIB), "{}", name(n));
    }
    assert_eq!(mount.fs.held_bytes(), 0);
}

/// A file whose data is held is not forgotten, though the kernel has.
#[tokio::test]
async fn a_file_looked_up_again_has_the_data_that_is_held() {
    let mut host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    mount.write(file, 0, &b"abc"[..]).await;
    host.stop();
    assert!(tokio::time::timeout(MOMENT, mount.fs.flush(file.open)).await.is_err(), "killed");
    mount.fs.release(file.open).await.unwrap();
    mount.fs.forget(file.node, 1);
    host.start();
    let again = mount.open("a", RDWR).await;
    assert_eq!(mount.read(again, 0, 10).await, b"abc");
}
