//! Requests from their bytes.

use std::ops::Range;

use bytes::Bytes;

use crate::abi::{self, IN_HEADER, opcode};
use crate::{Caller, NodeId, Operation, SetAttributes, Time, TimeOrNow};

/// `struct fuse_in_header`, as far as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) node: NodeId,
    pub(crate) caller: Caller,
    /// Where the arguments are in the message.
    arguments: (usize, usize),
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Init(Init),
    Operation(Operation),
    /// A WRITE: its data are this range of the message.
    Write(Write, Range<usize>),
    /// Nodes and their lookups; not answered.
    Forget(Vec<(NodeId, u64)>),
    /// The request of this number was interrupted; not answered.
    Interrupt(u64),
    Destroy,
    /// An answer to a notification that is never sent; not answered.
    NotifyReply,
    /// Something no file system here implements.
    Unsupported,
}

/// `struct fuse_init_in`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Init {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) max_readahead: u32,
    pub(crate) flags: u64,
}

/// `struct fuse_write_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    node: NodeId,
    fh: u64,
    offset: u64,
    write_flags: u32,
    flags: u32,
}

impl Write {
    pub(crate) fn with(self, data: Bytes) -> Operation {
        Operation::Write {
            node: self.node,
            fh: self.fh,
            offset: self.offset,
            data,
            flags: self.flags,
            cached: self.write_flags & abi::WRITE_CACHE != 0,
            kill_suidgid: self.write_flags & abi::WRITE_KILL_SUIDGID != 0,
        }
    }
}

/// Why a request could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a message of {0} bytes is shorter than a header")]
    Short(usize),
    #[error("its length is given as {given}, but {received} bytes were received")]
    Length { given: u32, received: usize },
    #[error("its arguments end before byte {0}")]
    Truncated(usize),
    #[error("a name does not end")]
    Unterminated,
    #[error("a name is empty or has a slash in it")]
    Name,
    #[error("nanoseconds are {0}")]
    Nanoseconds(u32),
}

