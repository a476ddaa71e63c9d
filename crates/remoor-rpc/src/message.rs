//! Call and reply messages, RFC 5531 section 9.

use bytes::Bytes;

use crate::auth::OpaqueAuth;
use crate::program::Procedure;
use crate::record::Record;
use crate::xdr::{self, ErrorKind, Reader, Writer, Xdr};

/// The RPC version this program speaks.
pub const RPC_VERSION: u32 = 2;
const CALL: u32 = 0;
const REPLY: u32 = 1;

crate::xdr_struct! {
    /// The head of a call, after xid, direction and RPC version.
    pub struct CallHeader {
        /// Remote program.
        pub program: u32,
        /// Its version.
        pub version: u32,
        /// The procedure of that program.
        pub procedure: u32,
        /// Who calls.
        pub credential: OpaqueAuth,
        /// Proof of who calls.
        pub verifier: OpaqueAuth,
    }
}

crate::xdr_open_enum! {
    /// Why authentication failed, RFC 5531 section 9.
    pub enum AuthStat {
        /// No error.
        Ok = 0 "AUTH_OK",
        /// Bad credential.
        BadCred = 1 "AUTH_BADCRED",
        /// Client must begin a new session.
        RejectedCred = 2 "AUTH_REJECTEDCRED",
        /// Bad verifier.
        BadVerf = 3 "AUTH_BADVERF",
        /// Verifier expired or replayed.
        RejectedVerf = 4 "AUTH_REJECTEDVERF",
        /// Rejected for security reasons.
        TooWeak = 5 "AUTH_TOOWEAK",
        /// Bogus response verifier.
        InvalidResp = 6 "AUTH_INVALIDRESP",
        /// Reason unknown.
        Failed = 7 "AUTH_FAILED",
        /// No GSS context, RFC 2203.
        CredProblem = 13 "RPCSEC_GSS_CREDPROBLEM",
        /// GSS context problem, RFC 2203.
        CtxProblem = 14 "RPCSEC_GSS_CTXPROBLEM",
    }
}

/// What the server did with a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyStatus {
    /// Executed; the result follows.
    #[error("SUCCESS")]
    Success,
    /// The server does not serve this program.
    #[error("PROG_UNAVAIL: the server does not serve this program")]
    ProgUnavail,
    /// The server serves other versions of this program.
    #[error("PROG_MISMATCH: the server serves versions {low} to {high}")]
    #[allow(missing_docs, reason = "bounds of the supported versions")]
    ProgMismatch { low: u32, high: u32 },
    /// The program has no such procedure.
    #[error("PROC_UNAVAIL: the program has no such procedure")]
    ProcUnavail,
    /// The server could not decode the arguments.
    #[error("GARBAGE_ARGS: the server could not decode the arguments")]
    GarbageArgs,
    /// The server failed, for example by lack of memory.
    #[error("SYSTEM_ERR: the server failed to process the call")]
    SystemErr,
    /// Rejected: another RPC version.
    #[error("RPC_MISMATCH: the server speaks RPC versions {low} to {high}")]
    #[allow(missing_docs, reason = "bounds of the supported versions")]
    RpcMismatch { low: u32, high: u32 },
    /// Rejected: authentication.
    #[error("the server refused the credential: {0}")]
    AuthError(AuthStat),
}

/// A message as received: its header, and a reader at its arguments or result.
#[derive(Debug, Clone)]
pub enum Message {
    /// A call.
    Call(Call),
    /// A reply.
    Reply(Reply),
}

/// A received call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Transaction id.
    pub xid: u32,
    /// What is called, and by whom.
    pub header: CallHeader,
    /// At the first byte of the arguments.
    pub args: Reader,
}

/// A received reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Transaction id of the call it answers.
    pub xid: u32,
    /// The server's verifier; AUTH_NONE for a rejected call.
    pub verifier: OpaqueAuth,
    /// What became of the call.
    pub status: ReplyStatus,
    /// At the first byte of the result, if the status is success.
    pub result: Reader,
}

/// Why a record is not a message one can work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum Error {
    #[error(transparent)]
    Xdr(#[from] xdr::Error),
    /// The call is answered with RPC_MISMATCH.
    #[error("call {xid:#010x} is for RPC version {version}, not {RPC_VERSION}")]
    RpcVersion { xid: u32, version: u32 },
    /// The call is answered with this status; without an answer its client would send it again for ever.
    #[error("call {xid:#010x}: {source}")]
    Auth { xid: u32, stat: AuthStat, source: xdr::Error },
}

impl Message {
    /// Decodes the header of a record's message; arguments or result stay undecoded.
    pub fn decode(record: Bytes) -> Result<Self, Error> {
        let mut r = Reader::new(record);
        let xid = r.u32("xid")?;
        match r.u32("message type")? {
            CALL => Call::decode(xid, r).map(Self::Call),
            REPLY => Ok(Self::Reply(Reply::decode(xid, r)?)),
            value => Err(r.error("message type", ErrorKind::BadValue { value }).into()),
        }
    }
}

impl Call {
    fn decode(xid: u32, mut r: Reader) -> Result<Self, Error> {
        match r.u32("RPC version")? {
            RPC_VERSION => {
                let header = CallHeader::decode(&mut r).map_err(|e| too_long(xid, e))?;
                Ok(Self { xid, header, args: r })
            }
            version => Err(Error::RpcVersion { xid, version }),
        }
    }
}

/// The error of a call whose credential or verifier is over the limit.
fn too_long(xid: u32, source: xdr::Error) -> Error {
    match source.kind {
        ErrorKind::TooLong { .. } => Error::Auth { xid, stat: AuthStat::BadCred, source },
        _ => source.into(),
    }
}

