//! Where state is kept that outlives a server.

use std::ffi::OsString;
use std::path::PathBuf;

/// The state directory unless another is named; `None` without a home. Relative paths count for nothing, as the XDG
/// Base Directory Specification has it.
pub(crate) fn default() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/remoor".into());
    }
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("remoor"))
}

/// The directory that a variable of the environment names, if its path is absolute.
pub(crate) fn absolute(variable: &str) -> Option<PathBuf> {
    directory(std::env::var_os(variable)?)
}

fn directory(value: OsString) -> Option<PathBuf> {
    Some(PathBuf::from(value)).filter(|dir| dir.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_absolute_path_names_no_directory() {
        let [named, relative, empty] = ["/home/a", "state", ""].map(|value| directory(value.into()));
        assert_eq!((named, relative, empty), (Some("/home/a".into()), None, None));
    }
}
