//! The 22 procedures: RFC 1813 section 3.3. The table is at the end; above it are their arguments and results.

use remoor_rpc::xdr::{self, ErrorKind, List, Reader, Writer, Xdr};
use remoor_rpc::{program, xdr_struct};

use super::types::*;

/// ACCESS bits, RFC 1813 section 3.3.4.
pub mod access {
    /// Read data or list the directory.
    pub const READ: u32 = 0x01;
    /// Look up a name in a directory.
    pub const LOOKUP: u32 = 0x02;
    /// Rewrite data or change directory entries.
    pub const MODIFY: u32 = 0x04;
    /// Write new data or add directory entries.
    pub const EXTEND: u32 = 0x08;
    /// Delete a directory entry.
    pub const DELETE: u32 = 0x10;
    /// Execute a file.
    pub const EXECUTE: u32 = 0x20;
}

/// FSINFO property bits, RFC 1813 section 3.3.19.
pub mod fsinfo {
    /// Hard links are supported.
    pub const LINK: u32 = 0x01;
    /// Symbolic links are supported.
    pub const SYMLINK: u32 = 0x02;
    /// PATHCONF is the same for every file.
    pub const HOMOGENEOUS: u32 = 0x08;
    /// SETATTR can set times.
    pub const CANSETTIME: u32 = 0x10;
}

