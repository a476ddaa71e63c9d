//! `remoor exports`: what files in the form of exports(5) come to.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use remoor_server::exports::check::review;
use remoor_server::exports::{Export, Finding, Level, OPTIONS, OptionRow, Origin, ParseError, Parsed, Rule};
use remoor_server::exports::{Status, Storage};
use remoor_server::names::{Direct, Names};
use serde_json::{Value, json};

use crate::Failure;
use crate::columns::{self, counted};
use crate::drill::written;

/// Check files in the form of exports(5), and explain them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(CheckArgs),
    Options(OptionsArgs),
}

/// Tell what exports come to: the effective options of each client, errors, risks, and what to do about them.
///
/// Every error of every file is told, not only the first. Nothing is changed and no server is asked.
#[derive(Debug, clap::Args)]
#[command(after_long_help = CHECK_HELP)]
struct CheckArgs {
    /// Files to check, as if they were one [default: /etc/exports and /etc/exports.d/*.exports]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Tell what this client gets, and by which rule
    #[arg(long, value_name = "ADDR")]
    client: Option<IpAddr>,
    /// End with exit code 1 if there are warnings
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List the options of an export: what each means, its default, and whether this server has it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = options_help())]
struct OptionsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  remoor exports check
  remoor exports check --client 192.0.2.7
  remoor exports options";

const CHECK_HELP: &str = "\
Of several rules that name a client the closest kind decides: a host (name or address), then a
network, a wildcard, a netgroup, and * last. Of the same kind the first in the file decides, not the
longest prefix. Wildcards match dots, too, and are compared with the name of the client's address,
if that name has the address.

`insecure` for named clients is a warning unless a comment, on its line or right above it, says why
it has to be: it lets every user of those hosts act as any other.

Exit codes:
  0  no errors; with --strict no warnings either
  1  warnings, with --strict only
  2  errors: remoor serve would refuse these exports

Examples:
  remoor exports check
  remoor exports check --strict /etc/exports
  remoor exports check --client 192.0.2.7 --json";

fn options_help() -> String {
    format!("{}\n{OPTIONS_EXAMPLES}", options_text(OPTIONS))
}

const OPTIONS_EXAMPLES: &str = "\
Examples:
  remoor exports options
  remoor exports options --json";

/// Column in which texts begin beside their heads.
const INDENT: usize = 22;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Check(args) => check(args),
        Command::Options(args) => {
            show(&if args.json { pretty(&options_json()) } else { options_text(OPTIONS) })
        }
    }
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let parsed = if args.files.is_empty() {
        Parsed::from_system(Path::new("/"))
    } else {
        Parsed::from_files(&args.files)
    };
    let report = Report::new(parsed, args.client, &Direct);
    show(&if args.json { pretty(&report.json()) } else { report.text() })?;
    report.verdict(args.strict)
}

fn show(text: &str) -> Result<(), Failure> {
    written(io::stdout().write_all(text.as_bytes()))
}

pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// What a check has found.
struct Report {
    exports: Vec<Export>,
    errors: Vec<ParseError>,
    findings: Vec<Finding>,
    client: Option<Answer>,
}

/// What one client gets.
struct Answer {
    client: IpAddr,
    names: Vec<String>,
    /// For each export every rule that names the client, the deciding one first.
    rules: Vec<Vec<Rule>>,
}

impl Report {
    fn new(parsed: Parsed, client: Option<IpAddr>, names: &dyn Names) -> Self {
        let findings = review(&parsed.exports, names);
        let exports = parsed.exports.list;
        let client = client.map(|client| Answer::new(client.to_canonical(), &exports, names));
        Self { exports, errors: parsed.errors, findings, client }
    }

    fn count(&self, level: Level) -> usize {
        let parse_errors = if level == Level::Error { self.errors.len() } else { 0 };
        self.findings.iter().filter(|finding| finding.level == level).count() + parse_errors
    }

