//! Where the control sockets of mounts are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::MountEntry;

/// Of root's mounts.
const OF_ROOT: &str = "/run/remoor/mounts";
/// Where systemd-logind keeps the runtime directories of users (pam_systemd(8)).
const OF_USERS: &str = "/run/user";
/// Below a user's runtime directory.
const BELOW: &str = "remoor/mounts";

/// Below the home of a user without a runtime directory, as in a container or by su(1).
const BELOW_HOME: &str = ".local/state/remoor/sockets";

/// Where mounts of this process have their sockets; `None` for a user without a runtime directory and a home.
pub fn own_directory() -> Option<PathBuf> {
    if geteuid().is_root() {
        return Some(OF_ROOT.into());
    }
    let named = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let usual =
        || Some(PathBuf::from(OF_USERS).join(geteuid().as_raw().to_string())).filter(|dir| dir.is_dir());
    let home = || env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(BELOW_HOME));
    named.or_else(usual).map(|dir| dir.join(BELOW)).or_else(home)
}

/// The socket of the mount with this device.
pub fn socket_in(directory: &Path, device: &str) -> PathBuf {
    directory.join(format!("{device}.sock"))
}

/// Where a mount's socket may be, the likeliest first.
pub fn sockets_of(mount: &MountEntry) -> Vec<PathBuf> {
    let of_user = match mount.user {
        0 => OF_ROOT.into(),
        user => PathBuf::from(OF_USERS).join(user.to_string()).join(BELOW),
    };
    let mut directories = vec![of_user];
    directories.extend(own_directory().filter(|own| *own != directories[0]));
    directories.iter().map(|directory| socket_in(directory, &mount.device)).collect()
}

/// Removes sockets that nobody listens at: of processes that were killed.
pub(super) fn remove_stale(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_socket = path.extension().is_some_and(|extension| extension == "sock");
        // A process that is stopped still listens.
        if is_socket && remoor_control::is_abandoned(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_what_nobody_listens_at_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [stale, used, other] = ["0:1.sock", "0:2.sock", "notes"].map(|name| dir.path().join(name));
        drop(UnixListener::bind(&stale).unwrap());
        let _listener = UnixListener::bind(&used).unwrap();
        fs::write(&other, "").unwrap();
        remove_stale(dir.path());
        assert_eq!([stale, used, other].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn a_mount_of_a_user_is_looked_for_in_the_users_directory() {
        let mount = |user| MountEntry {
            device: "0:57".to_owned(),
            target: "/m".into(),
            source: "h:/e".into(),
            options: String::new(),
            user,
        };
        assert_eq!(sockets_of(&mount(0))[0], Path::new("/run/remoor/mounts/0:57.sock"));
        assert_eq!(sockets_of(&mount(1000))[0], Path::new("/run/user/1000/remoor/mounts/0:57.sock"));
    }
}
