//! From a URL to an object: connection, export, path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use remoor_client::{Client, Options};
use remoor_nfs::mnt::{self, MountStat};
use remoor_nfs::reconnect::Notice;
use remoor_nfs::v3::{self, DirOp, Fattr, FileHandle, FileType, NfsStat, Res};
use remoor_rpc::net;
use rustix::thread::{CapabilitySet, capabilities};
use tokio::sync::watch;

use super::mnt::Mounter;
use super::name::escaped;
use super::progress::Progress;
use super::url::{ServerName, Url, join};

/// Symbolic links followed on the way to one object, as Linux has it (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Wait for the answer to UMNT, which nobody needs.
const GOODBYE: Duration = Duration::from_secs(1);

/// A server that has answered.
#[derive(Debug)]
pub(crate) struct Server {
    /// As it was asked for.
    pub(crate) asked: Arc<ServerName>,
    pub(crate) client: Client,
    mounter: Mounter,
}

/// An export that was mounted.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) server: Arc<Server>,
    /// Its path.
    pub(crate) path: Vec<Vec<u8>>,
    pub(crate) root: FileHandle,
    /// Most bytes of a READ, and of a WRITE.
    pub(crate) sizes: (u32, u32),
}

/// An object that was found.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) export: Arc<Export>,
    pub(crate) handle: FileHandle,
    pub(crate) attr: Fattr,
    pub(crate) url: Url,
}

/// A refusal, with what was attempted on what.
#[derive(Debug, thiserror::Error)]
#[error("{attempted} {url}: {status}{}", remedy(*status))]
pub(crate) struct Refused {
    attempted: &'static str,
    url: String,
    pub(crate) status: NfsStat,
}

/// What to do about a refusal.
fn remedy(status: NfsStat) -> &'static str {
    match status {
        NfsStat::NoEnt => ": no such file or directory",
        NfsStat::Acces => ": permission denied to this user; the server's root_squash makes root nobody",
        NfsStat::Perm => ": not permitted; a `secure` export needs a reserved port (-o resvport, as root)",
        NfsStat::Exist => ": it exists",
        NfsStat::NotDir => ": not a directory",
        NfsStat::IsDir => ": a directory",
        NfsStat::NotEmpty => ": the directory is not empty",
        NfsStat::NoSpc => ": no space left on the server",
        NfsStat::DQuot => ": the quota on the server is used up",
        NfsStat::RoFs => ": the server exports it read-only",
        NfsStat::Stale => ": it was removed or replaced meanwhile; run the command again",
        NfsStat::NameTooLong => ": the name is too long for the server's file system",
        NfsStat::BadCookie => ": the directory changed while it was listed; run the command again",
        _ => "",
    }
}

/// A procedure's result, or who refused what.
pub(crate) fn checked<T, F>(attempted: &'static str, url: &Url, res: Res<T, F>) -> Result<T> {
    Ok(res.into_result().map_err(|status| Refused { attempted, url: url.to_string(), status })?)
}

/// The status, if `error` is a refusal.
pub(crate) fn status(error: &anyhow::Error) -> Option<NfsStat> {
    error.downcast_ref::<Refused>().map(|refused| refused.status)
}

pub(crate) fn place(dir: &FileHandle, name: &[u8]) -> DirOp {
    DirOp { dir: dir.clone(), name: Bytes::copy_from_slice(name).into() }
}

impl Server {
    /// Connects, to the first address that answers within its share of `patience`.
    pub(crate) async fn connect(
        asked: &Arc<ServerName>,
        patience: Duration,
        progress: &Progress,
    ) -> Result<Self> {
        let mut name = ServerName::clone(asked);
        if !name.range_given {
            name.options.reserved = may_bind_reserved();
        }
        let (client, address) = reach(&name, patience, progress).await?;
        let mounter = Mounter::new(client.clone(), address, name.mount_port, name.options.reserved);
        Ok(Self { asked: asked.clone(), client, mounter })
    }

    /// Mounts the export that `url` is in.
    ///
    /// The export list comes first: MNT of the whole path would follow a symbolic link at its end, and what is to be
    /// listed, copied or removed may be that link. Where the list does not help, MNT is tried with ever shorter paths.
    pub(crate) async fn mount(self: &Arc<Self>, url: &Url) -> Result<Export> {
        let listed = self.exports().await;
        let within = |export: &Vec<Vec<u8>>| url.path.starts_with(export);
        let mut candidates: Vec<Vec<Vec<u8>>> =
            listed.iter().flatten().filter(|export| within(export)).cloned().collect();
        candidates.sort_by_key(|path| std::cmp::Reverse(path.len()));
        candidates.extend((0..=url.path.len()).rev().map(|len| url.path[..len].to_vec()));
        let mut refused = MountStat::NoEnt;
        for path in candidates {
            match self.mnt(&path).await? {
                Ok(root) => return self.mounted(path, root, url).await,
                // A permission is more to the point than that a shorter path is no export.
                Err(status) if refused == MountStat::NoEnt => refused = status,
                Err(_) => {}
            }
        }
        Err(self.not_exported(url, refused, listed.ok()))
    }

