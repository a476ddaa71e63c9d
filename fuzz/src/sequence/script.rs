//! From bytes to steps, so that small changes of an input are small changes of what is done.

use bytes::Bytes;
use remoor_nfs::mnt;
use remoor_nfs::v3::{self, CreateHow, FileHandle, MknodData, Sattr, SetTime, StableHow, Time};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message;
use remoor_rpc::program::Procedure;

/// What a script does next.
pub(super) enum Step {
    /// A call over a connection, maybe with wrong bytes.
    Call { line: usize, record: Bytes },
    /// The last record once more.
    Again { line: usize },
    /// A connection ends and is made anew.
    End { line: usize, clean: bool },
    /// Time passes.
    Later,
}

/// Names that are few, so that they meet.
const NAMES: [&str; 6] = ["a", "b", "c", ".", "..", "a-longer-name-of-thirty-two-bytes"];
const KINDS: usize = 24;
/// More than the first steps of a byte's range: those that are no call.
const FIRST_OTHER: u8 = 184;

pub(super) struct Script<'a> {
    rest: &'a [u8],
    xid: u32,
}

/// An input that makes a file and a directory, then calls procedure `kind`, and that once more over the other
/// connection.
pub(super) fn seed(kind: u8) -> Vec<u8> {
    let call = |kind: u8| [&[kind, 0, 1, 0], &[0; 12][..]].concat();
    [call(8), call(9), call(kind), vec![FIRST_OTHER, 1], call(kind)].concat()
}

impl<'a> Script<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { rest: data, xid: 100 }
    }

    /// The next step; `None` at the end.
    pub(super) fn step(&mut self, handles: &[FileHandle]) -> Option<Step> {
        if self.rest.is_empty() {
            return None;
        }
        let what = self.byte();
        let flags = self.byte();
        let line = usize::from(flags & 1);
        Some(match what {
            ..FIRST_OTHER => {
                Step::Call { line, record: self.record(usize::from(what) % KINDS, flags, handles) }
            }
            FIRST_OTHER..220 => Step::Again { line },
            220..240 => Step::End { line, clean: flags & 2 != 0 },
            240.. => Step::Later,
        })
    }

    /// Most records are what was meant; some have another xid, another byte or another end.
    fn record(&mut self, kind: usize, flags: u8, handles: &[FileHandle]) -> Bytes {
        let mut record = self.call(kind, flags, handles);
        if flags & 0xc0 == 0x40 {
            let at = (usize::from(self.byte()) << 8 | usize::from(self.byte())) % record.len();
            record[at] ^= self.byte();
        }
        if flags & 0xc0 == 0x80 {
            record.truncate(usize::from(self.byte()));
        }
        record.into()
    }

    fn call(&mut self, kind: usize, flags: u8, handles: &[FileHandle]) -> Vec<u8> {
        self.xid += 1;
        let xid = if flags & 8 == 0 { self.xid } else { 7 };
        let user = if flags & 16 == 0 { 0 } else { 1000 };
        let credential = OpaqueAuth::sys(&AuthSys::new("client", user, user));
        let mut take = Arguments { script: self, handles };
        macro_rules! call {
            ($procedure:ty, $args:expr) => {
                message::encode_call::<$procedure>(xid, &credential, &$args)
            };
        }
        let record = match kind {
            0 => call!(v3::Null, ()),
            1 => call!(v3::Getattr, v3::OnFile { file: take.file() }),
            2 => call!(
                v3::Setattr,
                v3::SetattrArgs { file: take.file(), attr: take.attr(), guard: take.guard() }
            ),
            3 => call!(v3::Lookup, take.place()),
            4 => call!(v3::Access, v3::AccessArgs { file: take.file(), access: take.word() }),
            5 => call!(v3::Readlink, v3::OnFile { file: take.file() }),
            6 => call!(v3::Read, v3::ReadArgs { file: take.file(), offset: take.long(), count: take.word() }),
            7 => call!(v3::Write, take.write()),
            8 => call!(v3::Create, v3::CreateArgs { place: take.place(), how: take.how() }),
            9 => call!(v3::Mkdir, v3::MkdirArgs { place: take.place(), attr: take.attr() }),
            10 => call!(
                v3::Symlink,
                v3::SymlinkArgs { place: take.place(), attr: take.attr(), path: take.name().into() }
            ),
            11 => call!(v3::Mknod, v3::MknodArgs { place: take.place(), what: take.what() }),
            12 => call!(v3::Remove, take.place()),
            13 => call!(v3::Rmdir, take.place()),
            14 => call!(v3::Rename, v3::RenameArgs { from: take.place(), to: take.place() }),
            15 => call!(v3::Link, v3::LinkArgs { file: take.file(), to: take.place() }),
            16 => call!(
                v3::Readdir,
                v3::ReaddirArgs { dir: take.file(), cookie: take.long(), verf: [0; 8], count: take.word() }
            ),
            17 => call!(
                v3::Readdirplus,
                v3::ReaddirplusArgs {
                    dir: take.file(),
                    cookie: take.long(),
                    verf: [0; 8],
                    dir_count: take.word(),
                    max_count: take.word()
                }
            ),
            18 => call!(v3::Fsstat, v3::OnFile { file: take.file() }),
            19 => call!(v3::Fsinfo, v3::OnFile { file: take.file() }),
            20 => call!(v3::Pathconf, v3::OnFile { file: take.file() }),
            21 => call!(
                v3::Commit,
                v3::CommitArgs { file: take.file(), offset: take.long(), count: take.word() }
            ),
            22 => call!(mnt::Mnt, "/x".into()),
            _ => call!(mnt::Dump, ()),
        };
        record.message().to_vec()
    }

    /// Zero at the end.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }
}

