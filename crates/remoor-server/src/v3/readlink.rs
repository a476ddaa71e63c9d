//! READLINK, RFC 1813 section 3.3.5. The client follows the link, so its text may point anywhere.

use remoor_nfs::v3::{OnFile, PostOpAttr, ReadlinkOk, Res};

use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: OnFile) -> Res<ReadlinkOk, PostOpAttr> {
    let run = |o: &Object<'_>| {
        let (text, attr) = o.vfs().readlink(&o.caller, &o.node)?;
        Ok(ReadlinkOk { attr: Some(o.of_export(attr)), path: text.into() })
    };
    answer(Object::open(request, &args.file), run, Object::post_op)
}
