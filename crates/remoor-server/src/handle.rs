//! Wire handles: a vfs's [`NodeHandle`] with the export's fsid, signed so that no client can make one up.
//!
//! The key lies in the state directory that the nodes share; so a handle is the same on every node and after a restart.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use remoor_nfs::v3::{FileHandle, MAX_HANDLE};
use sha2::Sha256;
use thiserror::Error;

use crate::vfs::{MAX_NODE_HANDLE, NodeHandle};

/// First byte of every handle of this form.
const VERSION: u8 = 1;
/// Bytes of the key: as many as the hash gives (RFC 2104 section 3).
const KEY_LEN: usize = 32;
/// Bytes of the signature: half the hash, the least RFC 2104 section 5 allows.
const MAC_LEN: usize = 16;
/// Version and fsid, before the node handle.
const HEAD_LEN: usize = 1 + 8;
/// Name of the key in the state directory.
const KEY_FILE: &str = "handle.key";

const _: () = assert!(HEAD_LEN + MAX_NODE_HANDLE + MAC_LEN <= MAX_HANDLE);

/// Why there is no key to sign handles with.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file system refused.
    #[error("cannot {what} {path}: {source}; the state directory must be writable by the server")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others may read it, so anyone could make up handles.
    #[error(
        "{path} has mode {mode:04o}; set it to 0600, or remove it if others may have read it (clients must then mount anew)"
    )]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a key.
    #[error(
        "{path} has {len} bytes, a key has {KEY_LEN}; restore it from another copy, or remove it (clients must then mount anew)"
    )]
    Length {
        /// The key file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
}

/// A handle this server did not make: NFS3ERR_BADHANDLE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadHandle {
    /// Too short, too long, or of another version.
    #[error("not a handle of this server's form")]
    Form,
    /// Its signature is not ours: made up, damaged, or from a server with another key.
    #[error("signature does not match; the handle was made up, or the server has another {KEY_FILE}")]
    Signature,
}

/// A node handle that can't be put into 64 bytes; the export must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the file system's handles have {0} bytes, and at most {MAX_NODE_HANDLE} fit beside fsid and signature; export it with fileid handles"
)]
pub struct TooLong(pub usize);

/// Signs handles, and tells its own from others.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// With the key of `state_dir`, which is made if there is none. Nodes that start at the same time agree on one.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, KeyError> {
        let path = state_dir.join(KEY_FILE);
        if !path.try_exists().map_err(io_error("look for", &path))? {
            create_key(state_dir, &path)?;
        }
        load_key(&path).map(Self::new)
    }

    /// With this key.
    pub fn new(key: [u8; KEY_LEN]) -> Self {
        Self(keyed(&key))
    }

    /// The wire handle of `node` in the export `fsid`.
    pub fn seal(&self, fsid: u64, node: &NodeHandle) -> Result<FileHandle, TooLong> {
        if node.len() > MAX_NODE_HANDLE {
            return Err(TooLong(node.len()));
        }
        let mut out = Vec::with_capacity(HEAD_LEN + node.len() + MAC_LEN);
        out.push(VERSION);
        out.extend_from_slice(&fsid.to_be_bytes());
        out.extend_from_slice(node);
        let mac = self.0.clone().chain_update(&out).finalize().into_bytes();
        out.extend_from_slice(&mac[..MAC_LEN]);
        Ok(Bytes::from(out).into())
    }

    /// The export's fsid and the node handle, if this server made the handle. The comparison takes constant time.
    pub fn open(&self, handle: &FileHandle) -> Result<(u64, NodeHandle), BadHandle> {
        let raw = &handle.0;
        let end = raw.len().checked_sub(MAC_LEN).filter(|end| *end >= HEAD_LEN).ok_or(BadHandle::Form)?;
        if raw[0] != VERSION {
            return Err(BadHandle::Form);
        }
        let mac = self.0.clone().chain_update(&raw[..end]);
        mac.verify_truncated_left(&raw[end..]).map_err(|_| BadHandle::Signature)?;
        let fsid = raw[1..HEAD_LEN].try_into().map_err(|_| BadHandle::Form)?;
        Ok((u64::from_be_bytes(fsid), raw.slice(HEAD_LEN..end)))
    }
}

