//! What is mounted, as `/proc/self/mountinfo` shows it: reading it touches no file system.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Major device number of its files: 0.
    pub major: u32,
    /// Minor device number; also the number of the connection under `/sys/fs/fuse/connections`.
    pub minor: u32,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Its options, those of the mount before those of the file system.
    pub options: String,
    /// Its type, with the subtype.
    pub fstype: String,
    /// What is mounted.
    pub source: OsString,
}

/// What is mounted on `target`: the topmost, if several are.
///
/// # Errors
/// If `/proc/self/mountinfo` cannot be read.
pub fn mounted(target: &Path) -> io::Result<Option<Mounted>> {
    let target = absolute(target);
    Ok(parse(&fs::read("/proc/self/mountinfo")?).filter(|m| m.target == target).last())
}

/// The path with its directories resolved, but not the last component: that may be a mount that does not answer.
pub(super) fn absolute(target: &Path) -> PathBuf {
    let whole = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
    match (whole.parent().map(fs::canonicalize), whole.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => whole,
    }
}

fn parse(text: &[u8]) -> impl Iterator<Item = Mounted> {
    text.split(|&b| b == b'\n').filter_map(line)
}

/// `ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS [FIELD...] - TYPE SOURCE OPTIONS`, see proc_pid_mountinfo(5).
fn line(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<_> = line.split(|&b| b == b' ').collect();
    let dash = fields.iter().position(|&f| f == b"-")?;
    let text = |at: usize| fields.get(at).map(|f| String::from_utf8_lossy(f).into_owned());
    let device = text(2)?;
    let (major, minor) = device.split_once(':')?;
    Some(Mounted {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        target: unescape(fields.get(4)?).into(),
        options: format!("{},{}", text(5)?, text(dash + 3)?),
        fstype: text(dash + 1)?,
        source: unescape(fields.get(dash + 2)?),
    })
}

/// Blanks and backslashes are octal: `\040`.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        bytes.push(octal.map_or(first, |d| d.iter().fold(0, |all: u8, d| all.wrapping_mul(8) + (d - b'0'))));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_everything() {
        let text = b"36 35 0:98 / /mnt/a\\040b\\134 rw,nosuid shared:2 master:1 - fuse.remoor h:/x\\040y rw,user_id=0\n";
        let found: Vec<_> = parse(text).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].major, found[0].minor), (0, 98));
        assert_eq!(found[0].target, Path::new("/mnt/a b\\"));
        assert_eq!(found[0].options, "rw,nosuid,rw,user_id=0");
        assert_eq!((found[0].fstype.as_str(), found[0].source.to_str()), ("fuse.remoor", Some("h:/x y")));
    }

    #[test]
    fn lines_that_are_cut_are_left_out() {
        let whole = b"36 35 0:98 / /mnt rw - fuse x rw";
        for end in 0..whole.len() - 3 {
            assert_eq!(parse(&whole[..end]).count(), 0, "{end}");
        }
        assert_eq!(parse(b"\n\n- - -\n").count(), 0);
    }

    #[test]
    fn this_host_has_a_proc() {
        assert_eq!(mounted(Path::new("/proc")).unwrap().unwrap().fstype, "proc");
        assert_eq!(mounted(Path::new("/proc/self")).unwrap(), None);
    }
}
