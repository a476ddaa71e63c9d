//! From exports to a table: opens the file systems that are new and keeps those that stay.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::exports::{Export, Fsid, Storage, export_id};
use crate::look::{Directory, Looker, Looking};
use crate::server::StartError;
use crate::table::{Opened, ServedExport, Table};
use crate::vfs::local::{Durability, LocalOptions, LocalVfs};
use crate::vfs::memory::{DEFAULT_LIMIT_BYTES, MemoryVfs};
use crate::vfs::{MAX_NODE_HANDLE, Vfs};
use crate::watch::Watch;

/// What it takes to open the file systems of exports.
pub(crate) struct Opener {
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) node: String,
    /// File systems that are not made here, by the path of their export.
    pub(crate) given: HashMap<PathBuf, Arc<dyn Vfs>>,
    /// Of the next file system in memory. Each has another, so that handles of one that is gone stay stale.
    instance: AtomicU64,
    /// How often the files of each identity were opened.
    openings: Mutex<HashMap<u64, u64>>,
    looker: Looker,
}

impl Opener {
    /// `random` tells file systems in memory from those of other servers.
    pub(crate) fn new(
        state_dir: Option<PathBuf>,
        node: String,
        given: HashMap<PathBuf, Arc<dyn Vfs>>,
        random: u64,
    ) -> Self {
        let (instance, openings) = (AtomicU64::new(random), Mutex::default());
        Self { state_dir, node, given, instance, openings, looker: Looker::default() }
    }

    /// Whether its files are in a directory of this host.
    pub(crate) fn is_local(&self, export: &Export) -> bool {
        export.storage == Storage::Local && !self.given.contains_key(&export.path)
    }

    /// The table of these exports. File systems of `before` that stay are shared with it, with what they hold open; so
    /// are those that do not answer within `patience`.
    pub(crate) fn table(
        &self,
        exports: Vec<Export>,
        before: &Table,
        patience: Duration,
    ) -> Result<Table, StartError> {
        let deadline = Instant::now() + patience;
        let looks: Vec<_> = exports.iter().map(|export| self.look(export)).collect();
        let (mut served, mut list) = (Vec::new(), Vec::new());
        for (export, look) in exports.into_iter().zip(looks) {
            let opened = match look.map(|look| look.until(deadline)) {
                Some(None) => kept(&export, before, patience)?,
                Some(Some(seen)) if !seen.mounted => {
                    export.tell_not_mounted();
                    continue;
                }
                Some(Some(seen)) if self.is_local(&export) => {
                    self.open(&export, Some(seen.directory), before)?
                }
                _ => self.open(&export, None, before)?,
            };
            served.push(opened);
            list.push(export);
        }
        refuse_doubles(&served)?;
        Ok(Table::new(served, list))
    }

    /// Begins to look at what the export needs of this host, if it needs anything.
    fn look(&self, export: &Export) -> Option<Looking> {
        let needed = self.is_local(export) || export.mountpoint().is_some();
        needed.then(|| self.looker.begin(export))
    }

    fn open(
        &self,
        export: &Export,
        directory: Option<io::Result<Directory>>,
        before: &Table,
    ) -> Result<ServedExport, StartError> {
        let directory = directory.transpose().map_err(|source| not_there(export, source))?;
        let (path, directory) =
            directory.map_or_else(|| (export.path.clone(), None), |found| (found.path, Some(found.identity)));
        let id = export_id(one_fsid(export)?, &path);
        let opened = Opened { storage: export.storage.clone(), durability: durability(export), directory };
        let stays = |e: &&ServedExport| e.id == id && e.path == path && e.opened == opened;
        let (vfs, watch, opening) = match before.exports().iter().find(stays) {
            Some(same) => (same.vfs.clone(), same.watch.clone(), same.opening),
            None => {
                tracing::info!(export = %path.display(), fsid = format_args!("{id:#x}"), "opening");
                let vfs = self.open_files(export, &path)?;
                (vfs.clone(), Watch::start(&path.to_string_lossy(), vfs), self.opening(id))
            }
        };
        let (configured, rules) = (export.path.clone(), export.rules.clone());
        let serial = ServedExport::next_serial();
        Ok(ServedExport { path, configured, id, vfs, rules, serial, opened, opening, watch })
    }

    fn opening(&self, id: u64) -> u64 {
        let mut openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        let next = openings.entry(id).or_default();
        *next += 1;
        *next - 1
    }

    fn open_files(&self, export: &Export, path: &Path) -> Result<Arc<dyn Vfs>, StartError> {
        let vfs = match (self.given.get(&export.path), &export.storage) {
            (Some(vfs), _) => vfs.clone(),
            (None, Storage::Memory) => {
                Arc::new(MemoryVfs::new(DEFAULT_LIMIT_BYTES, self.instance.fetch_add(1, Relaxed)))
            }
            (None, Storage::Local) => self.open_local(export, path)?,
        };
        check_root(path, &*vfs)?;
        Ok(vfs)
    }

