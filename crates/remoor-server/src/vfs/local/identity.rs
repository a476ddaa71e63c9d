//! As whom a call runs: the kernel enforces permissions against the file system identity of the calling thread.

use std::cell::RefCell;
use std::fs;
use std::marker::PhantomData;
use std::thread;

use remoor_nfs::v3::NfsStat;
use rustix::process::{Gid, getegid, geteuid, getgroups};
use rustix::thread::set_thread_groups;

use super::super::{Caller, Result};
use crate::sys::{set_fs_group, set_fs_user};

thread_local! {
    /// The supplementary groups this thread has, if it was given any here.
    static GROUPS: RefCell<Option<Vec<u32>>> = const { RefCell::new(None) };
}

/// How calls are given an identity; decided once, at start.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    /// Each call runs with its caller's user, group and groups.
    PerCall,
    /// Single-user mode: everything runs as the server's own user, this one, and callers' ids mean nothing.
    Single(Caller),
}

impl Identity {
    /// Per call, if this process is root with the right to become any user.
    pub(super) fn probe() -> Self {
        if geteuid().is_root() && every_user_is_mapped() && may_switch() {
            Self::PerCall
        } else {
            Self::Single(own())
        }
    }

    pub(super) fn is_single(&self) -> bool {
        matches!(self, Self::Single(_))
    }

    /// Whose rights count for the caller.
    pub(super) fn effective<'a>(&'a self, caller: &'a Caller) -> &'a Caller {
        match self {
            Self::PerCall => caller,
            Self::Single(own) => own,
        }
    }

    /// Gives the calling thread the caller's identity until the result is dropped.
    pub(super) fn assume(&self, caller: &Caller) -> Result<Assumed> {
        let mut assumed = Assumed { user: false, group: false, thread: PhantomData };
        if self.is_single() {
            return Ok(assumed);
        }
        if !caller.is_root() {
            set_groups(&caller.gids)?;
        }
        assumed.group = caller.gid != 0;
        let group = !assumed.group || set_fs_group(caller.gid);
        assumed.user = caller.uid != 0;
        let user = !assumed.user || set_fs_user(caller.uid);
        if group && user { Ok(assumed) } else { Err(NfsStat::Acces) }
    }
}

/// The thread runs as somebody else. The groups stay behind when it ends: root's rights don't depend on them, and the
/// next call is likely to need the same.
#[must_use]
pub(super) struct Assumed {
    user: bool,
    group: bool,
    /// The identity belongs to this thread.
    thread: PhantomData<*const ()>,
}

impl Drop for Assumed {
    fn drop(&mut self) {
        if self.user {
            set_fs_user(0);
        }
        if self.group {
            set_fs_group(0);
        }
    }
}

fn set_groups(gids: &[u32]) -> Result<()> {
    GROUPS.with_borrow_mut(|have| {
        if have.as_deref() == Some(gids) {
            return Ok(());
        }
        if gids.contains(&u32::MAX) {
            return Err(NfsStat::Acces);
        }
        *have = None;
        let raw: Vec<Gid> = gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
        set_thread_groups(&raw).map_err(|_| NfsStat::Acces)?;
        *have = Some(gids.to_vec());
        Ok(())
    })
}

fn own() -> Caller {
    let gids = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    Caller { uid: geteuid().as_raw(), gid: getegid().as_raw(), gids }
}

/// Outside every user namespace; inside one, users that are not mapped could not be assumed.
fn every_user_is_mapped() -> bool {
    let full = |map: &str| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    ["/proc/self/uid_map", "/proc/self/gid_map"]
        .iter()
        .all(|path| fs::read_to_string(path).is_ok_and(|map| full(&map)))
}

/// CAP_SETUID and CAP_SETGID, tried on a thread that ends with the trial: a thread that changes its identity loses its
/// parent-death signal (`commit_creds`), and that of the main thread is the process's.
fn may_switch() -> bool {
    let nobody = Caller { uid: 65_534, gid: 65_534, gids: Vec::new() };
    let trial = thread::Builder::new().spawn(move || Identity::PerCall.assume(&nobody).is_ok());
    trial.is_ok_and(|trial| trial.join().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_runs_as_its_caller_and_the_thread_comes_back() {
        let identity = Identity::probe();
        let caller = Caller { uid: 4711, gid: 4712, gids: vec![4713] };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let assumed = identity.assume(&caller).unwrap();
        fs::write(&path, b"").unwrap();
        drop(assumed);
        let meta = fs::metadata(&path).unwrap();
        let owner = (std::os::unix::fs::MetadataExt::uid(&meta), std::os::unix::fs::MetadataExt::gid(&meta));
        match &identity {
            Identity::PerCall => assert_eq!(owner, (4711, 4712)),
            Identity::Single(own) => assert_eq!(owner, (own.uid, own.gid)),
        }
        fs::write(dir.path().join("own"), b"").unwrap();
        let own = std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir.path().join("own")).unwrap());
        assert_eq!(own, geteuid().as_raw());
    }

    #[test]
    fn the_invalid_id_is_nobody() {
        let identity = Identity::PerCall;
        for (uid, gid, gids) in [(u32::MAX, 1, vec![]), (1, u32::MAX, vec![]), (1, 1, vec![u32::MAX])] {
            assert!(identity.assume(&Caller { uid, gid, gids }).is_err());
        }
        assert!(!may_switch() || identity.assume(&Caller { uid: 1, gid: 1, gids: vec![1] }).is_ok());
    }
}
