//! One entry of exports(5), or one argument of the command line: a path, options for all, clients with their own.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::client::ClientSpec;
use super::lexer::{Entry, Word};
use super::option::{self, Status};
use super::options::Options;
use super::parse::{ParseError, ParseErrorKind, Parsed};
use super::{Export, Finding, Level, Origin, Rule, Storage};

/// Clients that a warning lists.
const MAX_LISTED: usize = 3;
/// Longest part of a word that a message shows, in bytes.
const MAX_SHOWN: usize = 80;

/// Reads one entry or argument.
pub(super) struct Reader<'a> {
    out: &'a mut Parsed,
    file: &'a Path,
    origin: Origin,
    has_comment: bool,
    /// Clients for which neither `subtree_check` nor `no_subtree_check` is given.
    subtree_unsaid: Vec<String>,
}

/// Options as far as they are read.
#[derive(Clone, Default)]
struct Given {
    options: Options,
    /// Whether `subtree_check` or `no_subtree_check` is among them.
    subtree_said: bool,
}

type Place = (Storage, PathBuf);

impl<'a> Reader<'a> {
    pub(super) fn new(out: &'a mut Parsed, file: &'a Path, has_comment: bool) -> Self {
        let origin = Origin::File(file.into(), 0);
        Self { out, file, origin, has_comment, subtree_unsaid: Vec::new() }
    }

    pub(super) fn argument(&mut self, arg: &str) {
        self.origin = Origin::Argument(arg.into());
        let (memory, path) = arg.strip_prefix(MEMORY).map_or(("", arg), |path| (MEMORY, path));
        let (path, rest) = path.split_once(':').unwrap_or((path, ""));
        let Some(place) = self.kept(place(format!("{memory}{path}").into_bytes())) else { return };
        let mut given = Given::default();
        if rest.contains('(') {
            rest.split_ascii_whitespace().for_each(|word| self.client(&place, word, &given));
        } else if self.options(&mut given, rest) {
            self.add(&place, ClientSpec::Any, given.options);
        }
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        let Some((path, clients)) = entry.words.split_first() else { return };
        self.at(path);
        let Some(place) = self.kept(place(path.text.clone())) else { return };
        let mut defaults = Given::default();
        let (mut named, mut defaults_taken) = (false, true);
        for word in clients {
            self.at(word);
            let text = std::str::from_utf8(&word.text);
            let text = text.map_err(|_| ParseErrorKind::NotUtf8(shown(&word.text)));
            match self.kept(text) {
                Some(text) if text.starts_with('-') => {
                    defaults_taken &= self.options(&mut defaults, &text[1..])
                }
                Some(text) => {
                    named = true;
                    self.client(&place, text, &defaults);
                }
                None => named = true,
            }
        }
        self.at(path);
        if !named && defaults_taken {
            let text = format!("{} names no client and is exported to everybody", place.1.display());
            self.warn(text, "write *, or the clients that are meant");
            self.add_given(&place, ClientSpec::Any, defaults);
        }
        self.note_subtree(&place.1);
    }

    fn client(&mut self, place: &Place, word: &str, defaults: &Given) {
        let Some((client, list)) = self.kept(split_client(word)) else { return };
        let mut given = defaults.clone();
        let options_taken = self.options(&mut given, list);
        if client.is_empty() {
            let text = format!(
                "{:?} stands alone and exports {} to everybody, because of the blank before \"(\"",
                shown(word.as_bytes()),
                place.1.display()
            );
            self.warn(
                text,
                format!("write it right behind its client, or *{} for everybody", shown(word.as_bytes())),
            );
        }
        let spec = ClientSpec::parse(if client.is_empty() { "*" } else { client });
        let Some(spec) = self.kept(spec.map_err(ParseErrorKind::from)) else { return };
        if options_taken {
            self.add_given(place, spec, given);
        }
    }

    /// Whether all of them were taken.
    fn options(&mut self, given: &mut Given, list: &str) -> bool {
        let mut names: Vec<&'static str> = Vec::new();
        let errors = self.out.errors.len();
        for word in option::words(list) {
            let applied = option::apply(&mut given.options, &word).map_err(ParseErrorKind::from);
            let Some(row) = self.kept(applied) else { continue };
            if let Status::NoEffect(reason) = row.status {
                self.note(format!("option {:?} has no effect: {reason}", row.name));
            }
            if let Some(opposite) = row.opposite().filter(|opposite| names.contains(opposite)) {
                let text = format!("\"{list}\" has both {opposite} and {}; the latter counts", row.name);
                self.warn(text, "keep one of them");
            }
            given.subtree_said |= matches!(row.name, "subtree_check" | "no_subtree_check");
            names.push(row.name);
        }
        self.out.errors.len() == errors
    }

