//! What a mount chooses about caches and data.

use std::time::Duration;

/// `acregmin=3` of nfs(5).
pub const ACREGMIN: Duration = Duration::from_secs(3);
/// `acregmax=60`.
pub const ACREGMAX: Duration = Duration::from_secs(60);
/// `acdirmin=30`.
pub const ACDIRMIN: Duration = Duration::from_secs(30);
/// `acdirmax=60`.
pub const ACDIRMAX: Duration = Duration::from_secs(60);

/// Which answers to LOOKUP are kept (`lookupcache=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LookupCache {
    /// Names that exist and names that do not.
    #[default]
    All,
    /// Names that exist.
    Positive,
    /// None.
    None,
}

/// Everything [`super`] can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Shortest time the attributes of what is not a directory are kept.
    pub acregmin: Duration,
    /// Longest time.
    pub acregmax: Duration,
    /// Shortest time the attributes of a directory are kept.
    pub acdirmin: Duration,
    /// Longest time.
    pub acdirmax: Duration,
    /// `ac`: attributes are kept at all. `noac` also makes every write synchronous.
    pub attribute_cache: bool,
    /// `cto`: an open asks the server whether the file has changed, a close writes everything back.
    pub close_to_open: bool,
    /// `lookupcache=`.
    pub lookup_cache: LookupCache,
    /// `sync`: a write returns when its data is stable on the server.
    pub sync: bool,
    /// `rsize=`: most bytes of one READ; the server's limit counts too.
    pub rsize: u32,
    /// `wsize=`: most bytes of one WRITE.
    pub wsize: u32,
    /// `uid=`: every object is shown as owned by this user.
    pub uid: Option<u32>,
    /// `gid=`: every object is shown as of this group.
    pub gid: Option<u32>,
    /// Users other than the one who mounted may come (`allow_other`): search permission is then asked of the server
    /// wherever a directory's mode does not grant it to everybody.
    pub several_users: bool,
    /// How long an operation is tried again while the server answers NFS3ERR_JUKEBOX: timeo x (retrans + 1) with `soft`
    /// and `softerr`, for ever with `hard`.
    pub patience: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            acregmin: ACREGMIN,
            acregmax: ACREGMAX,
            acdirmin: ACDIRMIN,
            acdirmax: ACDIRMAX,
            attribute_cache: true,
            close_to_open: true,
            lookup_cache: LookupCache::All,
            sync: false,
            rsize: 1 << 20,
            wsize: 1 << 20,
            uid: None,
            gid: None,
            several_users: false,
            patience: None,
        }
    }
}