    fn verdict(&self, strict: bool) -> Result<(), Failure> {
        match (self.count(Level::Error), self.count(Level::Warning)) {
            (0, 1..) if strict => Err(Failure::Case),
            (0, _) => Ok(()),
            (errors, _) => Err(Failure::Usage(anyhow!("{}; see above", counted(errors, "error")))),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        match &self.client {
            Some(answer) => answer.write(&mut out, &self.exports),
            None => self.exports.iter().for_each(|export| write_export(&mut out, export)),
        }
        for error in &self.errors {
            write_finding(&mut out, Level::Error, &error.origin, &error.kind.to_string(), None);
        }
        for finding in &self.findings {
            let Finding { level, origin, text, remedy } = finding;
            write_finding(&mut out, *level, origin, text, Some(remedy));
        }
        let _ = writeln!(out, "{}", self.summary());
        out
    }

    fn summary(&self) -> String {
        let clients: usize = self.exports.iter().map(|export| export.rules.len()).sum();
        format!(
            "{} for {}: {}, {}, {}",
            counted(self.exports.len(), "export"),
            counted(clients, "client"),
            counted(self.count(Level::Error), "error"),
            counted(self.count(Level::Warning), "warning"),
            counted(self.count(Level::Note), "note")
        )
    }

    fn json(&self) -> Value {
        let errors =
            self.errors.iter().map(|error| finding_json(Level::Error, &error.origin, &error.kind, None));
        let findings =
            self.findings.iter().map(|f| finding_json(f.level, &f.origin, &f.text, Some(&f.remedy)));
        let mut json = json!({
            "exports": self.exports.iter().map(export_json).collect::<Vec<_>>(),
            "findings": errors.chain(findings).collect::<Vec<_>>(),
        });
        if let Some(answer) = &self.client {
            json["client"] = answer.json(&self.exports);
        }
        json
    }
}

impl Answer {
    fn new(client: IpAddr, exports: &[Export], names: &dyn Names) -> Self {
        let matching = |export: &Export| {
            let rules = export.rules.iter();
            rules.filter(|rule| rule.client.matches(client, names) == Ok(true)).cloned().collect()
        };
        let its_names = names.names_of(client).map(|names| names.to_vec()).unwrap_or_default();
        Self { client, names: its_names, rules: exports.iter().map(matching).collect() }
    }

    fn write(&self, out: &mut String, exports: &[Export]) {
        let names =
            if self.names.is_empty() { "no confirmed name".to_owned() } else { self.names.join(", ") };
        let _ = writeln!(out, "Client {} ({names})\n", self.client);
        for (export, rules) in exports.iter().zip(&self.rules) {
            let _ = writeln!(out, "{}", path(export));
            let Some((decides, others)) = rules.split_first() else {
                out.push_str("  nothing: no rule names this client\n\n");
                continue;
            };
            out.push_str(&list("  gets", &decides.options.to_string()));
            let kind = decides.client.kind();
            let why = format!("{} ({kind}) at {}", decides.client, decides.origin);
            out.push_str(&columns::row("  by", INDENT, &why));
            for other in others {
                let first = if other.client.kind() == kind {
                    "stands first".into()
                } else {
                    format!("{kind} is closer")
                };
                let text = format!("{} ({}) at {}: {first}", other.client, other.client.kind(), other.origin);
                out.push_str(&columns::row("  not by", INDENT, &text));
            }
            out.push('\n');
        }
    }

    fn json(&self, exports: &[Export]) -> Value {
        let gets = exports.iter().zip(&self.rules).map(|(export, rules)| {
            json!({
                "path": path(export),
                "by": rules.first().map(rule_json),
                "not_by": rules.iter().skip(1).map(rule_json).collect::<Vec<_>>(),
            })
        });
        json!({ "address": self.client, "names": self.names, "gets": gets.collect::<Vec<_>>() })
    }
}

fn write_export(out: &mut String, export: &Export) {
    let _ = writeln!(out, "{}", path(export));
    for rule in &export.rules {
        out.push_str(&list(&format!("  {}", rule.client), &rule.options.to_string()));
    }
    out.push('\n');
}

fn path(export: &Export) -> String {
    let memory = if export.storage == Storage::Memory { "memory:" } else { "" };
    format!("{memory}{}", export.path.display())
}

/// A comma-separated list beside its head, with lines broken after commas.
pub(crate) fn list(head: &str, options: &str) -> String {
    let row = columns::row(head, INDENT, &options.replace(',', ", "));
    let mut lines = row.lines().map(|line| match line.get(INDENT..) {
        Some(text) if line.chars().count() == line.len() => {
            line[..INDENT].to_owned() + &text.replace(", ", ",")
        }
        _ => line.to_owned(),
    });
    lines.by_ref().fold(String::new(), |out, line| out + &line + "\n")
}

fn write_finding(out: &mut String, level: Level, origin: &Origin, text: &str, remedy: Option<&str>) {
    out.push_str(&columns::row(&format!("{}:", name(level)), 9, &format!("{origin}: {text}")));
    if let Some(remedy) = remedy {
        out.push_str(&columns::row("", 9, &format!("-> {remedy}")));
    }
    out.push('\n');
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "note",
    }
}

