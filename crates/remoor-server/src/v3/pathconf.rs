//! PATHCONF, RFC 1813 section 3.3.20.

use remoor_nfs::v3::{OnFile, PathconfOk, PostOpAttr, Res};

use super::name::MAX_NAME;
use super::object::{Object, answer};
use crate::service::Request;

/// Hard links a file can have: the least of ext4, xfs and btrfs.
const LINK_MAX: u32 = 65_000;

pub(super) fn handle(request: &Request<'_>, args: OnFile) -> Res<PathconfOk, PostOpAttr> {
    let run = |o: &Object<'_>| {
        Ok(PathconfOk {
            attr: Some(o.getattr()?),
            linkmax: LINK_MAX,
            name_max: MAX_NAME as u32,
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
        })
    };
    answer(Object::open(request, &args.file), run, |_| None)
}
