//! Program 100000, which tells where other programs are: the port mapper (version 2) and rpcbind (versions 3 and 4),
//! RFC 1833. The versions share a number and a port, not their types.
//!
//! | module | version |
//! |---|---|
//! | [`v2`] | ports of IPv4 programs |
//! | [`rpcb`] | what versions 3 and 4 share: mappings by universal address |
//! | [`v3`], [`v4`] | their tables |

mod address;
pub mod rpcb;
pub mod v2;
pub mod v3;
pub mod v4;

pub use address::{from_universal, universal};

use crate::xdr::Opaque;

/// Where every host has it, TCP and UDP.
pub const PORT: u16 = 111;
/// The program's number.
pub const NUMBER: u32 = 100_000;
/// Longest string taken: network identifiers, universal addresses, owners. RFC 1833 sets no bound; the longest
/// universal address has 58 bytes (`RPCBIND_MAXUADDRLEN` of Linux).
pub const MAX_STRING: usize = 256;
/// Most bytes of arguments or results that a relayed call may carry. RFC 1833 sets no bound; nothing here relays any.
pub const MAX_RELAYED: usize = 1024;

/// A string of the protocol.
pub type Text = Opaque<MAX_STRING>;

crate::xdr_struct! {
    /// A call to be made on the caller's behalf (`call_args`, `rpcb_rmtcallargs`).
    pub struct RelayedCall {
        /// Program.
        pub program: u32,
        /// Version.
        pub version: u32,
        /// Procedure.
        pub procedure: u32,
        /// Its arguments.
        pub args: Opaque<MAX_RELAYED>,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::rpcb::{Entry, Netbuf, Rpcb};
    use super::v2::{Mapping, Relayed, TCP};
    use super::*;
    use crate::xdr::{List, Xdr, from_bytes, to_bytes};

    fn round_trips<T: Xdr + PartialEq + std::fmt::Debug>(value: &T) {
        let bytes = to_bytes(value);
        assert_eq!(&from_bytes::<T>(bytes.clone(), "value").unwrap(), value);
        for len in 0..bytes.len() {
            assert!(from_bytes::<T>(bytes.slice(..len), "cut").is_err(), "{len} of {} bytes", bytes.len());
        }
    }

    fn rpcb() -> Rpcb {
        Rpcb {
            program: 100_003,
            version: 3,
            netid: "tcp6".into(),
            address: "::.8.1".into(),
            owner: "superuser".into(),
        }
    }

    #[test]
    fn every_type_round_trips_and_no_part_of_it_does() {
        round_trips(&Mapping { program: 100_003, version: 3, protocol: TCP, port: 2049 });
        round_trips(&List(vec![Mapping { program: 1, version: 2, protocol: 3, port: 4 }; 3]));
        let args = Opaque(Bytes::from_static(b"args!"));
        round_trips(&RelayedCall { program: 1, version: 2, procedure: 3, args: args.clone() });
        round_trips(&Relayed { port: 7, result: args });
        round_trips(&List(vec![rpcb(), rpcb()]));
        round_trips(&Netbuf { max_len: 128, bytes: Opaque(Bytes::from_static(b"sockaddr")) });
        let entry = Entry {
            address: "192.0.2.1.8.1".into(),
            netid: "tcp".into(),
            semantics: rpcb::COTS_ORD,
            family: "inet".into(),
            protocol: "tcp".into(),
        };
        round_trips(&List(vec![entry]));
    }

    /// The bytes that Debian's `rpcinfo` reads and the kernel sends (`rpcb_enc_getaddr`).
    #[test]
    fn a_mapping_is_on_the_wire_as_the_rfc_has_it() {
        let expected = b"\0\x01\x86\xa3\0\0\0\x03\0\0\0\x04tcp6\0\0\0\x06::.8.1\0\0\0\0\0\x09superuser\0\0\0";
        assert_eq!(&to_bytes(&rpcb())[..], expected);
    }

    #[test]
    fn a_string_over_the_limit_is_refused_before_it_is_read() {
        let mut bytes = to_bytes(&rpcb()).to_vec();
        bytes[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        let error = from_bytes::<Rpcb>(bytes.into(), "rpcb").unwrap_err();
        assert_eq!(error.what, "Rpcb.netid");
    }

    #[test]
    fn the_versions_are_one_program() {
        let programs = [&v2::PROGRAM, &v3::PROGRAM, &v4::PROGRAM];
        assert_eq!(programs.map(|p| (p.number, p.version)), [(NUMBER, 2), (NUMBER, 3), (NUMBER, 4)]);
    }
}
