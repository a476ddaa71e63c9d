//! From NFS types to the kernel's and back.

use std::time::Duration;

use remoor_fuse::{Attributes, DirectoryEntry, Entry, NodeId, Reply, SetAttributes, Statfs, Time, TimeOrNow};
use remoor_nfs::v3::{self, Device, FileType, FsstatOk, Sattr, SetTime};

use super::Outcome;
use crate::errno::Errno as Failure;
use crate::fs::directory::DirEntry;
use crate::fs::{self, Attr};

/// Bytes of a block in statfs(2), and what an application reads and writes best.
const BLOCK: u32 = 4096;
/// Preferred size of a read or write, in bytes.
const IO_BLOCK: u32 = 1 << 20;

/// Bits of a mode that tell what an object is (stat(2)), by type.
const KINDS: [(FileType, u32); 7] = [
    (FileType::Regular, 0o100_000),
    (FileType::Directory, 0o040_000),
    (FileType::Symlink, 0o120_000),
    (FileType::Block, 0o060_000),
    (FileType::Character, 0o020_000),
    (FileType::Fifo, 0o010_000),
    (FileType::Socket, 0o140_000),
];

fn format(kind: FileType) -> u32 {
    KINDS.iter().find(|(known, _)| *known == kind).map_or(0, |(_, bits)| *bits)
}

/// What a mode says an object is.
pub(super) fn kind(mode: u32) -> Option<FileType> {
    KINDS.iter().find(|(_, bits)| *bits == mode & 0o170_000).map(|(kind, _)| *kind)
}

pub(super) fn device(rdev: u32) -> Device {
    let (major, minor) = Attributes::major_minor(rdev);
    Device { major, minor }
}

fn time(time: v3::Time) -> Time {
    Time { seconds: time.seconds.into(), nanoseconds: time.nanos }
}

fn attributes(attr: &v3::Fattr) -> Attributes {
    Attributes {
        ino: attr.fileid,
        size: attr.size,
        blocks: attr.used.div_ceil(512),
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        mode: format(attr.kind) | (attr.mode & 0o7777),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: Attributes::device(attr.rdev.major, attr.rdev.minor),
        blksize: IO_BLOCK,
    }
}

pub(super) fn shown(attr: &Attr) -> Reply {
    Reply::Attributes(attributes(&attr.attr), attr.valid)
}

pub(super) fn entry(found: &fs::Entry) -> Entry {
    Entry {
        node: NodeId(found.node.0),
        generation: 0,
        attributes: attributes(&found.attr.attr),
        attributes_valid: found.attr.valid,
        entry_valid: found.valid,
    }
}

pub(super) fn found(outcome: Result<fs::Entry, Failure>) -> Outcome {
    outcome.map(|found| Reply::Entry(entry(&found)))
}

pub(super) fn listed(listed: &DirEntry) -> DirectoryEntry<'_> {
    let mode = listed.kind.map_or(0, format);
    DirectoryEntry { ino: listed.fileid, offset: listed.offset, mode, name: &listed.name }
}

/// An entry without a node tells the kernel only the name.
pub(super) fn plus(listed: &DirEntry) -> Entry {
    listed.found.as_ref().map_or_else(|| Entry::negative(Duration::ZERO), entry)
}

pub(super) fn space(ok: &FsstatOk, longest_name: u32) -> Statfs {
    let blocks = |bytes: u64| bytes / u64::from(BLOCK);
    Statfs {
        blocks: blocks(ok.total_bytes),
        bfree: blocks(ok.free_bytes),
        bavail: blocks(ok.available_bytes),
        files: ok.total_files,
        ffree: ok.free_files,
        bsize: BLOCK,
        namelen: longest_name,
        frsize: BLOCK,
    }
}

pub(super) fn change(change: &SetAttributes) -> Sattr {
    Sattr {
        mode: change.mode.map(|mode| mode & 0o7777),
        uid: change.uid,
        gid: change.gid,
        size: change.size,
        atime: set_time(change.atime),
        mtime: set_time(change.mtime),
    }
}

/// Seconds of NFS version 3 are 32 bits wide and not negative; what is out of range becomes the nearest.
fn set_time(to: Option<TimeOrNow>) -> SetTime {
    match to {
        None => SetTime::Keep,
        Some(TimeOrNow::Now) => SetTime::Server,
        Some(TimeOrNow::At(at)) => SetTime::Client(match u32::try_from(at.seconds) {
            Ok(seconds) => v3::Time { seconds, nanos: at.nanoseconds },
            Err(_) if at.seconds < 0 => v3::Time { seconds: 0, nanos: 0 },
            Err(_) => v3::Time { seconds: u32::MAX, nanos: 0 },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_both_ways() {
        for (kind_of, bits) in KINDS {
            assert_eq!(kind(bits | 0o755), Some(kind_of));
            assert_eq!(format(kind_of), bits);
        }
        assert_eq!(kind(0o644), None);
    }

    #[test]
    fn times_out_of_range_become_the_nearest() {
        let at = |seconds| set_time(Some(TimeOrNow::At(Time { seconds, nanoseconds: 5 })));
        assert_eq!(at(-1), SetTime::Client(v3::Time { seconds: 0, nanos: 0 }));
        assert_eq!(at(1 << 33), SetTime::Client(v3::Time { seconds: u32::MAX, nanos: 0 }));
        assert_eq!(at(7), SetTime::Client(v3::Time { seconds: 7, nanos: 5 }));
        assert_eq!(set_time(None), SetTime::Keep);
    }
}
