//! COMMIT, RFC 1813 section 3.3.21.

use remoor_nfs::v3::{CommitArgs, CommitOk, NfsStat, Res, WccData};

use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: CommitArgs) -> Res<CommitOk, WccData> {
    answer(Object::open_writable(request, &args.file), |o| commit(o, &args), Object::wcc)
}

/// The whole file, whatever range is asked. With `async` nothing is waited for, as in knfsd's `nfsd_commit`.
fn commit(o: &Object<'_>, args: &CommitArgs) -> Result<CommitOk, NfsStat> {
    args.offset.checked_add(args.count.into()).ok_or(NfsStat::Inval)?;
    let wcc = if o.options.sync { o.changed(o.vfs().commit(&o.caller, &o.node)?) } else { o.wcc() };
    Ok(CommitOk { wcc, verf: o.write_verf(o.vfs().write_epoch()) })
}
