//! What the options of a mount come to, one by one, and what of them deserves a second look.

use remoor_nfs::reconnect::{Rebind, Recovery, Stuck};

use super::row::Class;
use super::{MountOptions, OptionRow, Parsed, Spec, list};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It can lose data, a boot or a connection.
    Warning,
    /// Worth to know.
    Note,
}

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something to know, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What there is.
    pub text: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What one option does.
#[derive(Debug, Clone)]
pub struct Effect {
    /// As it was written.
    pub word: String,
    /// Its row.
    pub row: &'static OptionRow,
    /// What it does here, or why it does nothing.
    pub text: String,
    /// Whether the mount would be another one without it: it is neither the default nor taken back by a later one.
    pub decides: bool,
}

impl Parsed {
    /// What each option does.
    pub fn effects(&self) -> Vec<Effect> {
        (0..self.given.len()).map(|at| self.effect(at)).collect()
    }

    fn effect(&self, at: usize) -> Effect {
        let given = &self.given[at];
        let meaning = given.row.meaning.trim_end_matches('.').to_owned();
        let decides = self.decides(at);
        let text = match (given.row.reason(), given.row.class()) {
            (Some(reason), _) => format!("{meaning}. No effect: {reason}"),
            (None, Class::Implemented) if !decides => {
                format!("{meaning}. Changes nothing here: the default, or a later option decides")
            }
            (None, _) => meaning,
        };
        Effect { word: given.word.clone(), row: given.row, text, decides }
    }

    fn decides(&self, at: usize) -> bool {
        let mut without = MountOptions::default();
        let others = self.given.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, given)| given);
        others.for_each(|given| {
            let _ = without.set(given.row, &given.word, list::split(&given.word).1);
        });
        let mut with = MountOptions::default();
        self.given.iter().for_each(|given| {
            let _ = with.set(given.row, &given.word, list::split(&given.word).1);
        });
        with != without
    }

    /// What deserves a second look, warnings first.
    pub fn review(&self, spec: &Spec) -> Vec<Finding> {
        let mut found = Review { options: &self.options, given: self, findings: Vec::new() };
        found.recovery();
        found.ports();
        found.caches();
        found.sizes();
        found.locks();
        found.servers(spec);
        found.ignored();
        found.findings.sort_by_key(|finding| finding.level);
        found.findings
    }

    /// What deserves a second look in a line of fstab(5) besides.
    pub fn review_fstab(&self) -> Vec<Finding> {
        let mut found = Review { options: &self.options, given: self, findings: Vec::new() };
        found.boot();
        found.findings
    }
}

struct Review<'a> {
    options: &'a MountOptions,
    given: &'a Parsed,
    findings: Vec<Finding>,
}

