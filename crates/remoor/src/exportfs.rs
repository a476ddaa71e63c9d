//! `remoor exportfs`: exportfs(8) for a running `remoor serve`.

use std::io::Write as _;

use anyhow::anyhow;
use remoor_server::control::{Answer, Request};
use remoor_server::{Changes, Listed, Reload};

use crate::control::{Target, print, print_json, unexpected};
use crate::{Failure, columns};

/// Longest path that its client follows on the same line, as in exportfs(8).
const PATH_WIDTH: usize = 14;

/// Change and list what a running server exports, as exportfs(8) does.
///
/// Without options it lists what is exported. A change is made as a whole or, if a file has an error, not at all: the
/// message says which line. Clients that stay keep working; one whose export is gone gets an error at its next call.
/// What is exported by hand lasts until the server ends or `-r`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// Export all that is configured; what else is exported stays. With -u: unexport all
    #[arg(short)]
    all: bool,
    /// Export exactly what is configured: unexport what has gone from the files and what was exported by hand
    #[arg(short, conflicts_with_all = ["unexport", "options", "list", "places"])]
    reexport: bool,
    /// Unexport
    #[arg(short, conflicts_with_all = ["options", "list"])]
    unexport: bool,
    /// Options of exports(5) for what is exported by hand; where the same is configured, they change its options
    #[arg(short = 'o', value_name = "OPTIONS", requires = "places", conflicts_with = "all")]
    options: Option<String>,
    /// List options too; tell what a change did
    #[arg(short)]
    verbose: bool,
    /// List in the form of exports(5)
    #[arg(short = 's', conflicts_with = "all")]
    list: bool,
    /// Print the list, or what changed, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
    /// What to export or unexport by hand: `192.0.2.0/24:/srv`, `[2001:db8::]/32:/srv`, `:/srv` for everybody
    #[arg(value_name = "CLIENT:PATH", conflicts_with_all = ["all", "list"])]
    places: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  remoor exportfs -v                                # what is exported, with all options
  remoor exportfs -ra                               # the files have changed
  remoor exportfs -o rw,insecure 192.0.2.0/24:/srv  # one more, until -r or a restart
  remoor exportfs -u 192.0.2.0/24:/srv
  remoor exportfs -s                                # in the form of exports(5)

What is configured is what the server was started with: its --exports files, which are read again,
and its --export arguments. Differences from exportfs(8): there is no -i and no -f, and -v lists
every option that this server has.

Exit codes: 0 done; 2 the command line, an option or a file is wrong, and nothing has changed;
3 no server answers, or it refuses.";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let requests = args.requests()?;
    if requests.is_empty() {
        return args.show();
    }
    let mut all = Changes::default();
    for request in &requests {
        match args.target.ask(request)? {
            Answer::Changes(changes) => {
                args.tell(&changes)?;
                all.exported.extend(changes.exported);
                all.unexported.extend(changes.unexported);
                all.warnings.extend(changes.warnings);
                all.unchanged = changes.unchanged;
            }
            other => return Err(unexpected(&other)),
        }
    }
    if args.json { print_json(&all) } else { Ok(()) }
}

impl Args {
    /// The changes that are asked for; none if the table is to be listed.
    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let one = |request| Ok(vec![request]);
        let export = |place: &String| Request::Export {
            place: place.clone(),
            options: self.options.clone().unwrap_or_default(),
        };
        let unexport = |place: &String| Request::Unexport { place: place.clone() };
        match (self.reexport, self.unexport, self.all, self.places.is_empty()) {
            (true, ..) => one(Request::Reload { how: Reload::Exactly }),
            (_, true, true, _) => one(Request::UnexportAll),
            (_, true, false, true) => {
                Err(Failure::Usage(anyhow!("-u needs CLIENT:PATH, or -a for all that is exported")))
            }
            (_, true, ..) => Ok(self.places.iter().map(unexport).collect()),
            (_, _, true, _) => one(Request::Reload { how: Reload::Add }),
            _ => Ok(self.places.iter().map(export).collect()),
        }
    }

    fn show(&self) -> Result<(), Failure> {
        let list = match self.target.ask(&Request::Exports)? {
            Answer::Exports(list) => list,
            other => return Err(unexpected(&other)),
        };
        if self.json {
            return print_json(&list);
        }
        let line = |line: &Listed| if self.list { as_file(line) } else { listed(line, self.verbose) };
        print(&list.iter().map(line).collect::<String>())
    }

    fn tell(&self, changes: &Changes) -> Result<(), Failure> {
        for warning in &changes.warnings {
            // Nobody may be reading it, and the change is made.
            let _ = writeln!(std::io::stderr(), "remoor: warning: {warning}");
        }
        if self.json || !self.verbose {
            return Ok(());
        }
        let lines = |word: &str, list: &[Listed]| {
            list.iter().map(|line| format!("{word} {}:{}\n", line.client, line.path)).collect::<String>()
        };
        print(&(lines("unexporting", &changes.unexported) + &lines("exporting", &changes.exported)))
    }
}

