//! Files under a temporary name, until they are whole.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use remoor_nfs::v3::{self, FileHandle};

use super::name::escaped;
use super::server::{Export, place};

/// A file that is removed unless it gets its name.
#[derive(Debug, Clone)]
pub(crate) enum Temporary {
    Local(PathBuf),
    Remote { export: Arc<Export>, dir: FileHandle, name: Vec<u8> },
}

/// Those that exist or may exist. At most one for each file that is copied at the time.
#[derive(Debug, Default)]
pub(crate) struct Temporaries {
    all: Mutex<Vec<(u64, Temporary)>>,
}

/// A name that no other file has: 64 random bits.
pub(crate) fn name() -> Vec<u8> {
    format!(".remoor-{:016x}.part", RandomState::new().hash_one(std::process::id())).into_bytes()
}

impl Temporary {
    /// Removes it. That it is not there is as good; another failure leaves a file of no use, whose name says what it is.
    pub(crate) async fn remove(&self) -> bool {
        match self {
            Self::Local(path) => std::fs::remove_file(path).is_ok(),
            Self::Remote { export, dir, name } => {
                export.server.client.call::<v3::Remove>(place(dir, name)).await.is_ok()
            }
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Local(path) => escaped(path.as_os_str().as_encoded_bytes()),
            Self::Remote { export, name, .. } => format!("{} of {}", escaped(name), export.server.asked),
        }
    }
}

impl Temporaries {
    fn all<T>(&self, look: impl FnOnce(&mut Vec<(u64, Temporary)>) -> T) -> T {
        look(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a file that is about to be made.
    pub(crate) fn note(&self, temporary: Temporary) -> u64 {
        self.all(|all| {
            let id = all.last().map_or(0, |(id, _)| id + 1);
            all.push((id, temporary));
            id
        })
    }

    /// It has its name now, or is gone.
    pub(crate) fn forget(&self, id: u64) {
        self.all(|all| all.retain(|(known, _)| *known != id));
    }

    /// Removes all.
    pub(crate) async fn remove_all(&self) {
        for (id, temporary) in self.all(|all| all.clone()) {
            temporary.remove().await;
            self.forget(id);
        }
    }

    /// Those that are still there, to be shown.
    pub(crate) fn left(&self) -> Vec<String> {
        self.all(|all| all.iter().map(|(_, temporary)| temporary.shown()).collect())
    }
}
