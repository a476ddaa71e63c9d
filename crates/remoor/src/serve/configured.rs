//! Where the exports of a server are written, to be read at its start and again when it is told.

use std::path::{Path, PathBuf};

use remoor_server::exports::{Exports, ParseError};

/// The file of exports(5), and the directory of more of them.
const SYSTEM_FILE: &str = "/etc/exports";
const SYSTEM_DIR: &str = "/etc/exports.d";

/// Where exports are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configured {
    arguments: Vec<String>,
    files: Vec<PathBuf>,
    /// Those of the system, which are exportfs(8)'s too.
    system: bool,
}

impl Configured {
    /// What the command line names; if that is nothing, what the system has, for root.
    pub(super) fn new(arguments: &[String], files: &[PathBuf]) -> Self {
        let nothing = arguments.is_empty() && files.is_empty();
        let is_there = [SYSTEM_FILE, SYSTEM_DIR].iter().any(|path| Path::new(path).exists());
        let system = nothing && rustix::process::geteuid().is_root() && is_there;
        if system {
            tracing::info!(
                "no --export and no --exports is given: exporting what {SYSTEM_FILE} and {SYSTEM_DIR} say"
            );
        }
        Self { arguments: arguments.to_vec(), files: files.to_vec(), system }
    }

    pub(super) fn read(&self) -> Result<Exports, ParseError> {
        let mut exports = Exports::from_args(&self.arguments)?;
        for file in &self.files {
            exports = exports.merge(Exports::from_file(file)?);
        }
        if self.system {
            exports = exports.merge(Exports::from_system(Path::new("/"))?);
        }
        Ok(exports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_all_there_is() {
        let named = Configured::new(&["memory:/x".to_owned()], &[]);
        assert!(!named.system);
        assert_eq!(named.read().unwrap().list.len(), 1);
    }
}
