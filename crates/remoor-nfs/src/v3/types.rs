//! Types shared by the procedures: RFC 1813 sections 2.5 and 2.6.

use remoor_rpc::xdr::{self, ErrorKind, Opaque, Reader, Writer, Xdr};
use remoor_rpc::{xdr_enum, xdr_open_enum, xdr_struct};

/// Longest file handle, in bytes.
pub const MAX_HANDLE: usize = 64;
/// Longest name or path a message may carry, in bytes; a server answers names over its own limit with
/// NFS3ERR_NAMETOOLONG, which needs them decoded first.
pub const MAX_NAME: usize = 4096;
/// Most bytes one READ or WRITE can carry.
pub const MAX_IO: usize = 1 << 20;

/// Names a file to its server for as long as the file exists.
pub type FileHandle = Opaque<MAX_HANDLE>;
/// One component of a path. Bytes, not text.
pub type FileName = Opaque<MAX_NAME>;
/// A symbolic link's text.
pub type Path = Opaque<MAX_NAME>;
/// File data.
pub type Data = Opaque<MAX_IO>;
/// Distinguishes a server instance's unstable data from another's.
pub type WriteVerf = [u8; 8];
/// Identifies an exclusive create.
pub type CreateVerf = [u8; 8];
/// Tells whether directory cookies are still good.
pub type CookieVerf = [u8; 8];
/// Attributes after an operation, if the server has them.
pub type PostOpAttr = Option<Fattr>;

xdr_open_enum! {
    /// Status of a procedure, RFC 1813 section 2.6.
    pub enum NfsStat {
        /// Done.
        Ok = 0 "NFS3_OK",
        /// Not owner, or the port is not reserved on a `secure` export.
        Perm = 1 "NFS3ERR_PERM",
        /// No such file or directory.
        NoEnt = 2 "NFS3ERR_NOENT",
        /// I/O error.
        Io = 5 "NFS3ERR_IO",
        /// No such device or address.
        Nxio = 6 "NFS3ERR_NXIO",
        /// Permission denied.
        Acces = 13 "NFS3ERR_ACCES",
        /// File exists.
        Exist = 17 "NFS3ERR_EXIST",
        /// Cross-device link.
        XDev = 18 "NFS3ERR_XDEV",
        /// No such device.
        NoDev = 19 "NFS3ERR_NODEV",
        /// Not a directory.
        NotDir = 20 "NFS3ERR_NOTDIR",
        /// Is a directory.
        IsDir = 21 "NFS3ERR_ISDIR",
        /// Invalid argument.
        Inval = 22 "NFS3ERR_INVAL",
        /// File too large.
        FBig = 27 "NFS3ERR_FBIG",
        /// No space left.
        NoSpc = 28 "NFS3ERR_NOSPC",
        /// Read-only file system.
        RoFs = 30 "NFS3ERR_ROFS",
        /// Too many links.
        MLink = 31 "NFS3ERR_MLINK",
        /// Name too long.
        NameTooLong = 63 "NFS3ERR_NAMETOOLONG",
        /// Directory not empty.
        NotEmpty = 66 "NFS3ERR_NOTEMPTY",
        /// Quota exceeded.
        DQuot = 69 "NFS3ERR_DQUOT",
        /// The handle's file is gone.
        Stale = 70 "NFS3ERR_STALE",
        /// Too many levels of remote.
        Remote = 71 "NFS3ERR_REMOTE",
        /// Not a handle of this server.
        BadHandle = 10001 "NFS3ERR_BADHANDLE",
        /// SETATTR guard did not match.
        NotSync = 10002 "NFS3ERR_NOT_SYNC",
        /// READDIR cookie is not good any more.
        BadCookie = 10003 "NFS3ERR_BAD_COOKIE",
        /// Not supported.
        NotSupp = 10004 "NFS3ERR_NOTSUPP",
        /// Buffer or request too small.
        TooSmall = 10005 "NFS3ERR_TOOSMALL",
        /// The server failed.
        ServerFault = 10006 "NFS3ERR_SERVERFAULT",
        /// File type not supported.
        BadType = 10007 "NFS3ERR_BADTYPE",
        /// Try again later.
        Jukebox = 10008 "NFS3ERR_JUKEBOX",
    }
}

xdr_enum! {
    /// File type.
    pub enum FileType {
        /// Regular file.
        Regular = 1,
        /// Directory.
        Directory = 2,
        /// Block device.
        Block = 3,
        /// Character device.
        Character = 4,
        /// Symbolic link.
        Symlink = 5,
        /// Socket.
        Socket = 6,
        /// Named pipe.
        Fifo = 7,
    }

    /// How durable a WRITE must be, or was.
    pub enum StableHow {
        /// May be lost until COMMIT.
        Unstable = 0,
        /// Data and the metadata needed to read it are on stable storage.
        DataSync = 1,
        /// Data and all metadata are on stable storage.
        FileSync = 2,
    }
}

