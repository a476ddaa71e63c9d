//! When and how written data goes to the server.

use std::fs;

use remoor_mount::fs::Config;

use crate::host::{APPEND, DIRECT, Host, RDWR, SYNC, pattern, root, user};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_small_file_is_one_write_at_close() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    for n in 0..10 {
        mount.write(file, n * 10, &b"0123456789"[..]).await;
    }
    assert_eq!(host.calls("WRITE"), 0);
    mount.close(file).await.unwrap();
    assert_eq!((host.calls("WRITE"), host.calls("COMMIT")), (1, 0));
    assert_eq!(fs::read(host.path("a")).unwrap(), b"0123456789".repeat(10));
    assert_eq!(mount.fs.held_bytes(), 0);
}

#[tokio::test]
async fn a_stream_goes_in_full_writes_and_one_commit() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    let data = pattern(10 * MIB + 12345);
    for from in (0..data.len()).step_by(100_000) {
        mount.write(file, from as u64, data.slice(from..data.len().min(from + 100_000))).await;
    }
    mount.close(file).await.unwrap();
    assert_eq!((host.calls("WRITE"), host.calls("COMMIT")), (11, 1));
    assert!(fs::read(host.path("a")).unwrap() == data);
}

#[tokio::test]
async fn a_full_write_does_not_wait_to_be_asked_for() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    mount.write(file, 0, pattern(MIB + 1)).await;
    while host.calls("WRITE") == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_dirty_is_written_after_a_while_and_committed_later() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    mount.write(file, 0, &b"abc"[..]).await;
    while mount.fs.held_bytes() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(fs::read(host.path("a")).unwrap(), b"abc");
    assert_eq!((host.calls("WRITE"), host.calls("COMMIT")), (1, 1));
}

#[tokio::test]
async fn attributes_are_asked_for_after_dirty_data_was_written() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    mount.write(file, 0, &b"abc"[..]).await;
    let before = mount.fs.getattr(&root(), file.node).await.unwrap().attr;
    assert_eq!((before.size, host.calls("WRITE")), (3, 1));
    mount.close(file).await.unwrap();
    let after = mount.fs.getattr(&root(), file.node).await.unwrap().attr;
    assert_eq!(before.mtime, after.mtime);
}

#[tokio::test]
async fn synchronous_writes_are_stable_when_they_return() {
    let noac = Config { attribute_cache: false, ..Config::default() };
    let sync = Config { sync: true, ..Config::default() };
    for (config, flags) in
        [(Config::default(), SYNC), (Config::default(), DIRECT), (noac, RDWR), (sync, RDWR)]
    {
        let host = Host::on_disk();
        let mount = host.mount_with(config).await;
        let file = mount.open("a", flags).await;
        mount.write(file, 0, &b"abc"[..]).await;
        assert_eq!((host.calls("WRITE"), host.calls("COMMIT")), (1, 0));
        assert_eq!(mount.fs.held_bytes(), 0);
        mount.write(file, 3, pattern(3 * MIB)).await;
        assert_eq!(host.calls("COMMIT"), 1);
        assert_eq!(mount.fs.held_bytes(), 0);
    }
}

#[tokio::test]
async fn small_wsize_and_rsize_are_kept_to() {
    let host = Host::on_disk();
    let mount = host.mount_with(Config { rsize: 4096, wsize: 8192, ..Config::default() }).await;
    let file = mount.open("a", RDWR).await;
    let data = pattern(100_000);
    mount.write(file, 0, data.clone()).await;
    mount.fsync(file).await.unwrap();
    assert_eq!(host.calls("WRITE"), 100_000_u64.div_ceil(8192));
    assert!(mount.read(file, 0, 200_000).await == data);
    assert!(mount.read(file, 5, 99_000).await == data[5..99_005]);
}

#[tokio::test]
async fn append_goes_to_the_end_as_it_is_known_here() {
    let host = Host::on_disk();
    let (mount, other) = (host.mount().await, host.mount().await);
    let file = mount.open("a", APPEND).await;
    mount.write(file, 0, &b"one"[..]).await;
    mount.close(file).await.unwrap();
    let theirs = other.open("a", RDWR).await;
    other.write(theirs, 3, &b"two"[..]).await;
    other.close(theirs).await.unwrap();
    let file = mount.again(file, &root(), APPEND).await;
    let told = mount.kernel.data_invalidated();
    mount.write(file, 3, &b"three"[..]).await;
    mount.write(file, 11, &b"four"[..]).await;
    assert_eq!(mount.kernel.data_invalidated(), told + 1, "the kernel had put the first at the wrong place");
    mount.close(file).await.unwrap();
    assert_eq!(fs::read(host.path("a")).unwrap(), b"onetwothreefour");
}

#[tokio::test]
async fn what_several_users_write_is_sent_on_behalf_of_each() {
    let host = Host::in_memory(64 << 20);
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    let theirs = mount.again(file, &user(1000), RDWR).await;
    mount.write(file, 0, &b"aaaa"[..]).await;
    mount.write(theirs, 2, &b"bbbb"[..]).await;
    mount.write(file, 5, &b"cc"[..]).await;
    assert_eq!(mount.read(theirs, 0, 100).await, b"aabbbcc");
    mount.fsync(theirs).await.unwrap();
    mount.close(file).await.unwrap();
    assert_eq!(mount.read(theirs, 0, 100).await, b"aabbbcc");
}

#[tokio::test]
async fn everything_is_flushed_by_sync_all() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    for name in ["a", "b", "c"] {
        let file = mount.open(name, RDWR).await;
        mount.write(file, 0, name.to_owned()).await;
    }
    mount.fs.sync_all().await.unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(fs::read(host.path(name)).unwrap(), name.as_bytes());
    }
    assert_eq!(mount.fs.held_bytes(), 0);
}
