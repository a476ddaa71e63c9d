//! exportfs(8) on a running server: its table of exports, and what changes it.
//!
//! A change is made beside the table in use, which it then replaces as a whole: calls see the old table or the new one.
//! A change that fails changes nothing.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use crate::exports::{Export, Exports, Finding, Origin, ParseError, Rule, Storage};
use crate::opener::Opener;
use crate::server::StartError;
use crate::state::State;
use crate::table::Table;

/// How long a change waits for another, which a file system that does not answer may hold up.
const CHANGE_PATIENCE: Duration = Duration::from_secs(5);
/// How long exported directories may take to tell what they are when exports change. Less than [`CHANGE_PATIENCE`].
const LOOK_PATIENCE: Duration = Duration::from_secs(3);
/// The same when the server starts: disks may have to spin up, and automounters to mount.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks whether another change is done.
const CHANGE_LOOK: Duration = Duration::from_millis(5);

/// Reads the exports that are configured: files and command line.
pub type Source = Box<dyn Fn() -> Result<Exports, ParseError> + Send + Sync>;

/// What a reload does with exports that were added by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reload {
    /// `exportfs -a`: they stay, and so does what has gone from the files.
    Add,
    /// `exportfs -r` and `-ra`: only what is configured is exported.
    Exactly,
}

/// Changes the exports of a running server.
pub struct Exporter {
    state: Arc<State>,
    opener: Opener,
    source: Source,
    /// Held while a change is made.
    changing: Mutex<()>,
    patience: Duration,
}

/// One line of the table of exports.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// The path clients mount, `memory:` before it if it is in memory.
    pub path: String,
    /// Who.
    pub client: String,
    /// The effective options, in the form of exports(5).
    pub options: String,
    /// Where it is written.
    pub origin: String,
}

/// What a change did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Changes {
    /// Exported now and not before, or with other options.
    pub exported: Vec<Listed>,
    /// No longer exported.
    pub unexported: Vec<Listed>,
    /// Lines that are as they were.
    pub unchanged: usize,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
}

/// Why exports were not changed. They are as they were.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum ChangeError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error(transparent)]
    Open(#[from] StartError),
    #[error(
        "{0:?} is not CLIENT:/PATH, as in 192.0.2.0/24:/srv, [2001:db8::]/32:/srv or :/srv for everybody"
    )]
    Form(String),
    #[error("{path} is not exported to {client}; remoor exportfs -s lists what is")]
    NotExported { client: String, path: String },
    #[error(
        "another change of the exports is not done after {} s: a file system may not answer; see remoor status",
        CHANGE_PATIENCE.as_secs()
    )]
    Busy,
}

impl Exporter {
    /// Exports `exports` first, and whatever `source` gives when it is told to reload.
    pub(crate) fn new(state: Arc<State>, opener: Opener, source: Source) -> Self {
        Self { state, opener, source, changing: Mutex::new(()), patience: CHANGE_PATIENCE }
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        &self.opener.node
    }

    /// What is exported now.
    pub fn list(&self) -> Vec<Listed> {
        listed(&self.state.table().list)
    }

    /// Exports what is configured.
    pub fn reload(&self, how: Reload) -> Result<Changes, ChangeError> {
        let _changing = self.begin()?;
        let Exports { mut list, warnings, notes } = (self.source)()?;
        notes.iter().for_each(|note| tracing::info!("{note}"));
        if how == Reload::Add {
            add_missing(&mut list, &self.state.table().list);
        }
        self.replace(list, &warnings)
    }

    /// `exportfs -o OPTIONS CLIENT:PATH`. Where the same is configured, the options change those configured.
    pub fn add(&self, client_path: &str, options: &str) -> Result<Changes, ChangeError> {
        let _changing = self.begin()?;
        let place = Place::parse(client_path)?;
        let Exports { list: asked, mut warnings, notes } = place.export(options)?;
        warnings.extend(notes);
        let configured = (self.source)()?.list;
        let base = asked.iter().find_map(|e| e.rules.first().and_then(|rule| find(&configured, e, rule)));
        let mut list = match base {
            Some(rule) => place.export(&format!("{},{options}", rule.options))?.list,
            None => asked,
        };
        add_missing(&mut list, &self.state.table().list);
        self.replace(list, &warnings)
    }

