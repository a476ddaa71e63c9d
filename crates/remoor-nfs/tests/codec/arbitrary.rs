//! A value of every type, drawn from a tape of bytes. Structs list their fields; a field left out does not compile.

use bytes::Bytes;
use remoor_nfs::mnt::*;
use remoor_nfs::v3::*;
use remoor_rpc::xdr::{Array, List, Opaque, SHARE_FROM};

/// Bytes that decide. At its end it gives zeros, so a shorter tape is a smaller value, and proptest shrinks by cutting.
pub(crate) struct Tape<'a>(pub(crate) &'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// A length up to `max`: mostly short, sometimes long enough to become a segment of its own, sometimes `max`.
    fn length(&mut self, max: usize) -> usize {
        let short = self.below(40);
        let len = match self.byte() {
            0xfe => SHARE_FROM + short,
            0xff => max,
            _ => short,
        };
        len.min(max).min(5 * SHARE_FROM)
    }
}

/// A type of which a tape gives values.
pub(crate) trait Arbitrary {
    fn arbitrary(tape: &mut Tape<'_>) -> Self;
}

impl Arbitrary for () {
    fn arbitrary(_: &mut Tape<'_>) {}
}

impl Arbitrary for bool {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        tape.below(2) == 1
    }
}

impl Arbitrary for u64 {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        match tape.byte() {
            0 => 0,
            255 => u64::MAX,
            _ => u64::from_le_bytes(Arbitrary::arbitrary(tape)),
        }
    }
}

impl Arbitrary for u32 {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        u64::arbitrary(tape) as u32
    }
}

impl<const N: usize> Arbitrary for [u8; N] {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        std::array::from_fn(|_| tape.byte())
    }
}

impl<const MAX: usize> Arbitrary for Opaque<MAX> {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        let (len, seed) = (tape.length(MAX), tape.byte());
        Self(Bytes::from_iter((0..len).map(|i| seed.wrapping_add(i as u8))))
    }
}

impl<T: Arbitrary, const MAX: usize> Arbitrary for Array<T, MAX> {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        Self((0..tape.below(MAX + 1)).map(|_| T::arbitrary(tape)).collect())
    }
}

impl<T: Arbitrary> Arbitrary for List<T> {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        Self((0..tape.below(5)).map(|_| T::arbitrary(tape)).collect())
    }
}

impl<T: Arbitrary> Arbitrary for Option<T> {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        bool::arbitrary(tape).then(|| T::arbitrary(tape))
    }
}

macro_rules! structs {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Arbitrary for $name {
            fn arbitrary(tape: &mut Tape<'_>) -> Self {
                Self { $($field: Arbitrary::arbitrary(tape)),* }
            }
        }
    )*};
}

structs! {
    Time { seconds, nanos }
    Device { major, minor }
    Fattr { kind, mode, nlink, uid, gid, size, used, rdev, fsid, fileid, atime, mtime, ctime }
    WccAttr { size, mtime, ctime }
    WccData { before, after }
    Sattr { mode, uid, gid, size, atime, mtime }
    DirOp { dir, name }
    OnFile { file }
    HasAttr { attr }
    SetattrArgs { file, attr, guard }
    LookupOk { file, attr, dir_attr }
    AccessArgs { file, access }
    AccessOk { attr, access }
    ReadlinkOk { attr, path }
    ReadArgs { file, offset, count }
    ReadOk { attr, count, eof, data }
    WriteArgs { file, offset, count, stable, data }
    WriteOk { wcc, count, committed, verf }
    CreateArgs { place, how }
    MkdirArgs { place, attr }
    SymlinkArgs { place, attr, path }
    MknodArgs { place, what }
    CreateOk { file, attr, dir_wcc }
    RenameArgs { from, to }
    RenameWcc { from, to }
    LinkArgs { file, to }
    LinkWcc { attr, dir_wcc }
    ReaddirArgs { dir, cookie, verf, count }
    Entry { fileid, name, cookie }
    ReaddirOk { dir_attr, verf, entries, eof }
    ReaddirplusArgs { dir, cookie, verf, dir_count, max_count }
    EntryPlus { fileid, name, cookie, attr, file }
    ReaddirplusOk { dir_attr, verf, entries, eof }
    FsstatOk { attr, total_bytes, free_bytes, available_bytes, total_files, free_files, available_files, invarsec }
    FsinfoOk { attr, rtmax, rtpref, rtmult, wtmax, wtpref, wtmult, dtpref, maxfilesize, time_delta, properties }
    PathconfOk { attr, linkmax, name_max, no_trunc, chown_restricted, case_insensitive, case_preserving }
    CommitArgs { file, offset, count }
    CommitOk { wcc, verf }
    DeviceData { attr, device }
    MountOk { handle, flavors }
    MountEntry { host, directory }
    ExportEntry { directory, groups }
}

/// Enumerations: one of the given values, each an expression that may draw from the tape.
macro_rules! choices {
    ($($name:ident($tape:ident): $($value:expr),+;)*) => {$(
        impl Arbitrary for $name {
            fn arbitrary($tape: &mut Tape<'_>) -> Self {
                let values: &[fn(&mut Tape<'_>) -> Self] = &[$(|$tape| { let _ = &$tape; $value }),+];
                values[$tape.below(values.len())]($tape)
            }
        }
    )*};
}

choices! {
    FileType(t): Self::Regular, Self::Directory, Self::Block, Self::Character, Self::Symlink, Self::Socket, Self::Fifo;
    StableHow(t): Self::Unstable, Self::DataSync, Self::FileSync;
    SetTime(t): Self::Keep, Self::Server, Self::Client(Arbitrary::arbitrary(t));
    NfsStat(t): Self::from(t.below(80) as u32), Self::from(9_999 + t.below(12) as u32), Self::from(u32::arbitrary(t));
    MountStat(t): Self::from(t.below(80) as u32), Self::from(9_999 + t.below(12) as u32);
    CreateHow(t): Self::Unchecked(Arbitrary::arbitrary(t)), Self::Guarded(Arbitrary::arbitrary(t)),
        Self::Exclusive(Arbitrary::arbitrary(t));
    MknodData(t): Self::Block(Arbitrary::arbitrary(t)), Self::Character(Arbitrary::arbitrary(t)),
        Self::Socket(Arbitrary::arbitrary(t)), Self::Fifo(Arbitrary::arbitrary(t)), Self::Other(FileType::Regular),
        Self::Other(FileType::Directory), Self::Other(FileType::Symlink);
}

/// A failure never has the status of success: the bytes could not say which of the two it was.
impl<T: Arbitrary, F: Arbitrary> Arbitrary for Res<T, F> {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        match NfsStat::arbitrary(tape) {
            NfsStat::Ok => Self::Ok(T::arbitrary(tape)),
            _ if tape.below(2) == 0 => Self::Ok(T::arbitrary(tape)),
            status => Self::Fail(status, F::arbitrary(tape)),
        }
    }
}

impl Arbitrary for MountRes {
    fn arbitrary(tape: &mut Tape<'_>) -> Self {
        Self(match MountStat::arbitrary(tape) {
            MountStat::Ok => Ok(MountOk::arbitrary(tape)),
            _ if tape.below(2) == 0 => Ok(MountOk::arbitrary(tape)),
            status => Err(status),
        })
    }
}