    fn add_given(&mut self, place: &Place, client: ClientSpec, given: Given) {
        if !given.subtree_said {
            self.subtree_unsaid.push(client.to_string());
        }
        self.note_risks(&place.1, &client, &given.options);
        self.add(place, client, given.options);
    }

    /// Once for a line, whatever the number of clients.
    fn note_subtree(&mut self, path: &Path) {
        let Some((listed, more)) = listed(&self.subtree_unsaid) else { return };
        let text = format!(
            "{} for {listed}{more}: neither subtree_check nor no_subtree_check is given, no_subtree_check is assumed",
            path.display()
        );
        self.warn(text, "write no_subtree_check");
    }

    fn note_risks(&mut self, path: &Path, client: &ClientSpec, options: &Options) {
        if !options.root_squash && !options.all_squash && client.is_everybody() {
            let text = format!("{} gives root to everybody: no_root_squash for {client}", path.display());
            self.warn(text, "name the hosts whose root may be root");
        }
        if let ClientSpec::Wildcard(pattern) = client
            && pattern.resembles_addresses()
        {
            let text = format!("wildcard {pattern} is compared with host names, never with addresses");
            self.warn(text, "write a network, as in 192.0.2.0/24");
        }
    }

    fn add(&mut self, place: &Place, client: ClientSpec, options: Options) {
        let fsid = options.fsid;
        let rule = Rule { client, options, origin: self.origin.clone(), has_comment: self.has_comment };
        let (storage, path) = place.clone();
        let list = &mut self.out.exports.list;
        let Some(export) = list.iter_mut().find(|e| e.path == path && e.storage == storage) else {
            return list.push(Export { storage, path, rules: vec![rule] });
        };
        if export.agrees_on_fsid(fsid) {
            let double = export.add(rule);
            self.out.exports.warnings.extend(double);
        } else {
            self.kept::<()>(Err(ParseErrorKind::TwoFsids(path)));
        }
    }

    /// What follows is about this word.
    fn at(&mut self, word: &Word) {
        self.origin = Origin::File(self.file.into(), word.line);
    }

    /// The value; an error is noted.
    fn kept<T>(&mut self, result: Result<T, ParseErrorKind>) -> Option<T> {
        result.map_err(|kind| self.out.errors.push(ParseError { origin: self.origin.clone(), kind })).ok()
    }

    fn warn(&mut self, text: String, remedy: impl Into<String>) {
        let origin = self.origin.clone();
        self.out.exports.warnings.push(Finding {
            level: Level::Warning,
            origin,
            text,
            remedy: remedy.into(),
        });
    }

    fn note(&mut self, text: String) {
        let origin = self.origin.clone();
        self.out.exports.notes.push(Finding {
            level: Level::Note,
            origin,
            text,
            remedy: "it can be removed".into(),
        });
    }
}

/// The first few, and how many there are besides.
fn listed(clients: &[String]) -> Option<(String, String)> {
    let shown = clients.get(..MAX_LISTED.min(clients.len()))?;
    let more = clients.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!shown.is_empty()).then(|| (shown.join(", "), more))
}

/// As much of a word as a message shows.
pub(super) fn shown(word: &[u8]) -> String {
    let cut = &word[..word.len().min(MAX_SHOWN)];
    let dots = if cut.len() < word.len() { "..." } else { "" };
    format!("{}{dots}", String::from_utf8_lossy(cut))
}

/// Before a path: the export is kept in memory, empty at every start.
pub(super) const MEMORY: &str = "memory:";

/// Storage and path, without `.` and doubled or trailing slashes, so that one directory is one export.
fn place(text: Vec<u8>) -> Result<Place, ParseErrorKind> {
    let (storage, text) = match text.strip_prefix(MEMORY.as_bytes()) {
        Some(rest) => (Storage::Memory, rest.to_vec()),
        None => (Storage::Local, text),
    };
    let path = PathBuf::from(OsString::from_vec(text));
    if path.is_absolute() {
        Ok((storage, path.components().collect()))
    } else {
        Err(ParseErrorKind::NotAbsolute(shown(path.as_os_str().as_bytes()).into()))
    }
}