xdr_struct! {
    /// A point in time.
    #[derive(Copy, PartialOrd, Ord, Hash)]
    pub struct Time {
        /// Seconds since 1970.
        pub seconds: u32,
        /// Nanoseconds.
        pub nanos: u32,
    }

    /// Numbers of a device.
    #[derive(Copy)]
    pub struct Device {
        /// Major number.
        pub major: u32,
        /// Minor number.
        pub minor: u32,
    }

    /// File attributes (`fattr3`).
    pub struct Fattr {
        /// File type.
        pub kind: FileType,
        /// Permission bits, with set-uid, set-gid and sticky.
        pub mode: u32,
        /// Hard links.
        pub nlink: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// Size in bytes.
        pub size: u64,
        /// Bytes of disk space used.
        pub used: u64,
        /// Device numbers, for device files.
        pub rdev: Device,
        /// File system.
        pub fsid: u64,
        /// Number of the file in its file system.
        pub fileid: u64,
        /// Last access.
        pub atime: Time,
        /// Last modification of the data.
        pub mtime: Time,
        /// Last change of attributes or data.
        pub ctime: Time,
    }

    /// Attributes before an operation, for cache consistency (`wcc_attr`).
    pub struct WccAttr {
        /// Size in bytes.
        pub size: u64,
        /// Last modification.
        pub mtime: Time,
        /// Last change.
        pub ctime: Time,
    }

    /// Weak cache consistency data (`wcc_data`).
    #[derive(Default)]
    pub struct WccData {
        /// Before, if nothing else changed the object in between.
        pub before: Option<WccAttr>,
        /// After.
        pub after: PostOpAttr,
    }

    /// Attributes to set (`sattr3`); what is `None` stays.
    #[derive(Default)]
    pub struct Sattr {
        /// Permission bits.
        pub mode: Option<u32>,
        /// Owner.
        pub uid: Option<u32>,
        /// Group.
        pub gid: Option<u32>,
        /// Size in bytes.
        pub size: Option<u64>,
        /// Last access.
        pub atime: SetTime,
        /// Last modification.
        pub mtime: SetTime,
    }

    /// A directory and a name in it (`diropargs3`).
    pub struct DirOp {
        /// The directory.
        pub dir: FileHandle,
        /// The name.
        pub name: FileName,
    }
}

impl From<&Fattr> for WccAttr {
    fn from(a: &Fattr) -> Self {
        Self { size: a.size, mtime: a.mtime, ctime: a.ctime }
    }
}

/// What to do with a time (`set_atime`, `set_mtime`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetTime {
    /// Leave it.
    #[default]
    Keep,
    /// The server's time.
    Server,
    /// This time.
    Client(Time),
}

impl Xdr for SetTime {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Keep => w.u32(0),
            Self::Server => w.u32(1),
            Self::Client(time) => {
                w.u32(2);
                time.encode(w);
            }
        }
    }
    fn decode(r: &mut Reader) -> xdr::Result<Self> {
        match r.u32("time_how")? {
            0 => Ok(Self::Keep),
            1 => Ok(Self::Server),
            2 => Time::decode(r).map(Self::Client),
            value => Err(r.error("time_how", ErrorKind::BadValue { value })),
        }
    }
}

/// A procedure's result: status, then one of two bodies (`union switch (nfsstat3 status)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Res<T, F = ()> {
    /// NFS3_OK.
    Ok(T),
    /// Any other status, with what the procedure tells on failure.
    Fail(NfsStat, F),
}

impl<T, F> Res<T, F> {
    /// The status.
    pub fn status(&self) -> NfsStat {
        match self {
            Self::Ok(_) => NfsStat::Ok,
            Self::Fail(status, _) => *status,
        }
    }

    /// As a `Result`, without the failure's body.
    pub fn into_result(self) -> Result<T, NfsStat> {
        match self {
            Self::Ok(v) => Ok(v),
            Self::Fail(status, _) => Err(status),
        }
    }
}

impl<T: Xdr, F: Xdr> Xdr for Res<T, F> {
    fn encode(&self, w: &mut Writer) {
        self.status().encode(w);
        match self {
            Self::Ok(v) => v.encode(w),
            Self::Fail(_, v) => v.encode(w),
        }
    }
    fn decode(r: &mut Reader) -> xdr::Result<Self> {
        match NfsStat::decode(r)? {
            NfsStat::Ok => T::decode(r).map(Self::Ok),
            status => F::decode(r).map(|v| Self::Fail(status, v)),
        }
    }
}