    /// `exportfs -u CLIENT:PATH`.
    pub fn remove(&self, client_path: &str) -> Result<Changes, ChangeError> {
        let _changing = self.begin()?;
        let place = Place::parse(client_path)?;
        let asked = place.export("")?.list;
        let mut list = self.state.table().list.clone();
        let before = rule_count(&list);
        for export in &asked {
            list.iter_mut().filter(|e| is_same(e, export)).for_each(|e| {
                e.rules.retain(|rule| !export.rules.iter().any(|gone| gone.client == rule.client));
            });
        }
        if rule_count(&list) == before {
            return Err(ChangeError::NotExported { client: place.client, path: place.path });
        }
        list.retain(|export| !export.rules.is_empty());
        self.replace(list, &[])
    }

    /// `exportfs -ua`: nothing is exported any more.
    pub fn remove_all(&self) -> Result<Changes, ChangeError> {
        let _changing = self.begin()?;
        self.replace(Vec::new(), &[])
    }

    /// Exports this first.
    pub(crate) fn start(&self, exports: Exports) -> Result<(), StartError> {
        let Exports { list, warnings, notes } = exports;
        notes.iter().for_each(|note| tracing::info!("{note}"));
        self.swap(list, &warnings, START_PATIENCE).map(drop)
    }

    fn replace(&self, list: Vec<Export>, warnings: &[Finding]) -> Result<Changes, ChangeError> {
        let changes = self.swap(list, warnings, LOOK_PATIENCE)?;
        let (exported, unexported) = (changes.exported.len(), changes.unexported.len());
        match (exported, unexported) {
            (0, 0) => {
                tracing::info!(unchanged = changes.unchanged, "exports read again: nothing has changed")
            }
            _ => tracing::info!(exported, unexported, unchanged = changes.unchanged, "exports changed"),
        }
        Ok(changes)
    }

    fn swap(
        &self,
        list: Vec<Export>,
        warnings: &[Finding],
        patience: Duration,
    ) -> Result<Changes, StartError> {
        let before = self.state.table();
        Exports::look_up_hosts(&list, self.state.names);
        let table = self.opener.table(list, &before, patience)?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut changes = difference(&before.list, &table.list);
        changes.warnings = warnings.iter().map(Finding::to_string).collect();
        log(&changes);
        self.tell_revoked(&before, &table);
        self.state.export(table);
        Ok(changes)
    }

    /// Clients that have mounted what is no longer for them.
    fn tell_revoked(&self, before: &Table, after: &Table) {
        let may_use = |table: &Table, client, path: &Path| {
            table.above(path).is_some_and(|export| export.is_for(client, self.state.names))
        };
        for (client, path) in self.state.mounts() {
            if may_use(before, client, &path) && !may_use(after, client, &path) {
                tracing::warn!(
                    %client, ?path,
                    "mounted by a client to which it is no longer exported: its calls get NFS3ERR_STALE from now on"
                );
            }
        }
    }

    /// One change at a time; opening a file system can take for ever.
    fn begin(&self) -> Result<MutexGuard<'_, ()>, ChangeError> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.changing.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Err(ChangeError::Busy),
                Err(TryLockError::WouldBlock) => std::thread::sleep(CHANGE_LOOK),
            }
        }
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

/// `CLIENT:PATH` of exportfs(8).
struct Place {
    client: String,
    path: String,
}

impl Place {
    fn parse(text: &str) -> Result<Self, ChangeError> {
        Self::split(text).ok_or_else(|| ChangeError::Form(text.into()))
    }

    /// An IPv6 address may stand in brackets, its prefix length behind them.
    fn split(text: &str) -> Option<Self> {
        let at = [":memory:/", ":/"].iter().filter_map(|mark| text.find(mark)).min()?;
        let (client, path) = (&text[..at], &text[at + 1..]);
        let client = match client.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map(|(address, prefix)| format!("{address}{prefix}"))?,
            None => client.to_owned(),
        };
        let client = if client.is_empty() { "*".to_owned() } else { client };
        Some(Self { client, path: path.to_owned() })
    }

    fn export(&self, options: &str) -> Result<Exports, ParseError> {
        let argument = Origin::Argument(format!("{}:{}", self.client, self.path));
        // A default, so that nobody is asked to say what is assumed anyway.
        let line = format!("{} -no_subtree_check {}({options})", escaped(&self.path), self.client);
        let said = |e: ParseError| ParseError { origin: argument.clone(), ..e };
        let mut exports = Exports::parse(Path::new(""), line.as_bytes()).map_err(said)?;
        let findings = exports.warnings.iter_mut().chain(&mut exports.notes);
        findings.for_each(|finding| finding.origin = argument.clone());
        let rules = exports.list.iter_mut().flat_map(|export| &mut export.rules);
        rules.for_each(|rule| rule.origin = argument.clone());
        Ok(exports)
    }
}