fn split_client(word: &str) -> Result<(&str, &str), ParseErrorKind> {
    let Some((client, list)) = word.split_once('(') else {
        let stray = word.contains(')') || word.contains(',');
        return if stray {
            Err(ParseErrorKind::NoParenthesis(shown(word.as_bytes())))
        } else {
            Ok((word, ""))
        };
    };
    let list = list.strip_suffix(')').filter(|list| !list.contains(['(', ')']));
    Ok((client, list.ok_or_else(|| ParseErrorKind::OpenParenthesis(shown(word.as_bytes())))?))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::exports::Exports;
    use crate::exports::options::tests::any_options;

    const FILE: &str = "/etc/exports";

    fn parsed(text: &str) -> Parsed {
        Parsed::from_text(Path::new(FILE), text.as_bytes())
    }

    fn lines(exports: &Exports) -> Vec<String> {
        let short = |export: &Export| {
            let rules = export.rules.iter().map(|r| {
                let given = r.options.to_string().replace(&format!(",{TAIL}"), "");
                format!(" {}({given})", r.client)
            });
            format!("{}{}", export.path.display(), rules.collect::<String>())
        };
        exports.list.iter().map(short).collect()
    }

    /// What nobody changes in these tests.
    const TAIL: &str = "root_squash,no_all_squash,no_subtree_check,anonuid=65534,anongid=65534";

    fn effective(text: &str) -> Vec<String> {
        lines(&Exports::parse(Path::new(FILE), text.as_bytes()).unwrap())
    }

    fn errors(text: &str) -> Vec<String> {
        parsed(text).errors.iter().map(ToString::to_string).collect()
    }

    fn warnings(text: &str) -> Vec<String> {
        parsed(text).exports.warnings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn defaults_of_a_line_and_several_clients() {
        let text = "/a -no_subtree_check,rw 192.0.2.1 2001:db8::/32(insecure,ro) -async *()\n";
        let expected = "/a 192.0.2.1(rw,sync,secure) 2001:db8::/32(ro,sync,insecure) *(rw,async,secure)";
        assert_eq!(effective(text), [expected]);
        assert_eq!(warnings(text), [""; 0]);
    }

    #[test]
    fn the_example_of_the_manual_page() {
        let text = "# sample /etc/exports file\n\
            /               master(rw) trusty(rw,no_root_squash)\n\
            /projects       proj*.local.domain(rw)\n\
            /usr            *.local.domain(ro) @trusted(rw)\n\
            /home/joe       pc001(rw,all_squash,anonuid=150,anongid=100)\n\
            /pub            *(ro,insecure,all_squash)\n\
            /srv/www        -sync,rw server @trusted @external(ro)\n\
            /foo            2001:db8:9:e54::/64(rw) 192.0.2.0/24(rw)\n\
            /build          buildhost[0-9].local.domain(rw)\n";
        let exports = Exports::parse(Path::new(FILE), text.as_bytes()).unwrap();
        assert_eq!(exports.list.len(), 8);
        let rules: Vec<String> = exports.list[5].rules.iter().map(|r| r.client.to_string()).collect();
        assert_eq!(rules, ["server", "@trusted", "@external"]);
        assert!(!exports.list[5].rules[1].options.read_only && exports.list[5].rules[2].options.read_only);
        assert_eq!(exports.list[3].rules[0].options.anonuid, 150);
        assert_eq!(exports.warnings.len(), 8, "subtree_check is told once for each line");
    }

    #[test]
    fn rules_stand_in_the_order_of_precedence_and_paths_are_one() {
        let text = "/a/ * @g *.b 192.0.2.0/24 h 192.0.2.1\n//a/. 192.0.2.2\n";
        let exports = parsed(text).exports;
        let order: Vec<String> = exports.list[0].rules.iter().map(|r| r.client.to_string()).collect();
        assert_eq!(order, ["h", "192.0.2.1", "192.0.2.2", "192.0.2.0/24", "*.b", "@g", "*"]);
        assert_eq!((exports.list.len(), exports.list[0].path.to_str()), (1, Some("/a")));
        assert_eq!(exports.list[0].rules[2].origin, Origin::File(FILE.into(), 2));
    }

    #[test]
    fn errors_name_file_line_and_word() {
        let error = |text| errors(text).join("|");
        assert!(
            error("/a *(rw)\n\n/b *(rw,crossmnt)\n")
                .starts_with("/etc/exports:3: option \"crossmnt\" is refused")
        );
        assert_eq!(error("/a *(rww)"), "/etc/exports:1: unknown option \"rww\"; did you mean \"rw\"?");
        assert_eq!(
            error("a *(rw)"),
            "/etc/exports:1: \"a\" is not an absolute path; an export begins with / (or memory:/)"
        );
        assert!(error("/a *(rw, ro)").contains("\"*(rw,\": \"(\" without \")\""));
        assert_eq!(error("\n\"/a *"), "/etc/exports:2: a quote is not closed on this line: \"/a *\"");
        assert!(error("/a \\\n h,st").starts_with("/etc/exports:2: \"h,st\": options stand in parentheses"));
        assert!(error("/a 192.0.2.1(fsid=1) *(fsid=2)").contains("two different fsid="));
        assert!(error("/a h\\377").contains("is not UTF-8"));
        assert!(error(&"x".repeat(10_000)).len() < 300);
    }

    #[test]
    fn warnings_of_the_classic_traps() {
        let got = warnings("/a 192.0.2.1 (rw)");
        assert_eq!(got.len(), 2, "{got:?}");
        assert!(got[0].contains("\"(rw)\" stands alone and exports /a to everybody"));
        assert!(got[0].ends_with("write it right behind its client, or *(rw) for everybody"));
        assert!(got[1].starts_with("/etc/exports:1: /a for 192.0.2.1, *: neither subtree_check nor"));
        assert!(warnings("/a")[0].contains("names no client"));
        let one = |text| <[String; 1]>::try_from(warnings(text)).unwrap()[0].clone();
        assert!(one("/a *(no_subtree_check,no_root_squash)").contains("gives root to everybody"));
        assert!(one("/a 0.0.0.0/0(no_subtree_check,no_root_squash)").contains("gives root to everybody"));
        assert!(
            one("/a *(no_subtree_check) *(rw,no_subtree_check)")
                .contains("twice; the rule of /etc/exports:1")
        );
        assert!(
            one("/a *(ro,no_subtree_check,rw)").contains("has both ro and rw; the latter counts; keep one")
        );
        assert!(one("/a 192.0.2.*(no_subtree_check)").contains("never with addresses"));
        assert!(one("/a b c d e f").contains("/a for b, c, d and 2 more: neither"));
        assert_eq!(warnings("/a -no_subtree_check,ro *(rw)"), [""; 0], "a default may be taken back");
    }

    #[test]
    fn an_option_without_effect_is_noted() {
        let exports = parsed("/a *(no_subtree_check,wdelay,hide)").exports;
        assert!(exports.warnings.is_empty());
        let notes: Vec<String> = exports.notes.iter().map(Finding::to_string).collect();
        assert!(
            notes[0].starts_with("/etc/exports:1: option \"wdelay\" has no effect: writes are never delayed")
        );
        assert!(notes[1].contains("option \"hide\" has no effect"));
    }

    fn any_client() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<std::net::Ipv4Addr>().prop_map(|a| a.to_string()),
            any::<std::net::Ipv6Addr>().prop_map(|a| std::net::IpAddr::from(a).to_canonical().to_string()),
            (any::<[u8; 4]>(), 0..=32u8).prop_map(|([a, b, c, d], n)| format!("{a}.{b}.{c}.{d}/{n}")),
            "[a-z][a-z0-9]{0,8}(\\.[a-z]{1,4}){0,2}",
            "[a-z]{0,3}(\\*|\\?|\\[a-f\\])\\.[a-z]{1,4}",
            "@[a-z-]{1,8}",
            Just("*".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn an_export_is_read_back_as_it_is_shown(
            path in vec(any::<u8>(), 0..12),
            rules in vec((any_client(), any_options()), 1..4),
        ) {
            let path = Path::new("/").join(std::ffi::OsStr::from_bytes(&path)).components().collect();
            let mut export = Export { storage: Storage::Local, path, rules: vec![] };
            let fsid = rules[0].1.fsid;
            for (client, options) in rules {
                let client = ClientSpec::parse(&client).unwrap();
                let options = Options { fsid, ..options };
                let origin = Origin::File(FILE.into(), 1);
                export.add(Rule { client, options, origin, has_comment: false });
            }
            let read = Exports::parse(Path::new(FILE), export.to_string().as_bytes());
            let read = read.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(read.list[0].to_string(), export.to_string());
            prop_assert_eq!(&read.list[0].path, &export.path);
            for (got, given) in read.list[0].rules.iter().zip(&export.rules) {
                prop_assert_eq!((&got.client, &got.options), (&given.client, &given.options));
            }
        }

        #[test]
        fn no_text_is_too_strange(text in vec(any::<u8>(), 0..300)) {
            let parsed = Parsed::from_text(Path::new(FILE), &text);
            let lines = text.split(|b| *b == b'\n').count();
            for error in &parsed.errors {
                let Origin::File(_, line) = error.origin else { panic!("{error}") };
                prop_assert!((1..=lines).contains(&line), "{error}");
            }
        }

        #[test]
        fn no_text_that_resembles_exports_is_too_strange(
            text in "(/|a|\\*|@|\\(|\\)|,|=|-|\"|\\\\|0|4|#| |\n|rw|fsid|squash_uids|:|\\[|\\]|mp){0,60}"
        ) {
            let parsed = parsed(&text);
            for error in &parsed.errors {
                prop_assert!(matches!(error.origin, Origin::File(_, 1..)), "{error}");
                prop_assert!(error.to_string().contains(['"', '=']), "no word in {error}");
            }
            let _ = Exports::from_args([&text]);
        }
    }
}
