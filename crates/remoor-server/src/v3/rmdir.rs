//! RMDIR, RFC 1813 section 3.3.13.

use remoor_nfs::v3::{DirOp, NfsStat, Res, WccData};

use super::name;
use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: DirOp) -> Res<WccData, WccData> {
    let run = |o: &Object<'_>| {
        let if_dot = if &args.name.0[..] == b"." { NfsStat::Inval } else { NfsStat::Exist };
        Ok(o.changed(o.vfs().rmdir(&o.caller, &o.node, name::proper(&args.name, if_dot)?)?))
    };
    answer(Object::open_writable(request, &args.dir), run, Object::wcc)
}
