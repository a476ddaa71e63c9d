//! What write-behind fails with, and who is told.

use remoor_mount::Errno;
use remoor_mount::fs::Config;

use crate::host::{Host, RDWR, pattern, root};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn no_space_is_told_once_to_each_open_file() {
    let host = Host::in_memory(2 << 20);
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    let other = mount.again(file, &root(), RDWR).await;
    mount.write(file, 0, pattern(4 * MIB)).await;
    assert_eq!(mount.fsync(file).await, Err(Errno::NOSPC));
    assert!(mount.kernel.data_invalidated() > 0, "the kernel must not show what was dropped");
    assert_eq!(mount.fsync(file).await, Ok(()));
    assert_eq!(mount.close(other).await, Err(Errno::NOSPC));
    assert_eq!(mount.close(file).await, Ok(()));
    assert_eq!(mount.fs.held_bytes(), 0);
}

#[tokio::test]
async fn a_writer_without_space_is_told_at_its_next_write() {
    let host = Host::in_memory(2 << 20);
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    let data = pattern(MIB);
    let mut told = None;
    for n in 0..10_000 {
        match mount.try_write(file, n * MIB as u64, data.clone()).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => {
                told = Some(error);
                break;
            }
        }
    }
    assert_eq!(told, Some(Errno::NOSPC));
    mount.truncate(file, 0).await;
    let _later = mount.fsync(file).await;
    mount.write(file, 0, &b"fits"[..]).await;
    assert_eq!(mount.close(file).await, Ok(()));
}

#[tokio::test]
async fn data_of_a_file_that_is_gone_is_stale() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    mount.write(file, 0, &b"abc"[..]).await;
    std::fs::remove_file(host.path("a")).unwrap();
    assert_eq!(mount.fsync(file).await, Err(Errno::STALE));
    assert_eq!(mount.fs.read(file.open, 0, 10, RDWR).await, Err(Errno::STALE));
    assert_eq!(mount.close(file).await, Ok(()));
}

#[tokio::test]
async fn a_write_beyond_the_largest_file_is_refused_at_once() {
    let host = Host::in_memory(2 << 20);
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    assert_eq!(mount.try_write(file, u64::MAX, pattern(1)).await, Err(Errno::FBIG));
    assert_eq!(mount.close(file).await, Ok(()));
}

#[tokio::test]
async fn a_soft_mount_drops_what_it_cannot_write_and_says_so() {
    let mut host = Host::in_memory(2 << 20);
    for (options, errno) in [("soft", Errno::IO), ("softerr", Errno::TIMEDOUT)] {
        let mount = host.mount_as(&format!("{options},timeo=2,retrans=1"), Config::default()).await;
        let file = mount.open(options, RDWR).await;
        mount.write(file, 0, &b"abc"[..]).await;
        host.stop();
        assert_eq!(mount.fsync(file).await, Err(errno));
        assert_eq!((mount.fs.held_bytes(), mount.fsync(file).await), (0, Ok(())));
        host.start();
        mount.write(file, 0, &b"def"[..]).await;
        assert_eq!(mount.close(file).await, Ok(()));
    }
}
