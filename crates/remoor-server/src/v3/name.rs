//! Names in arguments, checked before a vfs sees them.

use remoor_nfs::v3::{FileName, NfsStat};

/// Longest name, in bytes: that of Linux's file systems (NAME_MAX).
pub(crate) const MAX_NAME: usize = 255;

/// A single component that may also be `.` or `..`. An empty name, and one with `/` or NUL, is NFS3ERR_ACCES:
/// RFC 1813 section 3.2 has a server answer so for names it does not allow.
pub(super) fn component(name: &FileName) -> Result<&[u8], NfsStat> {
    let name = &name.0[..];
    if name.is_empty() || name.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(NfsStat::Acces);
    }
    if name.len() > MAX_NAME { Err(NfsStat::NameTooLong) } else { Ok(name) }
}

/// The name of something to be made: `.` and `..` exist already.
pub(super) fn new(name: &FileName) -> Result<&[u8], NfsStat> {
    proper(name, NfsStat::Exist)
}

/// The name of an entry, with the status for `.` and `..` that the procedure's section of RFC 1813 asks for.
pub(super) fn proper(name: &FileName, if_dot: NfsStat) -> Result<&[u8], NfsStat> {
    let name = component(name)?;
    if matches!(name, b"." | b"..") { Err(if_dot) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_directory_can_hold_are_refused() {
        let check = |name: &[u8]| component(&FileName::from(bytes::Bytes::copy_from_slice(name))).map(|_| ());
        assert_eq!(check(b""), Err(NfsStat::Acces));
        assert_eq!(check(b"a/b"), Err(NfsStat::Acces));
        assert_eq!(check(b"a\0b"), Err(NfsStat::Acces));
        assert_eq!(check(&[b'x'; 256]), Err(NfsStat::NameTooLong));
        assert_eq!(check(&[0xff; 255]), Ok(()));
        assert_eq!(check(b".."), Ok(()));
        assert_eq!(new(&"..".into()), Err(NfsStat::Exist));
        assert_eq!(proper(&".".into(), NfsStat::Inval), Err(NfsStat::Inval));
    }
}