xdr_struct! {
    /// The file an operation is about.
    pub struct OnFile {
        /// Its handle.
        pub file: FileHandle,
    }

    /// Attributes of an existing object.
    pub struct HasAttr {
        /// Its attributes.
        pub attr: Fattr,
    }

    /// SETATTR.
    pub struct SetattrArgs {
        /// The object.
        pub file: FileHandle,
        /// What to set.
        pub attr: Sattr,
        /// Only if the object's ctime is this.
        pub guard: Option<Time>,
    }

    /// LOOKUP.
    pub struct LookupOk {
        /// The object found.
        pub file: FileHandle,
        /// Its attributes.
        pub attr: PostOpAttr,
        /// The directory's attributes.
        pub dir_attr: PostOpAttr,
    }

    /// ACCESS.
    pub struct AccessArgs {
        /// The object.
        pub file: FileHandle,
        /// Bits asked, see [`access`].
        pub access: u32,
    }

    /// ACCESS.
    pub struct AccessOk {
        /// The object's attributes.
        pub attr: PostOpAttr,
        /// Bits granted of those asked.
        pub access: u32,
    }

    /// READLINK.
    pub struct ReadlinkOk {
        /// The link's attributes.
        pub attr: PostOpAttr,
        /// Its text.
        pub path: Path,
    }

    /// READ.
    pub struct ReadArgs {
        /// The file.
        pub file: FileHandle,
        /// First byte.
        pub offset: u64,
        /// Bytes wanted.
        pub count: u32,
    }

    /// READ.
    pub struct ReadOk {
        /// The file's attributes.
        pub attr: PostOpAttr,
        /// Bytes read; must equal the data's length.
        pub count: u32,
        /// Whether the end of the file was reached.
        pub eof: bool,
        /// The bytes.
        pub data: Data,
    }

    /// WRITE.
    pub struct WriteArgs {
        /// The file.
        pub file: FileHandle,
        /// First byte.
        pub offset: u64,
        /// Bytes to write; must equal the data's length.
        pub count: u32,
        /// How durable.
        pub stable: StableHow,
        /// The bytes.
        pub data: Data,
    }

    /// WRITE.
    pub struct WriteOk {
        /// The file's cache consistency data.
        pub wcc: WccData,
        /// Bytes written.
        pub count: u32,
        /// How durable they are.
        pub committed: StableHow,
        /// This server instance.
        pub verf: WriteVerf,
    }

    /// CREATE.
    pub struct CreateArgs {
        /// Where.
        pub place: DirOp,
        /// How.
        pub how: CreateHow,
    }

    /// MKDIR.
    pub struct MkdirArgs {
        /// Where.
        pub place: DirOp,
        /// With which attributes.
        pub attr: Sattr,
    }

    /// SYMLINK.
    pub struct SymlinkArgs {
        /// Where.
        pub place: DirOp,
        /// With which attributes.
        pub attr: Sattr,
        /// Its text.
        pub path: Path,
    }

    /// MKNOD.
    pub struct MknodArgs {
        /// Where.
        pub place: DirOp,
        /// What.
        pub what: MknodData,
    }

    /// CREATE, MKDIR, SYMLINK and MKNOD: the new object.
    pub struct CreateOk {
        /// Its handle.
        pub file: Option<FileHandle>,
        /// Its attributes.
        pub attr: PostOpAttr,
        /// The directory's cache consistency data.
        pub dir_wcc: WccData,
    }

    /// RENAME.
    pub struct RenameArgs {
        /// The old name.
        pub from: DirOp,
        /// The new name.
        pub to: DirOp,
    }

    /// RENAME, with either status.
    #[derive(Default)]
    pub struct RenameWcc {
        /// The old directory.
        pub from: WccData,
        /// The new directory.
        pub to: WccData,
    }

    /// LINK.
    pub struct LinkArgs {
        /// The existing object.
        pub file: FileHandle,
        /// The new name.
        pub to: DirOp,
    }

    /// LINK, with either status.
    #[derive(Default)]
    pub struct LinkWcc {
        /// The object's attributes.
        pub attr: PostOpAttr,
        /// The directory's cache consistency data.
        pub dir_wcc: WccData,
    }

    /// READDIR.
    pub struct ReaddirArgs {
        /// The directory.
        pub dir: FileHandle,
        /// Where to go on; 0 for the start.
        pub cookie: u64,
        /// From the previous reply; zeros for the start.
        pub verf: CookieVerf,
        /// Most bytes the result may have.
        pub count: u32,
    }

    /// A directory entry of READDIR.
    pub struct Entry {
        /// The object's number.
        pub fileid: u64,
        /// Its name.
        pub name: FileName,
        /// Where to go on after it.
        pub cookie: u64,
    }

    /// READDIR.
    pub struct ReaddirOk {
        /// The directory's attributes.
        pub dir_attr: PostOpAttr,
        /// To be sent with the next call.
        pub verf: CookieVerf,
        /// The entries.
        pub entries: List<Entry>,
        /// Whether this is the end.
        pub eof: bool,
    }

    /// READDIRPLUS.
    pub struct ReaddirplusArgs {
        /// The directory.
        pub dir: FileHandle,
        /// Where to go on; 0 for the start.
        pub cookie: u64,
        /// From the previous reply; zeros for the start.
        pub verf: CookieVerf,
        /// Most bytes of names, fileids and cookies.
        pub dir_count: u32,
        /// Most bytes the result may have.
        pub max_count: u32,
    }

    /// A directory entry of READDIRPLUS.
    pub struct EntryPlus {
        /// The object's number.
        pub fileid: u64,
        /// Its name.
        pub name: FileName,
        /// Where to go on after it.
        pub cookie: u64,
        /// Its attributes.
        pub attr: PostOpAttr,
        /// Its handle.
        pub file: Option<FileHandle>,
    }

    /// READDIRPLUS.
    pub struct ReaddirplusOk {
        /// The directory's attributes.
        pub dir_attr: PostOpAttr,
        /// To be sent with the next call.
        pub verf: CookieVerf,
        /// The entries.
        pub entries: List<EntryPlus>,
        /// Whether this is the end.
        pub eof: bool,
    }

    /// FSSTAT.
    pub struct FsstatOk {
        /// The root's attributes.
        pub attr: PostOpAttr,
        /// Total bytes.
        pub total_bytes: u64,
        /// Free bytes.
        pub free_bytes: u64,
        /// Free bytes for this user.
        pub available_bytes: u64,
        /// Total file slots.
        pub total_files: u64,
        /// Free file slots.
        pub free_files: u64,
        /// Free file slots for this user.
        pub available_files: u64,
        /// Seconds for which this is not expected to change.
        pub invarsec: u32,
    }

    /// FSINFO.
    pub struct FsinfoOk {
        /// The root's attributes.
        pub attr: PostOpAttr,
        /// Largest READ, bytes.
        pub rtmax: u32,
        /// Preferred READ, bytes.
        pub rtpref: u32,
        /// Suggested multiple of a READ, bytes.
        pub rtmult: u32,
        /// Largest WRITE, bytes.
        pub wtmax: u32,
        /// Preferred WRITE, bytes.
        pub wtpref: u32,
        /// Suggested multiple of a WRITE, bytes.
        pub wtmult: u32,
        /// Preferred READDIR, bytes.
        pub dtpref: u32,
        /// Largest file, bytes.
        pub maxfilesize: u64,
        /// Granularity of times.
        pub time_delta: Time,
        /// Bits of [`fsinfo`].
        pub properties: u32,
    }

    /// PATHCONF.
    pub struct PathconfOk {
        /// The object's attributes.
        pub attr: PostOpAttr,
        /// Most hard links.
        pub linkmax: u32,
        /// Longest name, bytes.
        pub name_max: u32,
        /// Names that are too long are refused, not cut.
        pub no_trunc: bool,
        /// Only a privileged user may change the owner.
        pub chown_restricted: bool,
        /// Names do not distinguish case.
        pub case_insensitive: bool,
        /// Names keep their case.
        pub case_preserving: bool,
    }

    /// COMMIT.
    pub struct CommitArgs {
        /// The file.
        pub file: FileHandle,
        /// First byte.
        pub offset: u64,
        /// Bytes; 0 means to the end.
        pub count: u32,
    }

    /// COMMIT.
    pub struct CommitOk {
        /// The file's cache consistency data.
        pub wcc: WccData,
        /// This server instance: if it differs from a WRITE's, that WRITE must be sent again.
        pub verf: WriteVerf,
    }

    /// A device to make.
    pub struct DeviceData {
        /// With which attributes.
        pub attr: Sattr,
        /// Its numbers.
        pub device: Device,
    }
}

