//! Copying a tree: directories in order, small files several at a time, large ones one after another.

use std::sync::Arc;

use anyhow::{Result, bail};
use remoor_nfs::v3::FileType;
use tokio::task::JoinSet;

use super::copy::{Content, How, copy, is_small};
use super::folder::Folder;
use super::item::{Attrs, Entries, Item, not_copied};
use super::session::Session;

/// Files of at most one chunk that are copied at the same time.
const AT_A_TIME: usize = 8;
/// Directories in directories; a deeper tree is taken for one that never ends.
const MAX_DEPTH: usize = 4096;
/// What its owner needs to fill a directory.
const FILL: u32 = 0o700;

/// Copies trees; what fails is told and counted, and the rest is copied.
pub(crate) struct Copier {
    session: Arc<Session>,
    how: How,
    small: JoinSet<()>,
    levels: Vec<Level>,
    /// Directories whose permissions and times are set when everything is in them.
    made: Vec<(Folder, Attrs)>,
    /// The directory that is being filled from above.
    top: Option<Folder>,
}

/// A directory that is being copied.
struct Level {
    entries: Entries,
    from: String,
    to: Folder,
}

impl Copier {
    pub(crate) fn new(session: Arc<Session>, how: How) -> Self {
        Self { session, how, small: JoinSet::new(), levels: Vec::new(), made: Vec::new(), top: None }
    }

    /// Copies `item` and all in it to the name `name` of `folder`.
    pub(crate) async fn copy(&mut self, item: Item, folder: &Folder, name: &[u8]) {
        self.top = None;
        self.take(item, folder, name).await;
        while let Some(level) = self.levels.last_mut() {
            let to = level.to.clone();
            match level.entries.next().await {
                Ok(Some(items)) => {
                    for item in items {
                        self.take_entry(item, &to).await;
                    }
                }
                Ok(None) => drop(self.levels.pop()),
                Err(error) => {
                    let error = error.context(format!("cannot copy all of {}", level.from));
                    self.session.fail(&error);
                    self.levels.pop();
                }
            }
        }
        self.settle().await;
    }

    /// Waits for what is under way, then sets permissions and times of directories, the innermost first.
    async fn settle(&mut self) {
        while self.small.join_next().await.is_some() {}
        for (folder, attrs) in self.made.drain(..).rev() {
            if let Err(error) = folder.set(self.how.mode(&attrs), self.how.times(&attrs)).await {
                self.session.fail(&error);
            }
        }
    }

    async fn take_entry(&mut self, item: Result<Item>, to: &Folder) {
        match item {
            Ok(item) => match item.name() {
                Some(name) => self.take(item, to, &name).await,
                None => drop(self.session.fail(&not_copied(&item))),
            },
            Err(error) => drop(self.session.fail(&error)),
        }
    }

    async fn take(&mut self, item: Item, to: &Folder, name: &[u8]) {
        let taken = match item.kind() {
            FileType::Directory => self.enter(item, to, name).await,
            FileType::Symlink => self.link(&item, to, name).await,
            FileType::Regular => self.file(item, to, name).await,
            _ => Err(not_copied(&item)),
        };
        if let Err(error) = taken {
            self.session.fail(&error);
        }
    }

    async fn link(&self, item: &Item, to: &Folder, name: &[u8]) -> Result<()> {
        to.symlink(name, &item.target().await?, self.how.times(&item.attrs())).await
    }

    async fn file(&mut self, item: Item, to: &Folder, name: &[u8]) -> Result<()> {
        let attrs = item.attrs();
        self.session.progress.expect(attrs.size);
        if !is_small(&attrs) {
            return copy_file(&self.session, &item, to, name, &self.how).await;
        }
        while self.small.len() >= AT_A_TIME {
            self.small.join_next().await;
        }
        let (session, how, to, name) = (self.session.clone(), self.how, to.clone(), name.to_vec());
        self.small.spawn(async move {
            if let Err(error) = copy_file(&session, &item, &to, &name, &how).await {
                session.fail(&error);
            }
        });
        Ok(())
    }

    /// Makes the directory and goes on in it.
    async fn enter(&mut self, item: Item, to: &Folder, name: &[u8]) -> Result<()> {
        if self.levels.len() >= MAX_DEPTH {
            bail!("{} is not copied: more than {MAX_DEPTH} directories deep", item.shown());
        }
        if let (Item::Remote(from), Some(Folder::Remote(top))) = (&item, &self.top)
            && from.is_same(top)
        {
            bail!("{} is not copied: it is being copied into", item.shown());
        }
        if let (Item::Remote(from), Folder::Remote(to)) = (&item, to)
            && from.is_same(to)
        {
            bail!("{} cannot be copied into itself", item.shown());
        }
        let (attrs, from, entries) = (item.attrs(), item.shown(), item.entries()?);
        let mode = self.how.mode(&attrs);
        let (folder, existed) = to.mkdir(name, mode | FILL).await?;
        if self.how.preserve || (!existed && mode & FILL != FILL) {
            self.made.push((folder.clone(), attrs));
        }
        self.top.get_or_insert_with(|| folder.clone());
        self.levels.push(Level { entries, from, to: folder });
        Ok(())
    }
}

async fn copy_file(session: &Session, item: &Item, to: &Folder, name: &[u8], how: &How) -> Result<()> {
    if let (Item::Remote(from), Folder::Remote(dir)) = (item, to)
        && let Some(there) = dir.lookup_if_there(name).await?
        && there.is_same(from)
    {
        bail!("{} and its copy are the same file", item.shown());
    }
    let copied = copy(session, Content::of(item)?, to, name, how).await;
    copied.map_err(|error| error.context(format!("cannot copy {} to {}", item.shown(), to.shown(name))))
}
