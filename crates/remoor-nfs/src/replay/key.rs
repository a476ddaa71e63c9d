//! What makes two calls the same.

use std::net::IpAddr;

use remoor_rpc::program::Procedure;
use twox_hash::XxHash3_128;

use crate::v3;

/// Whether replies of this procedure are kept: everything that must not be executed twice, and every WRITE.
///
/// WRITE is idempotent by itself, but a late second execution undoes whatever changed the file in between. The server can
/// not tell which WRITEs that may happen to: the change may come from another client, another node or a local
/// process. So all are kept; an entry has the small reply and the hash of the data, never the data.
pub fn is_kept(program: u32, version: u32, procedure: u32) -> bool {
    let table = &v3::PROGRAM;
    let row = table.procedure(procedure).filter(|_| (program, version) == (table.number, table.version));
    row.is_some_and(|row| !row.idempotent || procedure == v3::Write::NUMBER)
}

/// A client as far as a call tells: its address and the machine name of AUTH_SYS, never its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId {
    address: IpAddr,
    machine: u128,
}

impl ClientId {
    /// The client at this address (behind a listed relay, the address the relay tells) with this machine name.
    pub fn new(address: IpAddr, machine_name: &[u8], seed: u64) -> Self {
        Self { address: address.to_canonical(), machine: XxHash3_128::oneshot_with_seed(seed, machine_name) }
    }
}

/// For whom a call is executed. Not the stamp: Linux before 5.1 puts a time there.
pub type Credential = Option<(u32, u32)>;

/// A call without its data. Two calls with equal keys are taken to be the same call.
///
/// The arguments are hashed whole, since WRITEs of one xid often differ only in the middle of their data, with 128 bits of
/// XXH3: no chance of a collision among any number of calls a server sees, at about the speed of memory, which matters because
/// a WRITE of 1 MiB is hashed too. It is no cryptographic hash; who makes two of their own calls collide loses their own
/// call, since address, uid and gid are compared as they are. The seed keeps others from preparing one for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    // First what differs most, for the order of a tree.
    xid: u32,
    args: u128,
    client: ClientId,
    program: [u32; 3],
    args_len: usize,
    credential: Credential,
}

impl Key {
    /// The key of a call. `program` is program, version and procedure; `args` are the encoded arguments, all of them.
    pub fn new(
        seed: u64,
        client: ClientId,
        xid: u32,
        program: [u32; 3],
        who: Credential,
        args: &[u8],
    ) -> Self {
        let hash = XxHash3_128::oneshot_with_seed(seed, args);
        Self { xid, args: hash, client, program, args_len: args.len(), credential: who }
    }

    /// Whose call it is.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// A number to spread calls over shards: the same for equal keys.
    pub fn shard(&self, shards: usize) -> usize {
        let mixed = self.xid.wrapping_mul(0x9e37_79b9) ^ (self.client.machine as u32);
        (mixed >> 16) as usize % shards.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "192.0.2.1";

    fn key(address: &str, name: &[u8], xid: u32, procedure: u32, who: Credential, args: &[u8]) -> Key {
        let client = ClientId::new(address.parse().unwrap(), name, 7);
        Key::new(7, client, xid, [100_003, 3, procedure], who, args)
    }

    #[test]
    fn every_part_counts_and_nothing_else_does() {
        let who = Some((1000, 100));
        let first = key(HOST, b"host", 1, 12, who, b"arguments");
        assert_eq!(first, key(HOST, b"host", 1, 12, who, b"arguments"));
        assert_eq!(
            first,
            key("::ffff:192.0.2.1", b"host", 1, 12, who, b"arguments"),
            "one host, two sockets"
        );
        for other in [
            key("192.0.2.2", b"host", 1, 12, who, b"arguments"),
            key(HOST, b"tsoh", 1, 12, who, b"arguments"),
            key(HOST, b"host", 2, 12, who, b"arguments"),
            key(HOST, b"host", 1, 13, who, b"arguments"),
            key(HOST, b"host", 1, 12, Some((1000, 101)), b"arguments"),
            key(HOST, b"host", 1, 12, Some((1001, 100)), b"arguments"),
            key(HOST, b"host", 1, 12, None, b"arguments"),
            key(HOST, b"host", 1, 12, who, b"argument"),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn one_byte_anywhere_in_a_write_makes_another_call() {
        let mut data = vec![0; 1 << 20];
        let first = key(HOST, b"host", 1, 7, None, &data);
        for at in (0..data.len()).step_by(65_537) {
            data[at] ^= 1;
            assert_ne!(first, key(HOST, b"host", 1, 7, None, &data), "byte {at}");
            data[at] ^= 1;
        }
    }

    #[test]
    fn what_is_kept_is_what_must_not_run_twice() {
        let kept: Vec<_> = (0..30).filter(|n| is_kept(100_003, 3, *n)).collect();
        assert_eq!(kept, [2, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert!(!is_kept(100_003, 4, 12) && !is_kept(100_005, 3, 7) && !is_kept(100_005, 3, 3));
    }

    #[test]
    fn xids_in_a_row_spread_over_the_shards() {
        let mut calls = [0; 16];
        (0..4096).for_each(|xid| calls[key(HOST, b"host", xid, 12, None, b"").shard(16)] += 1);
        assert!(calls.iter().all(|n| (200..=312).contains(n)), "{calls:?}");
    }
}