/// How a CREATE treats an existing file (`createhow3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateHow {
    /// Use it.
    Unchecked(Sattr),
    /// Refuse.
    Guarded(Sattr),
    /// Refuse unless it was created with this verifier.
    Exclusive(CreateVerf),
}

impl Xdr for CreateHow {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Unchecked(attr) => (0u32, attr.clone()).encode(w),
            Self::Guarded(attr) => (1u32, attr.clone()).encode(w),
            Self::Exclusive(verf) => (2u32, *verf).encode(w),
        }
    }
    fn decode(r: &mut Reader) -> xdr::Result<Self> {
        match r.u32("createmode3")? {
            0 => Sattr::decode(r).map(Self::Unchecked),
            1 => Sattr::decode(r).map(Self::Guarded),
            2 => r.fixed("createverf3").map(Self::Exclusive),
            value => Err(r.error("createmode3", ErrorKind::BadValue { value })),
        }
    }
}

/// What MKNOD makes (`mknoddata3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MknodData {
    /// A block device.
    Block(DeviceData),
    /// A character device.
    Character(DeviceData),
    /// A socket.
    Socket(Sattr),
    /// A named pipe.
    Fifo(Sattr),
    /// A type MKNOD does not make; answered with NFS3ERR_BADTYPE.
    Other(FileType),
}

impl Xdr for MknodData {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Block(data) => (FileType::Block, data.clone()).encode(w),
            Self::Character(data) => (FileType::Character, data.clone()).encode(w),
            Self::Socket(attr) => (FileType::Socket, attr.clone()).encode(w),
            Self::Fifo(attr) => (FileType::Fifo, attr.clone()).encode(w),
            Self::Other(kind) => kind.encode(w),
        }
    }
    fn decode(r: &mut Reader) -> xdr::Result<Self> {
        Ok(match FileType::decode(r)? {
            FileType::Block => Self::Block(DeviceData::decode(r)?),
            FileType::Character => Self::Character(DeviceData::decode(r)?),
            FileType::Socket => Self::Socket(Sattr::decode(r)?),
            FileType::Fifo => Self::Fifo(Sattr::decode(r)?),
            kind => Self::Other(kind),
        })
    }
}

program! {
    /// NFS version 3. `once` marks what [RFC 1813 section 4.5](https://www.rfc-editor.org/rfc/rfc1813#section-4.5) calls
    /// non-idempotent: a retransmission that is executed again may fail or destroy. WRITE is idempotent by itself.
    pub PROGRAM = "NFS" 100_003 version 3;
    0 Null "NULL" idempotent () => (),
    1 Getattr "GETATTR" idempotent OnFile => Res<HasAttr>,
    2 Setattr "SETATTR" once SetattrArgs => Res<WccData, WccData>,
    3 Lookup "LOOKUP" idempotent DirOp => Res<LookupOk, PostOpAttr>,
    4 Access "ACCESS" idempotent AccessArgs => Res<AccessOk, PostOpAttr>,
    5 Readlink "READLINK" idempotent OnFile => Res<ReadlinkOk, PostOpAttr>,
    6 Read "READ" idempotent ReadArgs => Res<ReadOk, PostOpAttr>,
    7 Write "WRITE" idempotent WriteArgs => Res<WriteOk, WccData>,
    8 Create "CREATE" once CreateArgs => Res<CreateOk, WccData>,
    9 Mkdir "MKDIR" once MkdirArgs => Res<CreateOk, WccData>,
    10 Symlink "SYMLINK" once SymlinkArgs => Res<CreateOk, WccData>,
    11 Mknod "MKNOD" once MknodArgs => Res<CreateOk, WccData>,
    12 Remove "REMOVE" once DirOp => Res<WccData, WccData>,
    13 Rmdir "RMDIR" once DirOp => Res<WccData, WccData>,
    14 Rename "RENAME" once RenameArgs => Res<RenameWcc, RenameWcc>,
    15 Link "LINK" once LinkArgs => Res<LinkWcc, LinkWcc>,
    16 Readdir "READDIR" idempotent ReaddirArgs => Res<ReaddirOk, PostOpAttr>,
    17 Readdirplus "READDIRPLUS" idempotent ReaddirplusArgs => Res<ReaddirplusOk, PostOpAttr>,
    18 Fsstat "FSSTAT" idempotent OnFile => Res<FsstatOk, PostOpAttr>,
    19 Fsinfo "FSINFO" idempotent OnFile => Res<FsinfoOk, PostOpAttr>,
    20 Pathconf "PATHCONF" idempotent OnFile => Res<PathconfOk, PostOpAttr>,
    21 Commit "COMMIT" idempotent CommitArgs => Res<CommitOk, WccData>,
}