    async fn mnt(&self, path: &[Vec<u8>]) -> Result<Result<FileHandle, MountStat>> {
        let path = Bytes::from(join(path));
        let res = self.mounter.call::<mnt::Mnt>(path.into()).await?;
        Ok(res.0.map(|ok| ok.handle))
    }

    /// What the server exports, as components.
    async fn exports(&self) -> Result<Vec<Vec<Vec<u8>>>> {
        let list = self.mounter.call::<mnt::Export>(()).await?;
        let components = |path: &Bytes| {
            let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
            parts.map(<[u8]>::to_vec).collect()
        };
        Ok(list.0.iter().map(|entry| components(&entry.directory.0)).collect())
    }

    async fn mounted(self: &Arc<Self>, path: Vec<Vec<u8>>, root: FileHandle, url: &Url) -> Result<Export> {
        let at = url.at(&path);
        let info = self.client.call::<v3::Fsinfo>(v3::OnFile { file: root.clone() }).await?;
        let info = checked("FSINFO of", &at, info)?;
        if info.rtmax == 0 || info.wtmax == 0 {
            bail!("FSINFO of {at}: the server says that no byte may be read or written at a time");
        }
        let most = |server: u32| server.min(v3::MAX_IO as u32);
        Ok(Export { server: self.clone(), path, root, sizes: (most(info.rtmax), most(info.wtmax)) })
    }

    fn not_exported(&self, url: &Url, status: MountStat, list: Option<Vec<Vec<Vec<u8>>>>) -> anyhow::Error {
        let why = match status {
            MountStat::Acces => {
                "the server does not export it to this address, or the export is secure and the source port is above \
                 1023 (-o resvport as root, or export with insecure)"
            }
            _ => "nothing on its path is exported",
        };
        let list = match list {
            Some(list) if list.is_empty() => "; the server exports nothing".to_owned(),
            Some(list) => {
                let shown: Vec<String> = list.iter().take(8).map(|path| escaped(&join(path))).collect();
                format!("; it exports {}{}", shown.join(", "), if list.len() > 8 { ", …" } else { "" })
            }
            None => String::new(),
        };
        anyhow!("cannot mount {url}: {status}: {why}{list}")
    }

    /// Takes this client from the server's list of mounts, if the server is quick.
    pub(crate) async fn unmount(&self, path: &[Vec<u8>]) {
        let unmount = self.mounter.call::<mnt::Umnt>(Bytes::from(join(path)).into());
        // The list is for people (RFC 1813 section 5.2.3): a server that keeps a stale line does not mind.
        let _ = tokio::time::timeout(GOODBYE, unmount).await;
    }
}

/// Whether this process may leave from a reserved port.
fn may_bind_reserved() -> bool {
    let capable =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_BIND_SERVICE));
    capable || net::unprivileged_port_start() <= remoor_nfs::reconnect::RESERVED_LO
}

/// A client of the first address that proves itself.
async fn reach(name: &ServerName, patience: Duration, progress: &Progress) -> Result<(Client, SocketAddr)> {
    let found = tokio::net::lookup_host((name.host.as_str(), name.port)).await;
    let addresses: Vec<SocketAddr> =
        found.with_context(|| format!("cannot find the address of server {:?}", name.host))?.collect();
    let share = patience / addresses.len().max(1) as u32;
    let mut error = anyhow!("server {:?} has no address", name.host);
    for address in addresses {
        match reach_address(address, &name.options, share, progress).await {
            Ok(client) => return Ok((client, address)),
            Err(e) => error = e,
        }
    }
    Err(error)
}

