//! ACCESS, RFC 1813 section 3.3.4.

use remoor_nfs::v3::{AccessArgs, AccessOk, PostOpAttr, Res, access};

use super::object::{Object, answer};
use crate::service::Request;

const CHANGES: u32 = access::MODIFY | access::EXTEND | access::DELETE;

pub(super) fn handle(request: &Request<'_>, args: AccessArgs) -> Res<AccessOk, PostOpAttr> {
    let run = |o: &Object<'_>| {
        let asked = if o.options.read_only { args.access & !CHANGES } else { args.access };
        let (granted, attr) = o.vfs().access(&o.caller, &o.node, asked)?;
        Ok(AccessOk { attr: Some(o.of_export(attr)), access: granted & asked })
    };
    answer(Object::open(request, &args.file), run, Object::post_op)
}
