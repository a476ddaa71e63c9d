//! The client against a server that answers as each test says.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use remoor_client::{Client, Unstable};
use remoor_nfs::mnt;
use remoor_nfs::v3::{self, FileHandle, NfsStat, Res, StableHow};
use remoor_rpc::call_table::MAX_OUTSTANDING;
use remoor_rpc::message::{Call, Message, ReplyStatus, encode_reply};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::{Record, RecordReader};
use remoor_rpc::xdr::{Array, List, from_bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with a call other than NULL.
enum Answer {
    Reply(Record),
    Silence,
    Close,
}

/// A server on a port of its own that answers NULL and leaves other calls to `answer`.
async fn serve(answer: impl FnMut(&Call) -> Answer + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(Mutex::new(answer));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(converse(stream, move |call: &Call| match call.header.procedure {
                0 => Answer::Reply(encode_reply(call.xid, &ReplyStatus::Success, &())),
                _ => (answer.lock().unwrap())(call),
            }));
        }
    });
    address
}

async fn converse(mut stream: TcpStream, mut answer: impl FnMut(&Call) -> Answer) {
    let mut reader = RecordReader::new(2 << 20);
    while stream.read_buf(reader.buffer()).await.is_ok_and(|n| n > 0) {
        while let Some(record) = reader.next_record().unwrap() {
            let Message::Call(call) = Message::decode(record).unwrap() else { panic!("a reply") };
            match answer(&call) {
                Answer::Reply(reply) => stream.write_all(&reply.segments().concat()).await.unwrap(),
                Answer::Silence => {}
                Answer::Close => return,
            }
        }
    }
}

fn client(server: SocketAddr) -> Client {
    Client::connect(server, "noresvport".parse().unwrap()).unwrap()
}

fn reply<P: Procedure>(call: &Call, res: &P::Res) -> Answer {
    Answer::Reply(encode_reply(call.xid, &ReplyStatus::Success, res))
}

fn args<P: Procedure>(call: &Call) -> P::Args {
    from_bytes(call.args.rest(), P::NAME).unwrap()
}

fn handle() -> FileHandle {
    "file".into()
}

/// A server of one file that keeps unstable data.
#[derive(Default)]
struct Disk {
    /// The server's instance, told by its write verifier.
    instance: u8,
    /// Writes in the order they were executed.
    written: Vec<(u64, Bytes)>,
    /// The answer to the next WRITE of these bytes.
    fails: Option<Bytes>,
    /// Most bytes one WRITE takes.
    takes: Option<usize>,
    /// How durable writes are; UNSTABLE if not given.
    committed: Option<StableHow>,
}

impl Disk {
    fn answer(&mut self, call: &Call) -> Answer {
        match call.header.procedure {
            v3::Write::NUMBER => reply::<v3::Write>(call, &self.write(args::<v3::Write>(call))),
            v3::Commit::NUMBER => {
                let ok = v3::CommitOk { wcc: Default::default(), verf: [self.instance; 8] };
                reply::<v3::Commit>(call, &Res::Ok(ok))
            }
            other => panic!("procedure {other}"),
        }
    }

    fn write(&mut self, args: v3::WriteArgs) -> <v3::Write as Procedure>::Res {
        let mut data = args.data.0;
        if self.fails.as_ref() == Some(&data) {
            self.fails = None;
            return Res::Fail(NfsStat::Io, Default::default());
        }
        data.truncate(self.takes.unwrap_or(data.len()));
        let (count, committed) = (data.len() as u32, self.committed.unwrap_or(StableHow::Unstable));
        self.written.push((args.offset, data));
        Res::Ok(v3::WriteOk { wcc: Default::default(), count, committed, verf: [self.instance; 8] })
    }

    /// The file's content: later writes lie over earlier ones.
    fn content(&self) -> Vec<u8> {
        let mut content = Vec::new();
        for (offset, data) in &self.written {
            let end = *offset as usize + data.len();
            content.resize(content.len().max(end), 0);
            content[*offset as usize..end].copy_from_slice(data);
        }
        content
    }
}

async fn disk() -> (Arc<Mutex<Disk>>, Client) {
    let disk = Arc::new(Mutex::new(Disk::default()));
    let served = Arc::clone(&disk);
    (disk, client(serve(move |call| served.lock().unwrap().answer(call)).await))
}

