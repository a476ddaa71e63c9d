//! `remoor serve` as its users have it: a process with a command line, a log, signals and an exit code.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is missing")]

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use remoor_nfs::v3::{self, FileHandle};
use remoor_nfs::{mnt, mnt::Mnt};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{Message, encode_call};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::RecordReader;
use remoor_rpc::xdr::Xdr;
use remoor_skip::skip;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::process::{kill_process, pidfd_open, pidfd_send_signal, waitpid};
use rustix::time::{ClockId, clock_gettime};
use socket2::Socket;
use tempfile::TempDir;

/// No test waits longer than this; it is far above what any needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Far more than a server may miss to be seen as running all the time.
const LONG: Duration = Duration::from_millis(1100);

/// A command line after `remoor serve`, with the limit of open files that many systems start programs with, or less.
fn serve(args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -Sn 256 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_remoor"), "serve"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.env("RUST_LOG", "debug").env("NO_COLOR", "1");
    command
}

/// A server of `export` in a directory of its own, on a port of its own.
struct Server {
    child: Child,
    log: Receiver<String>,
    address: SocketAddr,
    dir: TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let export = dir.path().canonicalize().unwrap().join("export");
        fs::create_dir(&export).unwrap();
        let exported = format!("{}:rw,insecure,no_root_squash", export.display());
        let state = dir.path().join("state");
        Self::of(dir, &["--export", &exported, "--state", state.to_str().unwrap()])
    }

    /// A server with these arguments.
    fn of(dir: TempDir, args: &[&str]) -> Self {
        let args = [&["--listen", "127.0.0.1:0", "--control", "none"], args].concat();
        let mut child = serve(&args).stderr(Stdio::piped()).spawn().unwrap();
        let log = lines(child.stderr.take().unwrap());
        let line = await_line(&log, "listening on ");
        let address = line.split("listening on ").nth(1).unwrap().split(' ').next().unwrap();
        Self { address: address.parse().unwrap(), child, log, dir }
    }

    fn export(&self) -> String {
        self.dir.path().canonicalize().unwrap().join("export").to_str().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns when every thread has stopped.
    fn stop(&self) {
        self.signal(Signal::STOP);
        let pid = Some(Pid::from_child(&self.child));
        let (_, status) = waitpid(pid, WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped());
    }

    /// Returns when this many bytes from `client` wait for the server to read them.
    fn await_queued(&self, client: SocketAddr, bytes: usize) {
        let deadline = Instant::now() + PATIENCE;
        while queued(self.address.port(), client.port()) != Some(bytes) {
            assert!(Instant::now() < deadline, "{:?}", queued(self.address.port(), client.port()));
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a log, as they come.
fn lines(log: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(log).lines().map_while(Result::ok);
        lines.map_while(|line| sender.send(line).ok()).for_each(drop);
    });
    lines
}

fn await_line(log: &Receiver<String>, text: &str) -> String {
    let next = || log.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no line with {text:?}: {e}"));
    std::iter::repeat_with(next).find(|line| line.contains(text)).unwrap()
}

/// Returns when the log says that the connection of `client` is gone, for whatever reason.
fn await_end(log: &Receiver<String>, client: SocketAddr) {
    while !await_line(log, &format!("client={client}")).contains("connection ") {}
}

/// Time since the host's boot, as the server counts it.
fn boottime() -> Duration {
    clock_gettime(ClockId::Boottime).try_into().unwrap()
}

/// Returns at this time: what is tested is what the server makes of it.
fn await_boottime(until: Duration) {
    while let Some(left) = until.checked_sub(boottime()).filter(|left| !left.is_zero()) {
        std::thread::sleep(left);
    }
}

/// Bytes in the receive queue of the socket between these ports of loopback (proc_net_tcp(5)).
fn queued(local: u16, remote: u16) -> Option<usize> {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = fields[1].ends_with(&local) && fields[2].ends_with(&remote);
        ours.then(|| usize::from_str_radix(fields[4].split_once(':')?.1, 16).ok())?
    })
}

