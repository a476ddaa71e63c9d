//! `remoor exports` as its users have it: a process with files, a name service, and an exit code.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is missing")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use remoor_skip::skip;
use serde_json::Value;
use tempfile::TempDir;

fn exports(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_remoor")).arg("exports").args(args).output().unwrap()
}

fn file(text: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("exports");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

fn code(text: &str, args: &[&str]) -> (Option<i32>, String) {
    let (_dir, path) = file(text);
    let output = exports(&[&["check", &path], args].concat());
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let good = "memory:/a 192.0.2.1(ro,no_subtree_check)";
    assert_eq!(code(good, &["--strict"]).0, Some(0));
    assert_eq!(code("memory:/a 192.0.2.1(ro)", &[]).0, Some(0));
    assert_eq!(code("memory:/a 192.0.2.1(ro)", &["--strict"]).0, Some(1));
    assert_eq!(code("memory:/a 192.0.2.1(roo)", &[]).0, Some(2));
    assert_eq!(exports(&["check", "/no/such/file"]).status.code(), Some(2));
    assert_eq!(exports(&["check", "--client", "nobody"]).status.code(), Some(2));
}

#[test]
fn every_error_of_every_file_is_told() {
    let (_dir, one) = file("memory:/a *(rww)\n\nmemory:/b *(roo)\n");
    let (_other, two) = file("x *\n");
    let output = exports(&["check", "--json", &one, &two]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let places: Vec<_> =
        json["findings"].as_array().unwrap().iter().map(|f| (&f["file"], &f["line"])).collect();
    let expected =
        [(&one, 1), (&one, 3), (&two, 1)].map(|(file, line)| (Value::from(&**file), Value::from(line)));
    assert_eq!(places, expected.each_ref().map(|(file, line)| (file, line)));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "remoor: 3 errors; see above\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let remoor = env!("CARGO_BIN_EXE_remoor");
    let script = format!("set -o pipefail; {remoor} exports options | head -1");
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
    assert_eq!(output.stdout, b"Implemented:\n");
}

/// Runs `remoor exports ARGS` where /etc holds only these files; `None` if that is not possible here.
fn with_etc(files: &[(&str, &str)], args: &[&str]) -> Option<Output> {
    let etc = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = etc.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let possible = Command::new("unshare").args(NAMESPACE).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        skip("a host with an /etc of its own", "it needs user and mount namespaces, and unshare(1)");
        return None;
    }
    let script = "mount --bind \"$0\" /etc && exec \"$@\"";
    let remoor = env!("CARGO_BIN_EXE_remoor");
    let mut command = Command::new("unshare");
    command.args(NAMESPACE).args(["sh", "-c", script]).arg(etc.path()).args([remoor, "exports"]).args(args);
    Some(command.output().unwrap())
}

const NAMESPACE: [&str; 3] = ["--user", "--map-root-user", "--mount"];

const HOSTS: &str = "127.0.0.1 localhost\n192.0.2.7 web.example.org web\n192.0.2.8 db.example.org\n";

#[test]
fn the_files_of_the_system_are_the_default() {
    let files = [
        ("exports", "memory:/a *(ro,no_subtree_check)\n"),
        ("exports.d/b.exports", "memory:/b *(rw\n"),
        ("exports.d/ignored", "nonsense"),
    ];
    let Some(output) = with_etc(&files, &["check"]) else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("memory:/a\n"), "{text}");
    assert!(text.contains("error:   /etc/exports.d/b.exports:1: \"*(rw\": \"(\" without"), "{text}");
    assert!(Path::new("/etc").is_dir() && output.status.code() == Some(2), "{text}");
}

/// The rule that decides for a client of each of three exports: by host name, by wildcard, by netgroup.
fn decides(client: &str) -> Option<Vec<Option<String>>> {
    let files = [
        ("exports", "memory:/a web(ro)\nmemory:/b db*.example.org(ro)\nmemory:/c @outer(ro)\n"),
        ("hosts", HOSTS),
        ("nsswitch.conf", "hosts: files\nnetgroup: files\n"),
        ("netgroup", "outer inner (192.0.2.9,,)\ninner (db,-,) (-,,)\n"),
    ];
    let output = with_etc(&files, &["check", "--json", "--client", client])?;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let gets = json["client"]["gets"].as_array().unwrap();
    Some(gets.iter().map(|export| export["by"]["client"].as_str().map(str::to_owned)).collect())
}

#[test]
fn clients_are_known_by_name_wildcard_and_netgroup() {
    let Some(web) = decides("192.0.2.7") else { return };
    let some = |rule: &str| Some(rule.to_owned());
    assert_eq!(web, [some("web"), None, None]);
    let db = decides("192.0.2.8").unwrap();
    assert_eq!(
        db,
        [None, some("db*.example.org"), some("@outer")],
        "in a group within the group, by its first label"
    );
    assert_eq!(decides("192.0.2.9").unwrap(), [None, None, some("@outer")], "by its address");
    assert_eq!(decides("192.0.2.10").unwrap(), [None, None, None]);
}
