//! An application of libnfs behind a proxy that loses replies with a RST.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use remoor_nfs::replay::is_kept;
use remoor_rpc::message::{Message, peek_xid};
use remoor_rpc::record::RecordReader;
use socket2::SockRef;

use crate::client::{Client, address, memory, skip};

/// What the proxy has seen of the calls whose replies it loses: each the first time it comes.
#[derive(Default)]
struct Lost {
    /// Calls whose reply is to be lost.
    marked: BTreeSet<u32>,
    /// Calls whose reply was lost.
    lost: BTreeSet<u32>,
}

/// Passes records on to the server, and resets both connections instead of the first reply to each call that must not be
/// executed twice.
struct Proxy {
    address: SocketAddr,
    lost: Arc<Mutex<Lost>>,
}

impl Proxy {
    fn new(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lost = Arc::new(Mutex::new(Lost::default()));
        let proxy = Self { address: listener.local_addr().unwrap(), lost: lost.clone() };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(server).unwrap();
                pass(&client, &server, &lost);
            }
        });
        proxy
    }
}

fn pass(client: &TcpStream, server: &TcpStream, lost: &Arc<Mutex<Lost>>) {
    let copies = |stream: &TcpStream| stream.try_clone().unwrap();
    let (from, to, marks) = (copies(client), copies(server), lost.clone());
    thread::spawn(move || each_record(&from, &to, |record| mark(&marks, record)));
    let (from, to, lost) = (copies(server), copies(client), lost.clone());
    thread::spawn(move || each_record(&from, &to, |record| lose(&lost, record)));
}

/// Notes a call whose reply is to be lost; false, because every call is passed on.
fn mark(lost: &Mutex<Lost>, record: &[u8]) -> bool {
    let Ok(Message::Call(call)) = Message::decode(record.to_vec().into()) else { return false };
    let mut lost = lost.lock().unwrap();
    let header = &call.header;
    if is_kept(header.program, header.version, header.procedure) && !lost.lost.contains(&call.xid) {
        lost.marked.insert(call.xid);
    }
    false
}

/// Whether this reply is to be lost.
fn lose(lost: &Mutex<Lost>, record: &[u8]) -> bool {
    let mut lost = lost.lock().unwrap();
    let xid = peek_xid(record).unwrap();
    lost.marked.remove(&xid) && lost.lost.insert(xid)
}

/// Passes records on until one is to be lost or a side ends.
fn each_record(mut from: &TcpStream, mut to: &TcpStream, lose: impl Fn(&[u8]) -> bool) {
    let (mut reader, mut buffer) = (RecordReader::new(4 << 20), vec![0; 65536]);
    loop {
        let n = from.read(&mut buffer).unwrap_or(0);
        reader.push(&buffer[..n]);
        while let Some(record) = reader.next_record().unwrap() {
            if lose(&record) {
                return reset(from, to);
            }
            let mark = 1 << 31 | record.len() as u32;
            if to.write_all(&[&mark.to_be_bytes()[..], &record].concat()).is_err() {
                return;
            }
        }
        if n == 0 {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}

/// Both ends get a RST, however many descriptors there are.
fn reset(server: &TcpStream, client: &TcpStream) {
    for stream in [server, client] {
        let socket = SockRef::from(stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        let _ = rustix::net::connect_unspec(stream);
    }
}

/// Compiles the application; `None`, loudly, without a compiler or libnfs.
fn application(dir: &Path) -> Option<std::path::PathBuf> {
    let program = dir.join("lossy");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/lossy.c");
    let compiled = Command::new("cc").arg(source).arg("-o").arg(&program).arg("-lnfs").output();
    match compiled {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) if !Path::new("/usr/include/nfsc/libnfs.h").exists() => {
            let why = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_string();
            skip("an application of libnfs", format!("{why}; package libnfs-dev may be missing"));
            None
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(e) => {
            skip("an application of libnfs", format!("cc cannot be run: {e}; package gcc may be missing"));
            None
        }
    }
}

#[test]
fn an_application_of_libnfs_sees_no_false_error_though_every_first_reply_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = application(dir.path()) else { return };
    let server = memory();
    let proxy = Proxy::new(address(&server));
    let port = proxy.address.port();
    let url = format!("nfs://127.0.0.1/x?nfsport={port}&mountport={port}&version=3&uid=0&gid=0");
    let output = Command::new("timeout").arg("60").arg(program).arg(url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lost = proxy.lost.lock().unwrap().lost.len() as u64;
    let replays = server.counters().replays;
    assert!(lost >= 9, "only {lost} replies were lost");
    assert!(replays.hits() >= lost, "{replays:?}");
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    assert!(client.lookup(&root, "dir").is_err(), "it was removed at the end");
}
