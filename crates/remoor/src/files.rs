//! `remoor ls`, `cat`, `cp`, `put`, `rm` and `stat`: a server's files without a mount. One file per command.

pub(crate) mod cat;
mod copy;
pub(crate) mod cp;
mod dir;
mod folder;
mod item;
mod list;
pub(crate) mod ls;
mod mnt;
mod name;
mod progress;
pub(crate) mod put;
mod read;
pub(crate) mod rm;
mod server;
mod session;
mod show;
mod sink;
pub(crate) mod stat;
mod temporary;
mod tree;
mod url;
mod write;

use std::ffi::OsStr;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask as set_umask;

use self::url::Url;
use crate::Failure;

/// How a server is reached.
#[derive(Debug, clap::Args)]
struct Connection {
    /// Options of the connection as for a mount, such as noresvport,timeo=50; a URL's own override them. Without resvport
    /// or noresvport the source port is reserved if this process may have one
    #[arg(short = 'o', long, value_name = "OPTIONS", default_value = "", hide_default_value = true)]
    options: String,
    /// How long to try to reach a server at first; after that, hard (the default) waits as long as it takes
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    connect_timeout: u32,
}

/// How files are written.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Writing {
    /// Write over the file that is there; readers see it half written, and it stays so on failure
    #[arg(long)]
    inplace: bool,
    /// Read back what was written, and compare checksums
    #[arg(long)]
    verify: bool,
}

/// Exit codes of the commands.
const EXIT_CODES: &str = "\
A URL is nfs://SERVER[:PORT]/EXPORT/PATH[?OPTION&OPTION...]. Write %3F for ?, %25 for % and %XX for
any other byte. Which part is the export is asked of the server. MOUNT is looked for on the port of
NFS, then where the portmapper says; ?mountport=PORT names it. Only NFS version 3 over TCP is there.

Exit codes:
  0    done
  1    something named could not be found, read or written; the rest is done
  2    the command line, an option or a URL is wrong
  3    it could not run here: the server cannot be reached or does not export the path
  130  ended by Ctrl-C (128 and the signal's number); no temporary file is left";

impl Connection {
    fn url(&self, text: &OsStr) -> Result<Url, Failure> {
        Url::parse(text, &self.options).map_err(Failure::usage)
    }

    fn urls(&self, texts: &[std::ffi::OsString]) -> Result<Vec<Url>, Failure> {
        texts.iter().map(|text| self.url(text)).collect()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.connect_timeout))
    }
}

/// The permission bits that new files of this process do not get.
fn umask() -> u32 {
    // It can only be read by setting it; no other thread runs yet.
    let mask = set_umask(Mode::empty());
    set_umask(mask);
    mask.as_raw_mode()
}
