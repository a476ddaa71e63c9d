//! `remoor cp`: copies between here and servers.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use remoor_nfs::v3::{FileType, NfsStat};

use super::copy::How;
use super::folder::Folder;
use super::item::Item;
use super::name::escaped;
use super::server::{Object, status};
use super::session::{Session, run as run_session};
use super::tree::Copier;
use super::url::{Url, is_url};
use super::{Connection, EXIT_CODES, Writing, umask};
use crate::Failure;

/// Copy files between here and servers, or from server to server, without a mount.
///
/// A copy appears under its name when it is whole and on the server's stable storage: until then it has a temporary name,
/// .remoor-*.part, which is removed on failure and on Ctrl-C. If the server goes away meanwhile, the copy goes on where
/// it was once the server is back.
#[derive(Debug, clap::Args)]
#[command(override_usage = "remoor cp [OPTIONS] SOURCE... DEST", after_long_help = format!("{HELP}\n\n{EXIT_CODES}\n\n{EXAMPLES}"))]
pub(crate) struct Args {
    /// What to copy, and last where to: nfs:// URLs and local paths
    #[arg(value_name = "PATH", num_args = 2.., required = true)]
    paths: Vec<OsString>,
    /// Copy directories with all that is in them, and symbolic links as links
    #[arg(short, long)]
    recursive: bool,
    /// Keep permissions and times
    #[arg(short, long)]
    preserve: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    connection: Connection,
}

const HELP: &str = "\
Several sources, or one and an existing directory, are copied into the directory. A file that exists
is replaced and its permissions are kept; with -p they are the source's. Set-uid and set-gid bits
and owners are not copied; hard links become files of their own. Holes of 64 KiB and more are kept.
Without -r a symbolic link named on the command line is followed. Devices, sockets and named pipes
are left out, with exit code 1.

--verify reads every file back from where it was written before it gets its name and compares
checksums. What the server answers may come from its memory, not from its disk.";

const EXAMPLES: &str = "\
Examples:
  remoor cp report.pdf nfs://fs1/srv/data/
  remoor cp -rp nfs://fs1/srv/data/photos .
  remoor cp -r --verify a b \"nfs://fs1:20049/srv/data?resvport&rebind=fresh\"
  remoor cp nfs://fs1/srv/data/a nfs://fs2/srv/data/b";

/// A place on the command line.
enum Place {
    Local(PathBuf),
    Remote(Url),
}

impl Args {
    fn how(&self) -> How {
        let Writing { inplace, verify } = self.writing;
        How { preserve: self.preserve, inplace, verify, umask: umask() }
    }

    /// Sources and destination.
    fn places(&self) -> Result<(Vec<Place>, Place), Failure> {
        let place = |text: &OsString| match is_url(text) {
            true => self.connection.url(text).map(Place::Remote),
            false => Ok(Place::Local(PathBuf::from(text))),
        };
        let mut places = self.paths.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        if places.iter().all(|place| matches!(place, Place::Local(_))) {
            return Err(Failure::Usage(anyhow!(
                "no nfs:// URL among what to copy; cp of coreutils copies local files"
            )));
        }
        let dest = places.pop().ok_or_else(|| Failure::Usage(anyhow!("name what to copy, and where to")))?;
        Ok((places, dest))
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let ((sources, dest), how) = (args.places()?, args.how());
    let recursive = args.recursive;
    run_session(args.connection.patience(), async move |session: Arc<Session>| {
        let target = Target::find(&session, &dest, sources.len()).await?;
        let mut copier = Copier::new(session.clone(), how);
        for source in sources {
            // What failed is told; the others are copied.
            if let Ok(item) = source_item(&session, &source, recursive).await? {
                copy_one(&session, &mut copier, item, &target, recursive).await;
            }
        }
        Ok(())
    })
}

async fn copy_one(session: &Session, copier: &mut Copier, item: Item, target: &Target, recursive: bool) {
    if item.kind() == FileType::Directory && !recursive {
        session.fail(&anyhow!("{} is a directory; copy it with -r", item.shown()));
        return;
    }
    let name = target.name.clone().or_else(|| item.name());
    match name {
        Some(name) => copier.copy(item, &target.folder, &name).await,
        None => {
            session.fail(&anyhow!("{} has no name; name the destination's, too", item.shown()));
        }
    }
}

/// The source, or that what is wrong with it was told. An unreachable server ends the command.
async fn source_item(
    session: &Session,
    source: &Place,
    recursive: bool,
) -> Result<Result<Item, ()>, Failure> {
    match source {
        Place::Local(path) => Ok(Item::local(path, !recursive).map_err(|error| drop(session.fail(&error)))),
        Place::Remote(url) => match session.find(url, !recursive).await {
            Ok(object) => Ok(Ok(Item::Remote(object))),
            Err(Failure::Case) => Ok(Err(())),
            Err(failure) => Err(failure),
        },
    }
}

/// Where copies go, and under which name; `None` stands for the sources' own.
pub(super) struct Target {
    pub(super) folder: Folder,
    pub(super) name: Option<Vec<u8>>,
}

impl Target {
    async fn find(session: &Session, dest: &Place, sources: usize) -> Result<Self, Failure> {
        let target = match dest {
            Place::Remote(url) => Self::remote(session, url).await?,
            Place::Local(path) => Self::local(path),
        };
        if sources > 1 && target.name.is_some() {
            return Err(Failure::Usage(anyhow!(
                "{} is not a directory; several sources are copied into one",
                dest.shown()
            )));
        }
        if target.name.is_some() && dest.ends_with_slash() {
            let error =
                anyhow!("{} is not a directory; write it without the / at its end, or make it", dest.shown());
            return Err(session.fail(&error));
        }
        Ok(target)
    }

    /// The directory `url`, or the name `url` in the directory above it.
    pub(super) async fn remote(session: &Session, url: &Url) -> Result<Self, Failure> {
        let export = session.export(url).await.map_err(Failure::Cannot)?;
        let told = |error: &anyhow::Error| session.fail(error);
        // Whether it is a directory is asked here; what it must be is asked above.
        let plain = url.at(&url.path);
        match Object::find(&export, &plain, true).await {
            Ok(found) if found.is_dir() => return Ok(Self { folder: Folder::Remote(found), name: None }),
            Ok(_) => {}
            Err(error) if status(&error) == Some(NfsStat::NoEnt) => {}
            Err(error) => return Err(told(&error)),
        }
        let (Some((name, above)), true) = (url.path.split_last(), url.path.len() > export.path.len()) else {
            return Err(told(&anyhow!("{url} is not a directory but is exported; name a file in it")));
        };
        let dir = Object::find(&export, &url.at(above), true).await.map_err(|error| told(&error))?;
        Ok(Self { folder: Folder::Remote(dir), name: Some(name.clone()) })
    }

    fn local(path: &Path) -> Self {
        match (path.is_dir(), path.file_name()) {
            (false, Some(name)) => {
                let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
                Self { folder: Folder::Local(dir.to_owned()), name: Some(name.as_bytes().to_vec()) }
            }
            _ => Self { folder: Folder::Local(path.to_owned()), name: None },
        }
    }
}

impl Place {
    fn shown(&self) -> String {
        match self {
            Self::Local(path) => escaped(path.as_os_str().as_bytes()),
            Self::Remote(url) => url.to_string(),
        }
    }

    fn ends_with_slash(&self) -> bool {
        match self {
            Self::Local(path) => OsStr::as_bytes(path.as_os_str()).ends_with(b"/"),
            Self::Remote(url) => url.directory,
        }
    }
}
