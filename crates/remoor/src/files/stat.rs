//! `remoor stat`: everything a server says of an object.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;

use jiff::tz::TimeZone;
use remoor_nfs::v3::FileType;

use super::cat::Output;
use super::name::escaped;
use super::server::Object;
use super::session::{Session, run as run_session};
use super::url::join;
use super::{Connection, EXIT_CODES, show};
use crate::Failure;

/// Show everything a server says of files and directories, without a mount.
///
/// A symbolic link is shown itself. Owners are the server's numbers, times are local.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("{EXIT_CODES}\n\n{EXAMPLES}"))]
pub(crate) struct Args {
    /// What to show
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const EXAMPLES: &str = "\
Examples:
  remoor stat nfs://fs1/srv/data
  remoor stat --json nfs://fs1/srv/data/a nfs://fs1/srv/data/b";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (urls, json) = (args.connection.urls(&args.urls)?, args.json);
    run_session(args.connection.patience(), async move |session: Arc<Session>| {
        for url in &urls {
            let object = match session.find(url, false).await {
                Ok(object) => object,
                Err(Failure::Case) => continue,
                Err(failure) => return Err(failure),
            };
            match shown(&object, json).await {
                Ok(()) => {}
                Err(Output::Closed) => return Ok(()),
                Err(Output::Failed(error)) => drop(session.fail(&error)),
            }
        }
        Ok(())
    })
}

async fn shown(object: &Object, json: bool) -> Result<(), Output> {
    let target = match object.attr.kind {
        FileType::Symlink => Some(object.target().await?),
        _ => None,
    };
    let text = match json {
        true => format!("{}\n", show::json(&object.url, &object.attr, target.as_deref())),
        false => text(object, target.as_deref(), &TimeZone::system()),
    };
    Output::written(io::stdout().write_all(text.as_bytes()))
}

fn text(object: &Object, target: Option<&[u8]>, zone: &TimeZone) -> String {
    let attr = &object.attr;
    let export = format!("{} at {}", escaped(&join(&object.export.path)), object.export.server.asked);
    let arrow = target.map_or(String::new(), |target| format!(" -> {}", escaped(target)));
    let mut rows = vec![
        ("name", escaped(&object.url.path_bytes()) + &arrow),
        ("export", export),
        ("type", show::kind(attr.kind).to_owned()),
        ("mode", format!("{:04o} ({})", attr.mode & 0o7777, show::mode(attr))),
        ("owner", format!("uid {}, gid {}", attr.uid, attr.gid)),
        ("size", format!("{} bytes, {} on disk", attr.size, attr.used)),
        ("links", attr.nlink.to_string()),
        ("fileid", format!("{} of file system {:x}", attr.fileid, attr.fsid)),
    ];
    if matches!(attr.kind, FileType::Block | FileType::Character) {
        rows.push(("device", format!("{}, {}", attr.rdev.major, attr.rdev.minor)));
    }
    rows.push(("accessed", show::exactly(attr.atime, zone)));
    rows.push(("modified", show::exactly(attr.mtime, zone)));
    rows.push(("changed", show::exactly(attr.ctime, zone)));
    let mut text = String::new();
    for (head, value) in rows {
        let _ = writeln!(text, "{head:>8}  {value}");
    }
    text
}
