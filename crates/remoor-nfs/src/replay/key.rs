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

/// Longest arguments that are hashed whole, in bytes.
pub const WHOLE: usize = 64 << 10;
/// Bytes that are hashed of longer ones.
pub const SAMPLED: usize = 2 * END + SAMPLES * SAMPLE;
/// Of these, bytes at either end: the first hold all but the data.
const END: usize = 4 << 10;
const SAMPLES: usize = 64;
/// Bytes of one sample: four lines of a processor's cache, which fetches neighbours together.
const SAMPLE: usize = 256;

/// Both ends of long arguments, and samples of what is between, one of each stretch of equal length.
fn sample(seed: u64, args: &[u8]) -> Vec<u8> {
    let (middle, end) = args[END..].split_at(args.len() - 2 * END);
    let stretch = middle.len() / SAMPLES;
    let mut sampled = Vec::with_capacity(SAMPLED);
    sampled.extend_from_slice(&args[..END]);
    let mut random = seed;
    for stretch in middle.chunks_exact(stretch).take(SAMPLES) {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let at = (random >> 32) as usize % (stretch.len() - SAMPLE);
        sampled.extend_from_slice(&stretch[at..at + SAMPLE]);
    }
    sampled.extend_from_slice(end);
    sampled
}

/// For whom a call is executed. Not the stamp: Linux before 5.1 puts a time there.
pub type Credential = Option<(u32, u32)>;

/// A call without its data. Two calls with equal keys are taken to be the same call.
///
/// Arguments of up to [`WHOLE`] bytes, which is everything but long WRITEs, are hashed whole with 128 bits of XXH3: no chance
/// of a collision among any number of calls a server sees. It is no cryptographic hash; who makes two of their own calls
/// collide loses their own call, since address, uid and gid are compared as they are. The seed keeps others from preparing one
/// for them.
///
/// Of a longer WRITE both ends and a sample of what is between are hashed: to read a mebibyte takes longer than all else
/// that the cache does. What differs in the bytes that were left out only, is taken to be the same call if client, xid,
/// credential, file handle, offset, count, stability, length and [`SAMPLED`] bytes agree, and the first reply may still be
/// asked for. A client gives an xid again only after 2^32 calls, or after a restart, which ends its connections: a clean
/// end settles the entry, and after any other an xid that begins at random, as those of Linux and libnfs do, meets the one
/// of a WRITE of the same place with a chance of one in millions at the most. knfsd hashes 256 bytes (`RC_CSUMLEN` of
/// fs/nfsd/cache.h). Where the samples lie depends on the seed, so that no layout of data keeps its changes out of them.
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
        let hash = match args.len() {
            0..=WHOLE => XxHash3_128::oneshot_with_seed(seed, args),
            _ => XxHash3_128::oneshot_with_seed(seed, &sample(seed, args)),
        };
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
        let mut data = vec![0; WHOLE];
        let first = key(HOST, b"host", 1, 7, None, &data);
        for at in (0..data.len()).step_by(4099) {
            data[at] ^= 1;
            assert_ne!(first, key(HOST, b"host", 1, 7, None, &data), "byte {at}");
            data[at] ^= 1;
        }
    }

    #[test]
    fn of_a_long_write_both_ends_its_length_and_a_change_of_any_large_part_make_another_call() {
        for len in [WHOLE + 1, 100_003, 1 << 20, (1 << 20) + 88] {
            let mut data = vec![0; len];
            let first = key(HOST, b"host", 1, 7, None, &data);
            assert_eq!(sample(7, &data).len(), SAMPLED);
            assert_ne!(first, key(HOST, b"host", 1, 7, None, &data[1..]));
            let part = 2 * len.div_ceil(SAMPLES);
            let parts = (0..len - part).step_by(part / 2 + 1).map(|at| at..at + part);
            for part in parts.chain([0..1, END - 1..END, len - 1..len, len - END..len - END + 1]) {
                data[part.clone()].iter_mut().for_each(|byte| *byte ^= 1);
                assert_ne!(first, key(HOST, b"host", 1, 7, None, &data), "{part:?} of {len}");
                data[part].iter_mut().for_each(|byte| *byte ^= 1);
            }
        }
    }

    #[test]
    fn where_samples_lie_depends_on_the_seed() {
        let data: Vec<u8> = (0..1 << 20).map(|n: u32| (n >> 3) as u8 ^ (n >> 11) as u8).collect();
        assert_ne!(sample(1, &data), sample(2, &data));
        assert_eq!(sample(1, &data), sample(1, &data));
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