impl Review<'_> {
    fn warn(&mut self, text: impl Into<String>, remedy: &'static str) {
        self.findings.push(Finding { level: Level::Warning, text: text.into(), remedy });
    }

    fn note(&mut self, text: impl Into<String>, remedy: &'static str) {
        self.findings.push(Finding { level: Level::Note, text: text.into(), remedy });
    }

    fn recovery(&mut self) {
        if self.options.connection.recovery != Recovery::Hard && !self.options.flags.read_only {
            self.warn(
                "soft or softerr on a mount that is written to: when the server is away too long, writes that a \
                 program believes to be done are lost, and few programs look at the error",
                "write hard, or mount with ro",
            );
        }
    }

    fn ports(&mut self) {
        let connection = &self.options.connection;
        if !connection.reserved {
            self.note(
                "noresvport: the server has to export with insecure, or every call is refused",
                "check that the server's exports have insecure for this host",
            );
        } else if connection.rebind() == Rebind::Same {
            self.note(
                "resvport comes back from the same port: a balancer that still has the old connection in its table \
                 may send it to the node that is gone",
                "add rebind=fresh if a balancer stands before the server",
            );
        }
        if let Stuck::After(_) = connection.stuck {
            self.warn(
                "stuck= with a time leaves a server that is only slow, and what was sent is executed again: REMOVE or \
                 RENAME may fail although it was done, unless the server replays across ports, as remoor serve does",
                "write stuck=careful for other servers",
            );
        }
    }

    fn caches(&mut self) {
        let fs = &self.options.fs;
        if !fs.attribute_cache {
            self.note(
                "noac: every look at a file is a call, and every write waits for the server's disk",
                "write actimeo= with a short time if a short delay is good enough",
            );
        } else if fs.sync {
            self.note(
                "sync: every write waits for the server's disk",
                "leave it out if programs call fsync where it matters",
            );
        }
        if !fs.close_to_open {
            self.warn(
                "nocto: a file that another host has written and closed may be read as it was before",
                "leave it out unless the export changes rarely, or on this host only",
            );
        }
        for (least, most) in [("acregmin", "acregmax"), ("acdirmin", "acdirmax")] {
            if let (Some(min), Some(max)) = (self.seconds(least), self.seconds(most))
                && min > max
            {
                let text = format!("{least}={min} is more than {most}={max}, which is taken as {min}");
                self.note(text, "write the shorter time in the option that ends in min");
            }
        }
    }

    fn seconds(&self, name: &str) -> Option<u64> {
        let given = self.given.given.iter().rev().find(|given| [name, "actimeo"].contains(&given.row.name));
        given.and_then(|given| list::split(&given.word).1?.parse().ok())
    }

    fn sizes(&mut self) {
        let sizes = [("rsize", self.options.fs.rsize), ("wsize", self.options.fs.wsize)];
        for (name, bytes) in sizes {
            let last = self.given.given.iter().rev().find(|given| given.row.name == name);
            if let Some(last) = last.filter(|last| list::split(&last.word).1 != Some(&bytes.to_string())) {
                let text = format!("{} is taken as {name}={bytes}", last.word);
                self.note(text, "sizes are multiples of 1024, from 1024 to 1048576");
            }
        }
    }

    fn locks(&mut self) {
        let says_local = |word: &str| word == "nolock" || list::split(word) == ("local_lock", Some("all"));
        if !self.given.given.iter().any(|given| says_local(&given.word)) {
            self.note(
                "locks hold among the processes of this host only: other hosts do not see them",
                "write nolock to say that this is meant",
            );
        }
    }

    fn servers(&mut self, spec: &Spec) {
        if spec.hosts.len() > 1 {
            self.note(
                format!("the {} hosts of {spec} are taken for one server", spec.hosts.len()),
                "name only hosts that give equal file handles: nodes with one state directory, or one host's addresses",
            );
        }
    }

    fn ignored(&mut self) {
        if !self.given.ignored.is_empty() {
            let text = format!("ignored, because sloppy was asked for: {}", self.given.ignored.join(", "));
            self.note(text, "remove what is not needed");
        }
    }

    fn boot(&mut self) {
        let has = |name| self.given.has(name);
        if !has("_netdev") {
            self.warn(
                "_netdev is missing: the boot may mount this before the network is there, and the shutdown may take \
                 the network away before it is unmounted",
                "add _netdev",
            );
        }
        if !has("nofail") && !has("noauto") {
            let text = match has("_netdev") {
                true => {
                    "a server that is away at boot holds the boot up, and remote-fs.target of systemd fails"
                }
                false => "a server that is away at boot stops the boot (systemd: emergency mode)",
            };
            self.note(text, "add nofail, or noauto,x-systemd.automount");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &str) -> (Spec, Parsed) {
        let spec: Spec = "nas:/a".parse().unwrap();
        let parsed = Parsed::new(&spec, options, false).unwrap();
        (spec, parsed)
    }

    fn found(options: &str) -> Vec<(Level, String)> {
        let (spec, parsed) = parsed(options);
        let findings = [parsed.review(&spec), parsed.review_fstab()].concat();
        assert!(findings.iter().all(|finding| finding.remedy.len() > 8));
        findings.into_iter().map(|finding| (finding.level, finding.text)).collect()
    }

    #[test]
    fn a_careful_line_has_no_findings() {
        assert_eq!(found("rebind=fresh,nolock,_netdev,nofail"), []);
        assert_eq!(found("rebind=fresh,local_lock=all,_netdev,noauto,soft,ro"), []);
    }

    #[test]
    fn each_risk_is_told() {
        let good = "rebind=fresh,nolock,_netdev,nofail";
        let cases = [
            ("soft", Level::Warning, "are lost"),
            ("softerr", Level::Warning, "are lost"),
            ("noresvport", Level::Note, "export with insecure"),
            ("rebind=same", Level::Note, "from the same port"),
            ("stuck=500", Level::Warning, "executed again"),
            ("noac", Level::Note, "every look at a file is a call"),
            ("sync", Level::Note, "every write waits"),
            ("nocto", Level::Warning, "read as it was before"),
            ("acregmin=9,acregmax=5", Level::Note, "acregmin=9 is more than acregmax=5, which is taken as 9"),
            ("rsize=5000", Level::Note, "rsize=5000 is taken as rsize=4096"),
        ];
        for (options, level, text) in cases {
            let found = found(&format!("{good},{options}"));
            assert!(
                found.len() == 1 && found[0].0 == level && found[0].1.contains(text),
                "{options}: {found:?}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let texts: Vec<String> = found("lock").into_iter().map(|(_, text)| text).collect();
        for text in ["from the same port", "locks hold among", "_netdev is missing", "stops the boot"] {
            assert!(texts.iter().any(|its| its.contains(text)), "{text}: {texts:?}");
        }
        let holds = |options| found(options).into_iter().any(|(_, text)| text.contains("holds the boot up"));
        assert_eq!([holds("_netdev"), holds("_netdev,nofail")], [true, false]);
        let spec: Spec = "a,b:/x".parse().unwrap();
        let several = Parsed::new(&spec, "nolock,rebind=fresh,frob", true).unwrap().review(&spec);
        assert_eq!(several.len(), 2);
        assert!(
            several[0].text.contains("the 2 hosts of a,b:/x") && several[1].text.ends_with("asked for: frob")
        );
    }

    #[test]
    fn effects_tell_what_decides() {
        let (_, parsed) = parsed("soft,rw,hard,timeo=50,intr,_netdev,noac");
        let decides: Vec<bool> = parsed.effects().iter().map(|effect| effect.decides).collect();
        assert_eq!(decides, [false, false, true, true, false, false, true]);
        let effects = parsed.effects();
        assert!(effects[0].text.ends_with("Changes nothing here: the default, or a later option decides"));
        assert!(effects[4].text.contains("No effect: as with Linux"), "{}", effects[4].text);
        assert!(!effects[5].text.contains("Changes nothing"));
    }
}
