//! CREATE, RFC 1813 section 3.3.8.

use remoor_nfs::v3::{CreateArgs, CreateOk, Res, WccData};

use super::name;
use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: CreateArgs) -> Res<CreateOk, WccData> {
    let run = |o: &Object<'_>| {
        let name = name::new(&args.place.name)?;
        o.created(o.vfs().create(&o.caller, &o.node, name, &args.how)?)
    };
    answer(Object::open_writable(request, &args.place.dir), run, Object::wcc)
}
