//! `remoor serve` under programs of others: libnfs' utilities and fio's NFS engine.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is missing")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use remoor_skip::skip;
use tempfile::TempDir;

/// A server of an empty directory, as a process.
struct Server {
    child: Child,
    address: SocketAddr,
    place: TempDir,
}

impl Server {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let export = place.path().canonicalize().unwrap().join("export");
        fs::create_dir(&export).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_remoor"))
            .args(["serve", "--listen", "127.0.0.1:0", "--export"])
            .arg(format!("{}:rw,insecure,no_root_squash,no_subtree_check", export.display()))
            .arg("--state")
            .arg(place.path().join("state"))
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = log.by_ref().find(|line| line.contains("listening on ")).unwrap();
        let address = line.split("listening on ").nth(1).unwrap().split(' ').next().unwrap();
        let address = address.parse().unwrap();
        // The log is read on, so that the server is never kept waiting.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, address, place }
    }

    fn export(&self) -> PathBuf {
        self.place.path().canonicalize().unwrap().join("export")
    }

    fn url(&self, path: &str) -> String {
        let (port, export) = (self.address.port(), self.export());
        let export = export.display();
        format!("nfs://127.0.0.1{export}{path}?nfsport={port}&mountport={port}&version=3&uid=0&gid=0")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program said; `None` if it is not there.
fn output(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => panic!("{program}: {e}"),
    }
}

/// Runs a utility of libnfs, which must end well.
fn libnfs(program: &str, args: &[&str]) -> Option<Vec<u8>> {
    let Some(output) = output(program, args) else {
        skip(program, "package libnfs-utils is missing");
        return None;
    };
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    Some(output.stdout)
}

/// Bytes that no two places of a file have in common for long.
fn pattern(seed: u32, words: u32) -> Vec<u8> {
    (0..words).flat_map(|n| n.wrapping_mul(2_654_435_761).wrapping_add(seed).to_le_bytes()).collect()
}

#[test]
fn the_utilities_of_libnfs_copy_list_and_read_a_tree() {
    let server = Server::start();
    let (dirs, sizes) = (["", "/d", "/d/deep"], [0, 1, 1000, 300_000]);
    for dir in dirs.iter().filter(|dir| !dir.is_empty()) {
        fs::create_dir(server.export().join(&dir[1..])).unwrap();
    }
    let mut files = BTreeMap::new();
    let local = server.place.path().join("local");
    for (seed, (dir, words)) in (0..).zip(dirs.iter().flat_map(|dir| sizes.map(|size| (dir, size)))) {
        let (path, data) = (format!("{dir}/file-{words}"), pattern(seed, words));
        fs::write(&local, &data).unwrap();
        let url = server.url(&path);
        let Some(_) = libnfs("nfs-cp", &[local.to_str().unwrap(), &url]) else { return };
        files.insert(path, data);
    }
    for (path, data) in &files {
        assert_eq!(fs::read(server.export().join(&path[1..])).unwrap(), *data, "{path}");
        let read = libnfs("nfs-cat", &[&server.url(path)]).unwrap();
        assert!(read == *data, "{path}: {} bytes came back", read.len());
    }
    let listed = libnfs("nfs-ls", &["-R", &server.url("")]).unwrap();
    let listed = String::from_utf8(listed).unwrap();
    for (path, data) in &files {
        let of_file = |line: &&str| line.ends_with(&format!(" {}", path.trim_start_matches('/')));
        let line = listed.lines().find(of_file).unwrap_or_else(|| panic!("{path} is not in {listed}"));
        assert!(line.split_whitespace().any(|word| word == data.len().to_string()), "{line}");
    }
}

/// Its engine does not wait for the calls that are under way when a job of a greater depth ends, so depth comes from jobs.
#[test]
fn fio_verifies_what_it_wrote() {
    let Some(fio) = std::env::var_os("REMOOR_FIO") else {
        return skip(
            "fio_verifies_what_it_wrote",
            "cargo xtask test builds fio with its NFS engine, and has not",
        );
    };
    let server = Server::start();
    for load in ["--rw=write --bs=1m", "--rw=read --bs=1m", "--rw=randwrite --bs=4k", "--rw=randrw --bs=16k"]
    {
        run_fio(&fio, &server, load);
    }
}

fn run_fio(fio: &OsString, server: &Server, load: &str) {
    let output = Command::new(fio)
        .args(["--name=job", "--ioengine=nfs", "--numjobs=4", "--size=8m", "--iodepth=1", "--randseed=7"])
        .args(["--verify=crc32c", "--verify_fatal=1", "--group_reporting", "--output-format=terse"])
        .args(["--terse-version=3", "--filename_format=/f.$jobnum"])
        .arg(format!("--nfs_url={}", server.url("")))
        .args(load.split(' '))
        .current_dir(server.place.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let result = text.lines().find(|line| line.starts_with("3;")).unwrap_or_else(|| panic!("{output:?}"));
    // HOWTO, "terse output": the fifth field is the error; the sixth and the 47th are KiB read and written.
    let fields: Vec<&str> = result.split(';').collect();
    let kib = |n: usize| fields[n].parse::<u64>().unwrap();
    assert!(output.status.success() && fields[4] == "0", "fio {load}: {output:?}");
    assert!(output.stderr.is_empty(), "fio {load}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(kib(5) + kib(46) >= 4 * 8 * 1024, "fio {load} moved too little: {result}");
}
