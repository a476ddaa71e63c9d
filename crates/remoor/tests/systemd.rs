//! `remoor serve` as systemd starts it: a socket as descriptor 3, and a datagram socket that is told how it goes.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is missing")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use remoor_nfs::v3::Null;
use remoor_rpc::auth::OpaqueAuth;
use remoor_rpc::message::{Message, ReplyStatus, encode_call};
use remoor_rpc::record::RecordReader;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// No test waits longer than this; it is far above what any needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What systemd does before it executes a service: descriptors from 3 on, and their number and owner.
const HAND_OVER: &str = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"";

/// A service manager with one service.
struct Manager {
    dir: TempDir,
    notify: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("export")).unwrap();
        let notify = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { dir, notify }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts the service, with this socket as the one that it listens on.
    fn start(&self, socket: OwnedFd, options: &[&str]) -> Service {
        let (export, state) = (format!("{}:rw,insecure", self.path("export")), self.path("state"));
        let mut command = Command::new("sh");
        command.args(["-c", HAND_OVER, "sh", env!("CARGO_BIN_EXE_remoor"), "serve"]);
        command.args(["--export", &export, "--state", &state]).args(options);
        command.env("NOTIFY_SOCKET", self.path("notify")).env("NO_COLOR", "1").env("RUST_LOG", "info");
        command.stdin(Stdio::from(socket)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, log) = channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        std::thread::spawn(move || lines.map_while(|line| sender.send(line).ok()).for_each(drop));
        Service { child, log }
    }

    fn told(&self) -> String {
        let mut buf = [0; 512];
        let n = self.notify.recv(&mut buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    }
}

/// The service at work. Dropping it kills it.
struct Service {
    child: Child,
    log: Receiver<String>,
}

impl Service {
    fn await_line(&self, text: &str) -> String {
        let next =
            || self.log.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no line with {text:?}: {e}"));
        std::iter::repeat_with(next).find(|line| line.contains(text)).unwrap()
    }

    /// Its exit code, and what it said that was not read yet.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        (code, self.log.iter().collect::<Vec<_>>().join("\n"))
    }

    /// Ends it as systemd does; what it said.
    fn stop(self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let (code, log) = self.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send_null(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&encode_call::<Null>(7, &OpaqueAuth::none(), &()).segments().concat()).unwrap();
    stream
}

fn await_reply(mut stream: TcpStream) {
    let mut reader = RecordReader::new(1 << 16);
    let mut buf = [0; 512];
    while let Ok(n) = stream.read(&mut buf) {
        assert!(n > 0, "closed without a reply");
        reader.push(&buf[..n]);
        if let Some(record) = reader.next_record().unwrap() {
            let Message::Reply(reply) = Message::decode(record).unwrap() else { panic!("a call") };
            return assert_eq!(reply.status, ReplyStatus::Success);
        }
    }
    panic!("no reply");
}

#[test]
fn a_socket_that_is_handed_over_serves_one_server_after_another() {
    let manager = Manager::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // Comes before the server, and starts it.
    let early = send_null(address);
    let first = manager.start(socket.try_clone().unwrap().into(), &[]);
    assert_eq!(manager.told(), "READY=1\n");
    await_reply(early);
    await_reply(send_null(address));
    let log = first.stop();
    assert_eq!(manager.told(), "STOPPING=1\n");
    assert!(log.contains(&format!("listening on {address}")), "{log}");
    assert!(!log.contains(":2049"), "nothing but the socket: {log}");
    // Comes while nobody serves, and is not refused.
    let between = send_null(address);
    let second = manager.start(socket.into(), &[]);
    assert_eq!(manager.told(), "READY=1\n");
    await_reply(between);
    second.stop();
    assert!(TcpStream::connect(address).is_err(), "the last one has closed it");
}

#[test]
fn other_addresses_may_be_served_beside_the_socket() {
    let manager = Manager::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = manager.start(socket.try_clone().unwrap().into(), &["--listen", "127.0.0.1:0"]);
    let next = || {
        let line = service.await_line("listening on ");
        line.split("listening on ").nth(1).unwrap().split(' ').next().unwrap().parse::<SocketAddr>().unwrap()
    };
    let addresses = [next(), next()];
    assert_eq!(addresses[0], socket.local_addr().unwrap());
    addresses.into_iter().for_each(|address| await_reply(send_null(address)));
    service.stop();
}

#[test]
fn a_reload_is_told_from_its_begin_to_its_end() {
    let manager = Manager::new();
    let service = manager.start(TcpListener::bind("127.0.0.1:0").unwrap().into(), &[]);
    assert_eq!(manager.told(), "READY=1\n");
    kill_process(Pid::from_child(&service.child), Signal::HUP).unwrap();
    let told = manager.told();
    assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
    assert_eq!(manager.told(), "READY=1\n");
    service.stop();
}

#[test]
fn what_is_no_tcp_socket_is_refused_with_what_to_change() {
    let manager = Manager::new();
    let socket = UnixDatagram::unbound().unwrap();
    let (code, log) = manager.start(socket.into(), &[]).end();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("socket 1") && log.contains("ListenStream="), "{log}");
}

#[test]
fn a_manager_that_does_not_listen_is_no_reason_to_stop() {
    let manager = Manager::new();
    fs::remove_file(manager.path("notify")).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let service = manager.start(socket.into(), &[]);
    await_reply(send_null(address));
    let log = service.stop();
    assert!(log.contains("NOTIFY_SOCKET"), "{log}");
}

/// systemd's own check, of copies that name a program that is there. It reads no other unit of this host.
#[test]
fn the_units_are_valid() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let dir = tempfile::tempdir().unwrap();
    for name in ["remoor.service", "remoor.socket"] {
        let text = fs::read_to_string(units.join(name)).unwrap();
        fs::write(dir.path().join(name), text.replace("/usr/bin/remoor", "/bin/true")).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    verify.args(["remoor.service", "remoor.socket"].map(|name| dir.path().join(name)));
    match verify.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
        Err(_) => skip("the_units_are_valid", "systemd-analyze is missing (apt-get install systemd)"),
    }
}

#[allow(clippy::print_stderr, reason = "a skipped test must be seen")]
fn skip(test: &str, reason: &str) {
    let line = format!("TEST {test}: because {reason}\n");
    match std::env::var_os("REMOOR_SKIP_LOG") {
        Some(log) => {
            fs::OpenOptions::new().append(true).open(log).unwrap().write_all(line.as_bytes()).unwrap();
        }
        None => eprint!("SKIPPED {line}"),
    }
}
