//! What is exported at one moment. A table never changes: another takes its place.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use remoor_nfs::v3::WriteVerf;

use crate::exports::{Export, Options, Rule, Storage, decide};
use crate::names::{Names, Pending};
use crate::recognised;
use crate::vfs::Vfs;
use crate::vfs::local::Durability;
use crate::watch::Watch;

/// Bits of a write verifier that tell openings apart; the others tell epochs apart.
const OPENING_BITS: u32 = 24;

/// A table in use. Cheap to take and to give back, and blocks nobody who exports another.
pub(crate) type Snapshot = arc_swap::Guard<Arc<Table>>;

/// An export that is served.
pub(crate) struct ServedExport {
    /// What clients mount.
    pub(crate) path: PathBuf,
    /// The same as it is written, maybe with symbolic links.
    pub(crate) configured: PathBuf,
    /// Its identity in handles and attributes.
    pub(crate) id: u64,
    /// Its files.
    pub(crate) vfs: Arc<dyn Vfs>,
    /// Who may use it.
    pub(crate) rules: Vec<Rule>,
    /// No other export of this process has it, and none with other rules: what was decided by rules is remembered by it.
    pub(crate) serial: u64,
    /// How its files were opened.
    pub(crate) opened: Opened,
    /// How often its files were opened before in this process.
    pub(crate) opening: u64,
    /// What is known of its use and its health. It stays with the file system.
    pub(crate) watch: Arc<Watch>,
}

/// What a file system was opened with. It stays open across a change of exports while this is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) storage: Storage,
    pub(crate) durability: Durability,
    /// Device and inode of the directory: another file system may have been mounted on it since.
    pub(crate) directory: Option<(u64, u64)>,
}

impl Opened {
    /// Files that are in no directory.
    pub(crate) const IN_MEMORY: Self =
        Self { storage: Storage::Memory, durability: Durability::Sync, directory: None };
}

impl ServedExport {
    /// An export in memory, which nobody watches.
    pub(crate) fn of(path: PathBuf, id: u64, vfs: Arc<dyn Vfs>, rules: Vec<Rule>) -> Self {
        let (configured, opened) = (path.clone(), Opened::IN_MEMORY);
        let (serial, watch) = (Self::next_serial(), Arc::default());
        Self { path, configured, id, vfs, rules, serial, opened, opening: 0, watch }
    }

    pub(crate) fn next_serial() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Relaxed)
    }

    /// The verifier of what is written now, in a server that began with `base` (RFC 1813 section 3.3.7). Files that are
    /// opened anew count their epochs anew, and nobody knows what became of data that was written through the old ones.
    pub(crate) fn write_verf(&self, base: WriteVerf, epoch: u64) -> WriteVerf {
        (u64::from_be_bytes(base) ^ epoch ^ self.opening.rotate_right(OPENING_BITS)).to_be_bytes()
    }

    /// Its path, for people.
    pub(crate) fn shown(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// What a client gets, if the export is for it; [`Pending`] while the name service does not tell.
    pub(crate) fn options_for(&self, client: IpAddr, names: &dyn Names) -> Result<Option<&Options>, Pending> {
        self.options_at(Instant::now, client, names)
    }

    /// Whether the export is for a client, as far as the name service tells now: who is not known is not refused.
    pub(crate) fn is_for(&self, client: IpAddr, names: &dyn Names) -> bool {
        self.options_for(client, names).map_or(true, |options| options.is_some())
    }

    /// Asks for the time only if it takes names to tell.
    fn options_at(
        &self,
        now: impl FnOnce() -> Instant,
        client: IpAddr,
        names: &dyn Names,
    ) -> Result<Option<&Options>, Pending> {
        let client = client.to_canonical();
        let by_address = |rule: &Rule| rule.client.matches_address(client);
        match self.rules.iter().find(|rule| by_address(rule) != Some(false)) {
            Some(rule) if by_address(rule) == Some(true) => Ok(Some(&rule.options)),
            _ => self.recognised(now(), client, names),
        }
    }

    /// As [`ServedExport::options_for`], for a canonical address that it takes names to tell of.
    fn recognised(
        &self,
        now: Instant,
        client: IpAddr,
        names: &dyn Names,
    ) -> Result<Option<&Options>, Pending> {
        let decide = || {
            let rule = decide(&self.rules, client, names)?;
            Ok(rule.and_then(|rule| self.rules.iter().position(|other| std::ptr::eq(other, rule))))
        };
        let rule = recognised::rule(self.serial, client, now, decide)?;
        Ok(rule.and_then(|rule| self.rules.get(rule)).map(|rule| &rule.options))
    }
}

