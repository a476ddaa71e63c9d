//! MKNOD, RFC 1813 section 3.3.11.

use remoor_nfs::v3::{CreateOk, MknodArgs, MknodData, NfsStat, Res, WccData};

use super::name;
use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: MknodArgs) -> Res<CreateOk, WccData> {
    let run = |o: &Object<'_>| {
        if matches!(args.what, MknodData::Other(_)) {
            return Err(NfsStat::BadType);
        }
        let name = name::new(&args.place.name)?;
        o.created(o.vfs().mknod(&o.caller, &o.node, name, &args.what)?)
    };
    answer(Object::open_writable(request, &args.place.dir), run, Object::wcc)
}
