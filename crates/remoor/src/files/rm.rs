//! `remoor rm`: removes a server's files.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use remoor_nfs::v3::{self, NfsStat};

use super::dir::Listing;
use super::folder::remove;
use super::server::{Object, checked, place, status};
use super::session::{Session, run as run_session};
use super::url::Url;
use super::{Connection, EXIT_CODES};
use crate::Failure;

/// How often a directory is listed again because entries came while it was emptied.
const MAX_ROUNDS: usize = 16;
/// Directories in directories; a deeper tree is taken for one that never ends.
const MAX_DEPTH: usize = 4096;

/// Remove a server's files, without a mount.
///
/// An exported directory itself is never removed, nor emptied. A symbolic link is removed itself.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("{EXIT_CODES}\n\n{EXAMPLES}"))]
pub(crate) struct Args {
    /// What to remove
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,
    /// Directories, too, with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// What does not exist is no failure
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

const EXAMPLES: &str = "\
Examples:
  remoor rm nfs://fs1/srv/data/old.log
  remoor rm -rf nfs://fs1/srv/data/build";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let urls = args.connection.urls(&args.urls)?;
    let (recursive, force) = (args.recursive, args.force);
    run_session(args.connection.patience(), async move |session: Arc<Session>| {
        for url in &urls {
            let remover = Remover { session: &session, recursive, force };
            remover.remove(url).await?;
        }
        Ok(())
    })
}

struct Remover<'a> {
    session: &'a Session,
    recursive: bool,
    force: bool,
}

impl Remover<'_> {
    /// Removes `url`, telling what fails. An unreachable server ends the command.
    async fn remove(&self, url: &Url) -> Result<(), Failure> {
        let export = self.session.export(url).await.map_err(Failure::Cannot)?;
        if url.path.len() <= export.path.len() {
            self.session.fail(&anyhow!("{url} is exported and is not removed; name what is in it"));
            return Ok(());
        }
        if let Err(error) = self.remove_in(&export, url).await
            && !(self.force && status(&error) == Some(NfsStat::NoEnt))
        {
            self.session.fail(&error);
        }
        Ok(())
    }

    async fn remove_in(&self, export: &Arc<super::server::Export>, url: &Url) -> Result<()> {
        let (name, above) = url.path.split_last().ok_or_else(|| anyhow!("{url} has no name"))?;
        let dir = Object::find(export, &url.at(above), true).await?;
        let object = dir.lookup(name).await?;
        if object.is_root() {
            return Err(anyhow!("{url} is exported and is not removed; name what is in it"));
        }
        match (object.is_dir(), self.recursive) {
            (false, _) if url.directory => {
                Err(anyhow!("{url} is not a directory; write it without the / at its end"))
            }
            (false, _) => remove(&dir, name).await,
            (true, true) => self.remove_tree(&dir, object).await,
            (true, false) => Err(anyhow!("{url} is a directory; remove it with -r")),
        }
    }

    /// Removes a directory with all in it, the innermost first. What cannot be removed is told, and so keeps what it is in.
    async fn remove_tree(&self, above: &Object, dir: Object) -> Result<()> {
        let mut levels = vec![Level::of(above.clone(), dir)];
        while let Some(level) = levels.last_mut() {
            match level.next().await {
                Ok(Some(object)) if object.is_dir() => {
                    if object.is_root() || levels.len() >= MAX_DEPTH {
                        return Err(anyhow!("{} leads too deep or back to the export's root", object.url));
                    }
                    let above = levels[levels.len() - 1].dir.clone();
                    levels.push(Level::of(above, object));
                }
                Ok(Some(object)) => {
                    let removed = remove(&level.dir, object.url.name()).await;
                    level.kept |= self.missed(removed);
                }
                Ok(None) => {
                    let Some(done) = levels.pop() else { break };
                    let kept = done.kept || self.missed(rmdir(&done.above, &done.dir).await);
                    if let Some(level) = levels.last_mut() {
                        level.kept |= kept;
                    }
                }
                Err(error) => {
                    self.session.fail(&error);
                    level.end();
                }
            }
        }
        Ok(())
    }

    /// Tells a failure; whether there was one. What somebody else removed is removed.
    fn missed(&self, removed: Result<()>) -> bool {
        match removed {
            Err(error) if status(&error) != Some(NfsStat::NoEnt) => {
                self.session.fail(&error);
                true
            }
            _ => false,
        }
    }
}

async fn rmdir(above: &Object, dir: &Object) -> Result<()> {
    let res = dir.client().call::<v3::Rmdir>(place(&above.handle, dir.url.name())).await?;
    checked("cannot remove", &dir.url, res).map(drop)
}

/// A directory that is being emptied.
struct Level {
    above: Object,
    dir: Object,
    listing: Listing,
    batch: Vec<Object>,
    /// Entries seen since the listing began.
    seen: bool,
    rounds: usize,
    /// Something in it stays.
    kept: bool,
}

impl Level {
    fn of(above: Object, dir: Object) -> Self {
        let listing = Listing::of(&dir);
        Self { above, dir, listing, batch: Vec::new(), seen: false, rounds: 0, kept: false }
    }

    /// The next object to remove. A directory that had entries is listed again: a server may skip some where others were
    /// removed during a listing.
    async fn next(&mut self) -> Result<Option<Object>> {
        loop {
            if let Some(object) = self.batch.pop() {
                return Ok(Some(object));
            }
            match self.listing.next().await? {
                Some(entries) => {
                    for entry in entries {
                        self.batch.push(self.listing.object(entry).await?);
                    }
                    self.seen |= !self.batch.is_empty();
                }
                None if self.seen && !self.kept && self.rounds < MAX_ROUNDS => {
                    (self.listing, self.seen) = (Listing::of(&self.dir), false);
                    self.rounds += 1;
                }
                None => return Ok(None),
            }
        }
    }

    /// Takes nothing more from it.
    fn end(&mut self) {
        self.batch.clear();
        (self.rounds, self.kept, self.seen) = (MAX_ROUNDS, true, false);
        self.listing.end();
    }
}
