//! `remoor ls`, `cat`, `cp`, `put`, `rm` and `stat` against a real `remoor serve`.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is missing")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use remoor_skip::skip;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// No test waits longer than this; it is far above what any needs.
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

/// A server of a directory, which can be killed and started again.
struct Server {
    child: Child,
    address: SocketAddr,
    place: TempDir,
}

impl Server {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("export")).unwrap();
        let (child, address) = serve(place.path(), "127.0.0.1:0".parse().unwrap());
        Self { child, address, place }
    }

    /// Ends the server as a crash does.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, at the same address.
    fn restart(&mut self) {
        (self.child, self.address) = serve(self.place.path(), self.address);
    }

    fn export(&self) -> PathBuf {
        self.place.path().canonicalize().unwrap().join("export")
    }

    fn local(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn url(&self, path: &str) -> String {
        format!("nfs://{}{}{path}", self.address, self.export().display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(place: &Path, address: SocketAddr) -> (Child, SocketAddr) {
    let export = place.canonicalize().unwrap().join("export");
    let mut child = Command::new(env!("CARGO_BIN_EXE_remoor"))
        .args(["serve", "--control", "none", "--listen", &address.to_string(), "--export"])
        .arg(format!("{}:rw,insecure,no_root_squash", export.display()))
        .arg("--state")
        .arg(place.join("state"))
        .env("RUST_LOG", "info")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = log.by_ref().find(|line| line.contains("listening on ")).unwrap();
    let address = line.split("listening on ").nth(1).unwrap().split(' ').next().unwrap();
    // The log is read on, so that the server is never kept waiting.
    std::thread::spawn(move || log.for_each(drop));
    (child, address.parse().unwrap())
}

fn remoor(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_remoor"));
    command.args(args).env_remove("RUST_LOG").env("TZ", "UTC").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    remoor(args).output().unwrap()
}

/// Standard output of a command that must end well and say nothing else.
fn done(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that must end with `code` complains of.
fn failed(code: i32, args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Bytes that no two places have in common for long.
fn pattern(seed: u32, bytes: usize) -> Vec<u8> {
    (0..bytes as u32 / 4)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).wrapping_add(seed).to_le_bytes())
        .collect()
}

fn names(dir: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Returns when `dir` has an entry that `wanted` wants.
fn await_entry(dir: &Path, wanted: impl Fn(&OsStr) -> bool) {
    await_that(|| names(dir).iter().any(|name| wanted(name)));
}

fn await_that(happened: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "it did not happen");
        std::thread::yield_now();
    }
}

fn is_temporary(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".remoor-") && name.as_bytes().ends_with(b".part")
}

/// Type and permissions, time, and bytes or text.
type Kept = (u32, (i64, i64), Vec<u8>);

/// Everything a copy of a tree must keep, by path.
fn picture(root: &Path) -> BTreeMap<PathBuf, Kept> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_dir() {
            waiting.extend(names(&path).iter().map(|name| path.join(name)));
            Vec::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_vec()
        } else {
            fs::read(&path).unwrap()
        };
        // Not every file system can set the times of a link.
        let times = if meta.is_symlink() { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
        all.insert(path.strip_prefix(root).unwrap().to_owned(), (meta.mode(), times, content));
    }
    all
}

/// Something to copy.
#[derive(Debug, Clone)]
enum Object {
    File(Vec<u8>, u32),
    Link(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Object>, u32),
}

fn file_names() -> impl Strategy<Value = Vec<u8>> + Clone {
    prop::collection::vec(1u8.., 1..12)
        .prop_filter("a name", |n| !n.contains(&b'/') && n[..] != b"."[..] && n[..] != b".."[..])
}

fn objects() -> impl Strategy<Value = Object> {
    let size = prop_oneof![Just(0), 1usize..5000, MIB - 1..MIB + 2, Just(2 * MIB + 17)];
    let file = (size, any::<u8>(), 0u32..0o1000)
        .prop_map(|(size, byte, mode)| Object::File(vec![byte; size], mode | 0o400));
    let link = prop::collection::vec(1u8.., 1..40).prop_map(Object::Link);
    let leaf = prop_oneof![3 => file, 1 => link];
    leaf.prop_recursive(4, 24, 6, |inner| {
        (prop::collection::btree_map(file_names(), inner, 0..6), 0u32..0o2000)
            .prop_map(|(entries, mode)| Object::Directory(entries, (mode & 0o1777) | 0o500))
    })
}

