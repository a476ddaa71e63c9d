//! READDIRPLUS, RFC 1813 section 3.3.17.

use remoor_nfs::v3::{
    EntryPlus, MAX_HANDLE, MAX_IO, NfsStat, PostOpAttr, ReaddirplusArgs, ReaddirplusOk, Res,
};
use remoor_rpc::xdr::List;

use super::object::{Object, answer};
use super::readdir::{FATTR_BYTES, FRAME_BYTES, VERF, entry_bytes, list, take};
use crate::service::Request;
use crate::vfs::DirEntry;

/// Most XDR bytes that an entry's attributes and handle take.
const PLUS_BYTES: usize = 4 + FATTR_BYTES + 4 + 4 + MAX_HANDLE;

pub(super) fn handle(request: &Request<'_>, args: ReaddirplusArgs) -> Res<ReaddirplusOk, PostOpAttr> {
    answer(Object::open(request, &args.dir), |o| readdirplus(o, &args), Object::post_op)
}

/// `dircount` bounds names, fileids and cookies, `maxcount` the whole result. As `dircount` is a hint, it never keeps
/// the first entry from being sent.
fn readdirplus(o: &Object<'_>, args: &ReaddirplusArgs) -> Result<ReaddirplusOk, NfsStat> {
    if o.options.nordirplus {
        return Err(NfsStat::NotSupp);
    }
    let mut left = (args.max_count as usize).min(MAX_IO).checked_sub(FRAME_BYTES).ok_or(NfsStat::TooSmall)?;
    let (dir_count, mut dir_used) = (args.dir_count as usize, 0);
    let mut fits = |entry: &DirEntry| {
        let bytes = entry_bytes(entry);
        let is_first = dir_used == 0;
        dir_used += bytes;
        (is_first || dir_used <= dir_count) && take(&mut left, 4 + bytes + PLUS_BYTES)
    };
    let (entries, eof) = list(o, args.cookie, args.verf, &mut fits)?;
    let entries = entries.into_iter().map(|entry| plus(o, entry)).collect();
    Ok(ReaddirplusOk { dir_attr: o.post_op(), verf: VERF, entries: List(entries), eof })
}

/// An entry that is gone by now, or whose object the caller may not look up, goes without attributes and handle; so
/// do `.` and `..`, which the client has.
fn plus(o: &Object<'_>, entry: DirEntry) -> EntryPlus {
    let is_dot = matches!(&entry.name[..], b"." | b"..");
    let looked_up = (!is_dot).then(|| o.vfs().look_at(&o.caller, &o.node, &entry.name).ok()).flatten();
    let found = looked_up.and_then(|node| Some((o.seal(&node.handle).ok()?, o.of_export(node.attr))));
    let (file, attr) = found.unzip();
    EntryPlus { fileid: entry.fileid, name: entry.name.into(), cookie: entry.cookie, attr, file }
}
