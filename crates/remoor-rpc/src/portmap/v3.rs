//! Version 3: RFC 1833 section 2.

use crate::program;
use crate::xdr::List;

use super::rpcb::{Netbuf, Relayed, Rpcb};
use super::{RelayedCall, Text};

program! {
    /// rpcbind version 3.
    pub PROGRAM = "RPCBIND" 100_000 version 3;
    0 Null "NULL" idempotent () => (),
    1 Set "SET" once Rpcb => bool,
    2 Unset "UNSET" once Rpcb => bool,
    3 GetAddr "GETADDR" idempotent Rpcb => Text,
    4 Dump "DUMP" idempotent () => List<Rpcb>,
    5 CallIt "CALLIT" once RelayedCall => Relayed,
    6 GetTime "GETTIME" idempotent () => u32,
    7 UaddrToTaddr "UADDR2TADDR" idempotent Text => Netbuf,
    8 TaddrToUaddr "TADDR2UADDR" idempotent Netbuf => Text,
}