    fn open_local(&self, export: &Export, path: &Path) -> Result<Arc<dyn Vfs>, StartError> {
        let options = LocalOptions {
            durability: durability(export),
            state_dir: self.state_dir.clone().ok_or(StartError::NoStateDir)?,
            node: self.node.clone(),
            max_open: None,
            scheme: None,
        };
        let vfs = LocalVfs::open(path, &options)?;
        let (scheme, reason) = vfs.scheme();
        tracing::info!(export = %path.display(), "{scheme:?} file handles, because {reason}");
        if vfs.is_single_user() {
            tracing::warn!(
                export = %path.display(),
                "not root, so every file is used and made as the server's own user, whoever the client's is"
            );
        }
        Ok(Arc::new(vfs))
    }
}

/// `async` only if no client is promised `sync`.
fn durability(export: &Export) -> Durability {
    let sync = export.rules.iter().any(|rule| rule.options.sync);
    if sync { Durability::Sync } else { Durability::Async }
}

fn origin(export: &Export) -> String {
    export.rules.first().map_or_else(String::new, |rule| rule.origin.to_string())
}

fn not_there(export: &Export, source: io::Error) -> StartError {
    let (origin, path) = (origin(export), export.path.clone());
    match source.kind() {
        io::ErrorKind::NotADirectory => StartError::NotDirectory { origin, path },
        _ => StartError::Path { origin, path, source },
    }
}

/// An export whose file system does not answer stays as it was opened, with its new rules.
fn kept(export: &Export, before: &Table, silence: Duration) -> Result<ServedExport, StartError> {
    let fsid = one_fsid(export)?;
    let stays = |e: &&ServedExport| {
        e.configured == export.path
            && e.id == export_id(fsid, &e.path)
            && (&e.opened.storage, e.opened.durability) == (&export.storage, durability(export))
    };
    let Some(same) = before.exports().iter().find(stays) else {
        let (origin, path) = (origin(export), export.path.clone());
        return Err(StartError::Silent { origin, path, secs: silence.as_secs() });
    };
    tracing::warn!(
        export = %same.path.display(),
        "its file system does not answer, and was not looked at: it stays as it was opened"
    );
    Ok(ServedExport {
        path: same.path.clone(),
        configured: same.configured.clone(),
        id: same.id,
        vfs: same.vfs.clone(),
        rules: export.rules.clone(),
        serial: ServedExport::next_serial(),
        opened: same.opened.clone(),
        opening: same.opening,
        watch: same.watch.clone(),
    })
}

/// One export has one identity, wherever its rules come from.
fn one_fsid(export: &Export) -> Result<Option<Fsid>, StartError> {
    let mut given = export.rules.iter().filter_map(|rule| rule.options.fsid);
    let first = given.next();
    if given.all(|fsid| Some(fsid) == first) {
        Ok(first)
    } else {
        Err(StartError::TwoFsids(export.path.clone()))
    }
}

/// An export whose handles do not fit, or that has no root, is refused at the start and not at the first mount.
fn check_root(path: &Path, vfs: &dyn Vfs) -> Result<(), StartError> {
    let refused = |reason| StartError::Vfs { path: path.into(), reason };
    let root = vfs.root().map_err(|status| refused(status.to_string()))?;
    if root.len() > MAX_NODE_HANDLE {
        return Err(refused(format!(
            "its file handles have {} bytes, more than {MAX_NODE_HANDLE}",
            root.len()
        )));
    }
    Ok(())
}

