//! `/proc/self/mountinfo`: which mounts are ours, found without touching them, because touching one whose server is gone
//! may wait for ever. Its form is in proc_pid_mountinfo(5).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Type of our mounts, as the kernel shows it.
pub const FS_TYPE: &str = "fuse.remoor";

/// A mount of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// `major:minor` of its device, which no two mounted file systems of a machine share.
    pub device: String,
    /// Where it is.
    pub target: PathBuf,
    /// What it was mounted from.
    pub source: OsString,
    /// Options of the mount and of its file system.
    pub options: String,
    /// Who has mounted it (`user_id=`).
    pub user: u32,
}

/// Our mounts in this mount namespace, a mount below those that cover it.
pub fn ours() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The uppermost mount at `target`, if it is ours. The path is compared as it is written: symbolic links in it are the
/// caller's to resolve, up to the directory that the mount point is in.
pub fn at(target: &Path) -> io::Result<Option<MountEntry>> {
    let all = fs::read("/proc/self/mountinfo")?;
    Ok(parse_all(&all).filter(|(entry, _)| entry.target == target).last().and_then(only_ours))
}

fn parse(mountinfo: &[u8]) -> Vec<MountEntry> {
    parse_all(mountinfo).filter_map(only_ours).collect()
}

fn only_ours((entry, fs_type): (MountEntry, &[u8])) -> Option<MountEntry> {
    (fs_type == FS_TYPE.as_bytes()).then_some(entry)
}

/// Every mount, with its type.
fn parse_all(mountinfo: &[u8]) -> impl Iterator<Item = (MountEntry, &[u8])> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line)
}

fn parse_line(line: &[u8]) -> Option<(MountEntry, &[u8])> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let target = fields.nth(1)?;
    let options = fields.next()?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (fs_type, source, more) = (fields.next()?, fields.next()?, fields.next()?);
    let options = [options, more].map(String::from_utf8_lossy).join(",");
    let entry = MountEntry {
        device: String::from_utf8_lossy(device).into_owned(),
        target: unescaped(target).into(),
        source: unescaped(source),
        user: user(&options),
        options,
    };
    Some((entry, fs_type))
}

fn user(options: &str) -> u32 {
    options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok()).unwrap_or_default()
}

/// Without the octal escapes of blanks and backslashes (`mangle_path()` of the kernel).
fn unescaped(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, more)) = rest.split_first() {
        let escaped = octal(more.get(..3)).filter(|_| *byte == b'\\');
        out.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &more[3..] } else { more };
    }
    OsString::from_vec(out)
}

fn octal(digits: Option<&[u8]>) -> Option<u8> {
    u8::from_str_radix(OsStr::from_bytes(digits?).to_str()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
24 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
40 24 0:57 / /mnt/with\\040blank\\134 ro,nosuid shared:9 master:2 - fuse.remoor [2001:db8::1]:/a\\040b rw,user_id=1000,group_id=4
41 24 0:58 / /mnt/b rw - fuse.sshfs h: rw,user_id=0
42 24 0:59 / /mnt/c rw - fuse.remoor h:/c rw,user_id=0
short line
";

    #[test]
    fn our_mounts_are_found_with_their_user_and_their_real_path() {
        let ours = parse(MOUNTINFO.as_bytes());
        assert_eq!(ours.len(), 2);
        assert_eq!(ours[0].target, Path::new("/mnt/with blank\\"));
        assert_eq!(ours[0].source, "[2001:db8::1]:/a b");
        assert_eq!((ours[0].user, ours[0].device.as_str()), (1000, "0:57"));
        assert_eq!(ours[0].options, "ro,nosuid,rw,user_id=1000,group_id=4");
        assert_eq!((ours[1].user, ours[1].target.as_path()), (0, Path::new("/mnt/c")));
    }

    #[test]
    fn this_kernel_writes_what_is_read_here() {
        let all = fs::read("/proc/self/mountinfo").unwrap();
        let lines = all.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert_eq!(parse_all(&all).count(), lines);
        assert_eq!(at(Path::new("/proc")).unwrap(), None);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescaped(b"a\\0"), "a\\0");
        assert_eq!(unescaped(b"\\999x\\011"), "\\999x\t");
    }
}
