//! One MNT call over a connection of its own: the client mounts on the port of NFS, where some servers have no MOUNT.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use bytes::BytesMut;
use remoor_nfs::mnt;
use remoor_nfs::v3::FileHandle;
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{self, Message, ReplyStatus};
use remoor_rpc::record::RecordReader;
use remoor_rpc::xdr::Xdr;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest reply.
const MAX_REPLY: usize = 4096;

/// The handle of what `path` exports, from the MOUNT program at `server`.
pub(crate) fn root(server: SocketAddr, path: &str, identity: &AuthSys) -> anyhow::Result<FileHandle> {
    let mut stream = TcpStream::connect(server).with_context(|| format!("cannot connect to {server}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let call = message::encode_call::<mnt::Mnt>(1, &OpaqueAuth::sys(identity), &path.into());
    stream.write_all(&call.segments().concat()).context("cannot send MNT")?;
    let Message::Reply(mut reply) = Message::decode(record(&mut stream)?.freeze())? else {
        bail!("{server} answered MNT with a call");
    };
    ensure!(reply.status == ReplyStatus::Success, "MNT at {server}: {}", reply.status);
    let mounted = mnt::MountRes::decode(&mut reply.result).context("MNT: malformed reply")?;
    Ok(mounted.0.map_err(|status| anyhow!("mount of {path}: {status}"))?.handle)
}

fn record(stream: &mut TcpStream) -> anyhow::Result<BytesMut> {
    let mut reader = RecordReader::new(MAX_REPLY);
    let mut part = [0; MAX_REPLY];
    loop {
        if let Some(record) = reader.next_record()? {
            return Ok(BytesMut::from(record));
        }
        let n = stream.read(&mut part).context("MNT is not answered")?;
        ensure!(n > 0, "the server closed the connection on MNT");
        reader.push(&part[..n]);
    }
}
