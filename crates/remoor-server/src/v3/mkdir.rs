//! MKDIR, RFC 1813 section 3.3.9.

use remoor_nfs::v3::{CreateOk, MkdirArgs, Res, WccData};

use super::name;
use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: MkdirArgs) -> Res<CreateOk, WccData> {
    let run = |o: &Object<'_>| {
        let name = name::new(&args.place.name)?;
        o.created(o.vfs().mkdir(&o.caller, &o.node, name, &args.attr)?)
    };
    answer(Object::open_writable(request, &args.place.dir), run, Object::wcc)
}
