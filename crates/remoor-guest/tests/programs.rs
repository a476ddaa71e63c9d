//! The programs as a test starts them: on a directory here, and on a server here.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use remoor_server::exports::Exports;
use remoor_server::{Running, Server};
use tempfile::TempDir;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_remoor-guest"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server of a directory.
struct Host {
    running: Option<Running>,
    dir: TempDir,
    state: TempDir,
    address: SocketAddr,
}

impl Host {
    fn start() -> Self {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut host = Self { running: None, dir, state, address: "127.0.0.1:0".parse().unwrap() };
        host.restart();
        host
    }

    fn restart(&mut self) {
        self.running.take().map(Running::stop);
        let exports =
            Exports::from_args([format!("{}:rw,insecure,no_root_squash", self.path().display())]).unwrap();
        let server = Server::builder().listen(self.address).state_dir(self.state.path()).exports(exports);
        let running = server.start().unwrap();
        self.address = running.local_addrs()[0];
        self.running = Some(running);
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn arguments(&self) -> [String; 4] {
        let export = self.path().to_string_lossy().into_owned();
        ["--server".into(), self.address.to_string(), "--export".into(), export]
    }
}

/// Writers, and the connection they obey.
struct Writers {
    child: Child,
    control: BufReader<TcpStream>,
}

impl Writers {
    fn start(place: &[String]) -> Self {
        // Free until now, and taken by nobody else on this address meanwhile.
        let control = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = program();
        command.arg("write").args(place).args(["--control", &control.to_string(), "--writers", "2"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "writing\n");
        Self { child, control: BufReader::new(TcpStream::connect(control).unwrap()) }
    }

    fn ask(&mut self, word: &str) -> String {
        writeln!(self.control.get_mut(), "{word}").unwrap();
        let lines = (&mut self.control).lines().map(Result::unwrap);
        lines.take_while(|line| line != "end").map(|line| line + "\n").collect()
    }
}

impl Writers {
    /// Rests once something was acknowledged; a busy machine lets a first pause come before that.
    fn rest_after_some(&mut self) -> String {
        loop {
            let ledger = self.ask("pause");
            if !ledger.contains("acknowledged 0\n") {
                return ledger;
            }
            self.ask("resume");
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `check` with a ledger; whether it found everything, and what it said.
fn check(place: &[String], ledger: &str) -> (bool, String) {
    let mut command = program();
    command.arg("check").args(place).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(ledger.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), text(&output))
}

#[test]
fn the_exercise_tells_each_check_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = program().arg("exercise").arg(dir.path()).args(["--only", "append"]).output().unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.starts_with("ok append (") && told.contains("1 passed, 0 failed, 0 skipped"), "{told}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_exercise_that_cannot_begin_fails_and_says_why() {
    for arguments in [["/no/such/place", "--only", "append"], ["/tmp", "--only", "no-such-check"]] {
        let output = program().arg("exercise").args(arguments).output().unwrap();
        assert!(!output.status.success() && text(&output).contains("error: "), "{}", text(&output));
    }
}

#[test]
fn what_our_client_was_told_is_there_before_and_after_a_restart_of_the_server() {
    let mut host = Host::start();
    let place = host.arguments();
    let mut writers = Writers::start(&place);
    for _ in 0..2 {
        let ledger = writers.rest_after_some();
        assert!(!ledger.contains("failed "), "{ledger}");
        let directory = ["--dir".into(), host.path().to_string_lossy().into_owned()];
        for place in [&place[..], &directory] {
            let (found, told) = check(place, &ledger);
            assert!(found && told.contains(" 0 lost"), "{told}");
        }
        writers.ask("resume");
        host.restart();
    }
}

#[test]
fn a_mounted_directory_is_written_to_in_the_same_way_and_losses_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--dir".into(), dir.path().to_string_lossy().into_owned()];
    let mut writers = Writers::start(&place);
    assert!(writers.ask("stop").contains("none of pause, resume and quit"));
    let ledger = writers.ask("pause");
    assert!(check(&place, &ledger).0);
    let (found, told) = check(&place, &format!("{ledger}holds never-written 1 8\n"));
    assert!(!found && told.contains("lost never-written: is not there"), "{told}");
}
