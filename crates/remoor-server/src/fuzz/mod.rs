//! What fuzzing drives: the whole request path, from RPC header to file system and back, on one record and on
//! sequences of them; the PROXY header; the portmapper.

mod session;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use remoor_nfs::v3::FileHandle;
use remoor_rpc::record::Record;
use remoor_rpc::xdr::Writer;

use crate::MIN_WORKERS;
use crate::exports::Exports;
use crate::handle::Signer;
use crate::net::{Answer, Origin, Relay, Service};
use crate::portmap;
use crate::service::NfsService;
use crate::state::State;
use crate::table::ServedExport;
use crate::vfs::Vfs;
use crate::vfs::memory::MemoryVfs;

pub use session::{Served, Session};

/// Bytes the file system of one run may hold; less than what fuzzing lets one allocation have.
const LIMIT_BYTES: u64 = 128 << 10;
const EXPORT_ID: u64 = 1;
const INSTANCE: u64 = 1;
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 700));

/// Serves a record to a fresh server of a small, empty memory export at `/x`, the same at every call. `None`: the
/// connection would be closed.
pub fn serve_record(record: &[u8]) -> Option<Record> {
    let origin = Origin { connection: 1, peer: PEER, is_client: true, ticket: None };
    let mut reply = Writer::new();
    let answer = service()?.serve(&origin, Bytes::copy_from_slice(record), &mut reply).ok()?;
    matches!(answer, Answer::Now | Answer::Tell(_)).then(|| Record::new(reply.finish()))
}

/// What a PROXY header leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduced {
    /// Whom it names, if anybody.
    pub client: Option<SocketAddr>,
    /// What follows it.
    pub rest: Vec<u8>,
}

/// Takes the PROXY header off a stream that arrives in `pieces`. `None` before it is complete.
///
/// # Errors
/// The message with which the connection would be closed.
pub fn introduced<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Introduced>, String> {
    let (relay, mut rest) = (Relay::default(), Vec::new());
    for piece in pieces {
        let stripped = relay.strip(PEER, piece).map_err(|e| e.to_string())?;
        rest.extend_from_slice(stripped.as_deref().unwrap_or(piece));
    }
    Ok(relay.has_spoken().then(|| Introduced { client: relay.client(), rest }))
}

/// What the portmapper replies to this peer, over UDP or over a connection.
pub fn portmap(peer: SocketAddr, call: &[u8], datagram: bool) -> Option<Bytes> {
    portmap::answered(peer, Bytes::copy_from_slice(call), datagram)
}

/// The handle of the exported directory, always the same: seeds need it, since handles are signed.
pub fn root_handle() -> Option<FileHandle> {
    signer().seal(EXPORT_ID, &vfs().root().ok()?).ok()
}

fn signer() -> Signer {
    Signer::new([0; 32])
}

fn vfs() -> MemoryVfs {
    MemoryVfs::new(LIMIT_BYTES, INSTANCE)
}

fn service() -> Option<NfsService> {
    let exports = Exports::parse(Path::new("fuzz"), b"/x *(rw,no_root_squash)").ok()?;
    let served = exports
        .list
        .into_iter()
        .map(|export| ServedExport::of(export.path, EXPORT_ID, Arc::new(vfs()), export.rules));
    Some(NfsService::new(Arc::new(State::new(served.collect(), signer(), [0; 8])), MIN_WORKERS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use remoor_nfs::v3;
    use remoor_rpc::auth::{AuthSys, OpaqueAuth};
    use remoor_rpc::message::{Message, ReplyStatus, encode_call};
    use remoor_rpc::program::Procedure;

    use super::*;

    fn seed(procedure: u32, args: &[u8]) -> Vec<u8> {
        let credential = OpaqueAuth::sys(&AuthSys::new("fuzz", 0, 0));
        let head = encode_call::<v3::Null>(1, &credential, &()).message();
        let mut record = head.to_vec();
        record[20..24].copy_from_slice(&procedure.to_be_bytes());
        record.extend_from_slice(args);
        record
    }

    fn root_then(args: &[u8]) -> Vec<u8> {
        let mut out = remoor_rpc::xdr::to_bytes(&root_handle().unwrap()).to_vec();
        out.extend_from_slice(args);
        out
    }

    #[test]
    fn the_root_handle_is_good_in_every_run() {
        let record = seed(v3::Getattr::NUMBER, &root_then(&[]));
        for _ in 0..2 {
            let reply = serve_record(&record).unwrap();
            let Ok(Message::Reply(mut reply)) = Message::decode(reply.message()) else { panic!() };
            assert_eq!(reply.status, ReplyStatus::Success);
            assert_eq!(reply.result.u32("status").unwrap(), 0);
        }
    }

    /// One that was held as new work, and whose client left before it was executed.
    #[test]
    fn a_call_that_waits_for_one_that_is_never_executed_is_executed() {
        let mut session = Session::new().unwrap();
        let place = v3::DirOp { dir: root_handle().unwrap(), name: "dir".into() };
        let args = v3::MkdirArgs { place, attr: v3::Sattr::default() };
        let credential = OpaqueAuth::sys(&AuthSys::new("fuzz", 0, 0));
        let mkdir = encode_call::<v3::Mkdir>(7, &credential, &args).message();
        let [first, second, third] = [(); 3].map(|()| session.connect());
        assert!(matches!(session.serve(first, &mkdir), Served::Reply(_)));
        assert_eq!(session.serve(second, &mkdir), Served::Later);
        session.end(first, true);
        assert_eq!(session.serve(third, &mkdir), Served::Later);
        session.end(second, false);
        let replies = session.later();
        assert_eq!(replies.iter().map(|(connection, _)| *connection).collect::<Vec<_>>(), [third]);
    }

    proptest! {
        #[test]
        fn no_record_panics(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            serve_record(&record);
        }

        /// A panic would be answered with SYSTEM_ERR.
        #[test]
        fn no_arguments_panic(procedure in 0u32..23, args in proptest::collection::vec(any::<u8>(), 0..120)) {
            // Mostly small words, so that lengths, booleans and discriminants make sense.
            let args: Vec<u8> = args.chunks(2).flat_map(|c| [0, 0, if c[0] < 20 { c[0] } else { 0 }, c[0] % 9]).collect();
            for args in [args.clone(), root_then(&args)] {
                if let Some(reply) = serve_record(&seed(procedure, &args)) {
                    let Ok(Message::Reply(reply)) = Message::decode(reply.message()) else { panic!() };
                    prop_assert_ne!(reply.status, ReplyStatus::SystemErr);
                }
            }
        }
    }
}