#[tokio::test]
async fn data_written_again_does_not_replace_what_was_written_over_it() {
    for committed in [StableHow::Unstable, StableHow::FileSync] {
        let (disk, client) = disk().await;
        let mut unstable = Unstable::default();
        client.write_unstable(&handle(), 0, "older, longer".into(), &mut unstable).await.unwrap();
        disk.lock().unwrap().instance = 2;
        disk.lock().unwrap().committed = Some(committed);
        client.write_unstable(&handle(), 0, "newer".into(), &mut unstable).await.unwrap();
        client.commit(&handle(), &mut unstable).await.unwrap();
        assert!(unstable.is_empty());
        assert_eq!(disk.lock().unwrap().content(), b"newer, longer", "{committed:?}");
    }
}

#[tokio::test]
async fn a_commit_that_failed_half_way_loses_nothing() {
    let (disk, client) = disk().await;
    let mut unstable = Unstable::default();
    for (offset, data) in [(0, "aaaa"), (2, "bbbb"), (4, "cccc")] {
        client.write_unstable(&handle(), offset, data.into(), &mut unstable).await.unwrap();
    }
    disk.lock().unwrap().written.clear();
    disk.lock().unwrap().instance = 2;
    disk.lock().unwrap().fails = Some("bbbb".into());
    let error = client.commit(&handle(), &mut unstable).await.unwrap_err();
    assert_eq!(error.status(), Some(NfsStat::Io));
    assert_eq!(unstable.len(), 12, "all is kept until COMMIT has answered for it");
    client.commit(&handle(), &mut unstable).await.unwrap();
    assert!(unstable.is_empty());
    assert_eq!(disk.lock().unwrap().content(), b"aabbcccc");
}

#[tokio::test]
async fn a_server_that_takes_a_part_gets_the_rest() {
    let (disk, client) = disk().await;
    let mut unstable = Unstable::default();
    disk.lock().unwrap().takes = Some(3);
    client.write_unstable(&handle(), 1, "abcdefgh".into(), &mut unstable).await.unwrap();
    disk.lock().unwrap().takes = Some(2);
    disk.lock().unwrap().written.clear();
    disk.lock().unwrap().instance = 2;
    client.commit(&handle(), &mut unstable).await.unwrap();
    assert!(unstable.is_empty());
    assert_eq!(disk.lock().unwrap().content(), b"\0abcdefgh");
}

/// Procedures in the order they were called.
type Seen = Arc<Mutex<Vec<u32>>>;

#[tokio::test]
async fn a_call_nobody_waits_for_is_not_sent_again() {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let server = serve(move |call| {
        noted.lock().unwrap().push(call.header.procedure);
        came.send(()).unwrap();
        match call.header.procedure {
            v3::Remove::NUMBER => Answer::Silence,
            v3::Rmdir::NUMBER if noted.lock().unwrap().len() == 2 => Answer::Close,
            _ => reply::<v3::Rmdir>(call, &Res::Ok(Default::default())),
        }
    });
    let client = client(server.await);
    let dir = handle();
    tokio::select! {
        _ = client.remove(&dir, b"a") => panic!("answered"),
        _ = coming.recv() => {}
    }
    client.rmdir(&dir, b"b").await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [v3::Remove::NUMBER, v3::Rmdir::NUMBER, v3::Rmdir::NUMBER]);
}

#[tokio::test]
async fn calls_nobody_waits_for_leave_room_for_others() {
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let server = serve(move |call| match call.header.procedure {
        v3::Getattr::NUMBER => {
            came.send(()).unwrap();
            Answer::Silence
        }
        _ => reply::<v3::Rmdir>(call, &Res::Ok(Default::default())),
    });
    let client = client(server.await);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..MAX_OUTSTANDING {
        let client = client.clone();
        calls.spawn(async move { client.getattr(&handle()).await.unwrap() });
    }
    for _ in 0..MAX_OUTSTANDING {
        coming.recv().await.unwrap();
    }
    drop(calls);
    client.rmdir(&handle(), b"b").await.unwrap();
}

