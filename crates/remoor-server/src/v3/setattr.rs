//! SETATTR, RFC 1813 section 3.3.2.

use remoor_nfs::v3::{Res, SetattrArgs, WccData};

use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: SetattrArgs) -> Res<WccData, WccData> {
    let object = Object::open_writable(request, &args.file);
    let run = |o: &Object<'_>| Ok(o.changed(o.vfs().setattr(&o.caller, &o.node, &args.attr, args.guard)?));
    answer(object, run, Object::wcc)
}
