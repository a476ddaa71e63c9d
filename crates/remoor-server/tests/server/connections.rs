//! Connections that are slow, greedy, rude or many, and calls that wait.

use std::collections::HashSet;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use remoor_nfs::v3;
use remoor_rpc::auth::OpaqueAuth;
use remoor_rpc::message::{ReplyStatus, encode_call};
use remoor_server::{Builder, Limits, Running};

use crate::client::{Client, address, builder, memory};
use crate::fault::{Fault, PANIC, SLOW};

const EXPORT: &str = "/x *(rw,insecure,no_root_squash,no_subtree_check)";

fn faulty(configure: impl FnOnce(Builder) -> Builder) -> (Running, Arc<Fault>) {
    let fault = Fault::new();
    (configure(builder(EXPORT).vfs("/x", fault.clone())).start().unwrap(), fault)
}

fn read(file: &v3::FileHandle, offset: u64, count: u32) -> v3::ReadArgs {
    v3::ReadArgs { file: file.clone(), offset, count }
}

fn file_of(client: &mut Client, bytes: usize) -> v3::FileHandle {
    let root = client.mount("/x").unwrap();
    let file = client.create(&root, "file");
    for offset in (0..bytes).step_by(1 << 20) {
        client.write_at(&file, offset as u64, &vec![7; (bytes - offset).min(1 << 20)]);
    }
    file
}

#[test]
fn a_record_may_come_in_fragments_and_byte_by_byte() {
    let server = memory();
    let mut client = Client::connect(&server);
    let record = encode_call::<v3::Null>(9, &OpaqueAuth::none(), &());
    let message = record.message();
    let mut wire = Vec::new();
    for (n, part) in message.chunks(3).enumerate() {
        let last = if n == message.len().div_ceil(3) - 1 { 1u32 << 31 } else { 0 };
        wire.extend((last | part.len() as u32).to_be_bytes());
        wire.extend(part);
    }
    wire.iter().for_each(|byte| client.write(&[*byte]));
    assert_eq!(client.reply().unwrap().xid, 9);
    let both = [&wire[..], &wire[..], &wire[..]].concat();
    client.write(&both);
    assert_eq!([(); 3].map(|()| client.reply().unwrap().xid), [9; 3], "three records in one segment");
}

#[test]
fn calls_that_wait_hold_up_neither_their_connection_nor_others() {
    let (server, fault) = faulty(|b| b);
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    let slow = client.send::<v3::Read>(&read(&file, SLOW, 1));
    fault.await_waiting(1);
    let quick: HashSet<u32> = (0..20).map(|_| client.send::<v3::Read>(&read(&file, 0, 10))).collect();
    let answered: HashSet<u32> = (0..20).map(|_| client.reply().unwrap().xid).collect();
    assert_eq!(answered, quick);
    Client::connect(&server).call::<v3::Null>(&());
    fault.let_go();
    assert_eq!(client.reply().unwrap().xid, slow);
}

#[test]
fn slow_clients_are_not_felt_by_a_fast_one() {
    let (server, fault) = faulty(|b| b);
    let mut fast = Client::connect(&server);
    let file = file_of(&mut fast, 10);
    let mut slow: Vec<Client> = (0..7).map(|_| Client::connect(&server)).collect();
    let go_on = |fast: &mut Client| {
        for _ in 0..500 {
            assert!(fast.getattr(&file).is_ok());
            assert_eq!(fast.call::<v3::Read>(&read(&file, 0, 10)).status(), v3::NfsStat::Ok);
        }
    };
    // All calls of one client wait for its disk, then one call of each.
    (0..8).for_each(|_| _ = slow[0].send::<v3::Read>(&read(&file, SLOW, 1)));
    fault.await_waiting(8);
    go_on(&mut fast);
    slow[1..].iter_mut().for_each(|client| _ = client.send::<v3::Read>(&read(&file, SLOW, 1)));
    fault.await_waiting(14);
    go_on(&mut fast);
    assert_eq!(fault.waiting(), 14, "none was let go");
    fault.let_go();
    (0..8).for_each(|_| assert_eq!(slow[0].status(), ReplyStatus::Success));
    slow[1..].iter_mut().for_each(|client| assert_eq!(client.status(), ReplyStatus::Success));
}