fn refuse_doubles(served: &[ServedExport]) -> Result<(), StartError> {
    for (n, a) in served.iter().enumerate() {
        for b in &served[n + 1..] {
            if a.path == b.path {
                return Err(StartError::SameDirectory(a.path.clone(), b.path.clone()));
            }
            if a.id == b.id {
                return Err(StartError::SameIdentity(a.path.clone(), b.path.clone(), a.id));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exports::Exports;

    /// No test waits longer for a directory; it is far above what any needs.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn opener(state: &Path) -> Opener {
        Opener::new(Some(state.into()), "node".into(), HashMap::new(), 1)
    }

    fn parse(text: &str) -> Vec<Export> {
        Exports::parse(Path::new("exports"), text.as_bytes()).unwrap().list
    }

    fn same(a: &Table, b: &Table, path: &Path) -> bool {
        Arc::ptr_eq(&a.above(path).unwrap().vfs, &b.above(path).unwrap().vfs)
    }

    #[test]
    fn a_file_system_stays_open_while_path_identity_and_durability_stay() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().canonicalize().unwrap();
        let opener = opener(state.path());
        let table = |options: &str, before: &Table| {
            opener.table(parse(&format!("{} *({options})", path.display())), before, PATIENCE).unwrap()
        };
        let first = table("rw", &Table::default());
        let second = table("ro,insecure,all_squash", &first);
        assert!(same(&first, &second, &path));
        assert!(second.above(&path).unwrap().rules[0].options.read_only);
        assert!(!same(&second, &table("rw,async", &second), &path), "another durability");
        assert!(!same(&second, &table("rw,fsid=5", &second), &path), "another identity");
    }

    #[test]
    fn the_write_verifier_tells_openings_and_epochs_apart() {
        let state = tempfile::tempdir().unwrap();
        let opener = opener(state.path());
        let exports = || parse("memory:/x *(rw)");
        let verf = |table: &Table, epoch| table.above(Path::new("/x")).unwrap().write_verf([7; 8], epoch);
        let first = opener.table(exports(), &Table::default(), PATIENCE).unwrap();
        assert_eq!(verf(&first, 0), [7; 8]);
        assert_eq!(verf(&opener.table(exports(), &first, PATIENCE).unwrap(), 0), [7; 8], "it stayed open");
        let second = opener.table(exports(), &Table::default(), PATIENCE).unwrap();
        let third = opener.table(exports(), &Table::default(), PATIENCE).unwrap();
        let mut all: Vec<_> =
            [&first, &second, &third].iter().flat_map(|t| [verf(t, 0), verf(t, 1)]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn another_directory_at_the_path_is_opened_anew() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().canonicalize().unwrap().join("data");
        let opener = opener(state.path());
        std::fs::create_dir(&path).unwrap();
        let exports = parse(&format!("{} *(rw)", path.display()));
        let first = opener.table(exports.clone(), &Table::default(), PATIENCE).unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(!same(&first, &opener.table(exports, &first, PATIENCE).unwrap(), &path));
    }

    #[test]
    fn handles_of_a_file_system_in_memory_do_not_survive_it() {
        let state = tempfile::tempdir().unwrap();
        let opener = opener(state.path());
        let exports = parse("memory:/x *(rw)");
        let root = |table: &Table| table.above(Path::new("/x")).unwrap().vfs.root().unwrap();
        let first = opener.table(exports.clone(), &Table::default(), PATIENCE).unwrap();
        assert_eq!(root(&opener.table(exports.clone(), &first, PATIENCE).unwrap()), root(&first));
        assert_ne!(root(&opener.table(exports, &Table::default(), PATIENCE).unwrap()), root(&first));
    }

    #[test]
    fn one_export_has_one_identity() {
        let state = tempfile::tempdir().unwrap();
        let mut exports = parse("memory:/x *(rw,fsid=1)");
        exports[0].rules.extend(parse("memory:/x 192.0.2.1(fsid=2)").remove(0).rules);
        let error =
            opener(state.path()).table(exports, &Table::default(), PATIENCE).err().unwrap().to_string();
        assert!(error.starts_with("\"/x\" has two different fsid="), "{error}");
    }

    /// Changes of exports go on while a file system hangs, and what hangs can be taken away.
    #[test]
    fn a_file_system_that_hangs_stays_as_it_was_and_holds_up_no_other() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [a, b] = ["a", "b"].map(|name| dir.path().canonicalize().unwrap().join(name));
        [&a, &b].into_iter().for_each(|path| std::fs::create_dir(path).unwrap());
        let mut opener = opener(state.path());
        let exports = |path: &Path, options: &str| parse(&format!("{} *({options})", path.display()));
        let first = opener.table(exports(&a, "rw"), &Table::default(), PATIENCE).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let looker = Looker::default();
        opener.looker = Looker::new(move |export| {
            if export.path.ends_with("a") {
                let _ = held.lock().unwrap().recv();
            }
            looker.begin(export).until(Instant::now() + PATIENCE).unwrap()
        });
        let short = Duration::from_millis(200);
        let both = [exports(&a, "ro"), exports(&b, "rw")].concat();
        let second = opener.table(both, &first, short).unwrap();
        assert!(same(&first, &second, &a) && second.above(&a).unwrap().rules[0].options.read_only);
        assert!(second.above(&b).is_some());
        assert!(opener.table(exports(&b, "rw"), &second, short).unwrap().above(&a).is_none());
        for (options, before) in [("rw,async", &second), ("rw,fsid=7", &second), ("rw", &Table::default())] {
            let error = opener.table(exports(&a, options), before, short).err().unwrap();
            assert!(matches!(error, StartError::Silent { .. }), "{options}: {error}");
        }
        drop(release);
    }
}