impl Reply {
    fn decode(xid: u32, mut r: Reader) -> xdr::Result<Self> {
        let (verifier, status) = match r.u32("reply status")? {
            0 => (OpaqueAuth::decode(&mut r)?, decode_accepted(&mut r)?),
            1 => (OpaqueAuth::none(), decode_rejected(&mut r)?),
            value => return Err(r.error("reply status", ErrorKind::BadValue { value })),
        };
        Ok(Self { xid, verifier, status, result: r })
    }
}

fn decode_accepted(r: &mut Reader) -> xdr::Result<ReplyStatus> {
    Ok(match r.u32("accept status")? {
        0 => ReplyStatus::Success,
        1 => ReplyStatus::ProgUnavail,
        2 => ReplyStatus::ProgMismatch { low: r.u32("low version")?, high: r.u32("high version")? },
        3 => ReplyStatus::ProcUnavail,
        4 => ReplyStatus::GarbageArgs,
        5 => ReplyStatus::SystemErr,
        value => return Err(r.error("accept status", ErrorKind::BadValue { value })),
    })
}

fn decode_rejected(r: &mut Reader) -> xdr::Result<ReplyStatus> {
    Ok(match r.u32("reject status")? {
        0 => ReplyStatus::RpcMismatch { low: r.u32("low version")?, high: r.u32("high version")? },
        1 => ReplyStatus::AuthError(AuthStat::decode(r)?),
        value => return Err(r.error("reject status", ErrorKind::BadValue { value })),
    })
}

/// The xid of a record's message, without decoding the rest.
pub fn peek_xid(record: &[u8]) -> Option<u32> {
    record.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// Encodes a call of procedure `P`.
pub fn encode_call<P: Procedure>(xid: u32, credential: &OpaqueAuth, args: &P::Args) -> Record {
    let mut w = Writer::new();
    w.u32(xid);
    w.u32(CALL);
    w.u32(RPC_VERSION);
    w.u32(P::PROGRAM);
    w.u32(P::VERSION);
    w.u32(P::NUMBER);
    credential.encode(&mut w);
    OpaqueAuth::none().encode(&mut w);
    args.encode(&mut w);
    Record::new(w.finish())
}

/// Encodes a reply; `result` is written after a status of success and ignored otherwise.
pub fn encode_reply(xid: u32, status: &ReplyStatus, result: &impl Xdr) -> Record {
    let mut w = Writer::new();
    begin_reply(&mut w, xid, status);
    if *status == ReplyStatus::Success {
        result.encode(&mut w);
    }
    Record::new(w.finish())
}

/// Writes a reply up to where the result begins.
pub fn begin_reply(w: &mut Writer, xid: u32, status: &ReplyStatus) {
    w.u32(xid);
    w.u32(REPLY);
    match status {
        ReplyStatus::RpcMismatch { low, high } => [1, 0, *low, *high].iter().for_each(|v| w.u32(*v)),
        ReplyStatus::AuthError(stat) => [1, 1, stat.number()].iter().for_each(|v| w.u32(*v)),
        accepted => {
            w.u32(0);
            OpaqueAuth::none().encode(w);
            encode_accepted(w, accepted);
        }
    }
}

fn encode_accepted(w: &mut Writer, status: &ReplyStatus) {
    let number = match status {
        ReplyStatus::ProgUnavail => 1,
        ReplyStatus::ProgMismatch { .. } => 2,
        ReplyStatus::ProcUnavail => 3,
        ReplyStatus::GarbageArgs => 4,
        ReplyStatus::SystemErr => 5,
        _ => 0,
    };
    w.u32(number);
    if let ReplyStatus::ProgMismatch { low, high } = status {
        w.u32(*low);
        w.u32(*high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(record: &Record) -> Reply {
        match Message::decode(record.message()).unwrap() {
            Message::Reply(reply) => reply,
            Message::Call(_) => panic!("a call"),
        }
    }

    #[test]
    fn every_reply_status_round_trips() {
        let all = [
            ReplyStatus::Success,
            ReplyStatus::ProgUnavail,
            ReplyStatus::ProgMismatch { low: 3, high: 4 },
            ReplyStatus::ProcUnavail,
            ReplyStatus::GarbageArgs,
            ReplyStatus::SystemErr,
            ReplyStatus::RpcMismatch { low: 2, high: 2 },
            ReplyStatus::AuthError(AuthStat::TooWeak),
            ReplyStatus::AuthError(AuthStat::Unknown(99)),
        ];
        for status in all {
            let mut back = reply(&encode_reply(7, &status, &5u32));
            assert_eq!((back.xid, &back.status), (7, &status));
            if status == ReplyStatus::Success {
                assert_eq!(back.result.u32("result").unwrap(), 5);
            }
            back.result.finish("reply").unwrap();
        }
    }

    #[test]
    fn a_credential_over_the_limit_is_told_with_its_xid() {
        let head = [7, 0, 2, 100_003, 3, 0, 1].map(u32::to_be_bytes).concat();
        for len in [401, u32::MAX] {
            let record = [&head[..], &len.to_be_bytes(), &[0; 500]].concat();
            let error = Message::decode(record.into()).unwrap_err();
            assert!(matches!(error, Error::Auth { xid: 7, stat: AuthStat::BadCred, .. }), "{error}");
        }
    }

    #[test]
    fn another_rpc_version_is_told_with_its_xid() {
        let record = Bytes::from_static(b"\0\0\0\x07\0\0\0\0\0\0\0\x03");
        let error = Message::decode(record).unwrap_err();
        assert_eq!(error, Error::RpcVersion { xid: 7, version: 3 });
    }
}