fn place_json(origin: &Origin) -> (Option<String>, Option<usize>) {
    match origin {
        Origin::File(file, line) => {
            (Some(file.to_string_lossy().into()), Some(*line).filter(|line| *line > 0))
        }
        Origin::Argument(_) => (None, None),
    }
}

fn finding_json(level: Level, origin: &Origin, text: &dyn ToString, remedy: Option<&str>) -> Value {
    let (file, line) = place_json(origin);
    json!({ "level": name(level), "file": file, "line": line, "text": text.to_string(), "remedy": remedy })
}

fn export_json(export: &Export) -> Value {
    let clients: Vec<Value> = export.rules.iter().map(rule_json).collect();
    json!({ "path": path(export), "clients": clients })
}

fn rule_json(rule: &Rule) -> Value {
    let (file, line) = place_json(&rule.origin);
    json!({
        "client": rule.client.to_string(),
        "kind": rule.client.kind().to_string(),
        "options": rule.options.to_string(),
        "file": file,
        "line": line,
    })
}

fn options_text(rows: &[OptionRow]) -> String {
    let having = |wanted: &str| {
        let rows = rows.iter().filter(|row| status(row).0 == wanted);
        rows.map(option_text).collect::<String>()
    };
    format!(
        "Implemented:\n{}\nAccepted without effect:\n{}\nRefused:\n{}",
        having("implemented"),
        having("no effect"),
        having("refused")
    )
}

fn option_text(row: &OptionRow) -> String {
    let default = match row.default {
        "yes" => " (default)".to_owned(),
        "no" => String::new(),
        value => format!(" (default: {value})"),
    };
    let reason = status(row).1.map(|reason| format!(" {}.", capitalised(&reason))).unwrap_or_default();
    let meaning = row.meaning.trim_end_matches('.');
    columns::row(&format!("  {}", row.usage()), 30, &format!("{meaning}{default}.{reason}"))
}

/// Its name, and the reason unless it is implemented.
fn status(row: &OptionRow) -> (&'static str, Option<String>) {
    match row.status {
        Status::Implemented(_) => ("implemented", None),
        Status::NoEffect(reason) => ("no effect", Some(reason.into())),
        Status::Refused { reason, instead } => ("refused", Some(format!("{reason}; {instead}"))),
    }
}

