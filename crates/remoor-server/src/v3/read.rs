//! READ, RFC 1813 section 3.3.6.

use remoor_nfs::v3::{MAX_IO, NfsStat, PostOpAttr, ReadArgs, ReadOk, Res};

use super::object::{Object, answer};
use crate::service::Request;
use crate::vfs::ReadData;

pub(super) fn handle(request: &Request<'_>, args: ReadArgs) -> Res<ReadOk, PostOpAttr> {
    answer(Object::open(request, &args.file), |o| read(o, &args), Object::post_op)
}

/// No more than FSINFO's rtmax, whatever is asked; nothing can lie beyond the largest offset of a file.
fn read(o: &Object<'_>, args: &ReadArgs) -> Result<ReadOk, NfsStat> {
    let offset = args.offset.min(i64::MAX as u64);
    let room = (i64::MAX as u64 - offset).min(MAX_IO as u64) as u32;
    let ReadData { data, eof, attr } = o.vfs().read(&o.caller, &o.node, offset, args.count.min(room))?;
    let eof = eof || room == 0;
    Ok(ReadOk { attr: Some(o.of_export(attr)), count: data.len() as u32, eof, data: data.into() })
}
