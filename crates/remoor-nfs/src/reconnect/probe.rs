//! The NULL call that proves a connection and asks a silent one.

use bytes::Bytes;
use remoor_rpc::auth::OpaqueAuth;
use remoor_rpc::message::{Message, ReplyStatus, encode_call};
use remoor_rpc::record::Record;

use super::config::ProbedProgram;
use crate::{mnt, v3};

/// Procedure 0 of the program, which every program has (RFC 5531 section 12.1), with AUTH_NONE.
pub(super) fn null_call(program: ProbedProgram, xid: u32) -> Record {
    match program {
        ProbedProgram::Nfs => encode_call::<v3::Null>(xid, &OpaqueAuth::none(), &()),
        ProbedProgram::Mnt => encode_call::<mnt::Null>(xid, &OpaqueAuth::none(), &()),
    }
}

/// Whether a reply to NULL shows that the program is served. A refused credential counts: some servers refuse
/// AUTH_NONE or an unprivileged port even for NULL, and each call then gets that answer itself.
pub(super) fn proves(reply: Bytes) -> bool {
    match Message::decode(reply) {
        Ok(Message::Reply(reply)) => matches!(reply.status, ReplyStatus::Success | ReplyStatus::AuthError(_)),
        Ok(Message::Call(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use remoor_rpc::message::{AuthStat, encode_reply};

    use super::*;

    #[test]
    fn the_call_is_null_of_the_program() {
        for (program, number) in [(ProbedProgram::Nfs, 100_003), (ProbedProgram::Mnt, 100_005)] {
            let Ok(Message::Call(call)) = Message::decode(null_call(program, 7).message()) else { panic!() };
            let header = call.header;
            assert_eq!((call.xid, header.program, header.version, header.procedure), (7, number, 3, 0));
        }
    }

    #[test]
    fn only_an_answer_from_the_program_proves() {
        let reply = |status: ReplyStatus| encode_reply(7, &status, &()).message();
        assert!(proves(reply(ReplyStatus::Success)));
        assert!(proves(reply(ReplyStatus::AuthError(AuthStat::TooWeak))));
        assert!(!proves(reply(ReplyStatus::ProgUnavail)));
        assert!(!proves(reply(ReplyStatus::ProgMismatch { low: 4, high: 4 })));
        assert!(!proves(null_call(ProbedProgram::Nfs, 7).message()), "a call is no reply");
        assert!(!proves(Bytes::from_static(b"SSH-2.0-OpenSSH_9.2\r\n")));
    }
}
