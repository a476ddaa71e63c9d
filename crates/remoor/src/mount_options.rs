//! The options of `remoor mount` in text and JSON: what each means, what those of a command or an fstab line come to.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use remoor_mount::options::check::{Effect, Finding, Level};
use remoor_mount::options::fstab::{Line, OUR_TYPES};
use remoor_mount::options::{Argument, Class, Group, OptionRow, Parsed, Spec, Status, table};
use serde_json::{Value, json};

use crate::columns::counted;
use crate::exports::{capitalised, list, pretty};
use crate::{Failure, columns};

/// Column in which texts begin beside their options.
const INDENT: usize = 30;
/// Largest file of fstab lines that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

const HELP_BEGINS: &str = "\
Options of a mount, as in -o soft,timeo=100. A later one takes back an earlier one. A value with
commas stands in double quotes. [remount]: -o remount can change it on a mount that is in use.
";

/// A heading, and the options below it.
pub(crate) type Section = (&'static str, Vec<&'static OptionRow>);

/// All options: those that do something by what they are about, then those that do nothing, and those that are refused.
pub(crate) fn sections() -> Vec<Section> {
    let of = |wanted: &dyn Fn(&OptionRow) -> bool| table().iter().filter(|row| wanted(row)).collect();
    let does = |row: &OptionRow| matches!(row.class(), Class::Implemented | Class::Mount8);
    let mut sections: Vec<Section> = Vec::new();
    for group in Group::ALL {
        sections.push((group.title(), of(&|row| does(row) && row.group == group)));
    }
    sections.push(("Accepted without effect", of(&|row| row.class() == Class::NoEffect)));
    sections.push(("Refused", of(&|row| row.class() == Class::Refused)));
    sections
}

/// An option by all its names, as it is written: `vers=3, nfsvers=3`.
pub(crate) fn head(row: &OptionRow) -> String {
    let value = match row.argument {
        Argument::None => String::new(),
        Argument::Optional(value) => format!("[={value}]"),
        Argument::Required(value) => format!("={value}"),
    };
    let names = [row.name].into_iter().chain(row.aliases.iter().copied());
    names.map(|name| format!("{name}{value}")).collect::<Vec<_>>().join(", ")
}

/// What an option does, its default, and why it does nothing or is refused.
pub(crate) fn description(row: &OptionRow) -> String {
    let default = match (row.status, row.default) {
        // The words of the connection's own table tell the default.
        (Status::Connection, _) | (_, "no" | "none") => String::new(),
        (_, "yes") => " (default)".into(),
        (_, value) => format!(" (default: {value})"),
    };
    let live = if row.live { " [remount]" } else { "" };
    let reason = row.reason().map(|reason| format!(" {}.", capitalised(&reason))).unwrap_or_default();
    format!("{}{default}.{reason}{live}", capitalised(row.meaning.trim_end_matches('.')))
}

/// What `remoor mount --help-options` prints.
pub(crate) fn help_text() -> String {
    let mut out = HELP_BEGINS.to_owned();
    for (title, rows) in sections() {
        let _ = writeln!(out, "\n{title}:");
        rows.iter().for_each(|row| {
            out.push_str(&columns::row(&format!("  {}", head(row)), INDENT, &description(row)));
        });
    }
    out
}

/// What `remoor mount --help-options --json` prints.
pub(crate) fn help_json() -> String {
    let row = |row: &OptionRow| {
        json!({
            "name": row.name,
            "aliases": row.aliases,
            "usage": row.usage(),
            "default": row.default,
            "meaning": row.meaning,
            "group": row.group.title(),
            "status": row.class().name(),
            "reason": row.reason(),
            "remount": row.live,
        })
    };
    pretty(&table().iter().map(row).collect())
}

/// The fstab(5) line that mounts what a command mounts.
pub(crate) fn fstab_line(spec: &str, dir: &Path, options: &str) -> Result<String, Failure> {
    let line = || {
        let spec: Spec = spec.parse()?;
        Parsed::new(&spec, options, false)?;
        let dir = dir.to_str().context("fstab is UTF-8, and the path of the mount point is not")?;
        ensure!(dir.starts_with('/'), "the mount point {dir:?} has to be an absolute path in fstab");
        let lists = [spec.options.as_str(), options];
        let lists: Vec<&str> = lists.into_iter().filter(|list| !list.is_empty()).collect();
        Ok(format!("{}\n", Line::new(&spec, dir, &lists.join(","))))
    };
    line().map_err(Failure::Usage)
}

/// What `remoor mount --check LINE|FILE` has found.
pub(crate) struct Check {
    lines: Vec<Checked>,
}

/// A line of fstab(5).
struct Checked {
    /// Where it stands: file, and number from 1.
    place: Option<(PathBuf, usize)>,
    outcome: anyhow::Result<Explained>,
}

/// A line that can be mounted.
struct Explained {
    spec: Spec,
    dir: String,
    effects: Vec<Effect>,
    effective: String,
    findings: Vec<Finding>,
}