/// A key shorter than the hash's block is padded with zeros (RFC 2104 section 2).
fn keyed(key: &[u8; KEY_LEN]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    block[..KEY_LEN].copy_from_slice(key);
    Hmac::new(&block.into())
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KeyError + 'a {
    move |source| KeyError::Io { what, path: path.to_owned(), source }
}

/// Writes a key under a name of its own and links it to the right one, so that it appears whole or not at all, and the
/// first of two nodes wins.
fn create_key(state_dir: &Path, path: &Path) -> Result<(), KeyError> {
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(io_error("make", state_dir))?;
    let mut key = [0; KEY_LEN];
    let random = Path::new("/dev/urandom");
    File::open(random).and_then(|mut file| file.read_exact(&mut key)).map_err(io_error("read", random))?;
    let own = state_dir.join(format!("{KEY_FILE}.{:016x}", u64::from_be_bytes(key_name(&key))));
    let written = write_key(&own, &key).and_then(|()| fs::hard_link(&own, path));
    let removed = fs::remove_file(&own);
    match written {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error("make", path)(error)),
        _ => {
            removed.map_err(io_error("remove", &own))?;
            File::open(state_dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", state_dir))
        }
    }
}

/// A name that no other node chooses, and that tells nothing about the key.
fn key_name(key: &[u8; KEY_LEN]) -> [u8; 8] {
    let mut name = [0; 8];
    let mac = keyed(key).finalize().into_bytes();
    name.copy_from_slice(&mac[..8]);
    name
}

fn write_key(path: &Path, key: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key)?;
    file.sync_all()
}

fn load_key(path: &Path) -> Result<[u8; KEY_LEN], KeyError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let meta = file.metadata().map_err(io_error("stat", path))?;
    if meta.mode() & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    if meta.len() != KEY_LEN as u64 {
        return Err(KeyError::Length { path: path.to_owned(), len: meta.len() });
    }
    let mut key = [0; KEY_LEN];
    file.read_exact(&mut key).map_err(io_error("read", path))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn signer() -> Signer {
        Signer::new([7; KEY_LEN])
    }

    #[test]
    fn what_was_sealed_opens() {
        for len in 0..=MAX_NODE_HANDLE {
            let node = NodeHandle::from(vec![9; len]);
            let sealed = signer().seal(0xfeed, &node).unwrap();
            assert!(sealed.0.len() <= MAX_HANDLE);
            assert_eq!(signer().open(&sealed), Ok((0xfeed, node)));
        }
        assert_eq!(signer().seal(1, &vec![0; 40].into()), Err(TooLong(40)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let sealed = signer().seal(3, &NodeHandle::from_static(b"node")).unwrap().0;
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(signer().open(&Bytes::from(forged).into()).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(signer().open(&sealed.slice(..len).into()).is_err(), "{len} bytes");
        }
        assert_eq!(Signer::new([8; KEY_LEN]).open(&sealed.into()), Err(BadHandle::Signature));
    }

    #[test]
    fn nodes_that_start_together_agree() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let node = NodeHandle::from_static(b"n");
        let sealed: Vec<_> = std::thread::scope(|scope| {
            let start = || Signer::load_or_create(&state).unwrap().seal(1, &node).unwrap();
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(sealed.iter().all(|handle| *handle == sealed[0]));
        let names: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [KEY_FILE]);
        assert_eq!(fs::metadata(state.join(KEY_FILE)).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_bad_key_file_is_refused_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        write_key(&path, b"short").unwrap();
        let error = Signer::load_or_create(dir.path()).unwrap_err().to_string();
        assert!(error.contains("has 5 bytes, a key has 32"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Signer::load_or_create(dir.path()).unwrap_err().to_string();
        assert!(error.contains("mode 0644; set it to 0600"), "{error}");
    }

    #[test]
    fn a_key_that_cannot_be_made_is_told_with_the_first_cause() {
        // Nobody makes files there, root included.
        let error = Signer::load_or_create(Path::new("/proc/self")).unwrap_err().to_string();
        assert!(error.starts_with("cannot make /proc/self/handle.key: "), "{error}");
    }
}
