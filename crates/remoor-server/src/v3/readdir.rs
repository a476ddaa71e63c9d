//! READDIR, RFC 1813 section 3.3.16.

use std::ops::ControlFlow;

use remoor_nfs::v3::{CookieVerf, Entry, MAX_IO, NfsStat, PostOpAttr, ReaddirArgs, ReaddirOk, Res};
use remoor_rpc::xdr::List;

use super::object::{Object, answer};
use crate::service::Request;
use crate::vfs::DirEntry;

/// Cookies stay valid as long as their directory, on every node, so the verifier never changes.
pub(super) const VERF: CookieVerf = [0; 8];
/// XDR bytes of `fattr3`: five words, two hypers, rdev, two hypers, three times.
pub(super) const FATTR_BYTES: usize = 84;
/// XDR bytes of a result without entries: attributes, verifier, end of list, eof.
pub(super) const FRAME_BYTES: usize = 4 + FATTR_BYTES + 8 + 4 + 4;

pub(super) fn handle(request: &Request<'_>, args: ReaddirArgs) -> Res<ReaddirOk, PostOpAttr> {
    answer(Object::open(request, &args.dir), |o| readdir(o, &args), Object::post_op)
}

fn readdir(o: &Object<'_>, args: &ReaddirArgs) -> Result<ReaddirOk, NfsStat> {
    let mut left = (args.count as usize).min(MAX_IO).checked_sub(FRAME_BYTES).ok_or(NfsStat::TooSmall)?;
    let mut fits = |entry: &DirEntry| take(&mut left, 4 + entry_bytes(entry));
    let (entries, eof) = list(o, args.cookie, args.verf, &mut fits)?;
    let entries =
        entries.into_iter().map(|e| Entry { fileid: e.fileid, name: e.name.into(), cookie: e.cookie });
    Ok(ReaddirOk { dir_attr: o.post_op(), verf: VERF, entries: List(entries.collect()), eof })
}

/// XDR bytes of fileid, name and cookie.
pub(super) fn entry_bytes(entry: &DirEntry) -> usize {
    8 + 4 + entry.name.len().next_multiple_of(4) + 8
}

/// Takes `bytes` of what is left, if they fit.
pub(super) fn take(left: &mut usize, bytes: usize) -> bool {
    let rest = left.checked_sub(bytes);
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

/// The entries after a cookie for as long as they fit, and whether the end was reached. Not even one fitting is
/// NFS3ERR_TOOSMALL, since an empty reply that is not the end would make a client ask for ever.
pub(super) fn list(
    o: &Object<'_>,
    cookie: u64,
    verf: CookieVerf,
    fits: &mut dyn FnMut(&DirEntry) -> bool,
) -> Result<(Vec<DirEntry>, bool), NfsStat> {
    if cookie != 0 && verf != VERF {
        return Err(NfsStat::BadCookie);
    }
    let mut entries = Vec::new();
    let eof = o.vfs().readdir(&o.caller, &o.node, cookie, &mut |entry| {
        if !fits(&entry) {
            return ControlFlow::Break(());
        }
        entries.push(entry);
        ControlFlow::Continue(())
    })?;
    if entries.is_empty() && !eof {
        return Err(NfsStat::TooSmall);
    }
    hide_parent(o, &mut entries)?;
    Ok((entries, eof))
}

/// `..` of the exported directory is that directory, as LOOKUP has it.
fn hide_parent(o: &Object<'_>, entries: &mut [DirEntry]) -> Result<(), NfsStat> {
    let parent = entries.iter_mut().find(|entry| &entry.name[..] == b"..");
    if let Some(parent) = parent.filter(|_| o.vfs().root().is_ok_and(|root| root == o.node)) {
        parent.fileid = o.getattr()?.fileid;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use remoor_nfs::v3::{Device, Fattr, FileType, Time};
    use remoor_rpc::xdr;

    use super::*;

    #[test]
    fn sizes_are_those_of_the_encoding() {
        let time = Time { seconds: 0, nanos: 0 };
        let attr = Fattr {
            kind: FileType::Directory,
            mode: 0,
            nlink: 0,
            uid: 0,
            gid: 0,
            size: 0,
            used: 0,
            rdev: Device { major: 0, minor: 0 },
            fsid: 0,
            fileid: 0,
            atime: time,
            mtime: time,
            ctime: time,
        };
        assert_eq!(xdr::to_bytes(&attr).len(), FATTR_BYTES);
        let mut result = ReaddirOk { dir_attr: Some(attr), verf: VERF, entries: List(vec![]), eof: true };
        assert_eq!(xdr::to_bytes(&result).len(), FRAME_BYTES);
        for name in ["a", "four", "fives"] {
            let entry = DirEntry { name: name.into(), fileid: 1, cookie: 2 };
            result.entries.0 = vec![Entry { fileid: 1, name: name.into(), cookie: 2 }];
            assert_eq!(xdr::to_bytes(&result).len(), FRAME_BYTES + 4 + entry_bytes(&entry));
        }
    }
}