struct Arguments<'a, 'b> {
    script: &'a mut Script<'b>,
    handles: &'a [FileHandle],
}

impl Arguments<'_, '_> {
    /// Small numbers, round ones, and any.
    fn word(&mut self) -> u32 {
        let first = u32::from(self.script.byte());
        match first {
            0..128 => first,
            128..192 => (first - 127) << 8,
            192..224 => (1 << (first - 192)) - 1,
            _ => u32::from_be_bytes([0; 4].map(|_: u8| self.script.byte())),
        }
    }

    fn long(&mut self) -> u64 {
        let low = self.word();
        let high = if low & 0xff == 0xfe { self.word() } else { 0 };
        u64::from(high) << 32 | u64::from(low)
    }

    fn file(&mut self) -> FileHandle {
        self.handles[usize::from(self.script.byte()) % self.handles.len()].clone()
    }

    fn name(&mut self) -> &'static str {
        NAMES[usize::from(self.script.byte()) % NAMES.len()]
    }

    fn place(&mut self) -> v3::DirOp {
        v3::DirOp { dir: self.file(), name: self.name().into() }
    }

    fn time(&mut self) -> SetTime {
        match self.script.byte() {
            1 => SetTime::Server,
            2 => SetTime::Client(Time { seconds: self.word(), nanos: self.word() }),
            _ => SetTime::Keep,
        }
    }

    fn attr(&mut self) -> Sattr {
        let which = self.script.byte();
        let mut chosen = |bit: u8| (which >> bit & 1 == 1).then(|| self.word());
        let (mode, uid, gid) = (chosen(0), chosen(1), chosen(2));
        let size = (which >> 3 & 1 == 1).then(|| self.long());
        Sattr { mode, uid, gid, size, atime: self.time(), mtime: self.time() }
    }

    fn guard(&mut self) -> Option<Time> {
        (self.script.byte() == 1).then(|| Time { seconds: self.word(), nanos: self.word() })
    }

    fn how(&mut self) -> CreateHow {
        match self.script.byte() % 3 {
            0 => CreateHow::Unchecked(self.attr()),
            1 => CreateHow::Guarded(self.attr()),
            _ => CreateHow::Exclusive([self.script.byte(); 8]),
        }
    }

    fn what(&mut self) -> MknodData {
        match self.script.byte() % 3 {
            0 => MknodData::Fifo(self.attr()),
            1 => MknodData::Socket(self.attr()),
            _ => {
                let device = v3::Device { major: self.word(), minor: self.word() };
                MknodData::Character(v3::DeviceData { attr: self.attr(), device })
            }
        }
    }

    /// The count is the data's length, or not.
    fn write(&mut self) -> v3::WriteArgs {
        let (file, offset) = (self.file(), self.long());
        let data = vec![self.script.byte(); self.word() as usize % 2048];
        let differs = self.script.byte();
        let stable =
            [StableHow::Unstable, StableHow::DataSync, StableHow::FileSync][usize::from(differs) % 3];
        let count = if differs < 200 { data.len() as u32 } else { self.word() };
        v3::WriteArgs { file, offset, count, stable, data: Bytes::from(data).into() }
    }
}

const _: () = assert!(v3::Commit::NUMBER == 21, "the kinds of calls are numbered as the procedures");
