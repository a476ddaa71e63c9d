//! Whether a directory is a mount point, for the option `mountpoint`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

/// Whether a file system is mounted at this path, bind mounts included; symbolic links are followed.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE)?;
    if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    differs_from_parent(path)
}

/// What can be told by kernels before 5.8: not whether a directory of the same file system is mounted.
fn differs_from_parent(path: &Path) -> io::Result<bool> {
    let path = path.canonicalize()?;
    let Some(parent) = path.parent() else { return Ok(true) };
    Ok(path.metadata()?.dev() != parent.metadata()?.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_and_others() {
        let dir = tempfile::tempdir().unwrap();
        for is_one in [is_mount_point, differs_from_parent] {
            assert!(is_one(Path::new("/")).unwrap() && is_one(Path::new("/proc")).unwrap());
            assert!(!is_one(dir.path()).unwrap());
            assert!(is_one(&dir.path().join("none")).is_err());
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        assert!(is_mount_point(&link).unwrap());
    }
}
