//! Who calls, as the server is told: AUTH_SYS credentials, encoded once for each identity.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;
use remoor_rpc::auth::{AuthSys, MAX_GROUPS, OpaqueAuth};

use super::node::lock;

/// Identities whose credential is kept.
const MAX_IDENTITIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Longest machine name that is sent, in characters.
const MAX_MACHINE_NAME: usize = 64;

/// Who asks for an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// File system user.
    pub uid: u32,
    /// File system group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Groups,
    /// Thread, in the initial pid namespace of this process; 0 if it cannot be seen from here.
    pub pid: u32,
}

/// Supplementary groups of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Groups {
    /// Whatever `/proc/PID/status` says of the thread, where that can matter.
    #[default]
    OfThread,
    /// These.
    Known(Arc<[u32]>),
}

/// A credential, and a number of its identity by which answers to ACCESS are kept.
#[derive(Debug)]
pub struct Credential {
    /// Never the same for two identities.
    pub(crate) identity: u64,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// As it stands in a call.
    pub auth: OpaqueAuth,
}

/// Credentials of a mount's callers.
#[derive(Debug)]
pub(crate) struct Credentials {
    machine: String,
    own: Own,
    /// Users other than our own may call.
    several_users: bool,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Own {
    uid: u32,
    groups: Arc<[u32]>,
}

#[derive(Debug)]
struct Kept {
    next: u64,
    by_identity: LruCache<Identity, Arc<Credential>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    uid: u32,
    gid: u32,
    groups: Arc<[u32]>,
}

impl Credentials {
    pub(crate) fn new(several_users: bool) -> Self {
        let groups = rustix::process::getgroups().unwrap_or_default();
        let own = Own {
            uid: rustix::process::geteuid().as_raw(),
            groups: groups.iter().map(|group| group.as_raw()).collect(),
        };
        let kept = Kept { next: 0, by_identity: LruCache::new(MAX_IDENTITIES) };
        Self { machine: machine_name(), own, several_users, kept: Mutex::new(kept) }
    }

    /// The credential of `caller`.
    pub(crate) fn of(&self, caller: &Caller) -> Arc<Credential> {
        let identity = Identity { uid: caller.uid, gid: caller.gid, groups: self.groups(caller) };
        let mut kept = lock(&self.kept);
        if let Some(credential) = kept.by_identity.get(&identity) {
            return credential.clone();
        }
        kept.next += 1;
        let credential = Arc::new(self.encode(&identity, kept.next));
        kept.by_identity.put(identity, credential.clone());
        credential
    }

    /// This process itself: what it does on nobody's behalf.
    pub(crate) fn own(&self) -> Arc<Credential> {
        let gid = rustix::process::getegid().as_raw();
        self.of(&Caller { uid: self.own.uid, gid, groups: Groups::Known(self.own.groups.clone()), pid: 0 })
    }

    fn encode(&self, identity: &Identity, number: u64) -> Credential {
        let mut auth = AuthSys::new(&self.machine, identity.uid, identity.gid);
        auth.gids.0 = identity.groups.to_vec();
        Credential { identity: number, uid: identity.uid, gid: identity.gid, auth: OpaqueAuth::sys(&auth) }
    }

    /// The groups of `caller`, cut to what AUTH_SYS carries. Nobody's groups but root's are taken for granted, and
    /// root's matter to no server.
    fn groups(&self, caller: &Caller) -> Arc<[u32]> {
        let groups: Arc<[u32]> = match &caller.groups {
            Groups::Known(groups) => groups.clone(),
            Groups::OfThread if caller.uid == 0 => Arc::default(),
            Groups::OfThread if self.several_users => groups_of_thread(caller.pid),
            Groups::OfThread if caller.uid == self.own.uid => self.own.groups.clone(),
            Groups::OfThread => Arc::default(),
        };
        if groups.len() > MAX_GROUPS { groups[..MAX_GROUPS].into() } else { groups }
    }
}

/// Groups of a thread that has since gone, or that cannot be seen from here, are none.
fn groups_of_thread(thread: u32) -> Arc<[u32]> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect()
}

pub(crate) fn machine_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().take(MAX_MACHINE_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, groups: Groups) -> Caller {
        Caller { uid, gid: uid, groups, pid: std::process::id() }
    }

    fn known(groups: &[u32]) -> Groups {
        Groups::Known(groups.into())
    }

    fn sent(credential: &Credential) -> AuthSys {
        credential.auth.as_sys().unwrap().unwrap()
    }

    #[test]
    fn an_identity_is_encoded_once_and_no_other_has_its_number() {
        let credentials = Credentials::new(true);
        let first = credentials.of(&caller(7, known(&[1, 2])));
        assert!(Arc::ptr_eq(&first, &credentials.of(&caller(7, known(&[1, 2])))));
        let other = credentials.of(&caller(7, known(&[1, 3])));
        assert_ne!(first.identity, other.identity);
        for uid in 1000..1000 + MAX_IDENTITIES.get() as u32 {
            credentials.of(&caller(uid, known(&[])));
        }
        let again = credentials.of(&caller(7, known(&[1, 2])));
        assert_ne!(first.identity, again.identity, "forgotten, and its number with it");
        let auth = sent(&again);
        assert_eq!((auth.uid, auth.gid, auth.gids.0), (7, 7, vec![1, 2]));
    }

    #[test]
    fn groups_beyond_sixteen_are_cut() {
        let groups: Vec<u32> = (0..20).collect();
        let credential = Credentials::new(true).of(&caller(7, known(&groups)));
        assert_eq!(sent(&credential).gids.0, groups[..MAX_GROUPS]);
    }

    #[test]
    fn groups_are_read_of_other_users_threads_only_where_they_may_come() {
        let own: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
        let groups = |several: bool, uid: u32| {
            sent(&Credentials::new(several).of(&caller(uid, Groups::OfThread))).gids.0
        };
        assert_eq!(groups(true, 4711), own[..own.len().min(MAX_GROUPS)], "of this very thread");
        assert_eq!(groups(false, 4711), [0; 0]);
        assert_eq!(groups(true, 0), [0; 0], "root needs none");
        let gone = Caller { pid: u32::MAX, ..caller(4711, Groups::OfThread) };
        assert_eq!(sent(&Credentials::new(true).of(&gone)).gids.0, [0; 0]);
    }
}
