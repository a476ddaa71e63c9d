//! The groups of users as this system knows them, for `--manage-gids`: AUTH_SYS carries 16 groups at most (RFC 5531
//! appendix A), and a server that looks them up itself knows all and need not believe the client.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::Pending;
use super::fetcher::{Fetched, Fetcher, Keep, Waiters};
use super::sys;

/// As rpc.mountd(8) keeps them: half an hour, after which a change in the group database is seen at the latest.
const KEEP: Keep = Keep { ttl: Duration::from_secs(1800), max: NonZeroUsize::new(16 * 1024).unwrap() };

/// The groups of users, with what was answered before.
pub struct Groups {
    fetcher: Fetcher<u32, Option<Arc<[u32]>>>,
}

impl Default for Groups {
    fn default() -> Self {
        Self { fetcher: Fetcher::new(KEEP, &Waiters::default(), groups) }
    }
}

impl Groups {
    /// All groups of a user, the primary one included, in ascending order; `None` if the system does not know the user:
    /// the groups that the client tells then hold, as they do with rpc.mountd.
    ///
    /// # Errors
    /// The name service has not answered in time. A call is then better answered NFS3ERR_JUKEBOX than executed with
    /// fewer groups.
    pub fn look_up(&self, uid: u32) -> Result<Option<Arc<[u32]>>, Pending> {
        self.fetcher.get(&uid)
    }
}

fn groups(uid: &u32) -> Fetched<Option<Arc<[u32]>>> {
    match sys::groups(*uid) {
        Ok(groups) => {
            let sorted = |mut groups: Vec<u32>| {
                groups.sort_unstable();
                groups.dedup();
                groups.into()
            };
            Fetched::Answer(groups.map(sorted))
        }
        Err(error) => {
            tracing::warn!(uid, "cannot look up the groups of a user: {error}; will try again");
            Fetched::Failed(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u32) -> Option<Arc<[u32]>> {
        let groups = Groups::default();
        loop {
            if let Ok(answer) = groups.look_up(uid) {
                assert_eq!(groups.look_up(uid), Ok(answer.clone()), "kept");
                return answer;
            }
        }
    }

    /// Users of /etc/passwd with the groups that the files give them.
    fn by_the_files() -> Vec<(u32, Vec<u32>)> {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let read = |path| std::fs::read_to_string(path).unwrap().lines().map(fields).collect::<Vec<_>>();
        let groups = read("/etc/group");
        let of = |user: &Vec<String>| {
            let member = |g: &&Vec<String>| g[3].split(',').any(|name| name == user[0]);
            let gids = groups.iter().filter(member).map(|g| g[2].parse().unwrap());
            let mut gids: Vec<u32> = gids.chain([user[3].parse().unwrap()]).collect();
            gids.sort_unstable();
            gids.dedup();
            (user[2].parse().unwrap(), gids)
        };
        read("/etc/passwd").iter().map(of).collect()
    }

    #[test]
    fn users_of_the_system_have_the_groups_of_its_files() {
        let users = by_the_files();
        assert!(users.iter().any(|(uid, _)| *uid == 0));
        for (uid, gids) in users.iter().take(8) {
            assert_eq!(of(*uid).as_deref(), Some(&gids[..]), "user {uid}");
        }
    }

    #[test]
    fn a_user_that_does_not_exist_has_none() {
        assert_eq!(of(3_999_999_999), None);
    }
}
