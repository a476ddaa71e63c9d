//! Version 2, the port mapper: RFC 1833 section 3.

use crate::xdr::{List, Opaque};
use crate::{program, xdr_struct};

use super::{MAX_RELAYED, RelayedCall};

/// `IPPROTO_TCP`.
pub const TCP: u32 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u32 = 17;

xdr_struct! {
    /// A program's port (`mapping`).
    pub struct Mapping {
        /// Program.
        pub program: u32,
        /// Version.
        pub version: u32,
        /// [`TCP`] or [`UDP`].
        pub protocol: u32,
        /// Port; meaningless in the arguments of GETPORT.
        pub port: u32,
    }

    /// What a relayed call gave (`call_result`).
    pub struct Relayed {
        /// Port of the program that was called.
        pub port: u32,
        /// Its result.
        pub result: Opaque<MAX_RELAYED>,
    }
}

program! {
    /// The port mapper.
    pub PROGRAM = "PORTMAP" 100_000 version 2;
    0 Null "NULL" idempotent () => (),
    1 Set "SET" once Mapping => bool,
    2 Unset "UNSET" once Mapping => bool,
    3 GetPort "GETPORT" idempotent Mapping => u32,
    4 Dump "DUMP" idempotent () => List<Mapping>,
    5 CallIt "CALLIT" once RelayedCall => Relayed,
}
