//! What other openers and other clients see.

use std::fs;

use crate::host::{Host, RDWR, pattern, root};

#[tokio::test]
async fn close_to_open() {
    let host = Host::on_disk();
    let (here, there) = (host.mount().await, host.mount().await);
    for round in 0..3_u8 {
        let ours = here.open("a", RDWR).await;
        here.write(ours, 0, vec![round + 1; 100_000]).await;
        here.close(ours).await.unwrap();
        let theirs = there.open("a", RDWR).await;
        assert!(there.read(theirs, 0, 200_000).await == vec![round + 1; 100_000]);
        there.close(theirs).await.unwrap();
    }
}

#[tokio::test]
async fn the_size_is_set_after_what_was_written_before() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    mount.write(file, 0, pattern(3 << 20)).await;
    mount.truncate(file, 5).await;
    assert_eq!(mount.size(file).await, 5);
    mount.write(file, 10, &b"z"[..]).await;
    let expected = [&pattern(5)[..], &[0; 5], b"z"].concat();
    assert_eq!(mount.read(file, 0, 100).await, expected);
    mount.close(file).await.unwrap();
    assert_eq!(fs::read(host.path("a")).unwrap(), expected);
}

#[tokio::test]
async fn two_openers_of_a_file_see_each_other_s_writes() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    let one = mount.open("a", RDWR).await;
    let two = mount.again(one, &root(), RDWR).await;
    mount.write(one, 0, &b"abc"[..]).await;
    assert_eq!(mount.read(two, 0, 10).await, b"abc");
    mount.write(two, 1, &b"B"[..]).await;
    assert_eq!(mount.read(one, 0, 10).await, b"aBc");
    mount.close(two).await.unwrap();
    assert_eq!(fs::read(host.path("a")).unwrap(), b"aBc");
}
