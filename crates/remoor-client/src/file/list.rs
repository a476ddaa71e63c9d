//! Directories, one reply at a time.

use remoor_nfs::v3::{self, CookieVerf, EntryPlus, FileHandle, NfsStat};
use remoor_rpc::message::ReplyStatus;

use super::{Error, Result};
use crate::call::{CallError, Client};

/// Bytes of names and attributes asked of one READDIRPLUS, or one READDIR.
const READDIR_BYTES: u32 = 64 << 10;
/// Entries one directory may have, so that a server that never tells the end is found out.
const MAX_ENTRIES: u64 = 1 << 26;
/// Entries that [`Client::readdirplus`] keeps at most.
const MAX_KEPT: usize = 1 << 22;

/// A directory being read.
#[derive(Debug)]
pub struct Listing {
    client: Client,
    dir: FileHandle,
    cookie: u64,
    verf: CookieVerf,
    /// READDIRPLUS; else READDIR, for a server that has nothing better.
    plus: bool,
    ended: bool,
    seen: u64,
}

/// One reply of either procedure.
struct Part {
    verf: CookieVerf,
    entries: Vec<EntryPlus>,
    eof: bool,
}

impl Client {
    /// Reads a directory reply by reply, with attributes and handles where the server sends them. A server without
    /// READDIRPLUS is asked by READDIR, which sends neither.
    pub fn list(&self, dir: &FileHandle) -> Listing {
        let (client, dir) = (self.clone(), dir.clone());
        Listing { client, dir, cookie: 0, verf: [0; 8], plus: true, ended: false, seen: 0 }
    }

    /// All entries of a directory, at most 4194304; [`Client::list`] has no such limit. `.` and `..` are left out.
    pub async fn readdirplus(&self, dir: &FileHandle) -> Result<Vec<EntryPlus>> {
        let (mut listing, mut all) = (self.list(dir), Vec::new());
        while let Some(entries) = listing.next().await? {
            if all.len() + entries.len() > MAX_KEPT {
                return Err(listing.no_sense("more entries than can be kept here, 4194304"));
            }
            all.extend(entries);
        }
        Ok(all)
    }
}

impl Listing {
    /// The entries of the next reply without `.` and `..`, which may be none; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<EntryPlus>>> {
        if self.ended {
            return Ok(None);
        }
        let Part { verf, mut entries, eof } = self.ask().await?;
        match entries.last() {
            Some(last) if last.cookie == self.cookie && !eof => {
                return Err(self.no_sense("it goes on from the cookie it was asked to go on from"));
            }
            Some(last) => self.cookie = last.cookie,
            None if eof => {}
            None => return Err(self.no_sense("neither entries nor the end")),
        }
        self.seen += entries.len() as u64;
        if self.seen > MAX_ENTRIES {
            return Err(self.no_sense("more entries than a directory may have here, 67108864"));
        }
        (self.verf, self.ended) = (verf, eof);
        entries.retain(|entry| !matches!(&entry.name.0[..], b"." | b".."));
        Ok(Some(entries))
    }

    /// Cookies of the two procedures need not be the same (RFC 1813 section 3.3.17), so only the first call may fall back.
    async fn ask(&mut self) -> Result<Part> {
        if self.plus {
            match self.readdirplus().await {
                Err(error) if self.cookie == 0 && is_missing(&error) => self.plus = false,
                other => return other,
            }
        }
        self.readdir().await
    }

    async fn readdirplus(&self) -> Result<Part> {
        let args = v3::ReaddirplusArgs {
            dir: self.dir.clone(),
            cookie: self.cookie,
            verf: self.verf,
            dir_count: READDIR_BYTES / 4,
            max_count: READDIR_BYTES,
        };
        let ok = self.client.ask::<v3::Readdirplus, _, _>(args).await?;
        Ok(Part { verf: ok.verf, entries: ok.entries.0, eof: ok.eof })
    }

    async fn readdir(&self) -> Result<Part> {
        let (dir, cookie, verf) = (self.dir.clone(), self.cookie, self.verf);
        let args = v3::ReaddirArgs { dir, cookie, verf, count: READDIR_BYTES };
        let ok = self.client.ask::<v3::Readdir, _, _>(args).await?;
        let bare = |entry: v3::Entry| EntryPlus {
            fileid: entry.fileid,
            name: entry.name,
            cookie: entry.cookie,
            attr: None,
            file: None,
        };
        Ok(Part { verf: ok.verf, entries: ok.entries.0.into_iter().map(bare).collect(), eof: ok.eof })
    }

    fn no_sense(&self, what: &'static str) -> Error {
        Error::Server { procedure: if self.plus { "READDIRPLUS" } else { "READDIR" }, what }
    }
}

fn is_missing(error: &Error) -> bool {
    match error {
        Error::Nfs { status, .. } => *status == NfsStat::NotSupp,
        Error::Call(CallError::Status { status, .. }) => *status == ReplyStatus::ProcUnavail,
        _ => false,
    }
}