/// A connection that sends exactly what a test says.
struct Client {
    stream: TcpStream,
    xid: u32,
    user: AuthSys,
}

impl Client {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, xid: 0, user: AuthSys::new("client", 0, 0) }
    }

    fn encode<P: Procedure>(&mut self, args: &P::Args) -> Vec<u8> {
        self.xid += 1;
        let credential = OpaqueAuth::sys(&self.user);
        encode_call::<P>(self.xid, &credential, args).segments().concat()
    }

    fn call<P: Procedure>(&mut self, args: &P::Args) -> P::Res {
        let record = self.encode::<P>(args);
        self.stream.write_all(&record).unwrap();
        let mut reader = RecordReader::new(1 << 20);
        let record = loop {
            if let Some(record) = reader.next_record().unwrap() {
                break record;
            }
            let mut bytes = [0; 4096];
            let n = self.stream.read(&mut bytes).unwrap();
            assert_ne!(n, 0, "the server closed the connection");
            reader.push(&bytes[..n]);
        };
        let Message::Reply(mut reply) = Message::decode(record).unwrap() else { panic!("a call") };
        P::Res::decode(&mut reply.result).unwrap()
    }

    fn mount(&mut self, path: &str) -> FileHandle {
        let mnt::MountRes(mounted) = self.call::<Mnt>(&path.into());
        mounted.unwrap().handle
    }

    /// Ends the connection with a RST.
    fn reset(self) {
        Socket::from(self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn create(dir: &FileHandle, name: &str) -> v3::CreateArgs {
    let how = v3::CreateHow::Guarded(v3::Sattr { mode: Some(0o644), ..Default::default() });
    v3::CreateArgs { place: place(dir, name), how }
}

fn place(dir: &FileHandle, name: &str) -> v3::DirOp {
    v3::DirOp { dir: dir.clone(), name: name.into() }
}

fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Calls that the client has sent again elsewhere by the time the server goes on.
#[test]
fn a_server_that_was_stopped_executes_no_call_of_a_connection_that_was_reset() {
    let server = Server::start();
    let kept: Vec<String> = (0..60).map(|n| format!("keep-{n:02}")).collect();
    kept.iter().for_each(|name| fs::write(Path::new(&server.export()).join(name), "kept").unwrap());
    let mut client = Client::connect(&server);
    let root = client.mount(&server.export());
    let address = client.stream.local_addr().unwrap();
    server.stop();
    let mut calls = Vec::new();
    for name in &kept {
        calls.extend(client.encode::<v3::Remove>(&place(&root, name)));
        calls.extend(client.encode::<v3::Create>(&create(&root, &name.replace("keep", "new"))));
    }
    client.stream.write_all(&calls).unwrap();
    server.await_queued(address, calls.len());
    client.reset();
    server.signal(Signal::CONT);
    await_end(&server.log, address);
    assert_eq!(names(&server.export()), kept);
    // It serves on, and would show what a worker still did meanwhile.
    let mut client = Client::connect(&server);
    let root = client.mount(&server.export());
    assert!(client.call::<v3::Create>(&create(&root, "zz")).into_result().is_ok());
    assert_eq!(names(&server.export()).len(), kept.len() + 1);
}

/// What the client does to its connection while the server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// Nothing that reaches the server: a balancer may have taken the client elsewhere.
    Silent,
    /// It ends its side.
    Ends,
    /// It has just made the connection, which nobody has accepted yet.
    Connects,
}

/// Stopped for so long that another node may have taken over, and none of it shows on the connection.
fn is_reset_unexecuted_after_a_long_stop(meanwhile: Meanwhile) {
    let server = Server::start();
    let kept: Vec<String> = (0..60).map(|n| format!("keep-{n:02}")).collect();
    kept.iter().for_each(|name| fs::write(Path::new(&server.export()).join(name), "kept").unwrap());
    let mut client = Client::connect(&server);
    let root = client.mount(&server.export());
    server.stop();
    let stopped = boottime();
    if meanwhile == Meanwhile::Connects {
        client = Client::connect(&server);
    }
    let mut calls = Vec::new();
    for name in &kept {
        calls.extend(client.encode::<v3::Remove>(&place(&root, name)));
        calls.extend(client.encode::<v3::Create>(&create(&root, &name.replace("keep", "new"))));
    }
    client.stream.write_all(&calls).unwrap();
    let address = client.stream.local_addr().unwrap();
    server.await_queued(address, calls.len());
    if meanwhile == Meanwhile::Ends {
        client.stream.shutdown(Shutdown::Write).unwrap();
        // The end counts as a byte (`tcp4_seq_show`: rcv_nxt - copied_seq).
        server.await_queued(address, calls.len() + 1);
    }
    await_boottime(stopped + LONG);
    server.signal(Signal::CONT);
    let read = client.stream.read(&mut [0]);
    assert_eq!(read.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "{meanwhile:?}");
    // At once, and a worker that still did something would show by what it did.
    let mut client = Client::connect(&server);
    let root = client.mount(&server.export());
    assert_eq!(names(&server.export()), kept, "{meanwhile:?}");
    assert!(client.call::<v3::Create>(&create(&root, "zz")).into_result().is_ok());
    server.signal(Signal::TERM);
    let told =
        await_line(&server.log, " s: connections are reset so that calls queued meanwhile are not executed");
    assert!(told.contains("WARN"), "{told}");
    let rest: Vec<String> = server.log.iter().collect();
    assert!(rest.iter().any(|line| line.contains("stopped; every call")), "{rest:?}");
    assert!(!rest.iter().any(|line| line.contains("the server was not running for")), "told twice: {rest:?}");
    assert_eq!(names(&server.export()).len(), kept.len() + 1, "{meanwhile:?}");
}

#[test]
fn after_a_long_stop_no_call_of_a_connection_that_looks_well_is_executed() {
    is_reset_unexecuted_after_a_long_stop(Meanwhile::Silent);
}

#[test]
fn after_a_long_stop_no_call_of_a_connection_that_has_ended_is_executed() {
    is_reset_unexecuted_after_a_long_stop(Meanwhile::Ends);
}

#[test]
fn after_a_long_stop_no_call_of_a_connection_that_waited_to_be_accepted_is_executed() {
    is_reset_unexecuted_after_a_long_stop(Meanwhile::Connects);
}

#[test]
fn of_the_calls_at_work_when_a_server_is_stopped_only_those_that_had_begun_are_executed() {
    only_what_had_begun_is_executed(|client| {
        client.reset();
        None
    });
}

#[test]
fn of_the_calls_at_work_at_a_long_stop_only_those_that_had_begun_are_executed() {
    only_what_had_begun_is_executed(|client| {
        await_boottime(boottime() + LONG);
        // Still open: nothing but the server's clock tells it.
        Some(client)
    });
}

/// Calls execute and wait at the moment of the stop: only those that execute may end.
fn only_what_had_begun_is_executed(meanwhile: fn(Client) -> Option<Client>) {
    /// `Limits::running_per_connection`.
    const RUNNING: usize = 8;
    let server = Server::start();
    let mut client = Client::connect(&server);
    let root = client.mount(&server.export());
    let address = client.stream.local_addr().unwrap();
    let calls: Vec<u8> =
        (0..120).flat_map(|n| client.encode::<v3::Create>(&create(&root, &format!("new-{n}")))).collect();
    client.stream.write_all(&calls).unwrap();
    client.stream.read_exact(&mut [0]).unwrap();
    server.stop();
    let before = names(&server.export()).len();
    let _open = meanwhile(client);
    server.signal(Signal::CONT);
    await_end(&server.log, address);
    // Its workers end what they had begun before they are gone.
    server.signal(Signal::TERM);
    await_line(&server.log, "stopped; every call");
    let after = names(&server.export()).len();
    assert!(after <= before + RUNNING, "{before} files were made before the stop and {after} after it");
}

/// A server that a shell started with PR_SET_PDEATHSIG, and that must not outlive the test either.
struct Orphan(OwnedFd);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// As the drill starts its servers, and service managers may.
#[test]
fn a_server_that_is_to_end_with_its_parent_does() {
    let dir = tempfile::tempdir().unwrap();
    let [export, state] = ["export", "state"].map(|name| dir.path().join(name));
    fs::create_dir(&export).unwrap();
    let script = r#"setpriv --pdeathsig KILL "$@" >&2 & echo $! && wait"#;
    let mut parent = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_remoor"), "serve", "--listen", "127.0.0.1:0"])
        .args(["--control", "none"])
        .args(["--export".as_ref(), export.as_os_str(), "--state".as_ref(), state.as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let server = Orphan(pidfd_open(pid, PidfdFlags::empty()).unwrap());
    let log = lines(parent.stderr.take().unwrap());
    await_line(&log, "listening on ");
    parent.kill().unwrap();
    parent.wait().unwrap();
    let mut ended = [PollFd::new(&server.0, PollFlags::IN)];
    assert_eq!(poll(&mut ended, Some(&PATIENCE.try_into().unwrap())), Ok(1), "it outlives its parent");
}

#[test]
fn sighup_reads_the_exports_again_or_leaves_them_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("exports");
    let state = dir.path().join("state");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("memory:/a *(rw,insecure,no_subtree_check)\n");
    let server = Server::of(dir, &["--exports", file.to_str().unwrap(), "--state", state.to_str().unwrap()]);
    let mut client = Client::connect(&server);
    let a = client.mount("/a");
    let on_file = || v3::OnFile { file: a.clone() };
    write("memory:/b *(ro,insecure,no_subtree_check)\nmemory:/c *(rw,insecur)\n");
    server.signal(Signal::HUP);
    let told = await_line(&server.log, "exports stay as they were");
    assert!(told.contains("exports:2: unknown option \"insecur\""), "{told}");
    assert!(client.call::<v3::Getattr>(&on_file()).into_result().is_ok());
    write("memory:/b *(ro,insecure,no_subtree_check)\n");
    server.signal(Signal::HUP);
    await_line(&server.log, "exports changed");
    client.mount("/b");
    assert_eq!(client.call::<v3::Getattr>(&on_file()).status(), v3::NfsStat::Stale);
}

/// User 1 (daemon on Debian, bin elsewhere) and its group; the client tells another group.
#[test]
fn groups_are_taken_from_the_server_if_it_is_told_so() {
    const OTHER: u32 = 65_534;
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let user = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|user| user[2] == "1");
    let Some(group) = user.map(|user| user[3].parse().unwrap()).filter(|group| *group != OTHER) else {
        return skip("groups_are_taken_from_the_server", "there is no user 1");
    };
    if !rustix::process::geteuid().is_root() {
        return skip("groups_are_taken_from_the_server", "only root serves users by their groups");
    }
    for (options, may_read) in [(&[][..], 0), (&["--manage-gids"][..], v3::access::READ)] {
        let dir = tempfile::tempdir().unwrap();
        let export = dir.path().canonicalize().unwrap().join("export");
        fs::create_dir(&export).unwrap();
        fs::write(export.join("file"), "for the group").unwrap();
        fs::set_permissions(export.join("file"), fs::Permissions::from_mode(0o040)).unwrap();
        std::os::unix::fs::chown(export.join("file"), None, Some(group)).unwrap();
        let (exported, state) = (format!("{}:rw,insecure", export.display()), dir.path().join("state"));
        let arguments = ["--export", &exported, "--state", state.to_str().unwrap()];
        let server = Server::of(dir, &[&arguments, options].concat());
        let mut client = Client::connect(&server);
        client.user = AuthSys::new("client", 1, OTHER);
        let root = client.mount(&server.export());
        let file = client.call::<v3::Lookup>(&place(&root, "file")).into_result().unwrap().file;
        let args = v3::AccessArgs { file, access: v3::access::READ };
        let granted = client.call::<v3::Access>(&args).into_result().unwrap().access;
        assert_eq!(granted, may_read, "{options:?}");
    }
}

fn failed(args: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = serve(args).env("RUST_LOG", "off").output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn what_cannot_be_served_is_told_once_with_the_documented_code() {
    let dir = tempfile::tempdir().unwrap();
    let in_dir = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, state, missing) = (in_dir("exports"), in_dir("state"), in_dir("missing"));
    fs::write(&file, "# a comment\n/srv *(ro)\n/srv/x 192.0.2.0/24(rw,insecur)\n").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let below_file = format!("{file}/state");
    let cases: [(i32, &[&str], &str); 7] = [
        (2, &["--exports", &file], "exports:3: unknown option \"insecur\"; did you mean \"insecure\"?"),
        (2, &["--exports", &missing], "missing: cannot read exports: No such file or directory"),
        (2, &["--export", &missing, "--state", &state], "missing\": No such file or directory"),
        (2, &["--export", "memory:/x", "--node", "a/b", "--state", &state], "node name \"a/b\": use letters"),
        (3, &["--export", "memory:/x", "--state", &below_file], "cannot make the state directory"),
        (3, &["--export", "memory:/x", "--state", "/proc"], "choose a --state that user "),
        (
            3,
            &["--export", "memory:/x", "--listen", &address, "--state", &state],
            "cannot listen on 127.0.0.1:",
        ),
    ];
    for (code, args, text) in cases {
        let (status, stderr) = failed(args);
        assert_eq!(status, code, "{args:?}: {stderr}");
        assert!(stderr.contains(text) && stderr.lines().count() == 1, "{args:?}: {stderr}");
        assert!(stderr.matches("(os error").count() <= 1, "the cause is told twice: {stderr}");
    }
}

#[test]
fn the_limit_of_open_files_is_raised() {
    let server = Server::start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = [3, 4].map(|n| line.split_whitespace().nth(n).unwrap());
    assert_eq!(soft, hard, "{line}");
}

/// Permission bits.
fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_state_directory_is_the_servers_alone_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("above/state");
    let script = "umask 0 && exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_remoor"), "serve", "--export", "memory:/x"]);
    command.args(["--listen", "127.0.0.1:0", "--control", "none", "--state"]).arg(&state);
    let mut child = command.env("RUST_LOG", "info").stderr(Stdio::piped()).spawn().unwrap();
    await_line(&lines(child.stderr.take().unwrap()), "listening on ");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((mode(&state), mode(state.parent().unwrap())), (0o700, 0o755));
}

#[test]
fn nothing_is_made_in_an_export_that_the_state_directory_would_lie_in() {
    let dir = tempfile::tempdir().unwrap();
    let export = dir.path().join("export");
    fs::create_dir(&export).unwrap();
    std::os::unix::fs::symlink("export", dir.path().join("link")).unwrap();
    for (exported, state) in [("export", "export/a/state"), ("link", "export/state"), ("export", "link")] {
        let [exported, state] = [exported, state].map(|name| dir.path().join(name));
        let args = ["--export", exported.to_str().unwrap(), "--state", state.to_str().unwrap()];
        let (code, stderr) = failed(&args);
        assert!(code == 2 && stderr.contains("lies in the export"), "{args:?}: {code} {stderr}");
        assert_eq!(fs::read_dir(&export).unwrap().count(), 0, "{args:?}");
    }
}