async fn reach_address(
    address: SocketAddr,
    options: &Options,
    patience: Duration,
    progress: &Progress,
) -> Result<Client> {
    let (heard, mut hear) = watch::channel(None::<Notice>);
    let progress = progress.clone();
    let observer = move |_, notice: &Notice| {
        progress.notice(address, notice);
        heard.send_replace(Some(notice.clone()));
    };
    let client = Client::connect_observed(address, options.clone(), Arc::new(observer))?;
    let mut last = None;
    let proven = async {
        while hear.changed().await.is_ok() {
            last.clone_from(&hear.borrow_and_update());
            if matches!(last, Some(Notice::Mounted { .. })) {
                return;
            }
        }
    };
    match tokio::time::timeout(patience, proven).await {
        Ok(()) if matches!(last, Some(Notice::Mounted { .. })) => Ok(client),
        _ => {
            let last = last.map_or_else(String::new, |notice| format!(" ({notice})"));
            bail!(
                "no answer from {address} in {} s{last}; is the server running? --connect-timeout sets how long to try",
                patience.as_secs_f64()
            )
        }
    }
}

impl Object {
    /// The export's root.
    async fn root(export: &Arc<Export>, url: &Url) -> Result<Self> {
        let (handle, url) = (export.root.clone(), url.at(&export.path));
        let attr = getattr(&export.server.client, &handle, &url).await?;
        Ok(Self { export: export.clone(), handle, attr, url })
    }

    /// Walks to `url` within its export. Symbolic links on the way are followed, one at the end if `follow` is true or the
    /// URL ends with `/`.
    pub(crate) async fn find(export: &Arc<Export>, url: &Url, follow: bool) -> Result<Self> {
        let (root, follow) = (Self::root(export, url).await?, follow || url.directory);
        let mut stack = vec![root];
        let mut left: Vec<Vec<u8>> = url.path[export.path.len()..].iter().rev().cloned().collect();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                stack.truncate((stack.len() - 1).max(1));
                continue;
            }
            let object = stack[stack.len() - 1].lookup(&name).await?;
            if object.attr.kind != FileType::Symlink || (left.is_empty() && !follow) {
                stack.push(object);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                bail!("cannot find {url}: more than {MAX_LINKS} symbolic links on the way");
            }
            let mut target = object.target().await?;
            if target.first() == Some(&b'/') {
                stack.truncate(1);
                target = object.within_export(target)?;
            }
            let parts = target.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
            left.extend(parts.rev().map(<[u8]>::to_vec));
        }
        let found = stack.pop().context("the root stays on the stack")?;
        if url.directory && found.attr.kind != FileType::Directory {
            bail!("{} is not a directory; write it without the / at its end", found.url);
        }
        Ok(found)
    }

    /// An absolute link's text, from the export's root. What it means elsewhere only the server's host knows.
    fn within_export(&self, target: Vec<u8>) -> Result<Vec<u8>> {
        let export = join(&self.export.path);
        let rest =
            if self.export.path.is_empty() { Some(&target[..]) } else { target.strip_prefix(&export[..]) };
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
        rest.map(<[u8]>::to_vec).ok_or_else(|| {
            anyhow!("cannot follow {}: it leads to {}, outside the export", self.url, escaped(&target))
        })
    }

    /// Finds `name` in this directory, without following it.
    pub(crate) async fn lookup(&self, name: &[u8]) -> Result<Self> {
        let url = self.url.child(name);
        let client = &self.export.server.client;
        let ok = checked("cannot find", &url, client.call::<v3::Lookup>(place(&self.handle, name)).await?)?;
        let attr = match ok.attr {
            Some(attr) => attr,
            None => getattr(client, &ok.file, &url).await?,
        };
        Ok(Self { export: self.export.clone(), handle: ok.file, attr, url })
    }

    /// As [`Object::lookup`]; `None` if there is no such name.
    pub(crate) async fn lookup_if_there(&self, name: &[u8]) -> Result<Option<Self>> {
        match self.lookup(name).await {
            Err(error) if status(&error) == Some(NfsStat::NoEnt) => Ok(None),
            found => found.map(Some),
        }
    }

    /// A symbolic link's text.
    pub(crate) async fn target(&self) -> Result<Vec<u8>> {
        let args = v3::OnFile { file: self.handle.clone() };
        let res = self.client().call::<v3::Readlink>(args).await?;
        Ok(checked("cannot read the link", &self.url, res)?.path.0.to_vec())
    }

    pub(crate) fn client(&self) -> &Client {
        &self.export.server.client
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.attr.kind == FileType::Directory
    }

    /// Whether both are the same object of the same server.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.export.server, &other.export.server) && self.handle == other.handle
    }

    /// Whether this is what MOUNT gave.
    pub(crate) fn is_root(&self) -> bool {
        self.handle == self.export.root
    }
}

async fn getattr(client: &Client, handle: &FileHandle, url: &Url) -> Result<Fattr> {
    let res = client.call::<v3::Getattr>(v3::OnFile { file: handle.clone() }).await?;
    Ok(checked("cannot get the attributes of", url, res)?.attr)
}
