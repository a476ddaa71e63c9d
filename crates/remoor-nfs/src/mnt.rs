//! The MOUNT program, version 3: RFC 1813 section 5.

use remoor_rpc::xdr::{self, Array, List, Opaque, Reader, Writer, Xdr};
use remoor_rpc::{program, xdr_open_enum, xdr_struct};

use crate::v3::FileHandle;

/// Longest path, in bytes.
pub const MAX_PATH: usize = 1024;
/// Longest host or group name, in bytes.
pub const MAX_NAME: usize = 255;

/// A path on the server.
pub type DirPath = Opaque<MAX_PATH>;
/// A host or group name.
pub type Name = Opaque<MAX_NAME>;

xdr_open_enum! {
    /// Outcome of a mount request.
    pub enum MountStat {
        /// Mounted.
        Ok = 0 "MNT3_OK",
        /// Not owner.
        Perm = 1 "MNT3ERR_PERM",
        /// No such file or directory.
        NoEnt = 2 "MNT3ERR_NOENT",
        /// I/O error.
        Io = 5 "MNT3ERR_IO",
        /// Permission denied: not exported to this client, or its port is not reserved.
        Acces = 13 "MNT3ERR_ACCES",
        /// Not a directory.
        NotDir = 20 "MNT3ERR_NOTDIR",
        /// Invalid argument.
        Inval = 22 "MNT3ERR_INVAL",
        /// File name too long.
        NameTooLong = 63 "MNT3ERR_NAMETOOLONG",
        /// Operation not supported.
        NotSupp = 10004 "MNT3ERR_NOTSUPP",
        /// The server failed.
        ServerFault = 10006 "MNT3ERR_SERVERFAULT",
    }
}

xdr_struct! {
    /// A granted mount.
    pub struct MountOk {
        /// Handle of the exported directory.
        pub handle: FileHandle,
        /// Credential flavors the export accepts, most preferred first.
        pub flavors: Array<u32, 16>,
    }

    /// One client's mount, as DUMP tells it.
    pub struct MountEntry {
        /// The client.
        pub host: Name,
        /// What it mounted.
        pub directory: DirPath,
    }

    /// One export, as EXPORT tells it.
    pub struct ExportEntry {
        /// The exported directory.
        pub directory: DirPath,
        /// Who may mount it; empty means everyone.
        pub groups: List<Name>,
    }
}

/// Result of MNT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRes(pub Result<MountOk, MountStat>);

impl Xdr for MountRes {
    fn encode(&self, w: &mut Writer) {
        match &self.0 {
            Ok(ok) => {
                MountStat::Ok.encode(w);
                ok.encode(w);
            }
            Err(stat) => stat.encode(w),
        }
    }
    fn decode(r: &mut Reader) -> xdr::Result<Self> {
        Ok(Self(match MountStat::decode(r)? {
            MountStat::Ok => Ok(MountOk::decode(r)?),
            stat => Err(stat),
        }))
    }
}

program! {
    /// MOUNT version 3.
    pub PROGRAM = "MOUNT" 100_005 version 3;
    0 Null "NULL" idempotent () => (),
    1 Mnt "MNT" idempotent DirPath => MountRes,
    2 Dump "DUMP" idempotent () => List<MountEntry>,
    3 Umnt "UMNT" idempotent DirPath => (),
    4 UmntAll "UMNTALL" idempotent () => (),
    5 Export "EXPORT" idempotent () => List<ExportEntry>,
}
