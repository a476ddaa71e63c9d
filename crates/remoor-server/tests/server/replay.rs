//! The same call sent twice: which connection it comes on the second time, and how the first one ended.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use remoor_nfs::replay::Config;
use remoor_nfs::v3::{self, CreateHow, FileHandle, NfsStat, Sattr};
use remoor_rpc::message::{ReplyStatus, encode_call};
use remoor_rpc::net::{can_leave_silently, drop_silently};
use remoor_rpc::program::Procedure;
use remoor_server::Running;
use socket2::{Domain, SockRef, Socket, Type};

use crate::client::{Client, address, builder, memory, place, skip};
use crate::proxy::relayed;

/// Everything of a procedure that a test sends twice: the bytes, and what executing them again gives.
struct Twice {
    name: &'static str,
    bytes: Vec<u8>,
    again: NfsStat,
}

const XID: u32 = 0x0052_4d52;
/// Procedures of NFS whose second execution gives another result.
const MUST_NOT_RUN_TWICE: usize = 9;

fn twice<P: Procedure>(client: &Client, args: &P::Args, again: NfsStat) -> Twice {
    let bytes = encode_call::<P>(XID, &client.credential, args).segments().concat();
    Twice { name: P::NAME, bytes, again }
}

/// One call of each procedure that must not be executed twice, with what it needs in place.
fn calls(client: &mut Client, root: &FileHandle, n: usize) -> Vec<Twice> {
    let name = |what: &str| format!("{what}-{n}");
    let (gone, old, linked) = (name("gone"), name("old"), name("linked"));
    let dir = name("dir");
    client.create(root, &gone);
    client.create(root, &old);
    let file = client.create(root, &linked);
    client.call::<v3::Mkdir>(&v3::MkdirArgs { place: place(root, &dir), attr: Sattr::default() });
    let guarded = client.create(root, &name("guarded"));
    let guard = Some(client.getattr(&guarded).unwrap().ctime);
    let attr = Sattr { mode: Some(0o600), ..Sattr::default() };
    let how = CreateHow::Guarded(Sattr::default());
    let link = v3::LinkArgs { file, to: place(root, &name("link")) };
    let rename = v3::RenameArgs { from: place(root, &old), to: place(root, &name("new")) };
    let symlink =
        v3::SymlinkArgs { place: place(root, &name("symlink")), attr: Sattr::default(), path: "x".into() };
    let what = v3::MknodData::Fifo(Sattr::default());
    let mknod = v3::MknodArgs { place: place(root, &name("fifo")), what };
    let mkdir = v3::MkdirArgs { place: place(root, &name("made")), attr: Sattr::default() };
    vec![
        twice::<v3::Remove>(client, &place(root, &gone), NfsStat::NoEnt),
        twice::<v3::Rmdir>(client, &place(root, &dir), NfsStat::NoEnt),
        twice::<v3::Mkdir>(client, &mkdir, NfsStat::Exist),
        twice::<v3::Create>(
            client,
            &v3::CreateArgs { place: place(root, &name("created")), how },
            NfsStat::Exist,
        ),
        twice::<v3::Rename>(client, &rename, NfsStat::NoEnt),
        twice::<v3::Link>(client, &link, NfsStat::Exist),
        twice::<v3::Mknod>(client, &mknod, NfsStat::Exist),
        twice::<v3::Symlink>(client, &symlink, NfsStat::Exist),
        twice::<v3::Setattr>(client, &v3::SetattrArgs { file: guarded, attr, guard }, NfsStat::NotSync),
    ]
}

/// A connection from this port, or from any.
fn connect(server: &Running, port: u16) -> Client {
    let socket = bound(port);
    socket.connect(&address(server).into()).unwrap();
    Client::over(socket.into())
}

fn bound(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    socket
}

/// A port that the kernel gives to nobody else, also while no client is connected from it: a socket that is bound and never
/// used keeps it (`inet_csk_find_open_port`), and with SO_REUSEADDR clients bind it all the same.
struct Port(Socket);

impl Port {
    fn reserve() -> Self {
        Self(bound(0))
    }

    fn number(&self) -> u16 {
        self.0.local_addr().unwrap().as_socket().unwrap().port()
    }
}

/// The status of the procedure, which is the first word of its result.
fn status(client: &mut Client) -> NfsStat {
    let mut reply = client.reply().unwrap();
    assert_eq!((reply.xid, reply.status), (XID, ReplyStatus::Success));
    remoor_rpc::xdr::Xdr::decode(&mut reply.result).unwrap()
}

fn send(client: &mut Client, call: &Twice) -> NfsStat {
    client.write(&call.bytes);
    status(client)
}

