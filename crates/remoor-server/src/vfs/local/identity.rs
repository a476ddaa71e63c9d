//! As whom a call runs: the kernel enforces permissions against the file system identity of the calling thread.
//!
//! Changing it costs more than most calls (each change makes a new `struct cred`), so a worker keeps the identity of one
//! call for the next. What the server does as itself begins with [`Identity::be_server`]. The parent-death signal is lost
//! with every change (`commit_creds`); setting what is set already is none.

use std::cell::RefCell;
use std::fs;
use std::marker::PhantomData;
use std::thread;

use remoor_nfs::v3::NfsStat;
use rustix::process::{Gid, getegid, geteuid, getgroups};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_thread_groups};

use super::super::{Caller, Result};
use crate::sys::{set_fs_group, set_fs_user};

thread_local! {
    static THREAD: RefCell<Thread> = const { RefCell::new(Thread { user: None, group: None, groups: None, keeps: false }) };
}

/// What this thread was made to be here; `None` is what it began with, which a parent thread may have changed.
struct Thread {
    user: Option<u32>,
    group: Option<u32>,
    groups: Option<Vec<u32>>,
    keeps: bool,
}

/// From now on the calling thread keeps the identity that a call gave it until another is needed. Whatever else the
/// thread does with files then begins with [`be_server`].
pub fn keep_identity() {
    THREAD.with_borrow_mut(|thread| thread.keeps = true);
}

/// Makes the calling thread the server itself again, if a call left it with another identity.
pub fn be_server() {
    THREAD.with_borrow_mut(Thread::become_root);
}

impl Thread {
    /// The record follows the change, so that it is true whatever happens in between.
    fn set_user(&mut self, uid: u32) -> bool {
        if self.user == Some(uid) {
            return true;
        }
        let was_root = self.user.map(|user| user == 0);
        self.user = None;
        let done = set_fs_user(uid) && (was_root == Some(uid == 0) || set_unlimited(uid == 0));
        self.user = done.then_some(uid);
        done
    }

    fn set_group(&mut self, gid: u32) -> bool {
        if self.group == Some(gid) {
            return true;
        }
        self.group = None;
        let done = set_fs_group(gid);
        self.group = done.then_some(gid);
        done
    }

    fn set_groups(&mut self, gids: &[u32]) -> bool {
        if self.groups.as_deref() == Some(gids) {
            return true;
        }
        self.groups = None;
        if gids.contains(&u32::MAX) {
            return false;
        }
        let raw: Vec<Gid> = gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let done = set_thread_groups(&raw).is_ok();
        self.groups = done.then(|| gids.to_vec());
        done
    }

    /// Root's rights don't depend on groups.
    fn become_caller(&mut self, caller: &Caller) -> bool {
        (caller.is_root() || self.set_groups(&caller.gids))
            && self.set_group(caller.gid)
            && self.set_user(caller.uid)
    }

    /// For a server that is not root this fails, and changes nothing.
    fn become_root(&mut self) {
        self.set_user(0);
        self.set_group(0);
    }
}

/// Whether this thread may use more than quotas allow and what a file system reserves. The kernel gives and takes the other
/// rights over files with the file system user (`CAP_FS_SET`); this one knfsd adds to them (`CAP_NFSD_SET`).
fn set_unlimited(unlimited: bool) -> bool {
    let Ok(mut sets) = capabilities(None) else { return false };
    let has = sets.effective.contains(CapabilitySet::SYS_RESOURCE);
    if has == unlimited || !sets.permitted.contains(CapabilitySet::SYS_RESOURCE) {
        return true;
    }
    sets.effective.set(CapabilitySet::SYS_RESOURCE, unlimited);
    set_capabilities(None, sets).is_ok()
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

    /// Gives the calling thread the caller's identity until the result is dropped, or longer if it keeps identities.
    pub(super) fn assume(&self, caller: &Caller) -> Result<Assumed> {
        if self.is_single() {
            return Ok(Assumed { ends: false, thread: PhantomData });
        }
        let (done, keeps) = THREAD.with_borrow_mut(|thread| (thread.become_caller(caller), thread.keeps));
        // Ends what was begun of a change that failed half-way, too.
        let assumed = Assumed { ends: !keeps, thread: PhantomData };
        if done { Ok(assumed) } else { Err(NfsStat::Acces) }
    }

    /// Gives the calling thread back the rights of the server's user.
    pub(super) fn be_server(&self) {
        if !self.is_single() {
            THREAD.with_borrow_mut(|thread| thread.set_user(0));
        }
    }
}

