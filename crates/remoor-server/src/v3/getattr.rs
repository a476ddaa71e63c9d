//! GETATTR, RFC 1813 section 3.3.1.

use remoor_nfs::v3::{HasAttr, OnFile, Res};

use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: OnFile) -> Res<HasAttr> {
    answer(Object::open(request, &args.file), |o| Ok(HasAttr { attr: o.getattr()? }), |_| ())
}
