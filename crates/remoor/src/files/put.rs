//! `remoor put`: writes a server's file from standard input or a local file.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use remoor_nfs::v3::{FileType, Time};

use super::copy::{Content, How, copy};
use super::cp::Target;
use super::item::{Attrs, Item};
use super::name::escaped;
use super::read::Chunks;
use super::session::{Session, run as run_session};
use super::{Connection, EXIT_CODES, Writing, umask};
use crate::Failure;

/// Write a server's file from standard input or from a local file, without a mount.
///
/// The file appears under its name when standard input has ended and everything is on the server's stable storage.
#[derive(Debug, clap::Args)]
#[command(override_usage = "remoor put [OPTIONS] [FILE] URL", after_long_help = format!("{EXIT_CODES}\n\n{EXAMPLES}"))]
pub(crate) struct Args {
    /// Local file [default: standard input], then the URL of the file to write
    #[arg(value_name = "PATH", num_args = 1..=2, required = true)]
    paths: Vec<OsString>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

const EXAMPLES: &str = "\
Examples:
  remoor put nfs://fs1/srv/data/dump.sql
  remoor put access.log nfs://fs1/srv/logs/access.log
  remoor put --inplace - nfs://fs1/srv/data/counter";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (url, source) =
        args.paths.split_last().ok_or_else(|| Failure::Usage(anyhow!("name the file to write")))?;
    let url = args.connection.url(url)?;
    let source = source.first().filter(|source| *source != "-").cloned();
    let Writing { inplace, verify } = args.writing;
    let how = How { preserve: false, inplace, verify, umask: umask() };
    run_session(args.connection.patience(), async move |session: Arc<Session>| {
        let target = Target::remote(&session, &url).await?;
        let name = target.name.clone().or_else(|| file_name(source.as_deref().map(Path::new)));
        let Some(name) = name.filter(|_| target.name.is_some() || !url.directory || source.is_some()) else {
            return Err(Failure::Usage(anyhow!("{url} is a directory; name the file to write in it")));
        };
        let written = match content(&session, source.as_deref().map(Path::new)) {
            Ok(content) => copy(&session, content, &target.folder, &name, &how).await,
            Err(error) => Err(error),
        };
        written.map_err(|error| {
            session.fail(&error.context(format!("cannot write {}", target.folder.shown(&name))))
        })
    })
}

fn file_name(source: Option<&Path>) -> Option<Vec<u8>> {
    Some(source?.file_name()?.as_encoded_bytes().to_vec())
}

/// What is to be written. Only of a regular file the size is known.
fn content(session: &Session, source: Option<&Path>) -> anyhow::Result<Content> {
    let Some(path) = source else { return Ok(stream(Chunks::stream(std::io::stdin(), "standard input"))) };
    let item = Item::local(path, true)?;
    match item {
        Item::Local { meta, .. } if meta.file_type().is_fifo() || meta.file_type().is_char_device() => {
            Ok(stream(Chunks::stream(File::open(path)?, "the file")))
        }
        item if item.kind() == FileType::Regular => {
            session.progress.expect(item.attrs().size);
            Content::of(&item)
        }
        _ => Err(anyhow!("{} cannot be read as a file", escaped(path.as_os_str().as_encoded_bytes()))),
    }
}

fn stream(chunks: Chunks) -> Content {
    let time = Time { seconds: 0, nanos: 0 };
    let attrs = Attrs { mode: 0o666, size: 0, sparse: false, atime: time, mtime: time };
    Content { chunks, attrs, small: false }
}