#[test]
fn null_is_answered_while_every_worker_that_may_wait_does() {
    let (server, fault) = faulty(|b| b.workers(3));
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    let slow: Vec<u32> = (0..6).map(|_| client.send::<v3::Read>(&read(&file, SLOW, 1))).collect();
    fault.await_waiting(2);
    client.call::<v3::Null>(&());
    let mut other = Client::connect(&server);
    other.call::<v3::Null>(&());
    let waiting = other.send::<v3::Getattr>(&v3::OnFile { file: file.clone() });
    other.call_null_before(waiting);
    assert_eq!(fault.waiting(), 2, "the third worker stays free");
    fault.let_go();
    let answered: HashSet<u32> = (0..6).map(|_| client.reply().unwrap().xid).collect();
    assert_eq!(answered, slow.into_iter().collect());
}

#[test]
fn what_comes_in_one_segment_with_a_slow_call_does_not_wait_for_it() {
    let (server, fault) = faulty(|b| b);
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    let call = |xid, offset| {
        encode_call::<v3::Read>(xid, &client.credential, &read(&file, offset, 10)).segments().concat()
    };
    let null = encode_call::<v3::Null>(7, &OpaqueAuth::none(), &()).segments().concat();
    let batch =
        [call(1, 0), call(2, SLOW), call(3, 0), call(4, SLOW), call(5, SLOW), call(6, 0), null].concat();
    client.write(&batch);
    let answered: HashSet<u32> = (0..4).map(|_| client.reply().unwrap().xid).collect();
    assert_eq!(answered, [1, 3, 6, 7].into());
    // Slow calls wait beside each other.
    fault.await_waiting(3);
    fault.let_go();
    let answered: HashSet<u32> = (0..3).map(|_| client.reply().unwrap().xid).collect();
    assert_eq!(answered, [2, 4, 5].into());
}

#[test]
fn a_thousand_calls_in_flight_are_all_answered() {
    let server = memory();
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    let mut calls = Vec::new();
    for xid in 0..1000 {
        let on = v3::OnFile { file: root.clone() };
        calls.extend(match xid % 5 {
            0 => encode_call::<v3::Null>(xid, &OpaqueAuth::none(), &()).segments().concat(),
            _ => encode_call::<v3::Getattr>(xid, &client.credential, &on).segments().concat(),
        });
    }
    client.write(&calls);
    let answered: HashSet<u32> = (0..1000).map(|_| client.reply().unwrap().xid).collect();
    assert_eq!(answered, (0..1000).collect());
}

impl Client {
    /// NULL is answered before a call that was sent earlier, and that one afterwards.
    fn call_null_before(&mut self, earlier: u32) {
        let null = self.send::<v3::Null>(&());
        let first = self.reply().unwrap().xid;
        assert_eq!(first, null, "{earlier} waits");
    }
}

#[test]
fn one_connection_executes_no_more_than_its_share() {
    let limits = Limits { running_per_connection: 2, backlog_calls: 4, ..Limits::default() };
    let (server, fault) = faulty(|b| b.workers(8).limits(limits));
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    let sent: HashSet<u32> = (0..40).map(|_| client.send::<v3::Read>(&read(&file, SLOW, 1))).collect();
    fault.await_waiting(2);
    let mut other = Client::connect(&server);
    assert!(other.getattr(&file).is_ok(), "another connection has its own share");
    assert_eq!(fault.waiting(), 2);
    fault.let_go();
    let answered: HashSet<u32> = (0..40).map(|_| client.reply().unwrap().xid).collect();
    assert_eq!(answered, sent, "what was not read at first is read later");
}

