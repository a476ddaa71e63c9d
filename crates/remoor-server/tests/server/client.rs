//! A blocking client that sends exactly what a test says, and servers to send it to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use remoor_nfs::mnt::{self, MountStat};
use remoor_nfs::v3::{self, DirOp, FileHandle, NfsStat};
use remoor_rpc::Bytes;
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{Message, Reply, ReplyStatus, encode_call};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::RecordReader;
use remoor_rpc::xdr::Xdr;
use remoor_server::exports::Exports;
use remoor_server::vfs::Vfs;
use remoor_server::vfs::memory::MemoryVfs;
use remoor_server::{Builder, Running, Server};
pub(crate) use remoor_skip::skip;

/// No test waits longer than this for a reply; it is far above what any needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server of an empty memory file system that everybody may change as root, at `/x`.
pub(crate) fn memory() -> Running {
    serve("/x *(rw,insecure,no_root_squash,no_subtree_check)")
}

/// A server of these exports, all in memory.
pub(crate) fn serve(exports: &str) -> Running {
    builder(exports).start().unwrap()
}

pub(crate) fn builder(exports: &str) -> Builder {
    let exports = Exports::parse(Path::new("exports"), exports.as_bytes()).unwrap();
    let mut builder = Server::builder().listen("127.0.0.1:0".parse().unwrap());
    for (export, instance) in exports.list.iter().zip(1..) {
        let vfs: Arc<dyn Vfs> = Arc::new(MemoryVfs::new(64 << 20, instance));
        builder = builder.vfs(&export.path, vfs);
    }
    builder.exports(exports)
}

pub(crate) fn address(server: &Running) -> SocketAddr {
    server.local_addrs()[0]
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    reader: RecordReader,
    xid: u32,
    pub(crate) credential: OpaqueAuth,
}

impl Client {
    pub(crate) fn connect(server: &Running) -> Self {
        Self::over(TcpStream::connect(address(server)).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let credential = OpaqueAuth::sys(&AuthSys::new("client", 0, 0));
        Self { stream, reader: RecordReader::new(4 << 20), xid: 1, credential }
    }

    /// Sends a call; its xid.
    pub(crate) fn send<P: Procedure>(&mut self, args: &P::Args) -> u32 {
        self.xid += 1;
        let record = encode_call::<P>(self.xid, &self.credential, args);
        self.write(&record.segments().concat());
        self.xid
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply; `None` if the server closed the connection.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(record) = self.reader.next_record().unwrap() {
                let Message::Reply(reply) = Message::decode(record).unwrap() else { panic!("a call") };
                return Some(reply);
            }
            let mut buf = [0; 65536];
            match self.stream.read(&mut buf) {
                Ok(0) => return None,
                Ok(n) => self.reader.push(&buf[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("no reply: {e}"),
            }
        }
    }

    pub(crate) fn status(&mut self) -> ReplyStatus {
        self.reply().unwrap().status
    }

    pub(crate) fn call<P: Procedure>(&mut self, args: &P::Args) -> P::Res {
        let xid = self.send::<P>(args);
        let mut reply = self.reply().unwrap();
        assert_eq!((reply.xid, &reply.status), (xid, &ReplyStatus::Success), "{}", P::NAME);
        let result = P::Res::decode(&mut reply.result).unwrap();
        reply.result.finish(P::NAME).unwrap();
        result
    }

    pub(crate) fn mount(&mut self, path: &str) -> Result<FileHandle, MountStat> {
        self.call::<mnt::Mnt>(&path.into()).0.map(|ok| ok.handle)
    }

    pub(crate) fn create(&mut self, dir: &FileHandle, name: &str) -> FileHandle {
        let how = v3::CreateHow::Guarded(v3::Sattr { mode: Some(0o644), ..Default::default() });
        let made = self.call::<v3::Create>(&v3::CreateArgs { place: place(dir, name), how });
        made.into_result().unwrap().file.unwrap()
    }

    pub(crate) fn write_at(&mut self, file: &FileHandle, offset: u64, data: &[u8]) -> v3::WriteOk {
        let args = v3::WriteArgs {
            file: file.clone(),
            offset,
            count: data.len() as u32,
            stable: v3::StableHow::FileSync,
            data: Bytes::copy_from_slice(data).into(),
        };
        self.call::<v3::Write>(&args).into_result().unwrap()
    }

    pub(crate) fn getattr(&mut self, file: &FileHandle) -> Result<v3::Fattr, NfsStat> {
        self.call::<v3::Getattr>(&v3::OnFile { file: file.clone() }).into_result().map(|ok| ok.attr)
    }

    pub(crate) fn lookup(&mut self, dir: &FileHandle, name: &str) -> Result<v3::LookupOk, NfsStat> {
        self.call::<v3::Lookup>(&place(dir, name)).into_result()
    }
}

pub(crate) fn place(dir: &FileHandle, name: &str) -> DirOp {
    DirOp { dir: dir.clone(), name: name.into() }
}
