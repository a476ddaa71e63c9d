//! Files that are open while they have no name: the name they have on the server meanwhile.
//!
//! A server of NFS version 3 does not know which files are open. So the client gives a file whose last name is removed
//! while it is open a name nobody looks for, `.nfs` with the fileid and a counter as Linux does (`nfs_sillyrename`), and
//! removes that at the last close. What a crash leaves behind is found in the [`Journal`] by the next mount.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use remoor_nfs::v3::{self, NfsStat, Res};

use super::journal::Record;
use super::lookup::place;
use super::names::At;
use super::node::{Node, Place};
use super::{Credential, Fs};
use crate::errno::Errno;

pub use super::journal::{Journal, clean_up};

/// Names tried before it is an error that all are taken.
const MAX_TRIES: usize = 64;

/// The name a removed file has while it is open.
#[derive(Debug)]
pub(crate) struct Silly {
    at: At,
    who: Arc<Credential>,
}

/// Numbers no two creators share, as far as chance permits.
#[derive(Debug)]
pub(crate) struct Unique {
    seed: u32,
    next: AtomicU64,
}

impl Unique {
    pub(crate) fn new() -> Self {
        let seed = RandomState::new().hash_one(std::process::id());
        Self { seed: seed as u32, next: AtomicU64::new(seed >> 32) }
    }

    pub(crate) fn next(&self) -> u64 {
        u64::from(self.seed) << 32 | self.next.fetch_add(1, Relaxed) & u64::from(u32::MAX)
    }
}

fn silly_name(fileid: u64, counter: u64) -> Arc<[u8]> {
    format!(".nfs{fileid:016x}{:08x}", counter as u32).into_bytes().into()
}

impl Fs {
    /// A name in `dir` that nothing has, noted in the journal.
    async fn unused_name(&self, dir: &Arc<Node>, node: &Node, who: &Credential) -> Result<At, Errno> {
        for _ in 0..MAX_TRIES {
            let name = silly_name(node.fileid, self.unique.next());
            match self.call::<v3::Lookup, _, _>(who, place(dir, &name)).await? {
                Res::Ok(_) => {}
                Res::Fail(NfsStat::NoEnt, _) => {
                    self.journal.add(&Record::new(dir, node, who, &name));
                    return Ok(At { dir: dir.clone(), name });
                }
                Res::Fail(status, _) => return Err(self.refused(dir, status)),
            }
        }
        Err(Errno::BUSY)
    }

    /// Removes the last name of a file that is open.
    pub(crate) async fn silly_rename(
        self: &Arc<Self>,
        dir: Arc<Node>,
        name: Arc<[u8]>,
        node: Arc<Node>,
        who: Arc<Credential>,
    ) -> Result<(), Errno> {
        let from = At { dir, name };
        let to = self.unused_name(&from.dir, &node, &who).await?;
        if let Err(error) = self.rename_on_server(&from, &to, &who).await {
            self.journal.done(&to.dir, &to.name);
            return Err(error);
        }
        self.renamed(&from, &to, None);
        self.keep_until_closed(&node, to, who).await;
        Ok(())
    }

    /// RENAME to the last name of a file that is open. The file is linked to its silly name first, so that the name
    /// never goes away; where it cannot be linked it is renamed.
    pub(crate) async fn rename_over_open(
        self: &Arc<Self>,
        from: At,
        to: At,
        replaced: Arc<Node>,
        who: Arc<Credential>,
    ) -> Result<(), Errno> {
        let silly = self.unused_name(&to.dir, &replaced, &who).await?;
        let linked = self.link_on_server(&replaced, &silly.dir, &silly.name, &who).await.is_ok();
        if !linked && let Err(error) = self.rename_on_server(&to, &silly, &who).await {
            self.journal.done(&silly.dir, &silly.name);
            return Err(error);
        }
        if let Err(error) = self.rename_on_server(&from, &to, &who).await {
            let undone = match linked {
                true => self.remove_name(&silly, &who).await,
                false => self.rename_on_server(&silly, &to, &who).await.is_ok(),
            };
            if undone {
                self.journal.done(&silly.dir, &silly.name);
            }
            return Err(error);
        }
        self.renamed(&from, &to, Some(&replaced));
        self.keep_until_closed(&replaced, silly, who).await;
        Ok(())
    }

    /// `node` has the name `silly` until it is closed, which it may have been meanwhile.
    async fn keep_until_closed(self: &Arc<Self>, node: &Node, silly: At, who: Arc<Credential>) {
        let silly = {
            let mut state = node.state();
            state.place = Some(Place { parent: silly.dir.id, name: silly.name.clone() });
            let silly = Silly { at: silly, who };
            if state.opens == 0 {
                Some(silly)
            } else {
                state.silly = Some(Box::new(silly));
                None
            }
        };
        if let Some(silly) = silly {
            self.remove_silly(silly).await;
        }
    }

    /// The file was closed: its silly name goes, and from this call on, not only once the future is polled, it is
    /// [`Leaving`](super::leaving::Leaving). If it cannot be removed the journal still has it.
    pub(crate) fn remove_silly(self: &Arc<Self>, silly: Silly) -> impl Future<Output = ()> + Send + use<> {
        let (fs, departure) = (self.clone(), self.leaving.begin(silly.at.dir.id));
        async move {
            if fs.remove_name(&silly.at, &silly.who).await {
                fs.journal.done(&silly.at.dir, &silly.at.name);
            }
            drop(departure);
        }
    }

    /// Whether the name is gone.
    async fn remove_name(&self, at: &At, who: &Credential) -> bool {
        let change = self.change(&at.dir);
        let Ok(reply) = self.call::<v3::Remove, _, _>(who, at.place()).await else { return false };
        let (status, wcc) = match reply {
            Res::Ok(wcc) => (NfsStat::Ok, wcc),
            Res::Fail(status, wcc) => (status, wcc),
        };
        change.end(&wcc);
        self.our_name(&at.dir, |names| names.remove(&at.name));
        matches!(status, NfsStat::Ok | NfsStat::NoEnt | NfsStat::Stale)
    }

    /// Removes every silly name: the mount ends, and with it what is open.
    pub async fn remove_all_silly(self: &Arc<Self>) {
        for node in self.nodes.all() {
            let silly = node.state().silly.take();
            if let Some(silly) = silly {
                self.remove_silly(*silly).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_linux() {
        assert_eq!(&silly_name(0x1234, 0xabcd)[..], b".nfs00000000000012340000abcd");
        assert_eq!(silly_name(u64::MAX, u64::MAX).len(), 28);
    }

    #[test]
    fn numbers_are_unique() {
        let unique = Unique::new();
        let numbers: std::collections::HashSet<u64> = (0..1000).map(|_| unique.next()).collect();
        assert_eq!(numbers.len(), 1000);
    }
}
