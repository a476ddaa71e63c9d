//! Where writers write: a mounted directory, whose client is the kernel, or our own client.

mod dialled;
mod mounted;

pub(crate) use dialled::Dialled;
pub(crate) use mounted::Mounted;

/// What makes written data stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The write itself, with the file's metadata: O_SYNC, FILE_SYNC.
    FileSync,
    /// The write itself, with what is needed to read it back: O_DSYNC, DATA_SYNC.
    DataSync,
    /// A call of its own after several writes: fsync(2), COMMIT after UNSTABLE.
    Commit,
}

/// A call that did not simply succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The answer says that it had been carried out before: EXIST for a creation, NOENT for a removal or a renaming.
    /// Names are used once by one writer, so the call was sent twice.
    #[error("it had been carried out before")]
    Repeated,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Trouble {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A flat directory of files. When a call returns, its effect is on stable storage.
pub(crate) trait Store: Send + Sync + 'static {
    /// An open file; stays usable while the server restarts.
    type File: Send;

    /// Creates a file that must not exist.
    fn create(&self, name: &str) -> Result<Self::File, Trouble>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> Result<Self::File, Trouble>;
    /// Writes `parts` one after the other from `offset`.
    fn write(&self, file: &Self::File, offset: u64, parts: Vec<Vec<u8>>, how: How) -> Result<(), Trouble>;
    /// Gives a file a name that is not used.
    fn rename(&self, from: &str, to: &str) -> Result<(), Trouble>;
    /// Removes a file.
    fn remove(&self, name: &str) -> Result<(), Trouble>;
    /// A file's bytes; `None` if it is not there.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Trouble>;
    /// The write verifier that the server has now, if this store can see it.
    fn verifier(&self, file: &Self::File) -> Result<Option<u64>, Trouble>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every store does, on an empty directory.
    pub(super) fn behaves(store: &impl Store) {
        assert!(store.read("a").unwrap().is_none());
        let file = store.create("a").unwrap();
        assert!(matches!(store.create("a"), Err(Trouble::Repeated)));
        for (n, how) in [How::FileSync, How::DataSync, How::Commit].into_iter().enumerate() {
            store.write(&file, 4 * n as u64, vec![vec![b'x'; 2], vec![b'y'; 2]], how).unwrap();
        }
        assert_eq!(store.read("a").unwrap().unwrap(), b"xxyyxxyyxxyy");
        store.rename("a", "b").unwrap();
        assert!(matches!(store.rename("a", "b"), Err(Trouble::Repeated)));
        assert_eq!(store.verifier(&file).unwrap(), store.verifier(&store.open("b").unwrap()).unwrap());
        store.remove("b").unwrap();
        assert!(matches!(store.remove("b"), Err(Trouble::Repeated)));
        assert!(matches!(store.open("b"), Err(Trouble::Failed(_))));
    }
}
