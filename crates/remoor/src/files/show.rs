//! Attributes as people and programs read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use remoor_nfs::v3::{Fattr, FileType, Time};
use serde_json::{Value, json};

use super::name::escaped;
use super::url::Url;

/// Type and permissions in ten letters, as ls(1) has them.
pub(super) fn mode(attr: &Fattr) -> String {
    let bit = |bit: u32, letter: char| if attr.mode & bit != 0 { letter } else { '-' };
    let execute =
        |bit: u32, special: u32, letter: char| match (attr.mode & bit != 0, attr.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        };
    [
        letter(attr.kind),
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        execute(0o100, 0o4000, 's'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        execute(0o010, 0o2000, 's'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        execute(0o001, 0o1000, 't'),
    ]
    .iter()
    .collect()
}

fn letter(kind: FileType) -> char {
    match kind {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::Block => 'b',
        FileType::Character => 'c',
        FileType::Symlink => 'l',
        FileType::Socket => 's',
        FileType::Fifo => 'p',
    }
}

/// The type's name.
pub(super) fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Regular => "regular file",
        FileType::Directory => "directory",
        FileType::Block => "block device",
        FileType::Character => "character device",
        FileType::Symlink => "symbolic link",
        FileType::Socket => "socket",
        FileType::Fifo => "named pipe",
    }
}

/// A number of bytes, in at most four digits and a unit of 1024s with `human`.
pub(super) fn size(bytes: u64, human: bool) -> String {
    const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    if !human || bytes < 1024 {
        return bytes.to_string();
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if value < 9.95 { format!("{value:.1}{}", UNITS[unit]) } else { format!("{value:.0}{}", UNITS[unit]) }
}

fn timestamp(time: Time) -> Timestamp {
    // Servers send what they like for nanoseconds.
    Timestamp::new(i64::from(time.seconds), time.nanos.min(999_999_999) as i32)
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// To the minute, in `zone`.
pub(super) fn minute(time: Time, zone: &TimeZone) -> String {
    timestamp(time).to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// All of it, in `zone`.
pub(super) fn exactly(time: Time, zone: &TimeZone) -> String {
    timestamp(time).to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S.%9f %z").to_string()
}

/// Everything, for programs. `name` is readable, `url` is exact.
pub(super) fn json(url: &Url, attr: &Fattr, target: Option<&[u8]>) -> Value {
    let mut json = json!({
        "name": escaped(url.name()),
        "url": url.to_string(),
        "type": kind(attr.kind),
        "mode": format!("{:04o}", attr.mode & 0o7777),
        "nlink": attr.nlink,
        "uid": attr.uid,
        "gid": attr.gid,
        "size": attr.size,
        "used": attr.used,
        "fsid": format!("{:x}", attr.fsid),
        "fileid": attr.fileid,
        "atime": timestamp(attr.atime).to_string(),
        "mtime": timestamp(attr.mtime).to_string(),
        "ctime": timestamp(attr.ctime).to_string(),
    });
    if matches!(attr.kind, FileType::Block | FileType::Character) {
        json["rdev"] = json!({ "major": attr.rdev.major, "minor": attr.rdev.minor });
    }
    if let Some(target) = target {
        json["target"] = escaped(target).into();
    }
    json
}

#[cfg(test)]
pub(super) mod tests {
    use remoor_nfs::v3::Device;

    use super::*;

    pub(in super::super) fn attr(kind: FileType, mode: u32, size: u64) -> Fattr {
        let time = |seconds| Time { seconds, nanos: 5 };
        Fattr {
            kind,
            mode,
            nlink: 1,
            uid: 1000,
            gid: 100,
            size,
            used: size,
            rdev: Device { major: 8, minor: 1 },
            fsid: 0xabc,
            fileid: 7,
            atime: time(1),
            mtime: time(1_764_000_000),
            ctime: time(3),
        }
    }

    #[test]
    fn modes_are_those_of_ls() {
        let mode = |kind, bits| mode(&attr(kind, bits, 0));
        assert_eq!(mode(FileType::Regular, 0o644), "-rw-r--r--");
        assert_eq!(mode(FileType::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode(FileType::Regular, 0o6755), "-rwsr-sr-x");
        assert_eq!(mode(FileType::Fifo, 0o7000), "p--S--S--T");
    }

    #[test]
    fn sizes_are_short_for_people() {
        let human = [0, 1023, 1024, 10_188, 10_200, 1_048_000, 1 << 20, u64::MAX].map(|n| size(n, true));
        assert_eq!(human, ["0", "1023", "1.0K", "9.9K", "10K", "1023K", "1.0M", "16E"]);
        assert_eq!(size(1 << 20, false), "1048576");
    }

    #[test]
    fn times_are_exact_for_programs_and_never_fail() {
        let time = Time { seconds: 1_764_000_000, nanos: 5 };
        assert_eq!(minute(time, &TimeZone::UTC), "2025-11-24 16:00");
        assert_eq!(exactly(time, &TimeZone::UTC), "2025-11-24 16:00:00.000000005 +0000");
        let strange = Time { seconds: u32::MAX, nanos: u32::MAX };
        assert_eq!(minute(strange, &TimeZone::UTC), "2106-02-07 06:28");
    }
}
