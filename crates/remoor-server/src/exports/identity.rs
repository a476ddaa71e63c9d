//! What identifies an export in file handles and as `fsid` in attributes: equal on every node that serves the same
//! directory and after every restart, so never a device number or a time.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// The option `fsid=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsid {
    /// `fsid=NUMBER`; `root` is 0.
    Number(u32),
    /// `fsid=UUID`.
    Uuid(u128),
}

impl FromStr for Fsid {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s == "root" {
            return Ok(Self::Number(0));
        }
        let known = uuid(s).map(Self::Uuid).or_else(|| number(s).map(Self::Number));
        known.ok_or("a number below 4294967296, root, or a UUID of 32 hexadecimal digits")
    }
}

/// 32 hexadecimal digits and any punctuation, as exports(5) has it.
fn uuid(s: &str) -> Option<u128> {
    let digits: String = s.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let is_uuid = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_uuid.then(|| u128::from_str_radix(&digits, 16).ok()).flatten()
}

/// In the notations that exportfs(8) takes (strtoul(3) with base 0), so that the same file gives the same identity.
fn number(s: &str) -> Option<u32> {
    if s.contains('+') {
        return None;
    }
    if let Some(hexadecimal) = s.strip_prefix("0x").or_else(|| s.strip_prefix("0X")) {
        return u32::from_str_radix(hexadecimal, 16).ok();
    }
    let radix = if s.starts_with('0') { 8 } else { 10 };
    u32::from_str_radix(s, radix).ok()
}

impl fmt::Display for Fsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Uuid(uuid) => write!(f, "{uuid:032x}"),
        }
    }
}

/// The number that stands for the export: the one given, the halves of the UUID folded as knfsd does
/// (`encode_fsid`), or the start of a hash of the canonical path.
pub(crate) fn export_id(fsid: Option<Fsid>, path: &Path) -> u64 {
    match fsid {
        Some(Fsid::Number(number)) => u64::from(number),
        Some(Fsid::Uuid(uuid)) => (uuid >> 64) as u64 ^ uuid as u64,
        None => first_u64(&Sha256::new().chain_update(b"export ").chain_update(path.as_os_str().as_bytes())),
    }
}

fn first_u64(hash: &Sha256) -> u64 {
    let digest: [u8; 32] = hash.clone().finalize().into();
    digest.iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_fsid() {
        assert_eq!("root".parse(), Ok(Fsid::Number(0)));
        assert_eq!("17".parse(), Ok(Fsid::Number(17)));
        assert_eq!("0".parse(), Ok(Fsid::Number(0)));
        assert_eq!("0x1F".parse(), Ok(Fsid::Number(31)));
        assert_eq!("010".parse(), Ok(Fsid::Number(8)));
        assert_eq!("4294967295".parse(), Ok(Fsid::Number(u32::MAX)));
        let uuid = "00000000-0000-0001-0000-000000000006".parse();
        assert_eq!(uuid, Ok(Fsid::Uuid(1 << 64 | 6)));
        assert_eq!("00000000:00000001:00000000.00000006".parse(), uuid);
        assert_eq!(export_id(uuid.ok(), Path::new("/x")), 7);
        let digit_g = "00000000-0000-0001-0000-00000000000g";
        for bad in ["", "-1", "+1", "4294967296", "09", "0x", "0x+1", "1f", "Root", digit_g] {
            assert!(bad.parse::<Fsid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for fsid in [Fsid::Number(0), Fsid::Number(u32::MAX), Fsid::Uuid(0), Fsid::Uuid(u128::MAX - 1)] {
            assert_eq!(fsid.to_string().parse(), Ok(fsid));
        }
    }

    #[test]
    fn a_path_has_the_same_number_everywhere() {
        assert_eq!(export_id(None, Path::new("/srv/data")), 0x54a7_12ac_dfc3_1be2);
        assert_ne!(export_id(None, Path::new("/srv/dat")), export_id(None, Path::new("/srv/data")));
    }
}
