//! The whole request path: one record against a server of an empty memory export.

use bytes::Bytes;
use remoor_nfs::{mnt, v3};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::{self, Message};
use remoor_rpc::program::Procedure;
use remoor_rpc::xdr;
use remoor_server::fuzz;

/// Inputs to start from: a well-formed call of each kind of arguments, about the exported directory.
pub fn seeds() -> Vec<Vec<u8>> {
    let root = fuzz::root_handle().expect("the exported directory has a handle");
    let place = || v3::DirOp { dir: root.clone(), name: "name".into() };
    let attr = || v3::Sattr { mode: Some(0o644), ..v3::Sattr::default() };
    let on_root = || v3::OnFile { file: root.clone() };
    vec![
        call::<v3::Getattr>(on_root()),
        call::<v3::Setattr>(v3::SetattrArgs { file: root.clone(), attr: attr(), guard: None }),
        call::<v3::Lookup>(place()),
        call::<v3::Access>(v3::AccessArgs { file: root.clone(), access: 0x3f }),
        call::<v3::Read>(v3::ReadArgs { file: root.clone(), offset: 0, count: 100 }),
        call::<v3::Create>(v3::CreateArgs { place: place(), how: v3::CreateHow::Guarded(attr()) }),
        call::<v3::Mkdir>(v3::MkdirArgs { place: place(), attr: attr() }),
        call::<v3::Symlink>(v3::SymlinkArgs { place: place(), attr: attr(), path: "to".into() }),
        call::<v3::Mknod>(v3::MknodArgs { place: place(), what: v3::MknodData::Fifo(attr()) }),
        call::<v3::Remove>(place()),
        call::<v3::Rename>(v3::RenameArgs { from: place(), to: place() }),
        call::<v3::Link>(v3::LinkArgs { file: root.clone(), to: place() }),
        call::<v3::Readdir>(v3::ReaddirArgs { dir: root.clone(), cookie: 0, verf: [0; 8], count: 4096 }),
        call::<v3::Fsinfo>(on_root()),
        call::<v3::Commit>(v3::CommitArgs { file: root.clone(), offset: 0, count: 0 }),
        call::<mnt::Mnt>("/x".into()),
        call::<mnt::Dump>(()),
    ]
}

fn call<P: Procedure>(args: P::Args) -> Vec<u8> {
    let credential = OpaqueAuth::sys(&AuthSys::new("client", 0, 0));
    message::encode_call::<P>(1, &credential, &args).message().to_vec()
}

/// Serves the record. Whatever is answered is a reply to its xid.
pub fn run(data: &[u8]) {
    let Some(record) = fuzz::serve_record(data) else { return };
    let answered = xdr::Reader::new(Bytes::copy_from_slice(data)).u32("xid");
    match Message::decode(record.message()) {
        Ok(Message::Reply(reply)) => assert_eq!(Ok(reply.xid), answered),
        other => panic!("the server answered with {other:?}"),
    }
}