/// What is exported.
#[derive(Default)]
pub(crate) struct Table {
    /// In order of their paths, longest first, so that the first that is a prefix is the closest.
    exports: Vec<ServedExport>,
    /// What they were made from, in the order in which it was told.
    pub(crate) list: Vec<Export>,
}

impl Table {
    pub(crate) fn new(mut exports: Vec<ServedExport>, list: Vec<Export>) -> Self {
        exports.sort_by_key(|export| std::cmp::Reverse(export.path.components().count()));
        Self { exports, list }
    }

    pub(crate) fn exports(&self) -> &[ServedExport] {
        &self.exports
    }

    pub(crate) fn by_id(&self, id: u64) -> Option<&ServedExport> {
        self.exports.iter().find(|export| export.id == id)
    }

    /// The closest export at or above a path.
    pub(crate) fn above(&self, path: &Path) -> Option<&ServedExport> {
        self.exports.iter().find(|export| path.starts_with(&export.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exports::Exports;
    use crate::names::fixed::FixedNames;
    use crate::vfs::memory::MemoryVfs;

    #[test]
    fn a_client_is_compared_with_names_once_in_a_while_and_by_every_new_table() {
        let mut names = FixedNames::default();
        names.host("web.example.org", "192.0.2.7");
        let served = |text: &str| {
            let rules = Exports::parse(Path::new("x"), text.as_bytes()).unwrap().list.remove(0).rules;
            ServedExport::of("/a".into(), 1, Arc::new(MemoryVfs::new(1 << 20, 1)), rules)
        };
        let now = Instant::now();
        let anonuid = |export: &ServedExport, client: &str| {
            let options = export.options_at(|| now, client.parse().unwrap(), &names).unwrap();
            options.map(|options| options.anonuid)
        };
        let (web, asked) = ("::ffff:192.0.2.7", || names.asked.load(Relaxed));
        let hosts =
            served("/a db.example.org web.example.org(anonuid=1) 192.0.2.0/24(anonuid=2) *(anonuid=3)");
        assert_eq!((anonuid(&hosts, web), asked()), (Some(1), 2));
        assert_eq!((anonuid(&hosts, web), asked()), (Some(1), 2), "remembered");
        assert_eq!((anonuid(&hosts, "192.0.2.8"), asked()), (Some(2), 4));
        assert_eq!((anonuid(&hosts, "192.0.2.8"), asked()), (Some(2), 4));
        let reloaded = served("/a *.example.org(anonuid=4)");
        assert_eq!((anonuid(&reloaded, web), asked()), (Some(4), 5));
        assert_eq!((anonuid(&reloaded, "192.0.2.8"), asked()), (None, 6));
        assert_eq!((anonuid(&reloaded, "192.0.2.8"), asked()), (None, 7), "it may be named soon");
        let addresses = served("/a 192.0.2.7(anonuid=5) web.example.org");
        assert_eq!((anonuid(&addresses, web), asked()), (Some(5), 7));
    }

    #[test]
    fn the_closest_export_is_found_by_components() {
        let export = |(id, path): (u64, &str)| {
            ServedExport::of(path.into(), id, Arc::new(MemoryVfs::new(1 << 20, id)), Vec::new())
        };
        let table = Table::new((1..).zip(["/a", "/a/b", "/ab"]).map(export).collect(), Vec::new());
        let above = |path| table.above(Path::new(path)).map(|e| e.path.to_str().unwrap());
        assert_eq!(above("/a/b/c"), Some("/a/b"));
        assert_eq!(above("/a/bc"), Some("/a"));
        assert_eq!(above("/ab/"), Some("/ab"));
        assert_eq!(above("/"), None);
    }
}