/// A path as exports(5) has it: blanks and the like as octal escapes.
fn escaped(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-:+,@".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "\\{byte:03o}");
        }
    }
    out
}

fn rule_count(list: &[Export]) -> usize {
    list.iter().map(|export| export.rules.len()).sum()
}

fn is_same(a: &Export, b: &Export) -> bool {
    a.path == b.path && a.storage == b.storage
}

fn find<'a>(list: &'a [Export], export: &Export, rule: &Rule) -> Option<&'a Rule> {
    let rules = list.iter().filter(|e| is_same(e, export)).flat_map(|e| &e.rules);
    rules.into_iter().find(|r| r.client == rule.client)
}

/// Adds the rules of `others` whose path and client `list` does not have.
fn add_missing(list: &mut Vec<Export>, others: &[Export]) {
    for other in others {
        let missing: Vec<Rule> =
            other.rules.iter().filter(|rule| find(list, other, rule).is_none()).cloned().collect();
        if missing.is_empty() {
            continue;
        }
        match list.iter_mut().find(|export| is_same(export, other)) {
            Some(export) => missing.into_iter().for_each(|rule| drop(export.add(rule))),
            None => list.push(Export { rules: missing, ..other.clone() }),
        }
    }
}

fn shown(storage: &Storage, path: &Path) -> String {
    let mark = if *storage == Storage::Memory { "memory:" } else { "" };
    format!("{mark}{}", String::from_utf8_lossy(path.as_os_str().as_bytes()))
}

fn listed(list: &[Export]) -> Vec<Listed> {
    let line = |export: &Export, rule: &Rule| Listed {
        path: shown(&export.storage, &export.path),
        client: rule.client.to_string(),
        options: rule.options.to_string(),
        origin: rule.origin.to_string(),
    };
    list.iter().flat_map(|export| export.rules.iter().map(move |rule| line(export, rule))).collect()
}

fn difference(before: &[Export], after: &[Export]) -> Changes {
    let (before, after) = (listed(before), listed(after));
    let place = |a: &Listed, b: &Listed| a.path == b.path && a.client == b.client;
    let is_in = |list: &[Listed], line: &Listed| {
        list.iter().any(|other| place(other, line) && other.options == line.options)
    };
    let (unchanged, exported): (Vec<_>, Vec<_>) =
        after.iter().cloned().partition(|line| is_in(&before, line));
    let gone = |line: &Listed| !after.iter().any(|other| place(other, line));
    let unexported = before.into_iter().filter(gone).collect();
    Changes { exported, unexported, unchanged: unchanged.len(), warnings: Vec::new() }
}