/// The thread runs as somebody else. The groups stay behind when it ends: the next call is likely to need the same.
#[must_use]
pub(super) struct Assumed {
    ends: bool,
    /// The identity belongs to this thread.
    thread: PhantomData<*const ()>,
}

impl Drop for Assumed {
    fn drop(&mut self) {
        if self.ends {
            THREAD.with_borrow_mut(Thread::become_root);
        }
    }
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
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use super::*;

    const USER: Caller = Caller { uid: 4711, gid: 4712, gids: Vec::new() };

    /// User and group of a new file in a directory that everybody may write to.
    fn maker(dir: &Path, name: &str) -> (u32, u32) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.join(name), b"").unwrap();
        let meta = fs::metadata(dir.join(name)).unwrap();
        (meta.uid(), meta.gid())
    }

    #[test]
    fn a_call_runs_as_its_caller_and_the_thread_comes_back() {
        let identity = Identity::probe();
        let dir = tempfile::tempdir().unwrap();
        let own = maker(dir.path(), "before");
        let expected = if identity.is_single() { own } else { (4711, 4712) };
        let assumed = identity.assume(&Caller { gids: vec![4713], ..USER }).unwrap();
        assert_eq!(maker_again(dir.path(), "during"), expected);
        drop(assumed);
        assert_eq!(maker(dir.path(), "after"), own);
    }

    /// As [`maker`], by one who may not change the directory.
    fn maker_again(dir: &Path, name: &str) -> (u32, u32) {
        fs::write(dir.join(name), b"").unwrap();
        let meta = fs::metadata(dir.join(name)).unwrap();
        (meta.uid(), meta.gid())
    }

    #[test]
    fn a_worker_keeps_the_identity_until_it_is_itself_again() {
        let identity = Identity::probe();
        let dir = tempfile::tempdir().unwrap();
        let own = maker(dir.path(), "before");
        let kept = || {
            keep_identity();
            drop(identity.assume(&USER).unwrap());
            let kept = maker_again(dir.path(), "kept");
            be_server();
            (kept, maker_again(dir.path(), "server"))
        };
        let (kept, server) = thread::scope(|scope| scope.spawn(kept).join().unwrap());
        assert_eq!(server, own);
        assert_eq!(kept, if identity.is_single() { own } else { (4711, 4712) });
    }

    /// A thread inherits the identity of the one that started it, but not what that one remembers of itself.
    #[test]
    fn a_thread_started_by_a_worker_is_what_its_calls_need() {
        let identity = Identity::probe();
        let dir = tempfile::tempdir().unwrap();
        let own = maker(dir.path(), "before");
        let inherited = || {
            keep_identity();
            drop(identity.assume(&USER).unwrap());
            let child = || {
                identity.be_server();
                maker_again(dir.path(), "child").0
            };
            thread::scope(|scope| scope.spawn(child).join().unwrap())
        };
        assert_eq!(thread::scope(|scope| scope.spawn(inherited).join().unwrap()), own.0);
    }

    /// Root's rights over files and resources; a caller has none of them, the server all again.
    #[test]
    fn callers_have_no_rights_of_root() {
        let identity = Identity::probe();
        let rights = CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
            | CapabilitySet::LINUX_IMMUTABLE
            | CapabilitySet::MKNOD
            | CapabilitySet::SYS_RESOURCE;
        let has = || capabilities(None).unwrap().effective & rights;
        let own = has();
        let root = Caller { uid: 0, gid: 0, gids: Vec::new() };
        let kept = || {
            keep_identity();
            for caller in [&USER, &root, &USER, &USER] {
                drop(identity.assume(caller).unwrap());
                let expected =
                    if identity.is_single() || caller.is_root() { own } else { CapabilitySet::empty() };
                assert_eq!(has(), expected);
            }
            identity.be_server();
            has()
        };
        assert_eq!(thread::scope(|scope| scope.spawn(kept).join().unwrap()), own);
        drop(identity.assume(&USER).unwrap());
        assert_eq!(has(), own);
    }

    /// Where this process has the right at all.
    #[test]
    fn the_right_to_resources_is_taken_and_given_back() {
        let has = || capabilities(None).unwrap().effective.contains(CapabilitySet::SYS_RESOURCE);
        let may = capabilities(None).unwrap().permitted.contains(CapabilitySet::SYS_RESOURCE);
        let taken = move || [false, false, true, true].map(|unlimited| (set_unlimited(unlimited), has()));
        let seen = thread::scope(|scope| scope.spawn(taken).join().unwrap());
        let expected = [false, false, may, may].map(|has| (true, has));
        assert_eq!(seen, expected);
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
