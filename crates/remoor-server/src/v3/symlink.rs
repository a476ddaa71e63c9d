//! SYMLINK, RFC 1813 section 3.3.10.

use remoor_nfs::v3::{CreateOk, Res, SymlinkArgs, WccData};

use super::name;
use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: SymlinkArgs) -> Res<CreateOk, WccData> {
    let run = |o: &Object<'_>| {
        let name = name::new(&args.place.name)?;
        o.created(o.vfs().symlink(&o.caller, &o.node, name, &args.path.0, &args.attr)?)
    };
    answer(Object::open_writable(request, &args.place.dir), run, Object::wcc)
}
