//! FSINFO, RFC 1813 section 3.3.19.

use remoor_nfs::v3::{FsinfoOk, MAX_IO, OnFile, PostOpAttr, Res, Time, fsinfo};

use super::object::{Object, answer};
use crate::service::Request;

/// Preferred READDIR, in bytes: what a Linux client asks for at most without being told more.
const DTPREF: u32 = 64 << 10;

pub(super) fn handle(request: &Request<'_>, args: OnFile) -> Res<FsinfoOk, PostOpAttr> {
    let run = |o: &Object<'_>| {
        Ok(FsinfoOk {
            attr: Some(o.getattr()?),
            rtmax: MAX_IO as u32,
            rtpref: MAX_IO as u32,
            rtmult: 4096,
            wtmax: MAX_IO as u32,
            wtpref: MAX_IO as u32,
            wtmult: 4096,
            dtpref: DTPREF,
            maxfilesize: o.vfs().max_file_size(),
            time_delta: Time { seconds: 0, nanos: 1 },
            properties: fsinfo::LINK | fsinfo::SYMLINK | fsinfo::HOMOGENEOUS | fsinfo::CANSETTIME,
        })
    };
    answer(Object::open(request, &args.file), run, |_| None)
}