#[test]
fn a_client_that_never_reads_is_not_read_either() {
    let limits = Limits { reply_bytes: 1 << 20, ..Limits::default() };
    let (server, _fault) = faulty(|b| b.limits(limits));
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 1 << 20);
    let call = encode_call::<v3::Read>(1, &client.credential, &read(&file, 0, 1 << 20)).segments().concat();
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let calls = call.repeat(1 << 20 >> call.len().ilog2());
    let mut sent = 0;
    while let Ok(n) = client.stream.write(&calls[sent % call.len()..]) {
        sent += n;
        assert!(sent < 256 << 20, "the server takes calls without end");
    }
    let executed = server.counters().calls.iter().find(|row| row.procedure == "READ").unwrap().calls;
    assert!(executed < 64, "{executed} replies of 1 MiB were made for a client that reads none");
    let mut other = Client::connect(&server);
    assert!(other.getattr(&file).is_ok());
    for _ in 0..executed + 3 {
        assert_eq!(client.status(), ReplyStatus::Success, "once the client reads, its calls go on");
    }
}

#[test]
fn a_record_over_the_limit_ends_the_connection() {
    let server = memory();
    let mut client = Client::connect(&server);
    client.write(&((1u32 << 31) | (2 << 20)).to_be_bytes());
    assert!(client.reply().is_none());
    assert_eq!(server.counters().connections.broken, 1);
}

#[test]
fn a_client_that_ends_its_side_gets_its_replies() {
    let (server, fault) = faulty(|b| b);
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    let slow = client.send::<v3::Read>(&read(&file, SLOW, 1));
    client.stream.shutdown(Shutdown::Write).unwrap();
    fault.await_waiting(1);
    fault.let_go();
    assert_eq!(client.reply().unwrap().xid, slow);
    assert!(client.reply().is_none());
}

#[test]
fn a_panic_is_answered_with_system_err() {
    let (server, _fault) = faulty(|b| b);
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    client.send::<v3::Read>(&read(&file, PANIC, 1));
    assert_eq!(client.status(), ReplyStatus::SystemErr);
    assert!(client.getattr(&file).is_ok());
}

#[test]
fn idle_and_stalled_connections_are_closed() {
    let limits =
        Limits { idle: Duration::from_millis(500), stall: Duration::from_millis(500), ..Limits::default() };
    let (server, fault) = faulty(|b| b.limits(limits));
    let mut idle = Client::connect(&server);
    let mut midway = Client::connect(&server);
    midway.write(b"\x80\0\0\x28\0\0");
    let mut waiting = Client::connect(&server);
    let file = file_of(&mut waiting, 10);
    let slow = waiting.send::<v3::Read>(&read(&file, SLOW, 1));
    assert!(idle.reply().is_none());
    assert!(midway.reply().is_none());
    assert_eq!(server.counters().connections.broken, 1, "being idle is no fault");
    fault.let_go();
    assert_eq!(waiting.reply().unwrap().xid, slow, "a call that executes is waited for");
}

#[test]
fn connections_over_the_limit_are_refused() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let (server, _fault) = faulty(|b| b.limits(limits));
    let mut clients = [Client::connect(&server), Client::connect(&server)];
    for client in &mut clients {
        client.call::<v3::Null>(&());
        // In the middle of a record, so it is not idle.
        client.write(b"\x80\0\0\x28\0\0");
    }
    let mut third = Client::connect(&server);
    assert!(third.reply().is_none());
    let connections = server.counters().connections;
    assert_eq!((connections.open, connections.accepted, connections.refused), (2, 2, 1));
}

#[test]
fn the_longest_idle_connection_makes_room_for_a_new_one() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let (server, fault) = faulty(|b| b.limits(limits));
    let mut busy = Client::connect(&server);
    let file = file_of(&mut busy, 10);
    let slow = busy.send::<v3::Read>(&read(&file, SLOW, 1));
    fault.await_waiting(1);
    let mut idle = Client::connect(&server);
    idle.call::<v3::Null>(&());
    // Refused until the second is idle long enough.
    let mut third = loop {
        let mut client = Client::connect(&server);
        let null = encode_call::<v3::Null>(1, &OpaqueAuth::none(), &()).segments().concat();
        if client.stream.write_all(&null).is_ok() && client.reply().is_some() {
            break client;
        }
    };
    assert!(idle.reply().is_none());
    let connections = server.counters().connections;
    assert_eq!((connections.open, connections.evicted), (2, 1));
    fault.let_go();
    assert_eq!(busy.reply().unwrap().xid, slow, "a call that waits keeps its connection");
    third.call::<v3::Null>(&());
}

