//! Whether a server should be sent clients. Nothing here touches a file system: what its watch has seen is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::State;
use crate::watch;

/// How long a file system may be silent, unless told otherwise.
pub(crate) const DEFAULT_HEALTH_LIMIT: Duration = Duration::from_secs(3);

/// Whether a server is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// It is not about to stop, and every export is well.
    pub healthy: bool,
    /// It answers what it has taken, and takes no more.
    pub stopping: bool,
    /// Each export.
    pub exports: Vec<ExportHealth>,
}

/// Whether an export is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportHealth {
    /// Its path.
    pub path: String,
    /// Its file system answers in time.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
}

impl Health {
    /// Of this server, now.
    pub(crate) fn of(state: &State, limit: Duration) -> Self {
        let table = state.table();
        let exports: Vec<ExportHealth> = table
            .exports()
            .iter()
            .map(|export| {
                let reason = reason(export.watch.health(limit));
                ExportHealth { path: export.shown(), healthy: reason.is_none(), reason }
            })
            .collect();
        let stopping = state.is_stopping();
        Self { healthy: !stopping && exports.iter().all(|export| export.healthy), stopping, exports }
    }
}

/// What is wrong, if anything is.
pub(super) fn reason(health: watch::Health) -> Option<String> {
    match health {
        watch::Health::Well => None,
        watch::Health::Silent(silence) => {
            Some(format!("its file system has not answered for {:.1} s", silence.as_secs_f64()))
        }
        watch::Health::Failing(status) => Some(format!("its file system answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_what_is_wrong() {
        assert_eq!(reason(watch::Health::Well), None);
        let silent = reason(watch::Health::Silent(Duration::from_millis(3250))).unwrap();
        assert_eq!(silent, "its file system has not answered for 3.2 s");
        let failing = reason(watch::Health::Failing(remoor_nfs::v3::NfsStat::Stale)).unwrap();
        assert_eq!(failing, "its file system answers NFS3ERR_STALE");
    }
}
