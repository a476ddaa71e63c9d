//! A directory reached through the kernel.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::OFlags;

use super::{How, Store, Trouble};

/// Files in a directory. Creating, renaming and removing are stable when they return because an NFS server makes them so
/// (RFC 1813 section 4.8): nothing is added here, and on a local file system they would not be.
#[derive(Debug)]
pub(crate) struct Mounted {
    dir: PathBuf,
}

impl Mounted {
    /// Works in `dir`, which must be there.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        fs::read_dir(dir).with_context(|| format!("cannot work in {}: name another --dir", dir.display()))?;
        Ok(Self { dir: dir.to_owned() })
    }
}

/// A name and, for each way to write, a descriptor: that way lies in the flags of open(2).
#[derive(Debug)]
pub(crate) struct Opened {
    plain: File,
    file_sync: File,
    data_sync: File,
}

impl Opened {
    fn new(path: &Path) -> io::Result<Self> {
        let open = |flags: OFlags| {
            OpenOptions::new().read(true).write(true).custom_flags(flags.bits() as i32).open(path)
        };
        let (plain, file_sync) = (open(OFlags::empty())?, open(OFlags::SYNC)?);
        Ok(Self { plain, file_sync, data_sync: open(OFlags::DSYNC)? })
    }
}

/// `already` is the error that means that a call was carried out before.
fn trouble(already: ErrorKind) -> impl Fn(io::Error) -> Trouble {
    move |error| if error.kind() == already { Trouble::Repeated } else { Trouble::failed(error) }
}

impl Store for Mounted {
    type File = Opened;

    fn create(&self, name: &str) -> Result<Opened, Trouble> {
        let path = self.dir.join(name);
        File::create_new(&path).map_err(trouble(ErrorKind::AlreadyExists))?;
        Opened::new(&path).map_err(Trouble::failed)
    }

    fn open(&self, name: &str) -> Result<Opened, Trouble> {
        Opened::new(&self.dir.join(name)).map_err(Trouble::failed)
    }

    fn write(&self, file: &Opened, mut offset: u64, parts: Vec<Vec<u8>>, how: How) -> Result<(), Trouble> {
        let through = match how {
            How::FileSync => &file.file_sync,
            How::DataSync => &file.data_sync,
            How::Commit => &file.plain,
        };
        for part in parts {
            through.write_all_at(&part, offset).map_err(Trouble::failed)?;
            offset += part.len() as u64;
        }
        if how == How::Commit { through.sync_all().map_err(Trouble::failed) } else { Ok(()) }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Trouble> {
        fs::rename(self.dir.join(from), self.dir.join(to)).map_err(trouble(ErrorKind::NotFound))
    }

    fn remove(&self, name: &str) -> Result<(), Trouble> {
        fs::remove_file(self.dir.join(name)).map_err(trouble(ErrorKind::NotFound))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        match fs::read(self.dir.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Trouble::failed(error)),
        }
    }

    fn verifier(&self, _file: &Opened) -> Result<Option<u64>, Trouble> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_behaves() {
        let dir = tempfile::tempdir().unwrap();
        crate::store::tests::behaves(&Mounted::new(dir.path()).unwrap());
    }

    #[test]
    fn a_missing_directory_is_refused() {
        assert!(Mounted::new(Path::new("/no/such/directory")).is_err());
    }
}
