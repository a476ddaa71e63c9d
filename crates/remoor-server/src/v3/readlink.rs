//! READLINK, RFC 1813 section 3.3.5. The client follows the link, so its text may point anywhere.

use remoor_nfs::v3::{OnFile, PostOpAttr, ReadlinkOk, Res};

use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: OnFile) -> Res<ReadlinkOk, PostOpAttr> {
    let run = |o: &Object<'_>| {
        let path = o.vfs().readlink(&o.caller, &o.node)?.into();
        Ok(ReadlinkOk { attr: o.post_op(), path })
    };
    answer(Object::open(request, &args.file), run, Object::post_op)
}
