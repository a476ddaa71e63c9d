//! The state directory lies outside every export: clients could read the key of handles there, or destroy the index.

use std::io;
use std::path::{Path, PathBuf};

/// Where `path` is, or will be once it is made: without the symbolic links of what is there already.
fn place(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let found = path.ancestors().map(|above| (above, above.canonicalize()));
    for (above, real) in found {
        match real {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            real => return Ok(real?.join(path.strip_prefix(above).unwrap_or(Path::new("")))),
        }
    }
    Ok(path)
}

/// Where the state directory is, if that is in `export`, which has no symbolic links. It need not have been made.
pub(crate) fn state_inside(export: &Path, state_dir: &Path) -> io::Result<Option<PathBuf>> {
    let state = place(state_dir)?;
    Ok(state.starts_with(export).then_some(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_made_yet_has_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir(dir.join("export")).unwrap();
        std::os::unix::fs::symlink("export", dir.join("link")).unwrap();
        let inside = |state: &str| state_inside(&dir.join("export"), &dir.join(state)).unwrap();
        assert_eq!(inside("export/a/b"), Some(dir.join("export/a/b")));
        assert_eq!(inside("link/a/b"), Some(dir.join("export/a/b")));
        assert_eq!(inside("link"), Some(dir.join("export")));
        assert_eq!((inside("exported"), inside("a/b")), (None, None));
        assert!(!dir.join("export/a").exists());
    }
}
