//! `remoor exportfs` and `remoor status` against a running `remoor serve`, as an administrator has them.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is missing")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use tempfile::TempDir;

/// No test waits longer than this; it is far above what any needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of what a file in its directory says, with its control socket there.
struct Server {
    child: Child,
    log: Receiver<String>,
    /// Before it listened.
    early: Vec<String>,
}

/// Where a server has its files.
struct Place(TempDir);

impl Place {
    fn new(exports: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.configure(exports);
        place
    }

    fn configure(&self, exports: &str) {
        fs::write(self.path("exports"), exports).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn serve(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_remoor"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--node", "n"]);
        command.arg("--exports").arg(self.path("exports")).arg("--state").arg(self.path("state"));
        if !more.contains(&"--control") {
            command.arg("--control").arg(self.path("control"));
        }
        command.args(more);
        command.env("RUST_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn start(&self, more: &[&str]) -> Server {
        let mut child = self.serve(more).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, log) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            lines.map_while(|line| sender.send(line).ok()).for_each(drop);
        });
        let mut server = Server { child, log, early: Vec::new() };
        server.early = server.lines_until("listening on ");
        server
    }

    /// Exit code, standard output and standard error of `remoor COMMAND ARGS` for this server.
    fn ask(&self, command: &str, args: &[&str]) -> (i32, String, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_remoor"));
        let out =
            program.arg(command).arg("--control").arg(self.path("control")).args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
    }

    /// What it prints, if it works.
    fn told(&self, command: &str, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.ask(command, args);
        assert_eq!(code, 0, "{args:?}: {stderr}");
        stdout
    }

    fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.told(command, &["--json"])).unwrap()
    }
}

