//! Large reads and writes of files in a directory, whose data the server sends without copying it.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use remoor_nfs::v3::{self, FileHandle, StableHow};
use remoor_rpc::Bytes;
use remoor_rpc::program::Procedure;
use remoor_rpc::xdr::Xdr;
use remoor_server::exports::Exports;
use remoor_server::{Running, Server};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::client::{Client, PATIENCE, address};

const MIB: usize = 1 << 20;

/// A server of a directory with one file.
struct Served {
    server: Running,
    path: PathBuf,
    content: Vec<u8>,
    _dir: TempDir,
}

impl Served {
    fn new(len: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let export = dir.path().canonicalize().unwrap().join("export");
        std::fs::create_dir(&export).unwrap();
        let path = export.join("file");
        let content: Vec<u8> = (0..len).map(|at| ((at / 4096) ^ (at % 251)) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let exports =
            Exports::from_args([format!("{}:rw,insecure,no_root_squash", export.display())]).unwrap();
        let builder = Server::builder().exports(exports).state_dir(dir.path().join("state"));
        let server = builder.listen("127.0.0.1:0".parse().unwrap()).start().unwrap();
        Self { server, path, content, _dir: dir }
    }

    fn open(&self, client: &mut Client) -> FileHandle {
        let root = client.mount(self.path.parent().unwrap().to_str().unwrap()).unwrap();
        client.lookup(&root, "file").unwrap().file
    }

    /// What a READ must answer.
    fn part(&self, offset: usize, count: usize) -> (&[u8], bool) {
        let end = (offset + count).min(self.content.len());
        (self.content.get(offset..end).unwrap_or_default(), end == self.content.len())
    }
}

/// A client that takes little at a time.
fn narrow(server: &Running) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.connect(&address(server).into()).unwrap();
    Client::over(TcpStream::from(socket))
}

fn read_at(file: &FileHandle, offset: usize, count: usize) -> v3::ReadArgs {
    v3::ReadArgs { file: file.clone(), offset: offset as u64, count: count as u32 }
}

/// The xid of the next reply, and what it tells of a READ.
fn read_reply(client: &mut Client) -> (u32, v3::ReadOk) {
    let mut reply = client.reply().unwrap();
    let result = <v3::Read as Procedure>::Res::decode(&mut reply.result).unwrap();
    reply.result.finish("READ").unwrap();
    let read = result.into_result().unwrap();
    assert_eq!(read.count as usize, read.data.0.len());
    (reply.xid, read)
}

#[test]
fn what_is_read_is_what_the_file_has() {
    let served = Served::new(3 * MIB + 5);
    let mut client = Client::connect(&served.server);
    let file = served.open(&mut client);
    for count in [0, 1, 4096, 65_535, 65_536, 65_537, 300_001, MIB - 1, MIB, 2 * MIB] {
        for offset in [0, 1, 4096, 65_537, 2 * MIB, 3 * MIB, 3 * MIB + 4, 3 * MIB + 5, 9 * MIB] {
            let read = client.call::<v3::Read>(&read_at(&file, offset, count)).into_result().unwrap();
            let (data, eof) = served.part(offset, count.min(MIB));
            assert!(read.data.0[..] == *data && read.eof == eof, "{count} bytes from {offset}");
        }
    }
}

/// More than the server keeps for a connection, in more files' parts than it has pipes for.
#[test]
fn a_slow_reader_gets_every_byte() {
    let served = Served::new(2 * MIB);
    let mut client = narrow(&served.server);
    let file = served.open(&mut client);
    let calls: Vec<(usize, usize)> =
        (0..180).map(|n| (n * 4001, if n % 3 == 0 { 100 } else { 64 * 1024 + n * 1009 })).collect();
    let xids: Vec<u32> = calls
        .iter()
        .map(|(offset, count)| client.send::<v3::Read>(&read_at(&file, *offset, *count)))
        .collect();
    let mut answered = vec![false; calls.len()];
    for _ in &calls {
        let (xid, read) = read_reply(&mut client);
        let n = xids.iter().position(|sent| *sent == xid).unwrap();
        let (data, eof) = served.part(calls[n].0, calls[n].1);
        assert!(read.data.0[..] == *data && read.eof == eof, "call {n}");
        assert!(!std::mem::replace(&mut answered[n], true), "call {n} is answered twice");
    }
    client.getattr(&file).unwrap();
}

#[test]
fn a_file_that_is_cut_off_while_it_is_sent_breaks_no_reply() {
    let served = Served::new(MIB);
    let mut client = narrow(&served.server);
    let file = served.open(&mut client);
    let calls = 24;
    (0..calls).for_each(|_| _ = client.send::<v3::Read>(&read_at(&file, 0, MIB)));
    // The first is on its way, and what the client does not take waits.
    let mut peeked = [0; 100];
    client.stream.peek(&mut peeked).unwrap();
    File::options().write(true).open(&served.path).unwrap().set_len(10).unwrap();
    let mut whole = 0;
    for n in 0..calls {
        let (_, read) = read_reply(&mut client);
        let data = &read.data.0;
        let kept = data.iter().zip(&served.content).all(|(got, was)| got == was || *got == 0);
        assert!(kept && read.eof && matches!(data.len(), 10 | MIB), "reply {n} of {} bytes", data.len());
        whole += usize::from(data.len() == MIB);
    }
    assert!(whole > 0);
    assert_eq!(client.getattr(&file).unwrap().size, 10);
}

#[test]
fn a_client_that_leaves_what_it_asked_for_harms_nobody() {
    let served = Served::new(MIB);
    for _ in 0..3 {
        let mut client = narrow(&served.server);
        let file = served.open(&mut client);
        (0..12).for_each(|_| _ = client.send::<v3::Read>(&read_at(&file, 0, MIB)));
        client.stream.peek(&mut [0]).unwrap();
    }
    let mut client = Client::connect(&served.server);
    let file = served.open(&mut client);
    let read = client.call::<v3::Read>(&read_at(&file, 0, MIB)).into_result().unwrap();
    assert!(read.data.0[..] == served.content);
}

#[test]
fn what_many_large_writes_bring_is_in_the_file() {
    let served = Served::new(0);
    let mut client = Client::connect(&served.server);
    let file = served.open(&mut client);
    let mut sender = client.stream.try_clone().unwrap();
    sender.set_write_timeout(Some(PATIENCE)).unwrap();
    let content: Vec<u8> = (0..16 * MIB).map(|at| ((at >> 12) ^ (at % 253)) as u8).collect();
    let credential = client.credential.clone();
    let records: Vec<_> = content
        .chunks(MIB)
        .enumerate()
        .map(|(n, part)| {
            let (offset, data) = ((n * MIB) as u64, Bytes::copy_from_slice(part).into());
            let stable = StableHow::Unstable;
            let args = v3::WriteArgs { file: file.clone(), offset, count: MIB as u32, stable, data };
            remoor_rpc::message::encode_call::<v3::Write>(1000 + n as u32, &credential, &args)
        })
        .collect();
    let sending = std::thread::spawn(move || {
        records.iter().for_each(|record| sender.write_all(&record.segments().concat()).unwrap());
    });
    for _ in 0..16 {
        assert_eq!(client.reply().unwrap().status, remoor_rpc::message::ReplyStatus::Success);
    }
    sending.join().unwrap();
    assert!(std::fs::read(&served.path).unwrap() == content);
}