impl Check {
    /// Checks a line, which has blanks between its fields, or the lines of a file that are for this program.
    pub(crate) fn new(argument: &str) -> Result<Self, Failure> {
        if argument.trim().contains([' ', '\t']) {
            let outcome = explain(argument).transpose().unwrap_or_else(|| Err(anyhow!("it is a comment")));
            return Ok(Self { lines: vec![Checked { place: None, outcome }] });
        }
        let file = Path::new(argument);
        read(file).map(|text| Self::of_file(file, &text)).map_err(Failure::Usage)
    }

    fn of_file(file: &Path, text: &str) -> Self {
        let ours = |line: &&str| {
            let kind = line.split_whitespace().nth(2);
            !line.trim_start().starts_with('#') && kind.is_some_and(|kind| OUR_TYPES.contains(&kind))
        };
        let numbered = text.lines().enumerate().filter(|(_, line)| ours(line));
        let lines = numbered.filter_map(|(n, line)| {
            let outcome = explain(line).transpose()?;
            Some(Checked { place: Some((file.to_owned(), n + 1)), outcome })
        });
        Self { lines: lines.collect() }
    }

    fn count(&self, level: Level) -> usize {
        let explained = self.lines.iter().filter_map(|line| line.outcome.as_ref().ok());
        explained.flat_map(|line| &line.findings).filter(|finding| finding.level == level).count()
    }

    fn errors(&self) -> usize {
        self.lines.iter().filter(|line| line.outcome.is_err()).count()
    }

