//! WRITE, RFC 1813 section 3.3.7.

use remoor_nfs::v3::{NfsStat, Res, StableHow, WccData, WriteArgs, WriteOk};

use super::object::{Object, answer};
use crate::service::Request;
use crate::vfs::Written;

pub(super) fn handle(request: &Request<'_>, args: WriteArgs) -> Res<WriteOk, WccData> {
    answer(Object::open_writable(request, &args.file), |o| write(o, &args), Object::wcc)
}

fn write(o: &Object<'_>, args: &WriteArgs) -> Result<WriteOk, NfsStat> {
    let data = &args.data.0;
    if args.count as usize != data.len() {
        return Err(NfsStat::Inval);
    }
    let end = args.offset.checked_add(data.len() as u64);
    end.filter(|end| *end <= i64::MAX as u64).ok_or(NfsStat::FBig)?;
    // From before the data is written: if it is lost later, COMMIT tells another.
    let verf = o.write_verf(o.vfs().write_epoch());
    let Written { committed, wcc } = written(o, args)?;
    Ok(WriteOk { wcc: o.changed(wcc), count: args.count, committed, verf })
}

/// With `async` a write is called as stable as it was asked to be while it is not: that is what the option means.
fn written(o: &Object<'_>, args: &WriteArgs) -> Result<Written, NfsStat> {
    let stable = if o.options.sync { args.stable } else { StableHow::Unstable };
    let written = o.vfs().write(&o.caller, &o.node, args.offset, &args.data.0, stable)?;
    Ok(if o.options.sync { written } else { Written { committed: args.stable, ..written } })
}