impl Header {
    /// The header of a message.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut at = message.get(..IN_HEADER).map(Cursor::new).ok_or(Malformed::Short(message.len()))?;
        let (given, opcode, unique, node) = (at.u32()?, at.u32()?, at.u64()?, at.node()?);
        let caller = Caller { uid: at.u32()?, gid: at.u32()?, pid: at.u32()? };
        let extensions = usize::from(at.u16()?) * 8;
        if given as usize != message.len() {
            return Err(Malformed::Length { given, received: message.len() });
        }
        let end = message.len().checked_sub(extensions).filter(|&end| end >= IN_HEADER);
        let end = end.ok_or(Malformed::Truncated(extensions))?;
        Ok(Self { opcode, unique, node, caller, arguments: (IN_HEADER, end) })
    }

    /// What the message asks for. Reads of more than `max_read` bytes are asked for as if of `max_read`.
    pub(crate) fn request(&self, message: &[u8], max_read: u32) -> Result<Request, Malformed> {
        let (start, end) = self.arguments;
        let arguments = message.get(start..end).ok_or(Malformed::Short(message.len()))?;
        let at = &mut Cursor::new(arguments);
        match self.opcode {
            opcode::INIT => init(at).map(Request::Init),
            opcode::FORGET => Ok(Request::Forget(vec![(self.node, at.u64()?)])),
            opcode::BATCH_FORGET => batch_forget(at).map(Request::Forget),
            opcode::INTERRUPT => at.u64().map(Request::Interrupt),
            opcode::DESTROY => Ok(Request::Destroy),
            opcode::NOTIFY_REPLY => Ok(Request::NotifyReply),
            opcode::WRITE => write(at, self.node, start),
            _ => self.operation(at, max_read).map(|o| o.map_or(Request::Unsupported, Request::Operation)),
        }
    }

    /// The operation, or none that is known.
    fn operation(&self, at: &mut Cursor<'_>, max_read: u32) -> Result<Option<Operation>, Malformed> {
        Ok(Some(match self.opcode {
            opcode::LOOKUP..=opcode::LINK | opcode::CREATE | opcode::RENAME2 => return self.naming(at),
            opcode::SETXATTR..=opcode::REMOVEXATTR => return self.xattr(at, max_read).map(Some),
            opcode::OPENDIR..=opcode::FSYNCDIR | opcode::READDIRPLUS => {
                return self.directory(at, max_read).map(Some);
            }
            opcode::STATFS => Operation::Statfs { node: self.node },
            opcode::ACCESS => Operation::Access { node: self.node, mask: at.u32()? },
            opcode::SYNCFS => Operation::Syncfs { node: self.node },
            _ => return self.file(at, max_read),
        }))
    }

    /// Operations that have names, or change or read what a name stands for.
    fn naming(&self, at: &mut Cursor<'_>) -> Result<Option<Operation>, Malformed> {
        let (node, parent) = (self.node, self.node);
        Ok(Some(match self.opcode {
            opcode::LOOKUP => Operation::Lookup { parent, name: at.name()? },
            opcode::GETATTR => getattr(at, node)?,
            opcode::SETATTR => Operation::Setattr { node, change: setattr(at)? },
            opcode::READLINK => Operation::Readlink { node },
            opcode::SYMLINK => Operation::Symlink { parent, name: at.name()?, target: at.string()? },
            opcode::MKNOD => mknod(at, parent)?,
            opcode::MKDIR => {
                let (mode, umask) = (at.u32()?, at.u32()?);
                Operation::Mkdir { parent, name: at.name()?, mode, umask }
            }
            opcode::UNLINK => Operation::Unlink { parent, name: at.name()? },
            opcode::RMDIR => Operation::Rmdir { parent, name: at.name()? },
            opcode::RENAME => rename(at, parent, false)?,
            opcode::RENAME2 => rename(at, parent, true)?,
            opcode::LINK => Operation::Link { node: at.node()?, new_parent: parent, new_name: at.name()? },
            opcode::CREATE => create(at, parent)?,
            _ => return Ok(None),
        }))
    }

    /// Operations on open files.
    fn file(&self, at: &mut Cursor<'_>, max_read: u32) -> Result<Option<Operation>, Malformed> {
        let node = self.node;
        Ok(Some(match self.opcode {
            opcode::OPEN => {
                let (flags, open) = (at.u32()?, at.u32()?);
                Operation::Open { node, flags, kill_suidgid: open & abi::OPEN_KILL_SUIDGID != 0 }
            }
            opcode::READ => {
                let (fh, offset, size, flags) = read(at)?;
                Operation::Read { node, fh, offset, size: size.min(max_read), flags }
            }
            opcode::RELEASE => Operation::Release { node, fh: at.u64()?, flags: at.u32()? },
            opcode::FSYNC => Operation::Fsync { node, fh: at.u64()?, data_only: at.u32()? & 1 != 0 },
            opcode::FLUSH => {
                let (fh, _unused, lock_owner) = (at.u64()?, at.u64()?, at.u64()?);
                Operation::Flush { node, fh, lock_owner }
            }
            opcode::FALLOCATE => {
                let (fh, offset, length, mode) = (at.u64()?, at.u64()?, at.u64()?, at.u32()?);
                Operation::Fallocate { node, fh, offset, length, mode }
            }
            opcode::LSEEK => Operation::Lseek { node, fh: at.u64()?, offset: at.u64()?, whence: at.u32()? },
            opcode::COPY_FILE_RANGE => copy_file_range(at, node)?,
            _ => return Ok(None),
        }))
    }

    fn directory(&self, at: &mut Cursor<'_>, max_read: u32) -> Result<Operation, Malformed> {
        let node = self.node;
        Ok(match self.opcode {
            opcode::OPENDIR => Operation::Opendir { node, flags: at.u32()? },
            opcode::RELEASEDIR => Operation::Releasedir { node, fh: at.u64()?, flags: at.u32()? },
            opcode::FSYNCDIR => Operation::Fsyncdir { node, fh: at.u64()?, data_only: at.u32()? & 1 != 0 },
            plus => {
                let (fh, offset, size, _flags) = read(at)?;
                let size = size.min(max_read);
                match plus {
                    opcode::READDIRPLUS => Operation::Readdirplus { node, fh, offset, size },
                    _ => Operation::Readdir { node, fh, offset, size },
                }
            }
        })
    }

    fn xattr(&self, at: &mut Cursor<'_>, max_read: u32) -> Result<Operation, Malformed> {
        let node = self.node;
        Ok(match self.opcode {
            opcode::SETXATTR => {
                let (size, flags) = (at.u32()?, at.u32()?);
                Operation::Setxattr { node, name: at.string()?, value: at.take(size as usize)?, flags }
            }
            opcode::GETXATTR => {
                let (size, _padding) = (at.u32()?, at.u32()?);
                Operation::Getxattr { node, name: at.string()?, size: size.min(max_read) }
            }
            opcode::LISTXATTR => Operation::Listxattr { node, size: at.u32()?.min(max_read) },
            _ => Operation::Removexattr { node, name: at.string()? },
        })
    }
}

