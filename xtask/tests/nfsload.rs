//! The load generator of `cargo xtask bench server` against a server in this process: every load runs, and every reply is
//! what it must be, because nfsload ends at the first that is not.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use remoor_server::exports::Exports;
use remoor_server::{Running, Server};
use xtask::architecture::root;

const HEADER: &str = "/usr/include/nfsc/libnfs.h";

/// Compiles it, or says why not.
fn nfsload(test: &str) -> Option<PathBuf> {
    if !Path::new(HEADER).exists() {
        skip(test, "package libnfs-dev is missing");
        return None;
    }
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let source = root().join("xtask/src/bench/load/nfsload.c");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).args([&to, &source]).arg("-lnfs");
    let output = cc.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(to)
}

fn skip(test: &str, why: &str) {
    if let Some(path) = std::env::var_os("REMOOR_SKIP_LOG") {
        let mut log = std::fs::File::options().append(true).open(path).unwrap();
        writeln!(log, "{test}: because {why}").unwrap();
    }
}

fn serve(options: &str) -> Running {
    let exports = Exports::from_args([format!("memory:/data:{options}")]).unwrap();
    Server::builder().exports(exports).listen("127.0.0.1:0".parse().unwrap()).start().unwrap()
}

fn run(program: &Path, server: &Running, arguments: &[&str]) -> Output {
    let port = server.local_addrs()[0].port().to_string();
    let (flags, loads): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|a| a.starts_with("--"));
    let mut command = Command::new(program);
    command.args(["--secs", "0.02", "--file-mib", "2", "--entries", "40"]).args(flags);
    command.args(["127.0.0.1", &port, "/data"]).args(loads).output().unwrap()
}

#[test]
fn every_load_runs() {
    let Some(program) = nfsload("every_load_runs") else { return };
    let server = serve("rw,insecure,no_root_squash");
    let loads = [
        "null:16",
        "getattr",
        "access:2",
        "lookup:16",
        "create:16",
        "mkdir:3",
        "readdirplus",
        "read:8",
        "write:2",
        "randread:32",
        "randwrite:8:8k",
    ];
    let output = run(&program, &server, &loads);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let told: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ops: Vec<&str> = told.iter().map(|line| line["op"].as_str().unwrap()).collect();
    let expected =
        "null getattr access lookup create remove mkdir rmdir readdirplus read write randread randwrite";
    assert_eq!(ops.join(" "), expected);
    assert!(told.iter().all(|line| line["calls"].as_u64().unwrap() > 0), "{text}");
    let created = |op: usize| told[op]["calls"].as_u64().unwrap();
    assert_eq!((created(4), created(6)), (created(5), created(7)), "all that is made is removed");
    assert_eq!(told[12]["bytes"].as_u64().unwrap(), told[12]["calls"].as_u64().unwrap() * 8192);
    server.stop();
}

#[test]
fn an_error_ends_it_and_is_told() {
    let Some(program) = nfsload("an_error_ends_it_and_is_told") else { return };
    let server = serve("ro,insecure,no_root_squash");
    let output = run(&program, &server, &["null"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.starts_with("nfsload: MKDIR: ") && told.contains("ROFS"), "{told}");
    let output = run(&program, &server, &["no-such-load"]);
    assert!(!output.status.success());
    server.stop();
}
