//! `remoor ls`: a server's directories.

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;

use clap::ArgAction;
use jiff::tz::TimeZone;

use super::cat::Output;
use super::list::{MAX_SORTED, Style};
use super::name::Names;
use super::server::Object;
use super::session::{Session, run as run_session};
use super::url::Url;
use super::{Connection, EXIT_CODES};
use crate::Failure;

/// List a server's directories, without a mount.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, after_long_help = format!("{HELP}\n\n{EXIT_CODES}\n\n{EXAMPLES}"))]
pub(crate) struct Args {
    /// Directories to list, and files to show
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,
    /// Type and permissions, links, owner and group (the server's numbers), size, time of change, name
    #[arg(short, long)]
    long: bool,
    /// Names that begin with a dot, too (but not . and ..)
    #[arg(short, long)]
    all: bool,
    /// All directories in them, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Sizes in K, M, G of 1024
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// As the server sends them: nothing is kept, however many there are
    #[arg(short = 'U', long)]
    unsorted: bool,
    /// Print JSON, one object a line; url is exact where a name is not text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
    /// Print help
    #[arg(long, action = ArgAction::HelpLong)]
    help: Option<bool>,
}

const HELP: &str = "\
Names are sorted by their bytes. Of a directory with more than 262144 entries the first that the
server sends are sorted, and the others follow as they come, which is said. On a terminal, control
characters and bytes that are no text are shown escaped (\\n, \\xff); a program gets names as they
are.";

const EXAMPLES: &str = "\
Examples:
  remoor ls nfs://fs1/srv/data
  remoor ls -lh nfs://fs1/srv/data/photos
  remoor ls -R --json nfs://fs1/srv/data?noresvport";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let urls = args.connection.urls(&args.urls)?;
    let style = Style {
        long: args.long,
        all: args.all,
        human: args.human_readable,
        json: args.json,
        unsorted: args.unsorted,
        recursive: args.recursive,
        names: Names::of_stdout(),
        zone: TimeZone::system(),
    };
    let heads = !args.json && (args.recursive || urls.len() > 1);
    run_session(args.connection.patience(), async move |session: Arc<Session>| {
        let mut lister = Lister { session: &session, style, heads, first: true };
        for url in &urls {
            match lister.list(url).await {
                Ok(()) | Err(Stop::Told) => {}
                Err(Stop::Closed) => return Ok(()),
                Err(Stop::Cannot(failure)) => return Err(failure),
            }
        }
        Ok(())
    })
}

/// Why a listing ended early.
enum Stop {
    /// It was told.
    Told,
    /// Nobody reads on.
    Closed,
    /// The command ends.
    Cannot(Failure),
}

struct Lister<'a> {
    session: &'a Session,
    style: Style,
    /// Directories are told apart by a line before each.
    heads: bool,
    first: bool,
}

impl Lister<'_> {
    async fn list(&mut self, url: &Url) -> Result<(), Stop> {
        // As ls(1): a link is followed unless it is the link that is asked about.
        let found = self.session.find(url, !self.style.long).await;
        let object = found.map_err(|failure| match failure {
            Failure::Case => Stop::Told,
            failure => Stop::Cannot(failure),
        })?;
        if !object.is_dir() {
            return self.outcome(self.file(&object).await).map(drop);
        }
        let mut waiting = vec![object];
        while let Some(dir) = waiting.pop() {
            match self.directory(&dir).await {
                Ok(directories) => {
                    for name in directories.iter().rev() {
                        match dir.lookup(name).await {
                            Ok(found) => waiting.push(found),
                            Err(error) => drop(self.session.fail(&error)),
                        }
                    }
                }
                Err(Stop::Told) => {}
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    async fn file(&self, object: &Object) -> Result<(), Output> {
        let name = object.url.path_bytes();
        let line = self.style.shown(object, &name).await?;
        Output::written(io::stdout().write_all(&line))
    }

    /// Lists one directory; returns those in it that are to be listed.
    async fn directory(&mut self, dir: &Object) -> Result<Vec<Vec<u8>>, Stop> {
        if self.heads {
            let blank: &[u8] = if self.first { b"" } else { b"\n" };
            let head = [blank, &self.style.names.shown(&dir.url.path_bytes()), b":\n"].concat();
            self.outcome(Output::written(io::stdout().write_all(&head)))?;
        }
        self.first = false;
        let listed = self.outcome(self.style.list(dir).await)?;
        if listed.partly_sorted {
            self.session.progress.say(&format!(
                "{} has more than {MAX_SORTED} entries; those beyond follow as the server sends them",
                dir.url
            ));
        }
        Ok(listed.directories)
    }

    fn outcome<T>(&self, outcome: Result<T, Output>) -> Result<T, Stop> {
        outcome.map_err(|output| match output {
            Output::Closed => Stop::Closed,
            Output::Failed(error) => {
                self.session.fail(&error);
                Stop::Told
            }
        })
    }
}