pub(crate) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn options_json() -> Value {
    let row = |row: &OptionRow| {
        let (status, reason) = status(row);
        json!({
            "name": row.name,
            "usage": row.usage(),
            "default": row.default,
            "meaning": row.meaning,
            "status": status,
            "reason": reason,
        })
    };
    OPTIONS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use remoor_server::names::Pending;

    use super::*;

    /// One host, `web.example.org`, at 192.0.2.7.
    struct OneHost;

    impl Names for OneHost {
        fn names_of(&self, client: IpAddr) -> Result<Arc<[String]>, Pending> {
            let its = client == IpAddr::from([192, 0, 2, 7]);
            Ok(if its { Arc::new(["web.example.org".into()]) } else { Arc::new([]) })
        }
        fn addresses_of(&self, host: &Arc<str>) -> Result<Arc<[IpAddr]>, Pending> {
            let its = &**host == "web.example.org";
            Ok(if its { Arc::new([[192, 0, 2, 7].into()]) } else { Arc::new([]) })
        }
        fn is_member(&self, _: &Arc<str>, _: IpAddr) -> Result<bool, Pending> {
            Ok(false)
        }
    }

    fn report(text: &str, client: Option<&str>) -> Report {
        let parsed = Parsed::from_text(Path::new("/etc/exports"), text.as_bytes());
        Report::new(parsed, client.map(|client| client.parse().unwrap()), &OneHost)
    }

    fn code(result: Result<(), Failure>) -> u8 {
        match result {
            Ok(()) => 0,
            Err(Failure::Case) => 1,
            Err(Failure::Usage(_)) => 2,
            Err(Failure::Cannot(_)) => 3,
            Err(Failure::Exit(code, _)) => code,
        }
    }

    const GOOD: &str = "memory:/a web.example.org(rw,no_subtree_check) *(ro,no_subtree_check)\n";

    #[test]
    fn effective_options_are_listed_and_lines_are_short() {
        let text = report(GOOD, None).text();
        let expected = "memory:/a
  web.example.org     rw,sync,secure,root_squash,no_all_squash,no_subtree_check,anonuid=65534,
                      anongid=65534
  *                   ro,sync,secure,root_squash,no_all_squash,no_subtree_check,anonuid=65534,
                      anongid=65534

1 export for 2 clients: 0 errors, 0 warnings, 0 notes
";
        assert_eq!(text, expected);
        let long =
            report("memory:/a *.a-very-long-name.example.org(rw,insecure,wdelay) h(rwx)\n/b\n", None).text();
        for line in long.lines() {
            assert!(line.chars().count() <= columns::WIDTH, "{line}");
        }
    }

    #[test]
    fn findings_have_a_place_a_text_and_a_remedy() {
        let text = report("memory:/a web(ro,no_subtree_check)\nmemory:/b *(rww,roo)\nx *\n", None).text();
        assert!(
            text.contains("error:   /etc/exports:2: unknown option \"rww\"; did you mean \"rw\"?\n"),
            "{text}"
        );
        assert!(text.contains("error:   /etc/exports:2: unknown option \"roo\""), "{text}");
        assert!(text.contains("error:   /etc/exports:3: \"x\" is not an absolute path"), "{text}");
        assert!(text.contains("warning: /etc/exports:1: host name web does not resolve"), "{text}");
        assert!(text.contains("\n         -> correct the name"), "{text}");
        assert!(text.ends_with("1 export for 1 client: 3 errors, 1 warning, 0 notes\n"), "{text}");
    }

    #[test]
    fn codes_are_the_documented_ones() {
        let codes = |text| [false, true].map(|strict| code(report(text, None).verdict(strict)));
        assert_eq!(codes(GOOD), [0, 0]);
        assert_eq!(codes("memory:/a *(no_subtree_check,wdelay)"), [0, 0], "a note is no warning");
        assert_eq!(codes("memory:/a *"), [0, 1]);
        assert_eq!(codes("memory:/a *(rww)"), [2, 2]);
        assert_eq!(codes("/no/such/directory *(no_subtree_check)"), [2, 2]);
    }

    #[test]
    fn a_client_is_told_what_it_gets_and_why() {
        let text = format!("{}memory:/b 192.0.2.9(no_subtree_check)", GOOD);
        let text = report(&text, Some("192.0.2.7")).text();
        for expected in [
            "Client 192.0.2.7 (web.example.org)\n\nmemory:/a\n  gets                rw,sync,",
            "\n  by                  web.example.org (host) at /etc/exports:1\n",
            "\n  not by              * (everybody) at /etc/exports:1: host is closer\n",
            "memory:/b\n  nothing: no rule names this client\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let other = report(GOOD, Some("::ffff:192.0.2.8")).text();
        assert!(other.contains("Client 192.0.2.8 (no confirmed name)"), "{other}");
        let networks = "memory:/a 192.0.2.0/24(no_subtree_check) 192.0.2.0/28(no_subtree_check)";
        assert!(
            report(networks, Some("192.0.2.7"))
                .text()
                .contains("192.0.2.0/28 (network) at /etc/exports:1: stands")
        );
    }

    #[test]
    fn json_says_the_same() {
        let json = report(&format!("{GOOD}memory:/b *(rww)"), Some("192.0.2.7")).json();
        assert_eq!(json["exports"][0]["path"], "memory:/a");
        assert_eq!(json["exports"][0]["clients"][0]["kind"], "host");
        assert_eq!(
            (&json["findings"][0]["level"], &json["findings"][0]["line"]),
            (&json!("error"), &json!(2))
        );
        assert_eq!(json["client"]["gets"][0]["by"]["client"], "web.example.org");
        assert_eq!(json["client"]["gets"][0]["not_by"][0]["client"], "*");
        assert!(report(GOOD, None).json().get("client").is_none());
    }

    #[test]
    fn every_option_is_in_the_table_with_its_status() {
        let text = options_text(OPTIONS);
        for row in OPTIONS {
            assert!(text.contains(&format!("\n  {}", row.usage())), "{}", row.name);
        }
        let (_, refused) = text.split_once("Refused:").unwrap();
        assert!(refused.contains("  crossmnt") && !refused.contains("  no_root_squash"));
        assert!(text.lines().all(|line| line.chars().count() <= columns::WIDTH));
        assert_eq!(options_json().as_array().unwrap().len(), OPTIONS.len());
    }
}