    /// Good unless there are errors, or, with `strict`, warnings.
    pub(crate) fn verdict(&self, strict: bool) -> Result<(), Failure> {
        match (self.errors(), self.count(Level::Warning)) {
            (0, 1..) if strict => Err(Failure::Case),
            (0, _) => Ok(()),
            (errors, _) => Err(Failure::Usage(anyhow!("{}; see above", counted(errors, "error")))),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out: String = self.lines.iter().map(Checked::text).collect();
        let _ = writeln!(
            out,
            "{}: {}, {}, {}",
            counted(self.lines.len(), "mount"),
            counted(self.errors(), "error"),
            counted(self.count(Level::Warning), "warning"),
            counted(self.count(Level::Note), "note")
        );
        out
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        pretty(&json!({ "mounts": self.lines.iter().map(Checked::json).collect::<Vec<_>>() }))
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let named = || format!("cannot read {}; name a file or a line of fstab(5) in quotes", file.display());
    let size = fs::metadata(file).with_context(named)?.len();
    ensure!(size <= LARGEST_FILE, "{} has {size} bytes, too many for lines of fstab(5)", file.display());
    let bytes = fs::read(file).with_context(named)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn explain(line: &str) -> anyhow::Result<Option<Explained>> {
    let Some(line) = Line::parse(line)? else { return Ok(None) };
    ensure!(
        line.is_ours(),
        "a line of type {:?} is mounted by another program; write the type {}",
        line.kind,
        OUR_TYPES[0]
    );
    let spec: Spec = line.spec.parse()?;
    let parsed = Parsed::new(&spec, &line.options, false)?;
    let mut findings = [parsed.review(&spec), parsed.review_fstab()].concat();
    findings.sort_by_key(|finding| finding.level);
    let effective = parsed.options.to_string();
    Ok(Some(Explained { spec, dir: line.dir, effects: parsed.effects(), effective, findings }))
}

impl Checked {
    fn text(&self) -> String {
        let place = self.place.as_ref().map(|(file, line)| format!("{}:{line}: ", file.display()));
        let place = place.unwrap_or_default();
        match &self.outcome {
            Ok(explained) => explained.text(&place),
            Err(error) => finding("error", &format!("{place}{error:#}"), None) + "\n",
        }
    }

    fn json(&self) -> Value {
        let (file, line) = self.place.clone().unzip();
        match &self.outcome {
            Ok(explained) => {
                let mut json = explained.json();
                json["file"] = json!(file);
                json["line"] = json!(line);
                json
            }
            Err(error) => json!({ "file": file, "line": line, "error": format!("{error:#}") }),
        }
    }
}

impl Explained {
    fn text(&self, place: &str) -> String {
        let title = format!("{place}{} on {}", self.spec, self.dir);
        let mut out = format!("{}\n", columns::plain(&title));
        for effect in &self.effects {
            let word = columns::plain(&effect.word);
            out.push_str(&columns::row(
                &format!("  {word}"),
                INDENT,
                &capitalised(&format!("{}.", effect.text)),
            ));
        }
        out.push_str(&list("  comes to", &self.effective));
        for found in &self.findings {
            out.push_str(&finding(found.level.name(), &found.text, Some(found.remedy)));
        }
        out + "\n"
    }

    fn json(&self) -> Value {
        let effects = self.effects.iter().map(|effect| {
            json!({
                "option": effect.word,
                "status": effect.row.class().name(),
                "effect": effect.text,
                "decides": effect.decides,
            })
        });
        let findings = self
            .findings
            .iter()
            .map(|found| json!({ "level": found.level.name(), "text": found.text, "remedy": found.remedy }));
        json!({
            "spec": self.spec.to_string(),
            "dir": self.dir,
            "options": effects.collect::<Vec<_>>(),
            "effective": self.effective,
            "findings": findings.collect::<Vec<_>>(),
        })
    }
}

/// As `remoor exports check` tells them.
fn finding(level: &str, text: &str, remedy: Option<&str>) -> String {
    let row = |head: &str, text: &str| columns::row(head, 9, &columns::plain(text));
    let remedy = remedy.map(|remedy| row("", &format!("-> {remedy}"))).unwrap_or_default();
    row(&format!("{level}:"), text) + &remedy
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "nas:/a /mnt remoor rebind=fresh,nolock,_netdev,nofail 0 0";

    fn check(argument: &str) -> Check {
        Check::new(argument).unwrap_or_else(|_| panic!("{argument}"))
    }

    fn code(result: Result<(), Failure>) -> u8 {
        match result {
            Ok(()) => 0,
            Err(Failure::Case) => 1,
            Err(_) => 2,
        }
    }

    #[test]
    fn every_option_is_in_the_help_once_and_lines_are_short() {
        let text = help_text();
        for row in table() {
            assert!(text.contains(&format!("\n  {}", head(row))), "{}", row.name);
        }
        let shown: usize = sections().iter().map(|(_, rows)| rows.len()).sum();
        assert_eq!(shown, table().len());
        assert!(sections().iter().all(|(_, rows)| !rows.is_empty()));
        for line in text.lines() {
            assert!(line.chars().count() <= columns::WIDTH, "{line}");
        }
        let json: Value = serde_json::from_str(&help_json()).unwrap();
        assert_eq!(json.as_array().unwrap().len(), table().len());
    }

    #[test]
    fn a_line_is_explained_option_by_option() {
        let text = check(GOOD).text();
        let expected = "nas:/a on /mnt\n  rebind=fresh                Port of a reconnect";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("\n  comes to            rw,vers=3,"), "{text}");
        assert!(text.ends_with("\n1 mount: 0 errors, 0 warnings, 0 notes\n"), "{text}");
        let risky = check("nas:/a /mnt remoor soft,intr,x-\u{1b}=1").text();
        assert!(risky.contains("\nwarning: soft or softerr on a mount"), "{risky}");
        assert!(risky.contains("\n         -> write hard, or mount with ro\n"), "{risky}");
        assert!(risky.contains("No effect: as with Linux"), "{risky}");
        assert!(!risky.contains('\u{1b}'), "{risky}");
        assert!(risky.lines().all(|line| line.chars().count() <= columns::WIDTH), "{risky}");
    }

    #[test]
    fn of_a_file_only_our_lines_are_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            format!("# x\n/dev/sda1 / ext4 defaults 0 1\n\n{GOOD}\nnas:/b /b fuse.remoor vers=4 0 0\nx\n");
        fs::write(file.path(), text).unwrap();
        let check = check(file.path().to_str().unwrap());
        assert_eq!((check.lines.len(), check.errors()), (2, 1));
        let text = check.text();
        assert!(text.contains(":4: nas:/a on /mnt\n") && text.contains(":5: option \"vers=4\" is"), "{text}");
        let json: Value = serde_json::from_str(&check.json()).unwrap();
        assert_eq!((&json["mounts"][0]["line"], &json["mounts"][1]["line"]), (&json!(4), &json!(5)));
        assert_eq!(json["mounts"][0]["options"][0]["decides"], true);
        assert!(json["mounts"][1]["error"].as_str().unwrap().contains("is refused"));
    }

    #[test]
    fn codes_are_those_of_exports_check() {
        let codes = |line: &str| [false, true].map(|strict| code(check(line).verdict(strict)));
        assert_eq!(codes(GOOD), [0, 0]);
        assert_eq!(codes("nas:/a /mnt remoor nofail"), [0, 1]);
        assert_eq!(codes("nas:/a /mnt remoor frob"), [2, 2]);
        assert_eq!(codes("nas:/a /mnt nfs defaults"), [2, 2]);
        assert_eq!(codes("# nas:/a"), [2, 2]);
        assert_eq!(code(Check::new("/no/such/file").map(drop)), 2);
    }

    #[test]
    fn a_command_becomes_a_line_that_is_good() {
        let line = |spec, dir, options| fstab_line(spec, Path::new(dir), options);
        let text = line("nfs://nas:2050/a%20b?soft", "/mnt", "ro").unwrap_or_default();
        assert_eq!(text, "nas:/a\\040b /mnt remoor port=2050,soft,ro,_netdev 0 0\n");
        assert_eq!(code(check(&text).verdict(true)), 0);
        assert_eq!(code(line("nas:/a", "mnt", "").map(drop)), 2);
        assert_eq!(code(line("nas:/a", "/mnt", "frob").map(drop)), 2);
    }
}
