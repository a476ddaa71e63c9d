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
        const MUST_BE: &str = "a number, root, or a UUID";
        if s == "root" {
            return Ok(Self::Number(0));
        }
        if let Ok(number) = s.parse() {
            return Ok(Self::Number(number));
        }
        // libblkid and exports(5) take 32 hexadecimal digits with any of `-`, `:` or `.` between them.
        let digits: String = s.chars().filter(|c| !matches!(c, '-' | ':' | '.')).collect();
        let is_uuid = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let uuid = is_uuid.then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
        uuid.map(Self::Uuid).ok_or(MUST_BE)
    }
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
        let uuid = "00000000-0000-0001-0000-000000000006".parse();
        assert_eq!(uuid, Ok(Fsid::Uuid(1 << 64 | 6)));
        assert_eq!(export_id(uuid.ok(), Path::new("/x")), 7);
        for bad in ["", "-1", "4294967296", "0123", "00000000-0000-0001-0000-00000000000g"] {
            let number = bad == "0123";
            assert_eq!(bad.parse::<Fsid>().is_ok(), number, "{bad}");
        }
    }

    #[test]
    fn a_path_has_the_same_number_everywhere() {
        assert_eq!(export_id(None, Path::new("/srv/data")), 0x54a7_12ac_dfc3_1be2);
        assert_ne!(export_id(None, Path::new("/srv/dat")), export_id(None, Path::new("/srv/data")));
    }
}
