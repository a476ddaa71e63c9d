//! READ, RFC 1813 section 3.3.6.

use std::sync::Arc;

use remoor_nfs::v3::{MAX_IO, NfsStat, PostOpAttr, ReadArgs, ReadOk, Res};
use remoor_rpc::xdr::{Writer, Xdr};

use super::object::{Object, answer};
use crate::net::SHARE_FROM;
use crate::service::Request;
use crate::vfs::{Payload, ReadData};

/// Writes the reply itself, because its data need not be in memory.
pub(super) fn handle(request: &Request<'_>, args: ReadArgs, w: &mut Writer) {
    match answer(Object::open(request, &args.file), |o| read(o, &args), Object::post_op) {
        Res::Ok(data) => write(data, w),
        Res::Fail(status, attr) => Res::<ReadOk, PostOpAttr>::Fail(status, attr).encode(w),
    }
}

/// No more than FSINFO's rtmax, whatever is asked; nothing can lie beyond the largest offset of a file.
fn read(o: &Object<'_>, args: &ReadArgs) -> Result<ReadData, NfsStat> {
    let offset = args.offset.min(i64::MAX as u64);
    let room = (i64::MAX as u64 - offset).min(MAX_IO as u64) as u32;
    let ReadData { data, eof, attr } = o.vfs().read(&o.caller, &o.node, offset, args.count.min(room))?;
    Ok(ReadData { data, eof: eof || room == 0, attr: o.of_export(attr) })
}

/// As [`ReadOk`] is encoded. Data that is copied on its way to the socket anyhow is copied here, and so is the only part of
/// the reply.
fn write(ReadData { data, eof, attr }: ReadData, w: &mut Writer) {
    NfsStat::Ok.encode(w);
    Some(attr).encode(w);
    w.u32(data.len() as u32);
    eof.encode(w);
    match data {
        Payload::Bytes(bytes) if bytes.len() < SHARE_FROM => w.slice(&bytes),
        Payload::Bytes(bytes) => w.opaque(&bytes),
        Payload::Pages(pages) => w.external(pages.len(), Arc::new(pages)),
    }
}
