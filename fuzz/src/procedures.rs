//! Decoding by procedure number: the first byte of an input chooses the procedure, the rest is its XDR.

use bytes::Bytes;
use remoor_nfs::{mnt, v3};
use remoor_rpc::program::Procedure;
use remoor_rpc::xdr::{self, Xdr};

/// What one type does with bytes: decodes, and keeps the promise of [`round_trip`].
type Check = fn(Bytes);

/// A procedure's checks of its arguments and its result.
pub(crate) struct Checks {
    pub(crate) args: Check,
    pub(crate) res: Check,
    /// Whether these bytes are a result, all of them.
    pub(crate) is_res: fn(Bytes) -> bool,
}

const fn checks<P: Procedure>() -> Checks {
    Checks { args: round_trip::<P::Args>, res: round_trip::<P::Res>, is_res: decodes::<P::Res> }
}

macro_rules! table {
    ($($procedure:ty),* $(,)?) => { &[$(checks::<$procedure>()),*] };
}

/// By number.
pub(crate) const NFS: &[Checks] = table![
    v3::Null,
    v3::Getattr,
    v3::Setattr,
    v3::Lookup,
    v3::Access,
    v3::Readlink,
    v3::Read,
    v3::Write,
    v3::Create,
    v3::Mkdir,
    v3::Symlink,
    v3::Mknod,
    v3::Remove,
    v3::Rmdir,
    v3::Rename,
    v3::Link,
    v3::Readdir,
    v3::Readdirplus,
    v3::Fsstat,
    v3::Fsinfo,
    v3::Pathconf,
    v3::Commit,
];

/// By number.
pub(crate) const MNT: &[Checks] =
    table![mnt::Null, mnt::Mnt, mnt::Dump, mnt::Umnt, mnt::UmntAll, mnt::Export];

/// The row that the first byte chooses, and the bytes after it.
pub(crate) fn choose<'a>(table: &'static [Checks], data: &'a [u8]) -> Option<(&'static Checks, &'a [u8])> {
    let (first, rest) = data.split_first()?;
    Some((&table[usize::from(*first) % table.len()], rest))
}

/// A decoded value encodes to what it was decoded from: XDR of these types has one form.
fn round_trip<T: Xdr + std::fmt::Debug>(data: Bytes) {
    let Ok(value) = xdr::from_bytes::<T>(data.clone(), "input") else { return };
    let again = xdr::to_bytes(&value);
    assert_eq!(again, data, "{value:?} is encoded otherwise than it came");
}

fn decodes<T: Xdr>(data: Bytes) -> bool {
    xdr::from_bytes::<T>(data, "result").is_ok()
}

/// Inputs for every row: its number, then each of `bodies`.
pub(crate) fn seeds(table: &[Checks], bodies: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let rows = 0..table.len() as u8;
    rows.flat_map(|row| bodies.iter().map(move |body| [&[row], &body[..]].concat())).collect()
}

/// Bodies that many of the types accept: all zeros is status NFS3_OK with empty options, all false; a handle and a
/// name is the beginning of most arguments.
pub(crate) fn bodies() -> Vec<Vec<u8>> {
    let opaque = |v: &'static [u8]| xdr::to_bytes(&xdr::Opaque::<64>(Bytes::from_static(v))).to_vec();
    let handle = opaque(b"handle of a file");
    let name = opaque(b"name");
    let zeros = |n: usize| vec![0u8; n];
    let (one, attr) = (vec![0, 0, 0, 1], [&[0, 0, 0, 1], &[0u8; 80][..]].concat());
    let ok_attr = [zeros(4), one.clone(), attr].concat();
    let mut all = vec![Vec::new(), handle.clone(), [&handle[..], &name].concat()];
    all.extend([4, 8, 12, 16, 20, 24, 32, 44, 52, 84].map(zeros));
    all.extend([8, 12, 24, 32].map(|n| [&handle[..], &zeros(n)].concat()));
    all.extend([4, 24, 28].map(|n| [&handle[..], &name, &zeros(n)].concat()));
    all.extend([0, 4, 8, 16, 44, 52].map(|n| [&ok_attr[..], &zeros(n)].concat()));
    all.push([&handle[..], &name, &handle, &name].concat());
    all
}
