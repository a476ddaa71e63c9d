//! Looking at a running server: the control socket, metrics, health.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use remoor_nfs::v3;
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_server::control::{Answer, CallError, Request, Status, call};
use remoor_server::exports::Exports;
use remoor_server::{Builder, Reload, Running, StartError};
use tempfile::TempDir;

use crate::client::{Client, PATIENCE, builder};
use crate::fault::Fault;

const EXPORT: &str = "/x *(rw,insecure,no_root_squash,no_subtree_check)";

/// A server with a control socket.
struct Rig {
    server: Running,
    socket: PathBuf,
    _dir: TempDir,
}

impl Rig {
    fn new(builder: Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/node.sock");
        let server = builder.control(&socket, true).node_name("node").start().unwrap();
        Self { server, socket, _dir: dir }
    }

    fn ask(&self, request: &Request) -> Answer {
        call(&self.socket, request, PATIENCE).unwrap()
    }

    fn status(&self) -> Status {
        match self.ask(&Request::Status) {
            Answer::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Sends these bytes; what comes back.
    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

/// Status line and body of a response.
fn http(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert!(body.is_empty() || length.parse() == Ok(body.len()), "{response}");
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    http(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

/// Returns when `/health` begins with this status.
fn await_health(address: SocketAddr, code: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, body) = get(address, "/health");
        if status.contains(code) {
            return body;
        }
        assert!(Instant::now() < deadline, "{status}: {body}");
        std::thread::yield_now();
    }
}

#[test]
fn status_tells_clients_exports_and_procedures() {
    let rig = Rig::new(builder(&format!("{EXPORT}\n/y *(ro,no_subtree_check)")));
    let mut client = Client::connect(&rig.server);
    client.credential = OpaqueAuth::sys(&AuthSys::new("client", 0, 0));
    let root = client.mount("/x").unwrap();
    client.create(&root, "file");
    assert!(client.lookup(&root, "none").is_err());
    assert!(client.mount("/y").is_err(), "from a port that is not reserved");
    let status = rig.status();
    assert_eq!((status.node.as_str(), status.pid), ("node", std::process::id()));
    assert_eq!(status.listen, rig.server.local_addrs());
    assert_eq!(status.connections.open, 1);
    assert_eq!(status.port_refusals, 1);
    let verifier: String = rig.server.write_verf().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(status.write_verifier, verifier);
    let [seen] = &status.clients[..] else { panic!("{:?}", status.clients) };
    let port = client.stream.local_addr().unwrap().port();
    assert_eq!((seen.address.to_string(), &seen.other_ports[..]), ("127.0.0.1".to_owned(), &[port][..]));
    assert_eq!((seen.calls, status.calls), (4, 4));
    assert!(seen.request_bytes > 100 && seen.reply_bytes > 100 && seen.idle_secs.is_some());
    assert_eq!(seen.mounts, ["/x"]);
    let [x, y] = &status.exports[..] else { panic!("{:?}", status.exports) };
    assert_eq!((x.path.as_str(), x.calls, x.mounted_by, &x.unhealthy), ("/x", 2, 1, &None));
    assert_eq!(x.write_verifier, verifier);
    assert_eq!((y.path.as_str(), y.calls, y.mounted_by), ("/y", 0, 0));
    let lookup = status.procedures.iter().find(|row| row.procedure == "LOOKUP").unwrap();
    assert_eq!((lookup.calls, lookup.errors["NFS3ERR_NOENT"]), (1, 1));
    assert!(!status.procedures.iter().any(|row| row.procedure == "READ"), "nobody called it");
}

#[test]
fn exports_are_changed_through_the_socket() {
    let rig = Rig::new(builder(EXPORT));
    let changes = |request: Request| match rig.ask(&request) {
        Answer::Changes(changes) => (changes.exported.len(), changes.unexported.len()),
        other => panic!("{other:?}"),
    };
    let new = ":memory:/new".to_owned();
    assert_eq!(changes(Request::Export { place: new.clone(), options: "rw".into() }), (1, 0));
    let Answer::Exports(list) = rig.ask(&Request::Exports) else { panic!() };
    assert_eq!(list.iter().map(|line| line.path.as_str()).collect::<Vec<_>>(), ["memory:/new", "/x"]);
    assert_eq!(changes(Request::Reload { how: Reload::Add }), (0, 0));
    assert_eq!(changes(Request::Unexport { place: new.clone() }), (0, 1));
    let Answer::Error { usage: true, message } = rig.ask(&Request::Unexport { place: new }) else { panic!() };
    assert!(message.contains("memory:/new is not exported to *"), "{message}");
    assert_eq!(changes(Request::UnexportAll), (0, 1));
    assert_eq!(changes(Request::Reload { how: Reload::Exactly }), (1, 0));
}

#[test]
fn the_socket_is_for_its_owner_bounded_and_short() {
    let rig = Rig::new(builder(EXPORT));
    let mode = std::fs::metadata(&rig.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(rig.say(b"hello\n").contains("not a request this server knows"));
    assert!(rig.say(b"{\"command\":\"dance\"}\n").contains("not a request this server knows"));
    let long = rig.say(&vec![b'x'; 70 << 10]);
    assert!(long.is_empty() || long.contains("a line has over 65536 bytes"), "{long}");
    assert!(rig.say(b"{\"command\":\"health\"}\n").contains("\"healthy\":true"));
}

#[test]
fn what_a_dead_server_left_is_replaced_and_a_living_one_is_named() {
    let rig = Rig::new(builder(EXPORT));
    let error = builder(EXPORT).control(&rig.socket, true).start().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StartError::Attend(_)), "{error:?}");
    assert!(text.contains(&format!("running server (pid {} on ", std::process::id())), "{text}");
    assert!(builder(EXPORT).control(&rig.socket, false).start().is_ok(), "where it is not needed");
    assert!(matches!(rig.ask(&Request::Health), Answer::Health(_)), "it is still the first one's");
    let path = rig.socket.clone();
    drop(rig.server);
    assert!(matches!(call(&path, &Request::Health, PATIENCE), Err(CallError::NoServer { .. })));
    // As a server leaves it that is killed.
    drop(UnixListener::bind(&path).unwrap());
    let error = call(&path, &Request::Health, PATIENCE).unwrap_err().to_string();
    assert!(error.contains("no server answers at"), "{error}");
    let _second = builder(EXPORT).control(&path, true).start().unwrap();
    assert!(matches!(call(&path, &Request::Health, PATIENCE), Ok(Answer::Health(_))));
    let [file, lock, new] = ["file.sock", "node.lock", "node.new"].map(|name| path.with_file_name(name));
    for other in [lock, new] {
        assert!(!other.exists(), "{other:?} could be anybody's");
    }
    std::fs::write(&file, "precious").unwrap();
    assert!(builder(EXPORT).control(&file, true).start().is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_server_that_is_stopped_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.sock");
    // It accepts nobody, as a process that is stopped.
    let _silent = UnixListener::bind(&path).unwrap();
    let error = call(&path, &Request::Status, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, CallError::Silent { .. }), "{error}");
}

#[test]
fn one_server_a_node_name_and_state_directory() {
    let dir = tempfile::tempdir().unwrap();
    let start = |node: &str| builder(EXPORT).state_dir(dir.path()).node_name(node).exclusive().start();
    let first = start("a").unwrap();
    let error = start("a").unwrap_err().to_string();
    assert!(error.contains("a.lock is locked by a running server (pid "), "{error}");
    assert!(error.contains("choose another --node"), "{error}");
    assert!(start("b").is_ok());
    drop(first);
    assert!(start("a").is_ok());
}

#[test]
fn pages_are_told_over_http() {
    let local = "127.0.0.1:0".parse().unwrap();
    let rig = Rig::new(builder(EXPORT).metrics(local).health(local));
    let [all, health] = rig.server.page_addrs()[..] else { panic!() };
    let mut client = Client::connect(&rig.server);
    let root = client.mount("/x").unwrap();
    client.getattr(&root).unwrap();
    let (status, text) = get(all, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let getattr = "remoor_call_duration_seconds_count{program=\"NFS\",procedure=\"GETATTR\"} 1";
    assert!(text.contains(getattr), "{text}");
    // RPC version 3.
    client.write(&[0x80, 0, 0, 24, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    client.status();
    assert!(get(all, "/metrics").1.contains("remoor_refused_calls_total{reason=\"RPC_MISMATCH\"} 1"));
    let Answer::Metrics(same) = rig.ask(&Request::Metrics) else { panic!() };
    assert!(same.contains(getattr));
    assert_eq!(get(all, "/health?x").0, "HTTP/1.1 200 OK");
    assert_eq!(get(health, "/health").0, "HTTP/1.1 200 OK");
    assert_eq!(get(health, "/metrics").0, "HTTP/1.1 404 Not Found");
    let head = http(all, "HEAD /health HTTP/1.1\r\n\r\n");
    assert_eq!(head, ("HTTP/1.1 200 OK".to_owned(), String::new()));
    assert_eq!(http(all, "POST /health HTTP/1.1\r\n\r\n").0, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(http(all, "nonsense\r\n\r\n").0, "HTTP/1.1 400 Bad Request");
}

#[test]
fn a_server_is_not_healthy_while_a_file_system_is_silent() {
    let local = "127.0.0.1:0".parse().unwrap();
    let fault = Fault::new();
    let text = format!("{EXPORT}\n/well *(ro,no_subtree_check)");
    let exports = Exports::parse(Path::new("exports"), text.as_bytes()).unwrap();
    let builder = builder(&text).exports(exports).vfs("/x", fault.clone());
    let rig = Rig::new(builder.health(local).health_limit(Duration::from_millis(100)));
    let address = rig.server.page_addrs()[0];
    await_health(address, "200");
    fault.be_silent(true);
    let body = await_health(address, "503");
    assert!(body.contains("\"path\":\"/x\",\"healthy\":false"), "{body}");
    assert!(body.contains("its file system has not answered for "), "{body}");
    assert!(body.contains("\"path\":\"/well\",\"healthy\":true"), "{body}");
    let status = rig.status();
    let unhealthy = |path: &str| status.exports.iter().find(|e| e.path == path).unwrap().unhealthy.is_some();
    assert!(unhealthy("/x") && !unhealthy("/well"));
    fault.be_silent(false);
    await_health(address, "200");
}

#[test]
fn a_server_that_stops_is_not_healthy() {
    let local = "127.0.0.1:0".parse().unwrap();
    let fault = Fault::new();
    let rig = Rig::new(builder(EXPORT).vfs("/x", fault.clone()).health(local));
    let address = rig.server.page_addrs()[0];
    let mut client = Client::connect(&rig.server);
    let root = client.mount("/x").unwrap();
    let file = client.create(&root, "file");
    client.send::<v3::Read>(&v3::ReadArgs { file, offset: crate::fault::SLOW, count: 1 });
    fault.await_waiting(1);
    let Rig { server, _dir, .. } = rig;
    let stop = std::thread::spawn(move || server.stop());
    let body = await_health(address, "503");
    assert!(body.contains("\"stopping\":true"), "{body}");
    fault.let_go();
    assert!(stop.join().unwrap());
    assert!(TcpStream::connect(address).is_err());
}
