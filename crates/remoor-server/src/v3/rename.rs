//! RENAME, RFC 1813 section 3.3.14.

use remoor_nfs::v3::{FileHandle, NfsStat, RenameArgs, RenameWcc, Res, WccData};

use super::name;
use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: RenameArgs) -> Res<RenameWcc, RenameWcc> {
    let run = |o: &Object<'_>| {
        let from = name::proper(&args.from.name, NfsStat::Inval)?;
        let to = name::proper(&args.to.name, NfsStat::Inval)?;
        let to_dir = o.with(&args.to.dir)?;
        let (left, entered) = o.vfs().rename(&o.caller, (&o.node, from), (&to_dir, to))?;
        Ok(RenameWcc { from: o.changed(left), to: o.changed(entered) })
    };
    answer(Object::open_writable(request, &args.from.dir), run, |o| both(o, &args.to.dir))
}

fn both(from: &Object<'_>, to: &FileHandle) -> RenameWcc {
    let after = from.with(to).ok().and_then(|node| from.post_op_of(&node));
    RenameWcc { from: from.wcc(), to: WccData { before: None, after } }
}