/// `struct fuse_init_in`; `flags2` is there from 7.36 on, if the flag says so.
fn init(at: &mut Cursor<'_>) -> Result<Init, Malformed> {
    let (major, minor) = (at.u32()?, at.u32()?);
    let max_readahead = at.u32().unwrap_or(0);
    let flags = u64::from(at.u32().unwrap_or(0));
    let more = if flags & abi::init::INIT_EXT != 0 { u64::from(at.u32()?) } else { 0 };
    Ok(Init { major, minor, max_readahead, flags: flags | more << 32 })
}

/// As many as there are: the count is the kernel's, but nothing is allocated by it.
fn batch_forget(at: &mut Cursor<'_>) -> Result<Vec<(NodeId, u64)>, Malformed> {
    let (count, _dummy) = (at.u32()?, at.u32()?);
    (0..count).map(|_| Ok((at.node()?, at.u64()?))).collect()
}

fn write(at: &mut Cursor<'_>, node: NodeId, start: usize) -> Result<Request, Malformed> {
    let (fh, offset, size, write_flags) = (at.u64()?, at.u64()?, at.u32()?, at.u32()?);
    let (_lock_owner, flags, _padding) = (at.u64()?, at.u32()?, at.u32()?);
    let from = start + at.at;
    at.slice(size as usize)?;
    Ok(Request::Write(Write { node, fh, offset, write_flags, flags }, from..from + size as usize))
}

/// `struct fuse_read_in`: fh, offset, size, flags.
fn read(at: &mut Cursor<'_>) -> Result<(u64, u64, u32, u32), Malformed> {
    let (fh, offset, size) = (at.u64()?, at.u64()?, at.u32()?);
    let (_read_flags, _lock_owner) = (at.u32()?, at.u64()?);
    Ok((fh, offset, size, at.u32()?))
}

fn getattr(at: &mut Cursor<'_>, node: NodeId) -> Result<Operation, Malformed> {
    let (flags, _dummy, fh) = (at.u32()?, at.u32()?, at.u64()?);
    Ok(Operation::Getattr { node, fh: (flags & abi::GETATTR_FH != 0).then_some(fh) })
}

fn mknod(at: &mut Cursor<'_>, parent: NodeId) -> Result<Operation, Malformed> {
    let (mode, rdev, umask, _padding) = (at.u32()?, at.u32()?, at.u32()?, at.u32()?);
    Ok(Operation::Mknod { parent, name: at.name()?, mode, umask, rdev })
}

fn create(at: &mut Cursor<'_>, parent: NodeId) -> Result<Operation, Malformed> {
    let (flags, mode, umask, open) = (at.u32()?, at.u32()?, at.u32()?, at.u32()?);
    let kill_suidgid = open & abi::OPEN_KILL_SUIDGID != 0;
    Ok(Operation::Create { parent, name: at.name()?, mode, umask, flags, kill_suidgid })
}

fn rename(at: &mut Cursor<'_>, parent: NodeId, second: bool) -> Result<Operation, Malformed> {
    let new_parent = at.node()?;
    let (flags, _padding) = if second { (at.u32()?, at.u32()?) } else { (0, 0) };
    Ok(Operation::Rename { parent, name: at.name()?, new_parent, new_name: at.name()?, flags })
}

fn copy_file_range(at: &mut Cursor<'_>, node: NodeId) -> Result<Operation, Malformed> {
    let (fh, offset) = (at.u64()?, at.u64()?);
    let (to_node, to_fh, to_offset) = (at.node()?, at.u64()?, at.u64()?);
    let (length, flags) = (at.u64()?, at.u64()?);
    Ok(Operation::CopyFileRange { node, fh, offset, to_node, to_fh, to_offset, length, flags })
}

