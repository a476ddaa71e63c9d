//! libnfs, an independent client: Debian's libnfs-utils.

use std::process::{Command, Output};

use crate::client::{Client, address, memory, skip};

/// Runs a libnfs utility; `None`, loudly, if it is not installed.
fn libnfs(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            skip(program, "package libnfs-utils is missing");
            None
        }
        Err(e) => panic!("{program}: {e}"),
    }
}

#[test]
fn libnfs_copies_a_file_there_and_back() {
    let server = memory();
    let port = address(&server).port();
    let url =
        |path: &str| format!("nfs://127.0.0.1/x{path}?nfsport={port}&mountport={port}&version=3&uid=0&gid=0");
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let data: Vec<u8> =
        (0..5_000_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    std::fs::write(&source, &data).unwrap();
    let Some(copied) = libnfs("nfs-cp", &[source.to_str().unwrap(), &url("/copy")]) else { return };
    assert!(copied.status.success(), "{copied:?}");
    let Some(read) = libnfs("nfs-cat", &[&url("/copy")]) else { return };
    assert!(read.status.success() && read.stdout == data, "{} bytes came back", read.stdout.len());
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    assert_eq!(client.lookup(&root, "copy").unwrap().attr.unwrap().size, data.len() as u64);
    let Some(listed) = libnfs("nfs-ls", &[&url("")]) else { return };
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.status.success() && text.contains("copy") && text.contains("20000000"), "{text}");
}
