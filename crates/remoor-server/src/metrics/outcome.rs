//! How a call ended, read from the beginning of its reply (RFC 5531 section 9). So it is counted in one place,
//! whatever made the reply: a procedure, the RPC layer or the reply cache.

/// Bytes that tell how a call ended: xid, direction, reply status, an empty verifier, accept status, and the first word
/// of the result.
pub(crate) const HEAD: usize = 28;

/// Why a call was given to no procedure.
pub(super) const REFUSALS: [&str; 5] =
    ["PROG_UNAVAIL", "PROG_MISMATCH", "PROC_UNAVAIL", "RPC_MISMATCH", "AUTH_ERROR"];

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Executed. The first word of the result, which is the status of procedures that have one.
    Done(u32),
    /// GARBAGE_ARGS.
    GarbageArgs,
    /// SYSTEM_ERR.
    SystemErr,
    /// Not given to a procedure, for the reason of this number in [`REFUSALS`].
    Refused(usize),
}

impl Outcome {
    pub(super) fn of(head: &[u8]) -> Self {
        let word = |n: usize| {
            let bytes = head.get(4 * n..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
        };
        let (denied, reject, accept) = (word(2) == 1, word(3), word(5));
        match (denied, accept) {
            (true, _) => Self::Refused(if reject == 0 { 3 } else { 4 }),
            (_, 1) => Self::Refused(0),
            (_, 2) => Self::Refused(1),
            (_, 3) => Self::Refused(2),
            (_, 4) => Self::GarbageArgs,
            (_, 5) => Self::SystemErr,
            _ => Self::Done(word(6)),
        }
    }
}

#[cfg(test)]
mod tests {
    use remoor_rpc::message::{AuthStat, ReplyStatus, encode_reply};

    use super::*;

    fn of(status: ReplyStatus, result: u32) -> Outcome {
        Outcome::of(&encode_reply(7, &status, &result).message())
    }

    fn reason(status: ReplyStatus) -> &'static str {
        let Outcome::Refused(n) = of(status.clone(), 0) else { panic!("{status}") };
        REFUSALS[n]
    }

    #[test]
    fn every_reply_tells_how_its_call_ended() {
        assert_eq!(of(ReplyStatus::Success, 70), Outcome::Done(70));
        assert_eq!(of(ReplyStatus::GarbageArgs, 0), Outcome::GarbageArgs);
        assert_eq!(of(ReplyStatus::SystemErr, 0), Outcome::SystemErr);
        assert_eq!(reason(ReplyStatus::ProgUnavail), "PROG_UNAVAIL");
        assert_eq!(reason(ReplyStatus::ProgMismatch { low: 3, high: 3 }), "PROG_MISMATCH");
        assert_eq!(reason(ReplyStatus::ProcUnavail), "PROC_UNAVAIL");
        assert_eq!(reason(ReplyStatus::RpcMismatch { low: 2, high: 2 }), "RPC_MISMATCH");
        assert_eq!(reason(ReplyStatus::AuthError(AuthStat::BadCred)), "AUTH_ERROR");
    }

    #[test]
    fn a_reply_without_a_result_is_no_error() {
        let reply = encode_reply(7, &ReplyStatus::Success, &()).message();
        assert_eq!(Outcome::of(&reply), Outcome::Done(0));
        assert_eq!(Outcome::of(&[]), Outcome::Done(0));
    }
}