/// `struct fuse_setattr_in`.
fn setattr(at: &mut Cursor<'_>) -> Result<SetAttributes, Malformed> {
    use abi::fattr;
    let (valid, _padding) = (at.u32()?, at.u32()?);
    let (fh, size, _lock_owner) = (at.u64()?, at.u64()?, at.u64()?);
    let (atime, mtime, _ctime) = (at.u64()?, at.u64()?, at.u64()?);
    let (atimensec, mtimensec, _ctimensec) = (at.u32()?, at.u32()?, at.u32()?);
    let (mode, _unused, uid, gid) = (at.u32()?, at.u32()?, at.u32()?, at.u32()?);
    let has = |flag| valid & flag != 0;
    Ok(SetAttributes {
        mode: has(fattr::MODE).then_some(mode),
        uid: has(fattr::UID).then_some(uid),
        gid: has(fattr::GID).then_some(gid),
        size: has(fattr::SIZE).then_some(size),
        atime: time(has(fattr::ATIME), has(fattr::ATIME_NOW), atime, atimensec)?,
        mtime: time(has(fattr::MTIME), has(fattr::MTIME_NOW), mtime, mtimensec)?,
        fh: has(fattr::FH).then_some(fh),
        kill_suidgid: has(fattr::KILL_SUIDGID),
    })
}

fn time(set: bool, now: bool, seconds: u64, nanoseconds: u32) -> Result<Option<TimeOrNow>, Malformed> {
    match (set, now) {
        (false, _) => Ok(None),
        (true, true) => Ok(Some(TimeOrNow::Now)),
        (true, false) if nanoseconds >= 1_000_000_000 => Err(Malformed::Nanoseconds(nanoseconds)),
        (true, false) => Ok(Some(TimeOrNow::At(Time { seconds: seconds as i64, nanoseconds }))),
    }
}