/// Fills the server by `greedy` calls that wait, and finds that `other` is read again when they have ended.
fn full_by(limits: Limits, greedy: &[u8], calls: usize, fault: &Fault, server: &Running) {
    let mut client = Client::connect(server);
    client.write(&greedy.repeat(calls));
    fault.await_waiting(limits.running_per_connection.min(calls));
    let mut other = Client::connect(server);
    other.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let null = encode_call::<v3::Null>(1, &OpaqueAuth::none(), &()).segments().concat();
    other.write(&null);
    assert!(other.stream.peek(&mut [0]).is_err(), "no connection is read");
    fault.let_go();
    other.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(other.reply().unwrap().xid, 1);
    (0..calls).for_each(|_| assert_eq!(client.status(), ReplyStatus::Success));
}

#[test]
fn calls_in_flight_are_bounded_over_all_connections() {
    let limits = Limits { calls: 3, ..Limits::default() };
    let (server, fault) = faulty(|b| b.limits(limits.clone()));
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    let slow = encode_call::<v3::Read>(9, &client.credential, &read(&file, SLOW, 1)).segments().concat();
    full_by(limits, &slow, 3, &fault, &server);
}

#[test]
fn bytes_in_flight_are_bounded_over_all_connections() {
    let limits = Limits { bytes: 100, ..Limits::default() };
    let (server, fault) = faulty(|b| b.limits(limits.clone()));
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    let slow = encode_call::<v3::Read>(9, &client.credential, &read(&file, SLOW, 1)).segments().concat();
    assert!(slow.len() > 100);
    full_by(limits, &slow, 1, &fault, &server);
}

#[test]
fn records_that_stop_halfway_hold_nobody_up_for_long() {
    // One of them is enough, so whichever is read first, the next has its turn when that is closed.
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let (server, _fault) = faulty(|b| b.limits(limits));
    let mut rude: Vec<_> = (0..2).map(|_| Client::connect(&server)).collect();
    for client in &mut rude {
        client.write(b"\x80\x10\0\0\0\0");
    }
    assert!(rude[0].reply().is_none(), "closed before its time");
    assert_eq!(Client::connect(&server).mount("/x").map(|_| ()), Ok(()));
}

#[test]
fn stopping_answers_what_executes() {
    let (server, fault) = faulty(|b| b);
    let at = address(&server);
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    let slow = client.send::<v3::Read>(&read(&file, SLOW, 1));
    fault.await_waiting(1);
    let stopping = std::thread::spawn(move || server.stop());
    // The listener closes before the drain begins to wait.
    while TcpStream::connect(at).is_ok() {
        std::thread::yield_now();
    }
    fault.let_go();
    assert_eq!(client.reply().unwrap().xid, slow);
    assert!(client.reply().is_none());
    assert!(stopping.join().unwrap(), "everything was answered");
}

#[test]
fn several_addresses_and_both_families() {
    let server = builder(EXPORT).listen("[::1]:0".parse().unwrap()).start();
    let server = match server {
        Ok(server) => server,
        // A host without IPv6 has no ::1.
        Err(e) if e.to_string().contains("cannot listen on [::1]:0") => return,
        Err(e) => panic!("{e}"),
    };
    for address in server.local_addrs() {
        Client::over(TcpStream::connect(address).unwrap()).call::<v3::Null>(&());
    }
    assert_eq!(server.local_addrs().len(), 2);
}