#[tokio::test]
async fn a_server_that_never_stops_talking_does_not_hold_up_a_soft_mount() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let talker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut call = [0; 44];
        stream.read_exact(&mut call).unwrap();
        let xid = u32::from_be_bytes(call[4..8].try_into().unwrap());
        stream.write_all(&encode_reply(xid, &ReplyStatus::Success, &()).segments().concat()).unwrap();
        let stray = [&b"\x80\0\0\x3c"[..], &[0; 60]].concat().repeat(1024);
        while stream.write_all(&stray).is_ok() {}
    });
    let client = Client::connect(server, "noresvport,soft,timeo=2,retrans=0".parse().unwrap()).unwrap();
    let error = client.getattr(&handle()).await.unwrap_err();
    assert!(error.to_string().contains("soft mount"), "{error}");
    drop(client);
    tokio::task::spawn_blocking(|| talker.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_repeats_itself_is_an_error() {
    let server = serve(|call| {
        let name = "a".into();
        let entry = v3::EntryPlus { fileid: 1, name, cookie: 7, attr: None, file: None };
        let entries = List(vec![entry]);
        let ok = v3::ReaddirplusOk { dir_attr: None, verf: [0; 8], entries, eof: false };
        reply::<v3::Readdirplus>(call, &Res::Ok(ok))
    });
    let error = client(server.await).readdirplus(&handle()).await.unwrap_err();
    assert!(error.to_string().contains("cookie"), "{error}");
}

#[tokio::test]
async fn no_read_asks_for_more_than_a_record_may_hold() {
    let server = serve(|call| {
        let count = args::<v3::Read>(call).count;
        let data = Bytes::from(vec![7; count as usize]).into();
        reply::<v3::Read>(call, &Res::Ok(v3::ReadOk { attr: None, count, eof: false, data }))
    });
    let (data, _) = client(server.await).read(&handle(), 0, 8 << 20).await.unwrap();
    assert_eq!(data.len(), v3::MAX_IO);
}

#[tokio::test]
async fn the_connection_ends_with_a_fin_when_the_last_clone_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap());
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut call = [0; 44];
    stream.read_exact(&mut call).await.unwrap();
    let other = client.clone();
    drop(client);
    let waiting = tokio::spawn(async move { other.getattr(&handle()).await });
    tokio::task::yield_now().await;
    waiting.abort();
    assert_eq!(stream.read(&mut call).await.unwrap(), 0);
}

/// A server that grants any mount and says in FSINFO what one READ and one WRITE may have.
async fn small_server(rtmax: u32, wtmax: u32) -> (Client, Arc<Mutex<Vec<usize>>>) {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let answer = move |call: &Call| match (call.header.program, call.header.procedure) {
        (mnt::Mnt::PROGRAM, _) => {
            let ok = mnt::MountOk { handle: handle(), flavors: Array(vec![1]) };
            reply::<mnt::Mnt>(call, &mnt::MountRes(Ok(ok)))
        }
        (_, v3::Fsinfo::NUMBER) => reply::<v3::Fsinfo>(call, &Res::Ok(fsinfo(rtmax, wtmax))),
        (_, v3::Read::NUMBER) => {
            let count = args::<v3::Read>(call).count;
            seen.lock().unwrap().push(count as usize);
            let data = Bytes::from(vec![0; count as usize]).into();
            reply::<v3::Read>(call, &Res::Ok(v3::ReadOk { attr: None, count, eof: false, data }))
        }
        _ => {
            let data = args::<v3::Write>(call).data.0;
            seen.lock().unwrap().push(data.len());
            let (count, committed) = (data.len() as u32, StableHow::FileSync);
            reply::<v3::Write>(
                call,
                &Res::Ok(v3::WriteOk { wcc: Default::default(), count, committed, verf: [0; 8] }),
            )
        }
    };
    (client(serve(answer).await), sizes)
}

fn fsinfo(rtmax: u32, wtmax: u32) -> v3::FsinfoOk {
    v3::FsinfoOk {
        attr: None,
        rtmax,
        rtpref: rtmax,
        rtmult: 1,
        wtmax,
        wtpref: wtmax,
        wtmult: 1,
        dtpref: 4096,
        maxfilesize: u64::MAX,
        time_delta: v3::Time { seconds: 0, nanos: 1 },
        properties: 0,
    }
}