/// As exportfs(8) lists it: a long path has its own line.
fn listed(line: &Listed, verbose: bool) -> String {
    let client = if line.client == "*" { "<world>" } else { &line.client };
    let options = if verbose { format!("({})", line.options) } else { String::new() };
    let path = columns::plain(&line.path);
    if path.len() > PATH_WIDTH {
        format!("{path}\n\t\t{client}{options}\n")
    } else {
        format!("{path:<15}\t{client}{options}\n")
    }
}

fn as_file(line: &Listed) -> String {
    format!("{} {}\n", word(&line.path), word(&format!("{}({})", line.client, line.options)))
}

/// As exportfs(8) writes it: what would end a word or mean something in exports(5) as octal escapes.
fn word(text: &str) -> String {
    let plain =
        |byte: u8| !(byte.is_ascii_whitespace() || byte.is_ascii_control() || b"#\"\\".contains(&byte));
    let escaped = |c: char| match u8::try_from(c) {
        Ok(byte) if !plain(byte) => format!("\\{byte:03o}"),
        _ => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use remoor_server::exports::Exports;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn requests(line: &str) -> Result<Vec<Request>, String> {
        let words = ["exportfs"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|e| e.to_string())?;
        match cli.args.requests() {
            Ok(requests) => Ok(requests),
            Err(Failure::Usage(e) | Failure::Cannot(e) | Failure::Exit(_, e)) => Err(e.to_string()),
            Err(Failure::Case) => Err("case".to_owned()),
        }
    }

    #[test]
    fn options_mean_what_they_mean_to_exportfs() {
        let (exact, add) = (Request::Reload { how: Reload::Exactly }, Request::Reload { how: Reload::Add });
        for (line, wanted) in [("-ra", &exact), ("-r", &exact), ("-arv", &exact), ("-a", &add)] {
            assert_eq!(requests(line).as_deref(), Ok(&[wanted.clone()][..]), "{line}");
        }
        assert_eq!(requests("-ua"), Ok(vec![Request::UnexportAll]));
        let place = || "192.0.2.1:/a".to_owned();
        assert_eq!(requests("-u 192.0.2.1:/a"), Ok(vec![Request::Unexport { place: place() }]));
        let export = |options: &str| Request::Export { place: place(), options: options.into() };
        assert_eq!(requests("-o rw,async 192.0.2.1:/a"), Ok(vec![export("rw,async")]));
        assert_eq!(requests("192.0.2.1:/a 192.0.2.1:/a"), Ok(vec![export(""), export("")]));
        for listing in ["", "-v", "-s"] {
            assert_eq!(requests(listing), Ok(vec![]), "{listing}");
        }
        for wrong in ["-u", "-ru *:/a", "-o rw", "-ao rw *:/a", "-r *:/a", "-as"] {
            assert!(requests(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_look_like_those_of_exportfs() {
        let line = |path: &str| Listed {
            path: path.into(),
            client: "*".into(),
            options: "rw,sync".into(),
            origin: String::new(),
        };
        assert_eq!(listed(&line("/srv"), true), "/srv           \t<world>(rw,sync)\n");
        assert_eq!(listed(&line("/srv/a/long/one"), false), "/srv/a/long/one\n\t\t<world>\n");
        assert_eq!(as_file(&line("/a b")), "/a\\040b *(rw,sync)\n");
        for path in ["/a \"b\"#c", "/a\\040b", "/a\nb\tc", "/é"] {
            let text = as_file(&line(path));
            let read = Exports::parse(Path::new("x"), text.as_bytes()).unwrap();
            assert_eq!((read.list.len(), &*read.list[0].path), (1, Path::new(path)), "{text}");
        }
    }
}
