//! `remoor cat`: files to standard output.

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use remoor_nfs::v3::FileType;

use super::read::Chunks;
use super::server::Object;
use super::session::{Session, run as run_session};
use super::{Connection, EXIT_CODES};
use crate::Failure;

/// Write a server's files to standard output, without a mount.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("{EXIT_CODES}\n\n{EXAMPLES}"))]
pub(crate) struct Args {
    /// Files to write, one after another
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,
    /// First byte of each file to write
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    offset: u64,
    /// Write at most this many bytes of each file
    #[arg(long, value_name = "BYTES")]
    length: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

const EXAMPLES: &str = "\
Examples:
  remoor cat nfs://fs1/srv/data/notes.txt
  remoor cat --offset 1000000 --length 4096 nfs://fs1/srv/data/disk.img";

/// Why the output of a command ends.
pub(super) enum Output {
    /// Nobody reads it any more.
    Closed,
    Failed(anyhow::Error),
}

impl Output {
    /// What writing to standard output came to.
    pub(super) fn written(outcome: io::Result<()>) -> Result<(), Self> {
        match outcome {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Self::Closed),
            Err(e) => Err(Self::Failed(anyhow!(e).context("cannot write to standard output"))),
        }
    }
}

impl From<anyhow::Error> for Output {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let urls = args.connection.urls(&args.urls)?;
    let (offset, length) = (args.offset, args.length);
    run_session(args.connection.patience(), async move |session: Arc<Session>| {
        for url in &urls {
            let file = match session.find(url, true).await {
                Ok(file) => file,
                Err(Failure::Case) => continue,
                Err(failure) => return Err(failure),
            };
            match copy_out(&file, offset, length).await {
                Ok(()) => {}
                Err(Output::Closed) => return Ok(()),
                Err(Output::Failed(error)) => drop(session.fail(&error)),
            }
        }
        Ok(())
    })
}

async fn copy_out(file: &Object, offset: u64, length: Option<u64>) -> Result<(), Output> {
    if file.attr.kind != FileType::Regular {
        return Err(Output::Failed(anyhow!("{} is not a regular file; cat shows no others", file.url)));
    }
    let mut chunks = Chunks::remote(file, offset, length);
    let mut out = io::stdout();
    while let Some(chunk) = chunks.next().await? {
        // The chunk is kept by reference: writing it must not hold up the reads that are under way.
        let written = tokio::task::spawn_blocking(move || io::stdout().write_all(&chunk)).await;
        Output::written(written.context("a write was given up")?)?;
    }
    Output::written(out.flush())
}
