//! Reading, ahead and over what is held.

use std::fs;

use bytes::Bytes;

use crate::host::{DIRECT, Host, RDWR, pattern};

const MIB: usize = 1 << 20;

async fn read_in_steps(host: &Host, data: &Bytes, step: usize) -> u64 {
    fs::write(host.path("a"), data).unwrap();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    let before = host.calls("READ");
    let mut at = 0;
    loop {
        let got = mount.read(file, at as u64, step as u32).await;
        assert!(got == data[at..data.len().min(at + step)], "read at {at}");
        at += got.len();
        if got.len() < step {
            return host.calls("READ") - before;
        }
    }
}

#[tokio::test]
async fn a_sequential_reader_is_read_ahead_for_in_whole_reads() {
    let host = Host::on_disk();
    let reads = read_in_steps(&host, &pattern(16 * MIB + 777), 128 << 10).await;
    assert!(reads <= 20, "{reads} READs for 17 MiB");
}

#[tokio::test]
async fn nothing_is_read_ahead_of_a_small_file() {
    let host = Host::on_disk();
    assert_eq!(read_in_steps(&host, &pattern(4096), 128 << 10).await, 1);
}

#[tokio::test]
async fn random_reads_read_what_they_need() {
    let host = Host::on_disk();
    let data = pattern(16 * MIB);
    fs::write(host.path("a"), &data).unwrap();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    for n in 1..51 {
        let at = (n * 7919 * 4096) % (15 * MIB);
        assert!(mount.read(file, at as u64, 4096).await == data[at..at + 4096]);
    }
    assert_eq!(host.calls("READ"), 50);
}

#[tokio::test]
async fn nothing_is_read_ahead_with_o_direct() {
    let host = Host::on_disk();
    fs::write(host.path("a"), pattern(16 * MIB)).unwrap();
    let mount = host.mount().await;
    let file = mount.open("a", DIRECT).await;
    for n in 0..4 {
        mount.read(file, n * MIB as u64, MIB as u32).await;
    }
    assert_eq!(host.calls("READ"), 4);
}

#[tokio::test]
async fn a_reader_sees_what_was_just_written_and_holes_are_zero() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    mount.write(file, 10, &b"abc"[..]).await;
    mount.write(file, 11, &b"X"[..]).await;
    mount.write(file, 100, &b"end"[..]).await;
    let expected = [&[0; 10][..], b"aXc", &[0; 87], b"end"].concat();
    assert_eq!(mount.read(file, 0, 1000).await, expected);
    assert_eq!(mount.read(file, 10, 3).await, b"aXc");
    assert_eq!(mount.read(file, 103, 10).await, b"");
    assert_eq!((host.calls("WRITE"), mount.size(file).await), (0, 103));
    mount.fsync(file).await.unwrap();
    assert_eq!(mount.read(file, 0, 1000).await, expected);
}

#[tokio::test]
async fn what_was_read_ahead_is_not_shown_after_it_was_written_over() {
    let host = Host::on_disk();
    let mount = host.mount().await;
    fs::write(host.path("a"), vec![b'o'; 4 * MIB]).unwrap();
    let file = mount.open("a", RDWR).await;
    mount.read(file, 0, MIB as u32).await;
    mount.write(file, 2 * MIB as u64, &b"new"[..]).await;
    mount.fsync(file).await.unwrap();
    mount.read(file, MIB as u64, MIB as u32).await;
    assert_eq!(mount.read(file, 2 * MIB as u64, 4).await, b"newo");
}

#[tokio::test]
async fn a_read_longer_than_the_file_ends_with_it_also_when_read_ahead() {
    let host = Host::on_disk();
    let data = pattern(3 * MIB + 100);
    assert!(read_in_steps(&host, &data, MIB).await <= 5);
}

#[tokio::test]
async fn a_file_cut_by_somebody_else_ends_where_it_ends_now() {
    let host = Host::on_disk();
    let data = pattern(8 * MIB);
    fs::write(host.path("a"), &data).unwrap();
    let mount = host.mount().await;
    let file = mount.open("a", RDWR).await;
    fs::OpenOptions::new().write(true).open(host.path("a")).unwrap().set_len(2 * MIB as u64 + 5).unwrap();
    let mut got = Vec::new();
    for n in 0..8 {
        got.extend(mount.read(file, n * MIB as u64, MIB as u32).await);
    }
    assert!(got == data[..2 * MIB + 5]);
}
