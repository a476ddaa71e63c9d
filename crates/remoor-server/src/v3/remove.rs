//! REMOVE, RFC 1813 section 3.3.12.

use remoor_nfs::v3::{DirOp, NfsStat, Res, WccData};

use super::name;
use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: DirOp) -> Res<WccData, WccData> {
    let run = |o: &Object<'_>| {
        let name = name::proper(&args.name, NfsStat::Acces)?;
        Ok(o.changed(o.vfs().remove(&o.caller, &o.node, name)?))
    };
    answer(Object::open_writable(request, &args.dir), run, Object::wcc)
}