#[test]
fn many_clients_at_once_each_get_their_own_replies() {
    let server = memory();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = Client::connect(server);
                let root = client.mount("/x").unwrap();
                let file = client.create(&root, &format!("file {n}"));
                for round in 0..100u64 {
                    let data = vec![n as u8; 1000 + round as usize];
                    client.write_at(&file, 0, &data);
                    let got = client.call::<v3::Read>(&read(&file, 0, 4000)).into_result().unwrap();
                    assert_eq!(&got.data.0[..], &data[..]);
                }
            });
        }
    });
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let limits =
        Limits { running_per_connection: 2, backlog_calls: 3, reply_bytes: 4096, ..Limits::default() };
    let (server, fault) = faulty(|b| b.workers(4).limits(limits));
    let mut steady = Client::connect(&server);
    let file = file_of(&mut steady, 1 << 20);
    for round in 0..200 {
        let mut client = Client::connect(&server);
        client.send::<v3::Read>(&read(&file, if round % 50 == 0 { SLOW } else { 0 }, 1 << 20));
        for _ in 0..round % 9 {
            client.send::<v3::Read>(&read(&file, 0, 1 << 20));
        }
        client.write(&[0x80, 0, 0, 0x28][..round % 5]);
        // Replies that nobody has read make this a reset.
        drop(client);
        if round % 10 == 0 {
            steady.call::<v3::Null>(&());
        }
    }
    fault.let_go();
    assert!(steady.getattr(&file).is_ok());
    while server.counters().connections.open > 1 {
        std::thread::yield_now();
    }
    assert_eq!(steady.call::<v3::Read>(&read(&file, 0, 5)).status(), v3::NfsStat::Ok);
    assert!(server.stop(), "no call of theirs is waited for");
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let (server, fault) = faulty(|b| b.limits(limits));
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    client.send::<v3::Read>(&read(&file, SLOW, 1));
    fault.await_waiting(1);
    assert!(!server.stop(), "a call was not answered");
    assert!(client.reply().is_none());
    fault.let_go();
}

#[test]
fn a_server_starts_again_on_its_address_at_once() {
    let first = memory();
    let at = address(&first);
    let mut client = Client::connect(&first);
    client.call::<v3::Null>(&());
    assert!(first.stop());
    assert!(client.reply().is_none());
    let second = builder(EXPORT).listen(at).start().unwrap();
    assert_eq!(second.local_addrs()[1], at);
    Client::over(TcpStream::connect(at).unwrap()).call::<v3::Null>(&());
}

#[test]
fn memory_that_clients_can_take_is_bounded_by_name() {
    let (server, fault) = faulty(|b| b.workers(2));
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 10);
    client.send::<v3::Read>(&read(&file, SLOW, 1));
    fault.await_waiting(1);
    let write = v3::WriteArgs {
        file: file.clone(),
        offset: 0,
        count: 1 << 20,
        stable: v3::StableHow::Unstable,
        data: vec![1; 1 << 20].into_iter().collect::<remoor_rpc::Bytes>().into(),
    };
    let call = encode_call::<v3::Write>(2, &client.credential, &write).segments().concat();
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut taken = 0;
    while let Ok(n) = client.stream.write(&call[taken % call.len()..]) {
        taken += n;
        // What the server keeps, and the buffers of two sockets.
        assert!(taken < Limits::default().backlog_bytes + (32 << 20), "the server takes calls without end");
    }
    fault.let_go();
    for _ in 0..=taken / call.len() {
        assert_eq!(client.status(), ReplyStatus::Success);
    }
}

/// Several workers execute its calls, and whichever sends must let the others go on.
#[test]
fn a_client_that_is_often_behind_with_its_replies_gets_all_of_them() {
    let limits = Limits { reply_bytes: 64 << 10, ..Limits::default() };
    let server = builder(EXPORT).limits(limits).start().unwrap();
    let mut client = Client::connect(&server);
    let file = file_of(&mut client, 1 << 20);
    for _ in 0..8 {
        client.send::<v3::Read>(&read(&file, 0, 1 << 20));
    }
    for _ in 0..600 {
        client.reply().unwrap();
        client.send::<v3::Read>(&read(&file, 0, 1 << 20));
    }
    (0..8).for_each(|_| _ = client.reply().unwrap());
}
