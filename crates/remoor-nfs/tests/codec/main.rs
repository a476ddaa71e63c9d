//! Arguments and results of every procedure: what is encoded decodes to itself, what is cut off is refused, and no
//! bytes make a decoder panic.

mod arbitrary;

use std::fmt::Debug;

use arbitrary::{Arbitrary, Tape};
use bytes::Bytes;
use proptest::prelude::*;
use remoor_nfs::{mnt, v3};
use remoor_rpc::program::{Procedure, ProcedureRow};
use remoor_rpc::xdr::{self, Xdr};

/// Bytes that make the largest results, a directory of a few entries.
const TAPE_BYTES: usize = 600;

/// Checks of one type, from a tape or from a message.
#[derive(Clone, Copy)]
struct Checks {
    round_trip: fn(&mut Tape<'_>),
    truncation: fn(&mut Tape<'_>),
    noise: fn(Bytes),
}

impl Checks {
    const fn of<T: Arbitrary + Xdr + Debug + PartialEq>() -> Self {
        Self { round_trip: round_trip::<T>, truncation: truncation::<T>, noise: noise::<T> }
    }
}

fn round_trip<T: Arbitrary + Xdr + Debug + PartialEq>(tape: &mut Tape<'_>) {
    let value = T::arbitrary(tape);
    let bytes = xdr::to_bytes(&value);
    assert_eq!(bytes.len() % 4, 0, "XDR is in units of four bytes");
    assert_eq!(xdr::from_bytes::<T>(bytes, "round trip"), Ok(value));
}

fn truncation<T: Arbitrary + Xdr + Debug>(tape: &mut Tape<'_>) {
    let bytes = xdr::to_bytes(&T::arbitrary(tape));
    for len in 0..bytes.len() {
        let cut = xdr::from_bytes::<T>(bytes.slice(..len), "truncated");
        assert!(cut.is_err(), "{len} of {} bytes decode to {cut:?}", bytes.len());
    }
}

/// Whatever decodes has one form: it encodes to the bytes it came from.
fn noise<T: Xdr>(bytes: Bytes) {
    if let Ok(value) = xdr::from_bytes::<T>(bytes.clone(), "noise") {
        assert_eq!(xdr::to_bytes(&value), bytes);
    }
}

/// A procedure's row, and the checks of its arguments and result.
type Row = (ProcedureRow, [Checks; 2]);

const fn row<P: Procedure>() -> Row
where
    P::Args: Arbitrary + PartialEq,
    P::Res: Arbitrary + PartialEq,
{
    (ProcedureRow::of::<P>(), [Checks::of::<P::Args>(), Checks::of::<P::Res>()])
}

macro_rules! rows {
    ($program:ident: $($procedure:ident)*) => { [$(row::<$program::$procedure>()),*] };
}

const NFS: [Row; 22] = rows![v3: Null Getattr Setattr Lookup Access Readlink Read Write Create Mkdir Symlink Mknod
    Remove Rmdir Rename Link Readdir Readdirplus Fsstat Fsinfo Pathconf Commit];
const MNT: [Row; 6] = rows![mnt: Null Mnt Dump Umnt UmntAll Export];

fn all() -> impl Iterator<Item = Checks> {
    NFS.into_iter().chain(MNT).flat_map(|(_, checks)| checks)
}

fn tape() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..TAPE_BYTES)
}

/// Words as a decoder meets them: small numbers that are good discriminants and lengths, and anything.
fn message() -> impl Strategy<Value = Bytes> {
    let word = prop_oneof![4 => 0u32..4, 2 => 0u32..64, 1 => any::<u32>()];
    proptest::collection::vec(word, 0..64)
        .prop_map(|words| words.into_iter().flat_map(u32::to_be_bytes).collect::<Vec<u8>>().into())
}

#[test]
fn every_procedure_of_the_tables_is_here() {
    assert_eq!(NFS.map(|(row, _)| row), v3::PROGRAM.procedures);
    assert_eq!(MNT.map(|(row, _)| row), mnt::PROGRAM.procedures);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_decodes_to_itself(tape in tape()) {
        all().for_each(|checks| (checks.round_trip)(&mut Tape(&tape)));
    }

    #[test]
    fn what_is_cut_off_is_refused(tape in tape()) {
        all().for_each(|checks| (checks.truncation)(&mut Tape(&tape)));
    }

    #[test]
    fn no_words_make_a_decoder_panic(message in message()) {
        all().for_each(|checks| (checks.noise)(message.clone()));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let bytes = Bytes::from(bytes);
        all().for_each(|checks| (checks.noise)(bytes.clone()));
    }
}
