//! LOOKUP, RFC 1813 section 3.3.3.

use remoor_nfs::v3::{DirOp, LookupOk, NfsStat, PostOpAttr, Res};

use super::name;
use super::object::{Object, answer};
use crate::service::Request;
use crate::vfs::Node;

pub(super) fn handle(request: &Request<'_>, args: DirOp) -> Res<LookupOk, PostOpAttr> {
    let run = |o: &Object<'_>| {
        let found = find(o, name::component(&args.name)?)?;
        let file = o.seal(&found.handle)?;
        Ok(LookupOk { file, attr: Some(o.of_export(found.attr)), dir_attr: o.post_op() })
    };
    answer(Object::open(request, &args.dir), run, Object::post_op)
}

/// `..` of the exported directory is that directory: no name leads out of an export.
fn find(dir: &Object<'_>, name: &[u8]) -> Result<Node, NfsStat> {
    let at_root = name == b".." && dir.node == dir.vfs().root()?;
    dir.vfs().lookup(&dir.caller, &dir.node, if at_root { b"." } else { name })
}