impl Server {
    /// Lines of the log, up to and with the first that has this text.
    fn lines_until(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.log.recv_timeout(PATIENCE);
            lines.push(line.unwrap_or_else(|e| panic!("no line with {text:?} after {lines:?}: {e}")));
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn exportfs_lists_and_changes_what_is_exported() {
    let place = Place::new("memory:/a *(rw,no_subtree_check)\n");
    let _server = place.start(&[]);
    assert_eq!(place.told("exportfs", &[]), "memory:/a      \t<world>\n");
    let options = "rw,sync,secure,root_squash,no_all_squash";
    assert!(place.told("exportfs", &["-v"]).starts_with(&format!("memory:/a      \t<world>({options}")));
    let made = place.told("exportfs", &["-v", "-o", "rw,insecure", "192.0.2.0/24:memory:/b", ":memory:/b"]);
    assert_eq!(made, "exporting 192.0.2.0/24:memory:/b\nexporting *:memory:/b\n");
    assert_eq!(place.told("exportfs", &["-u", ":memory:/b"]), "");
    place.configure("memory:/c *(ro,no_subtree_check)\n");
    assert_eq!(place.told("exportfs", &["-av"]), "exporting *:memory:/c\n");
    let paths = || -> Vec<String> {
        let list = place.json("exportfs");
        list.as_array().unwrap().iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths(), ["memory:/c", "memory:/b", "memory:/a"]);
    let removed = place.told("exportfs", &["-rav"]);
    assert_eq!(removed, "unexporting 192.0.2.0/24:memory:/b\nunexporting *:memory:/a\n");
    // What -s writes is what the server can be started with.
    let listed = place.told("exportfs", &["-s"]);
    place.configure(&listed);
    let unchanged: Value = serde_json::from_str(&place.told("exportfs", &["-ra", "--json"])).unwrap();
    assert_eq!(
        (&unchanged["unchanged"], &unchanged["warnings"]),
        (&Value::from(1), &Value::from(Vec::<Value>::new()))
    );
}

#[test]
fn what_exportfs_cannot_do_changes_nothing_and_has_its_code() {
    let place = Place::new("memory:/a *(rw,no_subtree_check)\n");
    let server = place.start(&[]);
    let before = place.told("exportfs", &["-v"]);
    let fails = |args: &[&str], code: i32, text: &str| {
        let (got, stdout, stderr) = place.ask("exportfs", args);
        assert_eq!((got, stdout.as_str()), (code, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(text) && stderr.lines().count() == 1, "{args:?}: {stderr}");
    };
    fails(&["-o", "bogus", ":memory:/x"], 2, "remoor: exports stay as they were: ");
    place.configure("memory:/a *(rw,no_subtree_check)\nmemory:/b *(rw,secur)\n");
    fails(&["-ra"], 2, "exports:2: unknown option \"secur\"; did you mean \"secure\"?");
    fails(&["-a"], 2, "exports:2: unknown option");
    fails(&["-ra"], 2, "(all errors: remoor exports check)");
    place.configure("");
    fails(&["-u", "192.0.2.1:memory:/a"], 2, "memory:/a is not exported to 192.0.2.1");
    fails(&["-u"], 2, "-u needs CLIENT:PATH");
    fails(&["-o", "rw", "memory"], 2, "is not CLIENT:/PATH");
    fails(&["-o", "rww", ":memory:/x"], 2, "unknown option \"rww\"");
    fails(&["-o", "rw", ":/does/not/exist"], 2, "cannot export \"/does/not/exist\"");
    assert_eq!(place.told("exportfs", &["-v"]), before);
    drop(server);
    fails(&[], 3, "no server answers at ");
}

#[test]
fn status_tells_what_the_server_does_in_words_and_in_json() {
    let place = Place::new("memory:/a *(rw,no_subtree_check)\n");
    let server = place.start(&[]);
    let text = place.told("status", &[]);
    assert!(text.starts_with("node n, remoor "), "{text}");
    assert!(text.contains(&format!("pid {}", server.child.id())), "{text}");
    assert!(text.contains("\nno client yet\n") && text.contains(" ok\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let json = place.json("status");
    assert_eq!((&json["node"], &json["calls"]), (&Value::from("n"), &Value::from(0)));
    assert_eq!(json["exports"][0]["path"], "/a");
    assert_eq!(json["write_verifier"].as_str().unwrap().len(), 16);
}

#[test]
fn nobody_waits_for_a_server_that_is_stopped() {
    let place = Place::new("memory:/a *(rw,no_subtree_check)\n");
    let server = place.start(&[]);
    server.signal(Signal::STOP);
    let (_, status) = waitpid(Some(Pid::from_child(&server.child)), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped());
    for command in ["status", "exportfs"] {
        let (code, _, stderr) = place.ask(command, &["--timeout", "1"]);
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains("has not answered for 1 s"), "{stderr}");
    }
    server.signal(Signal::CONT);
    place.told("status", &[]);
}

#[test]
fn a_server_follows_one_that_was_killed_but_not_one_that_lives() {
    let place = Place::new("memory:/a *(rw,no_subtree_check)\n");
    let first = place.start(&[]);
    let second = place.serve(&[]).output().unwrap();
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains(&format!("n.lock is locked by a running server (pid {} on ", first.child.id())),
        "{stderr}"
    );
    drop(first);
    assert!(place.path("control").exists(), "it was killed");
    let next = place.start(&[]);
    assert_eq!(place.json("status")["pid"], next.child.id());
    next.signal(Signal::TERM);
    next.lines_until("stopped; every call");
    let Server { log, .. } = &next;
    while log.recv_timeout(PATIENCE).is_ok() {}
    assert!(!place.path("control").exists(), "it has put its socket away");
}

#[test]
fn the_log_is_json_if_asked() {
    let place = Place::new("memory:/a 192.0.2.1(rw,no_subtree_check)\n");
    let server = place.start(&["--log-format", "json"]);
    let lines: Vec<Value> = server.early.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["message"].is_string()), "{lines:?}");
    let exporting = lines.iter().find(|line| line["message"] == "exporting").unwrap();
    assert_eq!((&exporting["export"], &exporting["client"]), (&"memory:/a".into(), &"192.0.2.1".into()));
}

#[test]
fn a_path_that_is_no_socket_is_left_alone() {
    let place = Place::new("memory:/a *(rw,no_subtree_check)\n");
    fs::write(place.path("control"), "precious").unwrap();
    let out = place.serve(&[]).output().unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("cannot make the control socket"), "{stderr}");
    assert_eq!(fs::read_to_string(Path::new(&place.path("control"))).unwrap(), "precious");
}

#[test]
fn watching_needs_a_server_to_begin_with() {
    let place = Place::new("");
    let (code, stdout, stderr) = place.ask("status", &["--watch", "--json"]);
    assert_eq!((code, stdout.as_str()), (3, ""), "{stderr}");
    assert!(stderr.contains("no server answers at "), "{stderr}");
}

/// Where a user without a runtime directory has it.
#[test]
fn the_control_socket_may_lie_beside_the_state() {
    let place = Place::new("memory:/a *(rw,no_subtree_check)\n");
    let socket = place.path("state/n.sock");
    let _server = place.start(&["--control", socket.to_str().unwrap()]);
    let out = Command::new(env!("CARGO_BIN_EXE_remoor")).args(["status", "--control"]).arg(&socket).output();
    assert_eq!(out.unwrap().status.code(), Some(0));
}
