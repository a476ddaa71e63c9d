//! Version 4: RFC 1833 section 2. GETSTAT, the last procedure, is not declared: it counts what nobody here counts.

use crate::program;
use crate::xdr::List;

use super::rpcb::{Entry, Netbuf, Relayed, Rpcb};
use super::{RelayedCall, Text};

program! {
    /// rpcbind version 4.
    pub PROGRAM = "RPCBIND" 100_000 version 4;
    0 Null "NULL" idempotent () => (),
    1 Set "SET" once Rpcb => bool,
    2 Unset "UNSET" once Rpcb => bool,
    3 GetAddr "GETADDR" idempotent Rpcb => Text,
    4 Dump "DUMP" idempotent () => List<Rpcb>,
    5 Bcast "BCAST" once RelayedCall => Relayed,
    6 GetTime "GETTIME" idempotent () => u32,
    7 UaddrToTaddr "UADDR2TADDR" idempotent Text => Netbuf,
    8 TaddrToUaddr "TADDR2UADDR" idempotent Netbuf => Text,
    9 GetVersAddr "GETVERSADDR" idempotent Rpcb => Text,
    10 Indirect "INDIRECT" once RelayedCall => Relayed,
    11 GetAddrList "GETADDRLIST" idempotent Rpcb => List<Entry>,
}
