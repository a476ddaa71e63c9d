//! What versions 3 and 4 share, RFC 1833 section 2.

use crate::xdr::Opaque;
use crate::xdr_struct;

use super::{MAX_RELAYED, Text};

/// Longest socket address in transport-specific form, in bytes: `struct sockaddr_storage`.
pub const MAX_SOCKADDR: usize = 128;
/// Semantics of UDP: `NC_TPI_CLTS`.
pub const CLTS: u32 = 1;
/// Semantics of TCP: `NC_TPI_COTS_ORD`.
pub const COTS_ORD: u32 = 3;

xdr_struct! {
    /// Where a program is (`rpcb`).
    pub struct Rpcb {
        /// Program.
        pub program: u32,
        /// Version.
        pub version: u32,
        /// Network identifier: `tcp`, `udp`, `tcp6`, `udp6`, `local`.
        pub netid: Text,
        /// Universal address. In the arguments of GETADDR the address at which the caller sees this host.
        pub address: Text,
        /// Who registered it.
        pub owner: Text,
    }

    /// A socket address in the form of the server's host (`netbuf`).
    pub struct Netbuf {
        /// Room that the caller has.
        pub max_len: u32,
        /// The address.
        pub bytes: Opaque<MAX_SOCKADDR>,
    }

    /// One way to a program (`rpcb_entry`).
    pub struct Entry {
        /// Universal address.
        pub address: Text,
        /// Network identifier.
        pub netid: Text,
        /// [`CLTS`] or [`COTS_ORD`].
        pub semantics: u32,
        /// Family of protocols: `inet`, `inet6`.
        pub family: Text,
        /// Protocol: `tcp`, `udp`.
        pub protocol: Text,
    }

    /// What a relayed call gave (`rpcb_rmtcallres`).
    pub struct Relayed {
        /// Universal address of the program that was called.
        pub address: Text,
        /// Its result.
        pub result: Opaque<MAX_RELAYED>,
    }
}