fn reset(client: &Client) {
    SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Sends every call twice: `second` makes the connection for the second time of the first one, which it may end.
fn each(
    second: impl Fn(&Running, Client, u16) -> (Option<Client>, Client),
    expected: impl Fn(&Twice) -> NfsStat,
) {
    let server = memory();
    let mut setup = Client::connect(&server);
    let root = setup.mount("/x").unwrap();
    for call in calls(&mut setup, &root, 0) {
        let port = Port::reserve();
        let mut first = connect(&server, port.number());
        assert_eq!(send(&mut first, &call), NfsStat::Ok, "{}", call.name);
        let (_open, mut again) = second(&server, first, port.number());
        assert_eq!(send(&mut again, &call), expected(&call), "{}", call.name);
    }
}

/// Every procedure that must not be executed twice comes again on the same connection, and after a reset on a new one, from the
/// same port and from a fresh one.
#[test]
fn a_call_that_comes_again_is_answered_wherever_it_comes_from() {
    let server = memory();
    let mut setup = Client::connect(&server);
    let root = setup.mount("/x").unwrap();
    for (n, from) in ["same connection", "same port", "fresh port"].into_iter().enumerate() {
        let calls = calls(&mut setup, &root, n);
        assert_eq!(calls.len(), MUST_NOT_RUN_TWICE);
        for call in calls {
            let port = Port::reserve();
            let mut first = connect(&server, port.number());
            assert_eq!(send(&mut first, &call), NfsStat::Ok, "{}", call.name);
            let again = match from {
                "same connection" => send(&mut first, &call),
                _ => {
                    reset(&first);
                    drop(first);
                    let port = if from == "same port" { port.number() } else { 0 };
                    send(&mut connect(&server, port), &call)
                }
            };
            assert_eq!(again, NfsStat::Ok, "{} on the {from}", call.name);
        }
    }
    let replays = server.counters().replays;
    let hits = (replays.same_connection, replays.same_port, replays.other_port, replays.inferred);
    let of_each = MUST_NOT_RUN_TWICE as u64;
    assert_eq!(hits, (of_each, of_each, of_each, 0));
}

#[test]
fn a_live_client_with_the_same_xid_and_bytes_is_executed() {
    let server = memory();
    let mut setup = Client::connect(&server);
    let root = setup.mount("/x").unwrap();
    let calls = calls(&mut setup, &root, 0);
    let mut first: Vec<Client> = calls.iter().map(|_| connect(&server, 0)).collect();
    for (client, call) in first.iter_mut().zip(&calls) {
        assert_eq!(send(client, call), NfsStat::Ok, "{}", call.name);
    }
    let mut second: Vec<Client> = calls.iter().map(|_| connect(&server, 0)).collect();
    second.iter_mut().zip(&calls).for_each(|(client, call)| client.write(&call.bytes));
    for (client, call) in second.iter_mut().zip(&calls) {
        assert_eq!(status(client), call.again, "{}", call.name);
    }
}

#[test]
fn after_a_clean_close_the_same_xid_and_bytes_are_new_work() {
    let second = |server: &Running, first: Client, _: u16| {
        drop(first);
        (None, connect(server, 0))
    };
    each(second, |call| call.again);
}

/// A connection whose client has stopped reading: nothing that follows is acknowledged.
fn choked(server: &Running, port: u16, file: &FileHandle) -> Client {
    let socket = bound(port);
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address(server).into()).unwrap();
    let mut client = Client::over(TcpStream::from(socket));
    (0..4).for_each(|_| {
        client.send::<v3::Read>(&v3::ReadArgs { file: file.clone(), offset: 0, count: 1 << 20 });
    });
    client
}

fn executed(server: &Running, procedure: &str) -> u64 {
    let calls = server.counters().calls;
    calls.iter().find(|row| row.procedure == procedure).unwrap().calls
}

fn await_count(reached: impl Fn() -> bool) {
    while !reached() {
        std::thread::yield_now();
    }
}

#[test]
fn a_call_waits_while_its_reply_is_not_acknowledged_elsewhere() {
    let server = memory();
    let mut setup = Client::connect(&server);
    let root = setup.mount("/x").unwrap();
    let file = setup.create(&root, "large");
    setup.write_at(&file, 0, &vec![7; 1 << 20]);
    for (n, broken) in [(0, true), (1, false)] {
        for call in calls(&mut setup, &root, n).into_iter().take(2) {
            let before = executed(&server, call.name);
            let mut first = choked(&server, 0, &file);
            first.write(&call.bytes);
            await_count(|| executed(&server, call.name) > before);
            let held = server.counters().replays.held;
            let mut second = connect(&server, 0);
            second.write(&call.bytes);
            await_count(|| server.counters().replays.held > held);
            if broken {
                reset(&first);
                drop(first);
                assert_eq!(status(&mut second), NfsStat::Ok, "{}", call.name);
            } else {
                // Calls of one connection execute side by side: the reply may come before those to the READs.
                let replies: Vec<_> = (0..5).map(|_| first.reply().unwrap()).collect();
                assert!(replies.iter().all(|reply| reply.status == ReplyStatus::Success));
                assert!(replies.iter().any(|reply| reply.xid == XID), "{}", call.name);
                assert_eq!(status(&mut second), call.again, "{}", call.name);
            }
        }
    }
}

