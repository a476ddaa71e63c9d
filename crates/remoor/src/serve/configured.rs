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
        let system = nothing && rustix::process::geteuid().is_root() && Path::new(SYSTEM_FILE).exists();
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
            for file in system_files(Path::new(SYSTEM_FILE), Path::new(SYSTEM_DIR)) {
                exports = exports.merge(Exports::from_file(&file)?);
            }
        }
        Ok(exports)
    }
}

/// The file, if it is there, and those of the directory that end in `.exports`, in order.
fn system_files(file: &Path, dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_exports(path)).collect();
    files.sort();
    file.exists().then(|| file.to_owned()).into_iter().chain(files).collect()
}

fn is_exports(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.ends_with(".exports") && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_are_those_of_exportfs_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.exports", "a.exports", ".c.exports", "d.exports.bak"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names = |file: &Path| -> Vec<String> {
            let files = system_files(file, dir.path());
            files.iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(&dir.path().join("d.exports.bak")), ["d.exports.bak", "a.exports", "b.exports"]);
        assert_eq!(names(&dir.path().join("none")), ["a.exports", "b.exports"]);
        assert_eq!(system_files(Path::new("/none"), Path::new("/none")), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_is_named_is_all_there_is() {
        let named = Configured::new(&["memory:/x".to_owned()], &[]);
        assert!(!named.system);
        assert_eq!(named.read().unwrap().list.len(), 1);
    }
}
