//! A directory's entries, as they come.

use anyhow::{Result, bail};
use remoor_nfs::v3::{self, CookieVerf, EntryPlus};

use super::server::{Object, checked};

/// Bytes of names and attributes asked of one READDIRPLUS.
const REPLY_BYTES: u32 = 256 << 10;
/// Entries one directory may have, so that a server that never tells the end is found out.
const MAX_ENTRIES: u64 = 1 << 26;

/// Lists one directory. Holds one reply at a time.
#[derive(Debug)]
pub(crate) struct Listing {
    dir: Object,
    cookie: u64,
    verf: CookieVerf,
    seen: u64,
    ended: bool,
}

impl Listing {
    /// From the start.
    pub(crate) fn of(dir: &Object) -> Self {
        Self { dir: dir.clone(), cookie: 0, verf: [0; 8], seen: 0, ended: false }
    }

    /// The next entries, without `.` and `..`; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<EntryPlus>>> {
        if self.ended {
            return Ok(None);
        }
        let args = v3::ReaddirplusArgs {
            dir: self.dir.handle.clone(),
            cookie: self.cookie,
            verf: self.verf,
            dir_count: REPLY_BYTES / 4,
            max_count: REPLY_BYTES,
        };
        let res = self.dir.client().call::<v3::Readdirplus>(args).await?;
        let ok = checked("cannot list", &self.dir.url, res)?;
        let last = ok.entries.0.last().map(|entry| entry.cookie);
        self.verf = ok.verf;
        self.ended = ok.eof;
        self.seen += ok.entries.0.len() as u64;
        match last {
            Some(cookie) if cookie != self.cookie || ok.eof => self.cookie = cookie,
            None if ok.eof => {}
            _ => bail!("cannot list {}: the server's reply does not lead on", self.dir.url),
        }
        if self.seen > MAX_ENTRIES {
            bail!("cannot list {}: more than {MAX_ENTRIES} entries", self.dir.url);
        }
        let mut entries = ok.entries.0;
        entries.retain(|entry| !matches!(&entry.name.0[..], b"." | b".."));
        if let Some(entry) =
            entries.iter().find(|entry| entry.name.0.is_empty() || entry.name.0.contains(&b'/'))
        {
            bail!("cannot list {}: the server sent the name {:?}, which is none", self.dir.url, entry.name.0);
        }
        Ok(Some(entries))
    }

    /// Nothing more is asked for.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// An entry as an object; what the server left out is looked up.
    pub(crate) async fn object(&self, entry: EntryPlus) -> Result<Object> {
        match (entry.file, entry.attr) {
            (Some(handle), Some(attr)) => {
                let url = self.dir.url.child(&entry.name.0);
                Ok(Object { export: self.dir.export.clone(), handle, attr, url })
            }
            _ => self.dir.lookup(&entry.name.0).await,
        }
    }
}