/// The client is gone without a packet, with the reply unacknowledged: the server's kernel finds out when it asks again.
#[test]
fn a_client_that_vanished_is_answered_from_any_port() {
    if let Err(e) = can_leave_silently() {
        return skip("calls of a client that vanished", e);
    }
    let server = memory();
    let mut setup = Client::connect(&server);
    let root = setup.mount("/x").unwrap();
    let file = setup.create(&root, "large");
    setup.write_at(&file, 0, &vec![7; 1 << 20]);
    for (n, same) in [(0, false), (1, true)] {
        for call in calls(&mut setup, &root, n) {
            let before = executed(&server, call.name);
            let port = Port::reserve();
            let mut first = choked(&server, port.number(), &file);
            first.write(&call.bytes);
            await_count(|| executed(&server, call.name) > before);
            drop_silently(&first.stream).unwrap();
            drop(first);
            let from = if same { port.number() } else { 0 };
            assert_eq!(send(&mut connect(&server, from), &call), NfsStat::Ok, "{}", call.name);
        }
    }
}

/// The client is gone without a packet after its TCP acknowledged the reply, as when its host crashed: a probe tells.
#[test]
fn a_client_that_vanished_after_its_reply_was_acknowledged_is_answered() {
    if let Err(e) = can_leave_silently() {
        return skip("calls of a client that vanished after an acknowledgement", e);
    }
    let server = memory();
    let mut setup = Client::connect(&server);
    let root = setup.mount("/x").unwrap();
    let calls = calls(&mut setup, &root, 0);
    let first: Vec<Client> = calls
        .iter()
        .map(|call| {
            let mut first = connect(&server, 0);
            assert_eq!(send(&mut first, call), NfsStat::Ok, "{}", call.name);
            first
        })
        .collect();
    for client in first {
        drop_silently(&client.stream).unwrap();
    }
    let mut second: Vec<Client> = calls.iter().map(|_| connect(&server, 0)).collect();
    second.iter_mut().zip(&calls).for_each(|(client, call)| client.write(&call.bytes));
    for (client, call) in second.iter_mut().zip(&calls) {
        assert_eq!(status(client), NfsStat::Ok, "{}", call.name);
    }
    assert_eq!(server.counters().replays.hits(), calls.len() as u64);
}

/// What a relay has acknowledged its client may not have: only the end of its connection tells.
#[test]
fn an_acknowledgement_of_a_relay_is_not_its_clients() {
    let exports = "/x 192.0.2.7(rw,insecure,no_root_squash)";
    let server = builder(exports).proxy_from(["127.0.0.0/8".parse().unwrap()]).start().unwrap();
    let relayed = |port| relayed(&server, [192, 0, 2, 7], port);
    let mut setup = relayed(700);
    let root = setup.mount("/x").unwrap();
    for (call, again) in calls(&mut setup, &root, 0).into_iter().zip(1000..) {
        let mut first = relayed(again);
        assert_eq!(send(&mut first, &call), NfsStat::Ok, "{}", call.name);
        let held = server.counters().replays.held;
        let mut second = relayed(again + 1000);
        second.write(&call.bytes);
        await_count(|| server.counters().replays.held > held);
        // The first lives, and its relay acknowledges, for longer than a client without a relay is given.
        let before = Instant::now();
        while before.elapsed() < 2 * Config::default().grace {
            first.call::<v3::Null>(&());
        }
        assert_eq!(server.counters().replays.told_apart, 0);
        reset(&first);
        drop(first);
        assert_eq!(status(&mut second), NfsStat::Ok, "{}", call.name);
    }
}

/// A late WRITE does not undo a later one.
#[test]
fn a_write_that_comes_again_does_not_undo_a_later_one() {
    let server = memory();
    let mut setup = Client::connect(&server);
    let root = setup.mount("/x").unwrap();
    let file = setup.create(&root, "file");
    let args = v3::WriteArgs {
        file: file.clone(),
        offset: 0,
        count: 3,
        stable: v3::StableHow::FileSync,
        data: remoor_rpc::Bytes::from_static(b"old").into(),
    };
    let call = twice::<v3::Write>(&setup, &args, NfsStat::Ok);
    let mut first = connect(&server, 0);
    assert_eq!(send(&mut first, &call), NfsStat::Ok);
    reset(&first);
    drop(first);
    setup.write_at(&file, 0, b"new");
    assert_eq!(send(&mut connect(&server, 0), &call), NfsStat::Ok);
    let read = setup.call::<v3::Read>(&v3::ReadArgs { file, offset: 0, count: 3 });
    assert_eq!(&read.into_result().unwrap().data.0[..], b"new");
}

/// Calls that fail before they are executed are not kept, and others may come twice.
#[test]
fn only_what_must_not_run_twice_is_kept() {
    let server = memory();
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    let executed = server.counters().replays.executed;
    client.call::<v3::Null>(&());
    client.getattr(&root).unwrap();
    assert_eq!(server.counters().replays.executed, executed);
    let mut cut = encode_call::<v3::Remove>(XID, &client.credential, &place(&root, "x")).segments().concat();
    cut.truncate(cut.len() - 4);
    let length = cut.len() - 4;
    cut[..4].copy_from_slice(&(1 << 31 | length as u32).to_be_bytes());
    for _ in 0..2 {
        client.write(&cut);
        assert_eq!(client.status(), ReplyStatus::GarbageArgs);
    }
    assert_eq!(server.counters().replays.abandoned, 2);
}
