//! `remoor serve` as systemd starts it: a socket as descriptor 3, and a datagram socket that is told how it goes.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is missing")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use remoor_nfs::mnt;
use remoor_nfs::v3::{self, CreateHow, MknodData, NfsStat, Null, Sattr, StableHow};
use remoor_rpc::Bytes;
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{Message, Reply, ReplyStatus, encode_call};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::RecordReader;
use remoor_rpc::xdr::Xdr;
use remoor_skip::skip;
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
        self.start_by(Command::new("sh"), socket, options)
    }

    /// Likewise, by way of a shell that may have been started in some way.
    fn start_by(&self, mut command: Command, socket: OwnedFd, options: &[&str]) -> Service {
        let (export, state) = (format!("{}:rw,insecure", self.path("export")), self.path("state"));
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

    /// Exports whose handles are the kernel's, once it serves.
    fn kernel_handles(&self) -> usize {
        let lines = std::iter::repeat_with(|| self.await_line(""));
        lines.take_while(|line| !line.contains("listening on ")).filter(|l| l.contains("Kernel file")).count()
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
    reply(&mut stream);
}

/// The next reply, which is one of success.
fn reply(stream: &mut TcpStream) -> Reply {
    let mut reader = RecordReader::new(1 << 16);
    let mut buf = [0; 512];
    while let Ok(n) = stream.read(&mut buf) {
        assert!(n > 0, "closed without a reply");
        reader.push(&buf[..n]);
        if let Some(record) = reader.next_record().unwrap() {
            let Message::Reply(reply) = Message::decode(record).unwrap() else { panic!("a call") };
            assert_eq!(reply.status, ReplyStatus::Success);
            return reply;
        }
    }
    panic!("no reply");
}

/// What a user's call gives.
fn call<P: Procedure>(stream: &mut TcpStream, xid: u32, user: u32, args: P::Args) -> P::Res {
    let credential = OpaqueAuth::sys(&AuthSys::new("client", user, user));
    stream.write_all(&encode_call::<P>(xid, &credential, &args).segments().concat()).unwrap();
    P::Res::decode(&mut reply(stream).result).unwrap()
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

/// The capabilities that the unit leaves, as setpriv(1) writes them.
fn bounding_set() -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/remoor.service");
    let unit = fs::read_to_string(unit).unwrap();
    let lines = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let named = lines.flat_map(str::split_whitespace).map(|name| name.strip_prefix("CAP_").unwrap());
    // Those that this host does not leave its root cannot be tested, and are dropped already.
    named.fold("-all".to_owned(), |set, name| set + ",+" + &name.to_lowercase())
}

#[test]
fn what_the_unit_leaves_root_is_enough_for_every_user() {
    let test = "what_the_unit_leaves_root_is_enough_for_every_user";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "only root serves several users");
    }
    let manager = Manager::new();
    let shared = manager.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    // Nobody but root gets there by its path.
    fs::set_permissions(manager.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--bounding-set", &bounding_set(), "--inh-caps", "-all", "--no-new-privs", "sh"]);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let options = ["--export", &format!("{shared}:rw,insecure,no_root_squash")];
    let service = manager.start_by(setpriv, socket.into(), &options);
    let kernel_handles = service.kernel_handles();

    let root = call::<mnt::Mnt>(&mut stream, 1, 0, shared.as_str().into()).0.unwrap().handle;
    let place = |name: &str| v3::DirOp { dir: root.clone(), name: name.into() };
    let attr = |mode| Sattr { mode: Some(mode), ..Sattr::default() };
    let how = CreateHow::Guarded(attr(0o444));
    let made = call::<v3::Create>(&mut stream, 2, 1000, v3::CreateArgs { place: place("file"), how });
    let file = made.into_result().unwrap().file.unwrap();
    let data = Bytes::from_static(b"data");
    let write = v3::WriteArgs {
        file: file.clone(),
        offset: 0,
        count: 4,
        stable: StableHow::FileSync,
        data: data.into(),
    };
    let mut write_by = |user| call::<v3::Write>(&mut stream, 3, user, write.clone()).status();
    assert_eq!([1000, 1001, 0].map(&mut write_by), [NfsStat::Ok, NfsStat::Acces, NfsStat::Ok]);
    let owner = Sattr { uid: Some(1001), gid: Some(1001), ..Sattr::default() };
    let set = v3::SetattrArgs { file, attr: owner, guard: None };
    let mut set_by = |xid, user| call::<v3::Setattr>(&mut stream, xid, user, set.clone()).status();
    assert_eq!([set_by(4, 1000), set_by(5, 0)], [NfsStat::Perm, NfsStat::Ok]);
    let device = v3::DeviceData { attr: attr(0o600), device: v3::Device { major: 1, minor: 3 } };
    let mknod = v3::MknodArgs { place: place("null"), what: MknodData::Character(device) };
    let mut mknod_by = |xid, user| call::<v3::Mknod>(&mut stream, xid, user, mknod.clone()).status();
    assert_eq!([mknod_by(6, 1000), mknod_by(7, 0)], [NfsStat::Perm, NfsStat::Ok]);

    service.stop();
    // Whether the kernel's handles can be used here at all, a server with every capability tells.
    let free = manager.start(TcpListener::bind("127.0.0.1:0").unwrap().into(), &options);
    assert_eq!(kernel_handles, free.kernel_handles());
    free.stop();
    let file = fs::metadata(format!("{shared}/file")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.len()), (1001, 1001, 4));
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
