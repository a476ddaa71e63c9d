//! Where state is kept that outlives a server.

use std::path::PathBuf;

/// The state directory unless another is named; `None` without a home.
pub(crate) fn default() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/remoor".into());
    }
    let named = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let state = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(state.join("remoor"))
}