/// Makes the object, with a time of its own that depends on where it is.
fn make(path: &Path, object: &Object, seed: u64) {
    match object {
        Object::Link(target) => return symlink(OsStr::from_bytes(target), path).unwrap(),
        Object::File(content, _) => fs::write(path, content).unwrap(),
        Object::Directory(entries, _) => {
            fs::create_dir(path).unwrap();
            for (n, (name, object)) in (1..).zip(entries) {
                make(&path.join(OsStr::from_bytes(name)), object, seed * 31 + n);
            }
        }
    }
    if let Object::File(_, mode) | Object::Directory(_, mode) = object {
        let file = File::open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::new(seed % 4_000_000_000, 123_456_789)).unwrap();
        fs::set_permissions(path, Permissions::from_mode(*mode)).unwrap();
    }
}

#[test]
fn a_tree_that_is_copied_there_and_back_is_the_same() {
    let server = Server::start();
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let tree = prop::collection::btree_map(file_names(), objects(), 1..8);
    let outcome = runner.run(&tree, |tree| {
        let dir = tempfile::tempdir_in(server.place.path()).unwrap();
        let (here, back) = (dir.path().join("here"), dir.path().join("back"));
        make(&here, &Object::Directory(tree, 0o751), 77);
        let there = server.url("/there");
        done(&["cp", "-rp", "--verify", here.to_str().unwrap(), &there]);
        prop_assert_eq!(picture(&server.export().join("there")), picture(&here));
        done(&["cp", "-rp", &there, back.to_str().unwrap()]);
        prop_assert_eq!(picture(&back), picture(&here));
        done(&["rm", "-r", &there]);
        prop_assert_eq!(names(&server.export()), Vec::<OsString>::new());
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_copy_goes_on_when_the_server_was_killed_and_comes_back() {
    let mut server = Server::start();
    let data = pattern(1, 24 * MIB);
    let mut put = remoor(&["put", "--verify", &server.url("/file")]);
    let mut put = put.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = put.stdin.take().unwrap();
    // Few enough that all can be on the way: nothing is read on while a dead server has too much to answer.
    stdin.write_all(&data[..6 * MIB]).unwrap();
    await_entry(&server.export(), is_temporary);
    let temporary = server.export().join(&names(&server.export())[0]);
    await_that(|| fs::metadata(&temporary).unwrap().len() >= 4 * MIB as u64);
    server.kill();
    // What was written and not committed may be lost with the machine.
    File::options().write(true).open(temporary).unwrap().set_len(0).unwrap();
    stdin.write_all(&data[6 * MIB..7 * MIB]).unwrap();
    server.restart();
    stdin.write_all(&data[7 * MIB..]).unwrap();
    drop(stdin);
    let output = put.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("not responding") && said.contains("moved to port"), "{said}");
    assert!(fs::read(server.export().join("file")).unwrap() == data);
    assert_eq!(names(&server.export()), ["file"]);
}

#[test]
fn reading_goes_on_when_the_server_was_killed_and_comes_back() {
    let mut server = Server::start();
    let data = pattern(2, 40 * MIB);
    fs::write(server.export().join("file"), &data).unwrap();
    let mut cat = remoor(&["cat", &server.url("/file")]);
    let mut cat = cat.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut read, mut out) = (vec![0; 4 * MIB], cat.stdout.take().unwrap());
    // A pipe holds little, so most of the file is still to be read from the server.
    out.read_exact(&mut read).unwrap();
    server.kill();
    server.restart();
    out.read_to_end(&mut read).unwrap();
    assert!(cat.wait().unwrap().success());
    assert!(read == data, "{} bytes", read.len());
}

#[test]
fn an_interrupted_copy_leaves_nothing() {
    let server = Server::start();
    for signal in [Signal::INT, Signal::TERM] {
        let mut put = remoor(&["put", &server.url("/file")]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = put.stdin.take().unwrap();
        stdin.write_all(&pattern(3, 2 * MIB)).unwrap();
        await_entry(&server.export(), is_temporary);
        kill_process(Pid::from_child(&put), signal).unwrap();
        assert_eq!(put.wait().unwrap().code(), Some(128 + signal.as_raw()));
        assert_eq!(names(&server.export()), Vec::<OsString>::new());
    }
}

#[test]
fn a_directory_of_100_000_long_names_is_listed_in_little_memory() {
    let server = Server::start();
    let name = |n: u32| format!("{n:06}-{}", "n".repeat(230));
    (0..100_000).for_each(|n| drop(File::create(server.export().join(name(n))).unwrap()));
    // The names alone are 24 MB, and their lines as many again.
    let mut ls = Command::new("sh");
    ls.args(["-c", "ulimit -d 30000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_remoor"), "ls", "-lU"]);
    let output = ls.arg(server.url("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<_> =
        output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    lines.sort();
    assert_eq!(lines.len(), 100_000);
    assert!(lines.windows(2).all(|two| two[0] != two[1]));
    let sorted = done(&["ls", &server.url("")]);
    assert!(sorted.lines().eq((0..100_000).map(name)));
}

#[test]
fn names_are_escaped_or_exact() {
    let server = Server::start();
    fs::write(server.export().join(OsStr::from_bytes(b"a\n\xff?%")), "x").unwrap();
    fs::write(server.export().join(".hidden"), "").unwrap();
    symlink("nowhere", server.export().join("link")).unwrap();
    assert_eq!(run(&["ls", &server.url("")]).stdout, b"a\n\xff?%\nlink\n");
    let json = done(&["ls", "-a", "--json", &server.url("")]);
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| &line["name"]).collect::<Vec<_>>(),
        [".hidden", "a\\n\\xff?%", "link"]
    );
    assert_eq!((&lines[2]["type"], &lines[2]["target"]), (&"symbolic link".into(), &"nowhere".into()));
    let url = lines[1]["url"].as_str().unwrap();
    assert!(url.ends_with("/a%0A%FF%3F%25"), "{url}");
    assert_eq!(done(&["cat", url]), "x");
    assert!(failed(1, &["cat", &server.url("/%1b%5b2J")]).contains("%1B%5B2J"));
    let long = done(&["ls", "-lh", &server.url("/link")]);
    assert!(long.starts_with("lrwxrwxrwx   1 ") && long.ends_with("/link -> nowhere\n"), "{long}");
    let stat = done(&["stat", &server.url("/link")]);
    assert!(stat.contains("link -> nowhere\n") && stat.contains("    type  symbolic link\n"), "{stat}");
}

#[test]
fn parts_of_files_are_shown() {
    let server = Server::start();
    let data = pattern(4, 3 * MIB);
    fs::write(server.export().join("file"), &data).unwrap();
    let part = |offset: &str, length: &str| {
        run(&["cat", "--offset", offset, "--length", length, &server.url("/file")]).stdout
    };
    assert!(part("5", "2097152") == data[5..5 + 2 * MIB]);
    assert!(part("3145720", "100") == data[3 * MIB - 8..]);
    assert_eq!((part("99999999", "1"), part("0", "0")), (vec![], vec![]));
    assert!(failed(1, &["cat", &server.url("")]).contains("not a regular file"));
}

#[test]
fn a_link_on_the_way_is_followed_and_one_at_the_end_is_removed_itself() {
    let server = Server::start();
    let export = server.export();
    fs::create_dir_all(export.join("d/e")).unwrap();
    fs::write(export.join("d/e/f"), "text").unwrap();
    symlink(export.join("d"), export.join("absolute")).unwrap();
    symlink("../d/./e/../e", export.join("d/relative")).unwrap();
    symlink("loop", export.join("loop")).unwrap();
    symlink("/etc", export.join("out")).unwrap();
    assert_eq!(done(&["cat", &server.url("/absolute/relative/f")]), "text");
    assert!(failed(1, &["ls", &server.url("/loop/")]).contains("more than 40 symbolic links"));
    assert!(failed(1, &["cat", &server.url("/out/passwd")]).contains("leads to /etc, outside the export"));
    done(&["rm", "-r", &server.url("/absolute")]);
    assert!(export.join("d/e/f").exists() && !export.join("absolute").is_symlink());
}

#[test]
fn the_export_itself_is_never_removed() {
    let server = Server::start();
    fs::write(server.export().join("file"), "").unwrap();
    for url in [server.url(""), server.url("/"), format!("nfs://{}/", server.address)] {
        let output = run(&["rm", "-rf", &url]);
        assert!(matches!(output.status.code(), Some(1 | 3)), "{output:?}");
    }
    assert_eq!(names(&server.export()), ["file"]);
    assert!(failed(1, &["rm", &server.url("/none")]).contains("NFS3ERR_NOENT"));
    done(&["rm", "-f", &server.url("/none")]);
    assert!(failed(1, &["rm", &server.url("/none"), &server.url("/file")]).contains("none"));
    assert_eq!(names(&server.export()), Vec::<OsString>::new(), "the rest is done");
}

#[test]
fn what_exists_is_replaced_whole_or_written_in_place() {
    let server = Server::start();
    let (file, local) = (server.export().join("file"), server.local("local"));
    fs::write(&file, "old and longer").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    fs::write(&local, "new").unwrap();
    let before = fs::metadata(&file).unwrap();
    done(&["cp", "--inplace", local.to_str().unwrap(), &server.url("/file")]);
    let inplace = fs::metadata(&file).unwrap();
    assert_eq!((inplace.ino(), fs::read(&file).unwrap()), (before.ino(), b"new".to_vec()));
    done(&["cp", local.to_str().unwrap(), &server.url("/")]);
    done(&["cp", local.to_str().unwrap(), &server.url("/file")]);
    let replaced = fs::metadata(&file).unwrap();
    assert_ne!(replaced.ino(), before.ino());
    assert_eq!(
        (replaced.mode() & 0o7777, names(&server.export())),
        (0o640, vec!["file".into(), "local".into()])
    );
    done(&["cp", &server.url("/file"), &server.url("/copy")]);
    assert_eq!(fs::read(server.export().join("copy")).unwrap(), b"new");
}

#[test]
fn holes_stay_holes() {
    let server = Server::start();
    let local = server.local("sparse");
    let file = File::create(&local).unwrap();
    file.write_all_at(b"data", 5 * MIB as u64).unwrap();
    file.set_len(16 * MIB as u64).unwrap();
    if file.metadata().unwrap().blocks() * 512 > MIB as u64 {
        return skip("holes_stay_holes", "this file system fills holes");
    }
    done(&["cp", "--verify", local.to_str().unwrap(), &server.url("/there")]);
    let there = server.export().join("there");
    done(&["cp", &server.url("/there"), server.local("back").to_str().unwrap()]);
    for copy in [there, server.local("back")] {
        assert!(fs::read(&copy).unwrap() == fs::read(&local).unwrap());
        assert!(fs::metadata(&copy).unwrap().blocks() * 512 <= MIB as u64, "{copy:?}");
    }
}

#[test]
fn what_cannot_be_copied_is_told_and_the_rest_is_copied() {
    let server = Server::start();
    let (from, export) = (server.local("from"), server.export());
    fs::create_dir(&from).unwrap();
    fs::write(from.join("file"), "x").unwrap();
    let made = Command::new("mkfifo").arg(from.join("pipe")).status().unwrap();
    assert!(made.success());
    let from = from.to_str().unwrap();
    assert!(failed(1, &["cp", from, &server.url("/")]).contains("copy it with -r"));
    assert!(failed(1, &["cp", "-r", from, &server.url("/")]).contains("is a named pipe and is not copied"));
    assert_eq!(names(&export.join("from")), ["file"]);
    assert!(failed(1, &["cp", "-r", &server.url("/from"), &server.url("/from/in")]).contains("into itself"));
    let same = failed(1, &["cp", &server.url("/from/file"), &server.url("/from")]);
    assert!(same.contains("are the same file"), "{same}");
    assert!(failed(1, &["cp", from, "/no/such", &server.url("/from")]).contains("/no/such"));
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let server = Server::start();
    assert!(failed(2, &["ls", "/srv"]).contains("is not an nfs:// URL"));
    assert!(failed(2, &["cp", "a", "b"]).contains("no nfs:// URL"));
    assert!(failed(2, &["ls", &server.url("?noresvprt")]).contains("did you mean \"noresvport\"?"));
    assert!(failed(2, &["ls", "-o", "vers=4", &server.url("")]).contains("only NFS version 3"));
    let exported = failed(3, &["ls", &format!("nfs://{}/nowhere/a", server.address)]);
    assert!(exported.contains(&format!("it exports {}", server.export().display())), "{exported}");
    let nobody = failed(3, &["ls", "--connect-timeout", "1", "nfs://127.0.0.1:1/srv"]);
    assert!(nobody.contains("no answer from 127.0.0.1:1") && nobody.contains("refused"), "{nobody}");
    done(&["ls", "-o", "noresvport", &server.url("")]);
}

#[test]
fn the_utilities_of_libnfs_see_what_was_written() {
    let server = Server::start();
    let data = pattern(5, 3 * MIB);
    fs::write(server.local("data"), &data).unwrap();
    done(&["cp", server.local("data").to_str().unwrap(), &server.url("/file")]);
    let port = server.address.port();
    let url = format!("{}?nfsport={port}&mountport={port}&version=3&uid=0&gid=0", server.url("/file"));
    let url = url.replacen(&format!("127.0.0.1:{port}"), "127.0.0.1", 1);
    match Command::new("nfs-cat").arg(&url).output() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            skip("the_utilities_of_libnfs_see_what_was_written", "package libnfs-utils is missing");
        }
        output => {
            assert!(output.unwrap().stdout == data);
            // Its own URL means the same here.
            let url = url.replace("&uid=0&gid=0", "");
            assert!(run(&["cat", &url]).stdout == data);
        }
    }
}
