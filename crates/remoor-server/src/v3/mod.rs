//! The 22 procedures of NFS version 3, one file each, and what they have in common.

mod access;
mod commit;
mod create;
mod fsinfo;
mod fsstat;
mod getattr;
mod link;
mod lookup;
mod mkdir;
mod mknod;
mod name;
mod object;
mod pathconf;
mod read;
mod readdir;
mod readdirplus;
mod readlink;
mod remove;
mod rename;
mod rmdir;
mod setattr;
mod symlink;
mod write;

use remoor_nfs::v3;

use crate::service::{Row, row, written_row};

pub(crate) use name::MAX_NAME;

/// The table of procedures. To add one, write its file and its row.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        row::<v3::Null>(|_, ()| ()),
        row::<v3::Getattr>(getattr::handle),
        row::<v3::Setattr>(setattr::handle),
        row::<v3::Lookup>(lookup::handle),
        row::<v3::Access>(access::handle),
        row::<v3::Readlink>(readlink::handle),
        written_row::<v3::Read>(read::handle),
        row::<v3::Write>(write::handle),
        row::<v3::Create>(create::handle),
        row::<v3::Mkdir>(mkdir::handle),
        row::<v3::Symlink>(symlink::handle),
        row::<v3::Mknod>(mknod::handle),
        row::<v3::Remove>(remove::handle),
        row::<v3::Rmdir>(rmdir::handle),
        row::<v3::Rename>(rename::handle),
        row::<v3::Link>(link::handle),
        row::<v3::Readdir>(readdir::handle),
        row::<v3::Readdirplus>(readdirplus::handle),
        row::<v3::Fsstat>(fsstat::handle),
        row::<v3::Fsinfo>(fsinfo::handle),
        row::<v3::Pathconf>(pathconf::handle),
        row::<v3::Commit>(commit::handle),
    ]
}
