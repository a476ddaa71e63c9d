//! FSSTAT, RFC 1813 section 3.3.18.

use remoor_nfs::v3::{FsstatOk, OnFile, PostOpAttr, Res};

use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: OnFile) -> Res<FsstatOk, PostOpAttr> {
    let run = |o: &Object<'_>| Ok(FsstatOk { attr: Some(o.getattr()?), ..o.vfs().fsstat(&o.caller)? });
    answer(Object::open(request, &args.file), run, |_| None)
}