/// Reads what is left of a message.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.saturating_add(length);
        let slice = self.bytes.get(self.at..end).ok_or(Malformed::Truncated(end))?;
        self.at = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let slice = self.slice(N)?;
        slice.try_into().map_err(|_| Malformed::Truncated(self.at))
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_ne_bytes)
    }

    fn node(&mut self) -> Result<NodeId, Malformed> {
        self.u64().map(NodeId)
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        self.slice(length).map(Bytes::copy_from_slice)
    }

    /// Bytes up to a NUL, which is left out.
    fn string(&mut self) -> Result<Bytes, Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&b| b == 0).ok_or(Malformed::Unterminated)?;
        let string = self.take(length)?;
        self.at += 1;
        Ok(string)
    }

    /// One component of a path.
    fn name(&mut self) -> Result<Bytes, Malformed> {
        let name = self.string()?;
        if name.is_empty() || name.contains(&b'/') { Err(Malformed::Name) } else { Ok(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX_READ: u32 = 1 << 20;

    /// A message with a right length.
    fn message(opcode: u32, arguments: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((IN_HEADER as u32 + arguments.len() as u32).to_ne_bytes());
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(6_u64.to_ne_bytes());
        bytes.extend(9_u64.to_ne_bytes());
        bytes.extend([1000_u32, 100, 77, 0].map(u32::to_ne_bytes).concat());
        bytes.extend(arguments);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<(Header, Request), Malformed> {
        let header = Header::decode(bytes)?;
        Ok((header, header.request(bytes, MAX_READ)?))
    }

    fn words(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_ne_bytes()).collect()
    }

    #[test]
    fn a_lookup_has_its_caller_and_name() {
        let (header, request) = decode(&message(opcode::LOOKUP, b"abc\0")).unwrap();
        assert_eq!(header.caller, Caller { uid: 1000, gid: 100, pid: 77 });
        assert_eq!(header.unique, 6);
        let name = Bytes::from_static(b"abc");
        assert_eq!(request, Request::Operation(Operation::Lookup { parent: NodeId(9), name }));
    }

    #[test]
    fn the_data_of_a_write_is_a_range_of_the_message() {
        let mut arguments = [5_u64, 4096].map(u64::to_ne_bytes).concat();
        arguments.extend(words(&[3, abi::WRITE_CACHE, 0, 0, 2, 0]));
        arguments.extend(b"xyz");
        let bytes = message(opcode::WRITE, &arguments);
        let (_, Request::Write(write, range)) = decode(&bytes).unwrap() else { panic!("not a write") };
        assert_eq!(&bytes[range], b"xyz");
        let Operation::Write { fh, offset, cached, flags, .. } = write.with(Bytes::new()) else { panic!() };
        assert_eq!((fh, offset, cached, flags), (5, 4096, true, 2));
    }

    #[test]
    fn a_write_longer_than_the_message_is_malformed() {
        let mut arguments = words(&[0; 10]);
        arguments[16..20].copy_from_slice(&u32::MAX.to_ne_bytes());
        let told = decode(&message(opcode::WRITE, &arguments)).unwrap_err();
        assert!(matches!(told, Malformed::Truncated(_)), "{told}");
    }

    #[test]
    fn names_must_end_and_be_one_component() {
        let of = |bytes: &[u8]| decode(&message(opcode::LOOKUP, bytes)).unwrap_err();
        assert_eq!(of(b"abc"), Malformed::Unterminated);
        assert_eq!(of(b"\0"), Malformed::Name);
        assert_eq!(of(b"a/b\0"), Malformed::Name);
    }

    #[test]
    fn a_forget_of_more_than_there_is_is_malformed() {
        let told = decode(&message(opcode::BATCH_FORGET, &words(&[u32::MAX, 0, 1, 0, 1, 0]))).unwrap_err();
        assert!(matches!(told, Malformed::Truncated(_)), "{told}");
        let (_, request) = decode(&message(opcode::BATCH_FORGET, &words(&[1, 0, 4, 0, 2, 0]))).unwrap();
        assert_eq!(request, Request::Forget(vec![(NodeId(4), 2)]));
    }

    #[test]
    fn lengths_that_disagree_are_malformed() {
        let mut bytes = message(opcode::GETATTR, &[0; 16]);
        bytes.push(0);
        assert!(matches!(decode(&bytes), Err(Malformed::Length { given: 56, received: 57 })));
        assert_eq!(decode(&bytes[..39]), Err(Malformed::Short(39)));
    }

    #[test]
    fn extensions_are_left_out() {
        let mut bytes = message(opcode::LOOKUP, b"abc\0\0\0\0\0extended");
        bytes[36..38].copy_from_slice(&1_u16.to_ne_bytes());
        assert!(decode(&bytes).is_ok());
        bytes[36..38].copy_from_slice(&9_u16.to_ne_bytes());
        assert!(matches!(decode(&bytes), Err(Malformed::Truncated(72))));
    }

    #[test]
    fn setattr_has_what_its_flags_say() {
        let mut arguments = vec![0; 88];
        let valid = abi::fattr::SIZE | abi::fattr::MTIME | abi::fattr::ATIME | abi::fattr::ATIME_NOW;
        arguments[..4].copy_from_slice(&valid.to_ne_bytes());
        arguments[16..24].copy_from_slice(&99_u64.to_ne_bytes());
        arguments[40..48].copy_from_slice(&(-5_i64).to_ne_bytes());
        arguments[60..64].copy_from_slice(&7_u32.to_ne_bytes());
        let (_, request) = decode(&message(opcode::SETATTR, &arguments)).unwrap();
        let change = SetAttributes {
            size: Some(99),
            atime: Some(TimeOrNow::Now),
            mtime: Some(TimeOrNow::At(Time { seconds: -5, nanoseconds: 7 })),
            ..SetAttributes::default()
        };
        assert_eq!(request, Request::Operation(Operation::Setattr { node: NodeId(9), change }));
        arguments[60..64].copy_from_slice(&1_000_000_000_u32.to_ne_bytes());
        let told = decode(&message(opcode::SETATTR, &arguments)).unwrap_err();
        assert_eq!(told, Malformed::Nanoseconds(1_000_000_000));
    }

    #[test]
    fn reads_are_asked_for_up_to_the_limit() {
        let mut arguments = vec![0; 40];
        arguments[16..20].copy_from_slice(&u32::MAX.to_ne_bytes());
        let (_, request) = decode(&message(opcode::READ, &arguments)).unwrap();
        assert!(matches!(request, Request::Operation(Operation::Read { size: MAX_READ, .. })));
    }

    proptest! {
        #[test]
        fn random_arguments_never_panic(
            opcode in 0_u32..60,
            extensions in prop_oneof![4 => Just(0_u16), 1 => any::<u16>()],
            arguments in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = message(opcode, &arguments);
            bytes[36..38].copy_from_slice(&extensions.to_ne_bytes());
            if let Ok((_, Request::Write(_, range))) = decode(&bytes) {
                prop_assert!(range.end <= bytes.len());
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_message_that_is_cut_never_panics(opcode in 1_u32..52, cut in 0_usize..130) {
            let bytes = message(opcode, &[b'a'; 100]);
            let _ = decode(&bytes[..cut.min(bytes.len())]);
        }
    }
}
