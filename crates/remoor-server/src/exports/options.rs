//! What the options of an export come to for one client.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::identity::Fsid;

/// Anonymous user and group unless an export says otherwise, as in exports(5).
pub const ANONYMOUS: u32 = 65_534;

/// What an export's options come to for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `ro`: nothing may be changed.
    pub read_only: bool,
    /// `sync`: changes are on stable storage before they are answered.
    pub sync: bool,
    /// `secure`: the client's port must be below 1024.
    pub secure: bool,
    /// `root_squash`: user 0 and group 0 become anonymous.
    pub root_squash: bool,
    /// `all_squash`: everybody becomes anonymous.
    pub all_squash: bool,
    /// `anonuid=`.
    pub anonuid: u32,
    /// `anongid=`.
    pub anongid: u32,
    /// `squash_uids=`: users that become anonymous besides 0.
    pub squash_uids: Vec<RangeInclusive<u32>>,
    /// `squash_gids=`: groups that become anonymous besides 0.
    pub squash_gids: Vec<RangeInclusive<u32>>,
    /// `fsid=`.
    pub fsid: Option<Fsid>,
    /// `mountpoint`: the export is there only while this is a mount point.
    pub mountpoint: Option<MountPoint>,
    /// `nordirplus`: READDIRPLUS is not supported.
    pub nordirplus: bool,
}

/// What has to be a mount point for an export to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountPoint {
    /// The exported directory.
    Export,
    /// This directory.
    Path(PathBuf),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: true,
            sync: true,
            secure: true,
            root_squash: true,
            all_squash: false,
            anonuid: ANONYMOUS,
            anongid: ANONYMOUS,
            squash_uids: Vec::new(),
            squash_gids: Vec::new(),
            fsid: None,
            mountpoint: None,
            nordirplus: false,
        }
    }
}

impl Options {
    /// Whether this user is treated as anonymous.
    pub fn squashes_uid(&self, uid: u32) -> bool {
        self.all_squash || (self.root_squash && uid == 0) || is_in(&self.squash_uids, uid)
    }

    /// Whether this group is treated as anonymous.
    pub fn squashes_gid(&self, gid: u32) -> bool {
        self.all_squash || (self.root_squash && gid == 0) || is_in(&self.squash_gids, gid)
    }
}

fn is_in(ranges: &[RangeInclusive<u32>], id: u32) -> bool {
    ranges.iter().any(|range| range.contains(&id))
}

/// Adds numbers and ranges, as in `0-15,20`.
pub(super) fn set_ids(ids: &mut Vec<RangeInclusive<u32>>, list: &str) -> Result<(), &'static str> {
    const MUST_BE: &str = "numbers and ranges of numbers, as in 0-15,20";
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let [from, to] = [from, to].map(|id| id.parse::<u32>().ok().filter(|_| !id.starts_with('+')));
        let (from, to) = from.zip(to).filter(|(from, to)| from <= to).ok_or(MUST_BE)?;
        ids.push(from..=to);
    }
    Ok(())
}

/// The effective options, as `exportfs -v` would list them; a list that exports(5) takes.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pick = |on, yes, no| if on { yes } else { no };
        write!(
            f,
            "{},{},{},{},{},no_subtree_check,anonuid={},anongid={}",
            pick(self.read_only, "ro", "rw"),
            pick(self.sync, "sync", "async"),
            pick(self.secure, "secure", "insecure"),
            pick(self.root_squash, "root_squash", "no_root_squash"),
            pick(self.all_squash, "all_squash", "no_all_squash"),
            self.anonuid,
            self.anongid
        )?;
        write_ids(f, "squash_uids", &self.squash_uids)?;
        write_ids(f, "squash_gids", &self.squash_gids)?;
        self.fsid.as_ref().map_or(Ok(()), |fsid| write!(f, ",fsid={fsid}"))?;
        match &self.mountpoint {
            None => {}
            Some(MountPoint::Export) => f.write_str(",mountpoint")?,
            Some(MountPoint::Path(path)) => write!(f, ",mountpoint={}", path.display())?,
        }
        f.write_str(pick(self.nordirplus, ",nordirplus", ""))
    }
}

fn write_ids(f: &mut fmt::Formatter<'_>, name: &str, ids: &[RangeInclusive<u32>]) -> fmt::Result {
    for (n, range) in ids.iter().enumerate() {
        if n == 0 {
            write!(f, ",{name}=")?
        } else {
            f.write_str(",")?
        }
        match range.end() {
            end if end == range.start() => write!(f, "{end}")?,
            end => write!(f, "{}-{end}", range.start())?,
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::super::option::{apply, words};
    use super::*;

    #[test]
    fn who_is_anonymous() {
        let options = Options { squash_uids: vec![5..=6], squash_gids: vec![7..=7], ..Options::default() };
        let uids: Vec<u32> = (0..9).filter(|uid| options.squashes_uid(*uid)).collect();
        let gids: Vec<u32> = (0..9).filter(|gid| options.squashes_gid(*gid)).collect();
        assert_eq!((uids, gids), (vec![0, 5, 6], vec![0, 7]));
        let options = Options { root_squash: false, ..options };
        assert!(!options.squashes_uid(0) && options.squashes_uid(5));
        let options = Options { all_squash: true, ..options };
        assert!(options.squashes_uid(8) && options.squashes_gid(8));
    }

    #[test]
    fn a_list_of_ids() {
        let mut ids = vec![];
        set_ids(&mut ids, "0-15,20").unwrap();
        assert_eq!(ids, [0..=15, 20..=20]);
        for bad in ["", "1,", "a", "3-2", "-1", "1-", "4294967296", "+1"] {
            assert!(set_ids(&mut vec![], bad).is_err(), "{bad}");
        }
    }

    fn ranges() -> impl Strategy<Value = Vec<RangeInclusive<u32>>> {
        vec((any::<u32>(), any::<u32>()).prop_map(|(a, b)| a.min(b)..=a.max(b)), 0..3)
    }

    /// Any options.
    pub(in crate::exports) fn any_options() -> impl Strategy<Value = Options> {
        let fsid = prop_oneof![any::<u32>().prop_map(Fsid::Number), any::<u128>().prop_map(Fsid::Uuid)];
        let path = "/[a-z0-9/. é#\"-]{0,12}".prop_map(|path| MountPoint::Path(path.into()));
        let mountpoint = prop_oneof![Just(MountPoint::Export), path];
        let ids = (0..u32::MAX, 0..u32::MAX, ranges(), ranges());
        (any::<[bool; 6]>(), ids, option::of(fsid), option::of(mountpoint)).prop_map(
            |(flags, (anonuid, anongid, squash_uids, squash_gids), fsid, mountpoint)| {
                let [read_only, sync, secure, root_squash, all_squash, nordirplus] = flags;
                Options {
                    read_only,
                    sync,
                    secure,
                    root_squash,
                    all_squash,
                    anonuid,
                    anongid,
                    squash_uids,
                    squash_gids,
                    fsid,
                    mountpoint,
                    nordirplus,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(options in any_options()) {
            let mut read = Options::default();
            for word in words(&options.to_string()) {
                prop_assert!(apply(&mut read, &word).is_ok(), "{word}");
            }
            prop_assert_eq!(read, options);
        }
    }
}
