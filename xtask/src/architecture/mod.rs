//! The rules that keep the crates apart, checked by `tests/architecture.rs`.
//!
//! | module | rule |
//! |---|---|
//! | [`direction`] | dependencies point down only |
//! | [`purity`] | the pure crates have no I/O, clock, randomness or async |
//! | [`names`] | `unsafe` only in `sys`, error numbers only below `Vfs` |
//! | [`size`] | files stay short enough to read |
//! | [`licence`] | only permissive licences |
//! | [`source`] | not a rule: what a source file names, for the rules above |

pub mod direction;
pub mod licence;
pub mod names;
pub mod promises;
pub mod purity;
pub mod size;
pub mod source;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The file, relative to the repository.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
    /// What to do instead.
    pub remedy: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}. {}", self.file.display(), self.line, self.what, self.remedy)
    }
}

/// Fails with one line for each violation.
///
/// # Panics
/// If there are any: this is what a test calls last.
#[track_caller]
pub fn assert_none(violations: &[Violation]) {
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// `path` as it is shown: relative to the repository.
pub fn shown(path: &Path) -> PathBuf {
    path.strip_prefix(root()).unwrap_or(path).to_owned()
}

/// A file's text.
pub fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Every Rust file of the repository, in order.
pub fn rust_files() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for top in ["crates", "fuzz", "xtask"] {
        collect(&root().join(top), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
