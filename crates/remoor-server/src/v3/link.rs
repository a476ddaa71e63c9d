//! LINK, RFC 1813 section 3.3.15.

use remoor_nfs::v3::{FileHandle, LinkArgs, LinkWcc, Res, WccData};

use super::name;
use super::object::{Object, answer};
use crate::service::Request;

pub(super) fn handle(request: &Request<'_>, args: LinkArgs) -> Res<LinkWcc, LinkWcc> {
    let run = |o: &Object<'_>| {
        let name = name::new(&args.to.name)?;
        let dir = o.with(&args.to.dir)?;
        let (attr, dir_wcc) = o.vfs().link(&o.caller, &o.node, &dir, name)?;
        Ok(LinkWcc { attr: Some(o.of_export(attr)), dir_wcc: o.changed(dir_wcc) })
    };
    answer(Object::open_writable(request, &args.file), run, |o| both(o, &args.to.dir))
}

fn both(file: &Object<'_>, dir: &FileHandle) -> LinkWcc {
    let after = file.with(dir).ok().and_then(|node| file.post_op_of(&node));
    LinkWcc { attr: file.post_op(), dir_wcc: WccData { before: None, after } }
}