#[tokio::test]
async fn no_read_or_write_is_larger_than_the_server_takes() {
    let (client, sizes) = small_server(500, 1000).await;
    let root = client.mount("/x").await.unwrap();
    client.write(&root, 0, Bytes::from(vec![1; 2500])).await.unwrap();
    let (data, _) = client.read(&root, 0, 2500).await.unwrap();
    assert_eq!(data.len(), 500);
    assert_eq!(*sizes.lock().unwrap(), [1000, 1000, 500, 500]);
}

#[tokio::test]
async fn a_server_that_takes_no_byte_at_all_is_refused() {
    let (client, _) = small_server(0, 1000).await;
    let error = client.mount("/x").await.unwrap_err().to_string();
    assert!(error.contains("FSINFO"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_jukebox_is_asked_again_with_new_calls() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let server = serve(move |call| {
        let mut xids = noted.lock().unwrap();
        xids.push(call.xid);
        let stat = if xids.len() < 3 { NfsStat::Jukebox } else { NfsStat::Acces };
        reply::<v3::Remove>(call, &Res::Fail(stat, Default::default()))
    });
    let client = client(server.await);
    let began = tokio::time::Instant::now();
    let error = client.remove(&handle(), b"a").await.unwrap_err();
    assert_eq!(error.status(), Some(NfsStat::Acces));
    let mut xids = seen.lock().unwrap().clone();
    xids.dedup();
    assert_eq!(xids.len(), 3, "a JUKEBOX in a reply cache must not be the answer for ever");
    assert!(began.elapsed() >= std::time::Duration::from_millis(300), "100 ms, then 200 ms");
}

#[tokio::test]
async fn a_server_without_readdirplus_is_listed_by_readdir() {
    for missing in [NfsStat::NotSupp, NfsStat::Ok] {
        let server = serve(move |call| match call.header.procedure {
            v3::Readdirplus::NUMBER if missing == NfsStat::Ok => {
                Answer::Reply(encode_reply(call.xid, &ReplyStatus::ProcUnavail, &()))
            }
            v3::Readdirplus::NUMBER => reply::<v3::Readdirplus>(call, &Res::Fail(missing, None)),
            _ => {
                let cookie = args::<v3::Readdir>(call).cookie + 1;
                let name = format!("f{cookie}").as_str().into();
                let entries = List(vec![v3::Entry { fileid: cookie, name, cookie }]);
                let ok = v3::ReaddirOk { dir_attr: None, verf: [0; 8], entries, eof: cookie == 3 };
                reply::<v3::Readdir>(call, &Res::Ok(ok))
            }
        });
        let entries = client(server.await).readdirplus(&handle()).await.unwrap();
        let names: Vec<_> = entries.into_iter().map(|entry| entry.name.0).collect();
        assert_eq!(names, [&b"f1"[..], b"f2", b"f3"]);
    }
}

#[tokio::test]
async fn a_mount_where_mount_is_not_served_says_so_at_once() {
    let server = serve(|call| Answer::Reply(encode_reply(call.xid, &ReplyStatus::ProgUnavail, &()))).await;
    let error = client(server).mount("/x").await.unwrap_err();
    assert!(matches!(error, remoor_client::Error::NoMountProgram), "{error}");
    let mut request = remoor_client::mount::Request::new("127.0.0.1", "/x");
    request.options = "noresvport".parse().unwrap();
    (request.places.port, request.places.portmap_port) = (Some(server.port()), server.port());
    let error = request.mount().await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains(&format!("no MOUNT on port {}", server.port())), "{told}");
    assert!(told.contains("mountport=") && !error.is_temporary(), "{told}");
}

#[tokio::test]
async fn an_export_that_wants_kerberos_is_named_as_such() {
    let server = serve(|call| {
        let ok = mnt::MountOk { handle: handle(), flavors: Array(vec![390_003, 390_004]) };
        reply::<mnt::Mnt>(call, &mnt::MountRes(Ok(ok)))
    });
    let server = server.await;
    let mut request = remoor_client::mount::Request::new("127.0.0.1", "/x");
    request.options = "noresvport".parse().unwrap();
    request.places.port = Some(server.port());
    request.places.mountport = Some(server.port());
    let error = request.mount().await.unwrap_err();
    assert!(error.to_string().contains("sec=sys") && !error.is_temporary(), "{error}");
}