fn log(changes: &Changes) {
    for line in &changes.unexported {
        tracing::info!(export = line.path, client = line.client, "no longer exported");
    }
    for line in &changes.exported {
        tracing::info!(export = line.path, client = line.client, options = line.options, "exporting");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::handle::Signer;

    /// An exporter whose configuration a test writes.
    struct Rig {
        exporter: Exporter,
        configured: Arc<Mutex<String>>,
    }

    fn parse(text: &str) -> Result<Exports, ParseError> {
        Exports::parse(Path::new("/etc/exports"), text.as_bytes())
    }

    impl Rig {
        fn new(text: &str) -> Self {
            let configured = Arc::new(Mutex::new(text.to_owned()));
            let file = configured.clone();
            let source: Source = Box::new(move || parse(&file.lock().unwrap()));
            let state = Arc::new(State::new(Vec::new(), Signer::new([0; 32]), [0; 8]));
            let opener = Opener::new(None, "node".into(), HashMap::new(), 1);
            let exporter = Exporter::new(state, opener, source);
            exporter.start(parse(text).unwrap()).unwrap();
            Self { exporter, configured }
        }

        fn configure(&self, text: &str) {
            *self.configured.lock().unwrap() = text.to_owned();
        }

        /// Each line as `client:path options`, with only the options that differ from the defaults.
        fn list(&self) -> Vec<String> {
            self.exporter.list().iter().map(brief).collect()
        }
    }

    fn brief(line: &Listed) -> String {
        let default = crate::exports::Options::default().to_string();
        let special = line.options.split(',').filter(|word| !default.split(',').any(|d| d == *word));
        format!("{}:{} {}", line.client, line.path, special.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn reload_adds_or_makes_equal() {
        let rig = Rig::new("memory:/a *(rw)\nmemory:/b *(ro)");
        rig.configure("memory:/a *(ro)\nmemory:/c 192.0.2.0/24(rw)");
        let changes = rig.exporter.reload(Reload::Add).unwrap();
        assert_eq!(rig.list(), ["*:memory:/a ", "192.0.2.0/24:memory:/c rw", "*:memory:/b "]);
        assert_eq!(
            changes.exported.iter().map(brief).collect::<Vec<_>>(),
            ["*:memory:/a ", "192.0.2.0/24:memory:/c rw"]
        );
        assert_eq!((changes.unexported.len(), changes.unchanged), (0, 1));
        let changes = rig.exporter.reload(Reload::Exactly).unwrap();
        assert_eq!(rig.list(), ["*:memory:/a ", "192.0.2.0/24:memory:/c rw"]);
        assert_eq!(changes.unexported.iter().map(brief).collect::<Vec<_>>(), ["*:memory:/b "]);
        assert_eq!((changes.exported.len(), changes.unchanged), (0, 2));
    }

    #[test]
    fn what_was_exported_by_hand_stays_until_it_is_reexported_exactly() {
        let rig = Rig::new("memory:/a *(rw,insecure)");
        rig.exporter.add("192.0.2.7:memory:/a", "rw").unwrap();
        rig.exporter.add(":memory:/b", "insecure").unwrap();
        let all = ["192.0.2.7:memory:/a rw", "*:memory:/a rw,insecure", "*:memory:/b insecure"];
        let mut list = rig.list();
        list.sort_by_key(|line| all.iter().position(|l| l == line));
        assert_eq!(list, all);
        rig.exporter.reload(Reload::Add).unwrap();
        assert_eq!(rig.list().len(), 3);
        rig.exporter.reload(Reload::Exactly).unwrap();
        assert_eq!(rig.list(), ["*:memory:/a rw,insecure"]);
    }

    #[test]
    fn options_by_hand_change_those_configured() {
        let rig = Rig::new("memory:/a *(rw,insecure,anonuid=7)");
        let changes = rig.exporter.add("*:memory:/a", "secure,anongid=8").unwrap();
        assert_eq!(changes.warnings, [""; 0]);
        assert_eq!(rig.list(), ["*:memory:/a rw,anonuid=7,anongid=8"]);
        assert_eq!(rig.exporter.list()[0].origin, "export \"*:memory:/a\"");
    }

    #[test]
    fn unexporting_needs_the_same_client_and_path() {
        let rig = Rig::new("memory:/a *(ro) 192.0.2.0/24(rw)\nmemory:/b *(ro)");
        let error = rig.exporter.remove("192.0.2.0/25:memory:/a").unwrap_err().to_string();
        assert!(error.starts_with("memory:/a is not exported to 192.0.2.0/25;"), "{error}");
        rig.exporter.remove("192.0.2.0/255.255.255.0:memory:/a").unwrap();
        assert_eq!(rig.list(), ["*:memory:/a ", "*:memory:/b "]);
        rig.exporter.remove(":memory:/b").unwrap();
        assert_eq!(rig.list(), ["*:memory:/a "]);
        assert_eq!(rig.exporter.remove_all().unwrap().unexported.len(), 1);
        assert_eq!(rig.list(), [""; 0]);
    }

    #[test]
    fn a_rule_that_is_added_takes_its_precedence() {
        let rig = Rig::new("memory:/a *(ro)");
        rig.exporter.add("192.0.2.0/24:memory:/a", "rw").unwrap();
        assert_eq!(rig.list(), ["192.0.2.0/24:memory:/a rw", "*:memory:/a "]);
        rig.configure("memory:/a 192.0.2.1(rw)");
        rig.exporter.reload(Reload::Add).unwrap();
        assert_eq!(rig.list(), ["192.0.2.1:memory:/a rw", "192.0.2.0/24:memory:/a rw", "*:memory:/a "]);
    }

    #[test]
    fn what_cannot_be_exported_changes_nothing() {
        let rig = Rig::new("memory:/a *(rw,fsid=1)");
        let before = rig.exporter.list();
        rig.configure("memory:/b *(rw)\nmemory:/c *(rww)");
        let error = rig.exporter.reload(Reload::Exactly).unwrap_err().to_string();
        assert!(error.starts_with("/etc/exports:2: unknown option \"rww\""), "{error}");
        rig.configure("memory:/b *(rw)\n/does/not/exist *(rw)");
        let error = rig.exporter.reload(Reload::Exactly).unwrap_err().to_string();
        assert!(error.starts_with("/etc/exports:2: cannot export \"/does/not/exist\""), "{error}");
        rig.configure("");
        let error = rig.exporter.add(":memory:/x", "rw,fsid=1").unwrap_err().to_string();
        assert!(error.contains("have the same identity 0x1"), "{error}");
        let error = rig.exporter.add("192.0.2.1:memory:/a", "fsid=2").unwrap_err().to_string();
        assert!(error.contains("two different fsid="), "{error}");
        assert_eq!(rig.exporter.list(), before);
    }

    #[test]
    fn a_client_that_loses_its_mount_is_told_of_in_the_log() {
        let rig = Rig::new("memory:/a *(rw)\nmemory:/b *(rw)");
        let (gone, stays) = ([192, 0, 2, 7].into(), [192, 0, 2, 8].into());
        for client in [gone, stays] {
            rig.exporter.state.mounted(client, Path::new("/a"));
        }
        rig.configure("memory:/a 192.0.2.8(rw)\nmemory:/b *(rw)");
        let text = crate::state::tests::logged(|| drop(rig.exporter.reload(Reload::Exactly).unwrap()));
        let told: Vec<&str> = text.lines().filter(|line| line.contains("NFS3ERR_STALE")).collect();
        assert!(told.len() == 1 && told[0].contains("client=192.0.2.7 path=\"/a\""), "{text}");
        let text = crate::state::tests::logged(|| drop(rig.exporter.reload(Reload::Exactly).unwrap()));
        assert!(text.contains("exports read again") && !text.contains("STALE"), "{text}");
    }

    #[test]
    fn places_are_those_of_exportfs() {
        let place = |text: &str| Place::parse(text).map(|p| (p.client, p.path)).map_err(|e| e.to_string());
        let is = |client: &str, path: &str| Ok((client.to_owned(), path.to_owned()));
        assert_eq!(place("192.0.2.0/24:/srv/data"), is("192.0.2.0/24", "/srv/data"));
        assert_eq!(place(":/srv"), is("*", "/srv"));
        assert_eq!(place("[fe80::]/64:/srv"), is("fe80::/64", "/srv"));
        assert_eq!(place("fe80::1:/srv:/x"), is("fe80::1", "/srv:/x"));
        assert_eq!(place("*:memory:/x"), is("*", "memory:/x"));
        for bad in ["/srv", "192.0.2.1", "[fe80::1:/srv", ""] {
            assert!(place(bad).unwrap_err().contains("is not CLIENT:/PATH"), "{bad}");
        }
        let exported = Place::parse("*:/srv/a b\"#c\\d").unwrap().export("rw").unwrap();
        assert_eq!(exported.list[0].path, Path::new("/srv/a b\"#c\\d"));
    }

    #[test]
    fn a_change_does_not_wait_for_ever_for_another() {
        let mut rig = Rig::new("memory:/a *(rw)");
        rig.exporter.patience = Duration::from_millis(20);
        let _held = rig.exporter.changing.lock().unwrap();
        assert!(matches!(rig.exporter.remove_all(), Err(ChangeError::Busy)));
        assert_eq!(rig.list(), ["*:memory:/a rw"], "the list is there all the time");
    }
}
