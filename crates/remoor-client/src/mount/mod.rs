//! Making a mount as mount.nfs(8) does: the server's addresses, the ports of NFS and MOUNT, the root's handle.
//!
//! | module | subject |
//! |---|---|
//! | `find` | ports from the portmapper |
//! | `dial` | one call over a connection of its own |
//! | `error` | what went wrong, and whether to try again |

pub mod dial;
mod error;
mod find;

use std::sync::Arc;
use std::time::Duration;

use remoor_nfs::mnt;
use remoor_nfs::v3::{self, FileHandle};
use remoor_rpc::auth::Flavor;
use remoor_rpc::portmap;
use remoor_rpc::program::Procedure as _;
use tokio::time::{Instant, timeout, timeout_at};

use crate::call::{CallError, Client};
use crate::file::{self, check};
use crate::lane::Failures;
use crate::options::Options;
use crate::report::Observer;
use crate::target::{Resolver, SystemResolver, Target};

use find::Told;

pub use error::MountError;
pub use find::PORTMAP_PATIENCE;

/// Where NFS is if no portmapper tells (RFC 1813 section 2.1, nfs(5)).
pub const NFS_PORT: u16 = 2049;
/// How long a server may take to hear that it is unmounted; it need not know (RFC 1813 section 5.2.3).
pub const UNMOUNT_PATIENCE: Duration = Duration::from_secs(2);

/// The options of nfs(5) that say where the programs are. `None` leaves it to the server's portmapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `port=`: of NFS. 0 means none was given.
    pub port: Option<u16>,
    /// `mountport=`: of MOUNT. 0 means none was given.
    pub mountport: Option<u16>,
    /// `mounthost=`: the host of MOUNT, if it is not the server.
    pub mounthost: Option<String>,
    /// `mountvers=`: only 3 can be had.
    pub mountvers: Option<u32>,
    /// `mountproto=`: `tcp` or `tcp6`.
    pub mountproto: Option<String>,
    /// Port of the portmapper.
    pub portmap_port: u16,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            port: None,
            mountport: None,
            mounthost: None,
            mountvers: None,
            mountproto: None,
            portmap_port: portmap::PORT,
        }
    }
}

impl Places {
    /// Refuses what cannot be followed, and says why.
    pub fn validate(&self) -> Result<(), MountError> {
        if let Some(version) = self.mountvers.filter(|version| *version != mnt::Null::VERSION) {
            let why = "NFS version 3 is mounted with version 3 of MOUNT alone; leave the option out";
            return Err(MountError::Option { given: format!("mountvers={version}"), why });
        }
        let why = match self.mountproto.as_deref() {
            None | Some("tcp" | "tcp6") => return Ok(()),
            Some("udp" | "udp6") => {
                "MOUNT over UDP is not there: a file handle in one datagram can be forged by anybody who sends; use \
                 mountproto=tcp, which every server with NFS over TCP has"
            }
            Some(_) => "must be tcp or tcp6",
        };
        let given = format!("mountproto={}", self.mountproto.as_deref().unwrap_or_default());
        Err(MountError::Option { given, why })
    }
}

/// A mount to be made.
#[derive(Clone)]
pub struct Request {
    /// The server: a name, an IPv4 address, or an IPv6 address with or without brackets and zone.
    pub host: String,
    /// The exported path.
    pub path: String,
    /// The connection.
    pub options: Options,
    /// Where the programs are.
    pub places: Places,
    /// How long this attempt may take. `retry=` is the caller's.
    pub within: Duration,
    /// Who is asked for the host's addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Is told every reconnect.
    pub observer: Observer,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("host", &self.host).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Request {
    /// How long an attempt may take, unless told otherwise.
    pub const WITHIN: Duration = Duration::from_secs(15);

    /// A mount of `path` at `host` with default options.
    pub fn new(host: &str, path: &str) -> Self {
        Self {
            host: host.to_owned(),
            path: path.to_owned(),
            options: Options::default(),
            places: Places::default(),
            within: Self::WITHIN,
            resolver: Arc::new(SystemResolver),
            observer: Arc::new(|_, _| {}),
        }
    }

    /// Makes one attempt.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn mount(&self) -> Result<Mounted, MountError> {
        self.places.validate()?;
        let attempt = Attempt { request: self, until: Instant::now() + self.within };
        attempt.make().await
    }
}

/// A mount that is made.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// Calls the server.
    pub client: Client,
    /// The root's handle.
    pub root: FileHandle,
    /// What the server says in FSINFO; every READ and WRITE of `client` is bounded by it.
    pub fsinfo: v3::FsinfoOk,
    path: String,
    mount: MountPlace,
}

/// Where MOUNT is.
#[derive(Debug, Clone)]
enum MountPlace {
    /// Where NFS is: it shares the connection.
    WithNfs,
    /// Elsewhere.
    At { target: Target, reserved: bool },
}

impl Mounted {
    /// Tells the server that this client has unmounted the export: once, and not longer than [`UNMOUNT_PATIENCE`]. Whether
    /// it heard.
    pub async fn unmount(&self) -> bool {
        let path = self.path.as_str();
        let told = async {
            match &self.mount {
                MountPlace::WithNfs => self.client.call::<mnt::Umnt>(path.into()).await.is_ok(),
                MountPlace::At { target, reserved } => {
                    let (at, credential) = (target.addresses()[0], self.client.credential());
                    dial::call::<mnt::Umnt>(at, *reserved, credential, &path.into()).await.is_ok()
                }
            }
        };
        timeout(UNMOUNT_PATIENCE, told).await.unwrap_or(false)
    }
}

/// One attempt, and its end.
struct Attempt<'a> {
    request: &'a Request,
    until: Instant,
}

impl Attempt<'_> {
    async fn make(&self) -> Result<Mounted, MountError> {
        let request = self.request;
        let server = self.resolve(&request.host).await?;
        let port = self.nfs_port(&server).await?;
        let server = server.with_port(port);
        let mount = self.mount_place(&server).await?;
        let observer = Arc::clone(&request.observer);
        let client = Client::connect_observed(server, request.options.clone(), observer)?;
        let granted = self.granted(&client, &mount, port).await?;
        let flavors = granted.flavors.0;
        if !flavors.is_empty() && !flavors.contains(&Flavor::Sys.number()) {
            return Err(MountError::Flavor { path: request.path.clone(), flavors });
        }
        let root = granted.handle;
        let fsinfo = self.answered(&client, client.fsinfo(&root)).await?;
        Ok(Mounted { client, root, fsinfo, path: request.path.clone(), mount })
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    async fn resolve(&self, host: &str) -> Result<Target, MountError> {
        let resolver = Arc::clone(&self.request.resolver);
        Ok(Target::resolve(host, NFS_PORT, resolver, self.left()).await?)
    }

    async fn nfs_port(&self, server: &Target) -> Result<u16, MountError> {
        if let Some(port) = self.request.places.port.filter(|port| *port != 0) {
            return Ok(port);
        }
        match self.ask(&v3::PROGRAM, server).await? {
            Told::Port(port) => Ok(port),
            Told::Nobody => Ok(NFS_PORT),
            Told::NotRegistered => Err(MountError::NotRegistered {
                server: server.name().to_owned(),
                program: "NFS version 3",
                option: "port",
            }),
        }
    }

    /// A portmapper that does not know MOUNT leaves one place to look: many servers have both programs on one port, and
    /// not all of them register.
    async fn mount_place(&self, server: &Target) -> Result<MountPlace, MountError> {
        let places = &self.request.places;
        let host = match &places.mounthost {
            None => server.clone(),
            Some(host) => self.resolve(host).await?.with_port(server.addresses()[0].port()),
        };
        let target = match places.mountport.filter(|port| *port != 0) {
            Some(port) => host.with_port(port),
            None => match self.ask(&mnt::PROGRAM, &host).await? {
                Told::Port(port) => host.with_port(port),
                Told::NotRegistered | Told::Nobody => host,
            },
        };
        let same = target.addresses().iter().all(|address| server.addresses().contains(address));
        let reserved = self.request.options.reserved;
        Ok(if same { MountPlace::WithNfs } else { MountPlace::At { target, reserved } })
    }

    async fn ask(&self, program: &remoor_rpc::program::Program, host: &Target) -> Result<Told, MountError> {
        let asked = find::port_of(program, host.addresses(), self.request.places.portmap_port);
        let late = |_| self.timed_out(host.name(), "the portmapper is silent".to_owned());
        timeout_at(self.until, asked).await.map_err(late)
    }

    async fn granted(
        &self,
        client: &Client,
        mount: &MountPlace,
        port: u16,
    ) -> Result<mnt::MountOk, MountError> {
        let path = &self.request.path;
        match mount {
            MountPlace::At { target, reserved } => self.granted_elsewhere(client, target, *reserved).await,
            MountPlace::WithNfs => match self.answered(client, client.grant(path)).await {
                Err(MountError::Refused(file::Error::NoMountProgram)) => {
                    Err(MountError::NoMountProgram { server: client.server().to_owned(), port })
                }
                other => other,
            },
        }
    }

    /// MNT at each address in turn, until one answers.
    async fn granted_elsewhere(
        &self,
        client: &Client,
        target: &Target,
        reserved: bool,
    ) -> Result<mnt::MountOk, MountError> {
        let (path, addresses) = (&self.request.path, target.addresses());
        let mut outcome = self.timed_out(target.name(), "MOUNT is silent".to_owned());
        for (tried, address) in addresses.iter().enumerate() {
            let share = self.left() / (addresses.len() - tried) as u32;
            let args = path.as_str().into();
            let asked = dial::call::<mnt::Mnt>(*address, reserved, client.credential(), &args);
            match timeout(share, asked).await {
                Ok(Ok(res)) => return Ok(file::granted(path, res)?),
                Ok(Err(error)) => outcome = MountError::of_mount_call(error, target.name(), path),
                Err(_) => {}
            }
        }
        Err(outcome)
    }

    /// Waits for an answer of the client, but not beyond the end, nor when every address has said no.
    async fn answered<T>(
        &self,
        client: &Client,
        answer: impl Future<Output = Result<T, file::Error>>,
    ) -> Result<T, MountError> {
        let (mut failures, addresses) = (client.failures(), client.addresses().len());
        let hopeless = async {
            let seen = failures.wait_for(|failures| failures.told >= addresses).await;
            let why = seen.ok().and_then(|failures| failures.last.clone()).unwrap_or_default();
            MountError::Unreachable { server: client.server().to_owned(), why }
        };
        tokio::select! {
            biased;
            answer = answer => Ok(answer?),
            error = hopeless => Err(error),
            () = tokio::time::sleep_until(self.until) => Err(self.timed_out(client.server(), why(client))),
        }
    }

    fn timed_out(&self, server: &str, why: String) -> MountError {
        MountError::TimedOut { server: server.to_owned(), within: self.request.within, why }
    }
}

/// What is known of a server that gives no answer.
fn why(client: &Client) -> String {
    let failures: Failures = client.failures().borrow().clone();
    if let Some(last) = failures.last {
        return last;
    }
    match client.snapshot().reconnects.last() {
        Some(last) => format!("connections are made, but {} without an answer", last.reason),
        None if failures.connected => "it is connected, but does not answer the call".to_owned(),
        None => "no connection was made".to_owned(),
    }
}

impl Client {
    /// Mounts `path` through the MOUNT program on the same port, and returns the handle of its root. What the server
    /// then says in FSINFO bounds every READ and WRITE of this client and its clones. [`Request`] finds ports, and
    /// ends in time.
    pub async fn mount(&self, path: &str) -> Result<FileHandle, file::Error> {
        let root = self.grant(path).await?.handle;
        self.fsinfo(&root).await?;
        Ok(root)
    }

    async fn grant(&self, path: &str) -> Result<mnt::MountOk, file::Error> {
        match self.call::<mnt::Mnt>(path.into()).await {
            Err(CallError::Status { status: remoor_rpc::message::ReplyStatus::ProgUnavail, .. }) => {
                Err(file::Error::NoMountProgram)
            }
            res => file::granted(path, res?),
        }
    }

    /// What the server can do with the file system of `root`; bounds every READ and WRITE of this client and its clones
    /// from here on.
    pub async fn fsinfo(&self, root: &FileHandle) -> Result<v3::FsinfoOk, file::Error> {
        let args = v3::OnFile { file: root.clone() };
        let info = check("FSINFO", self.call::<v3::Fsinfo>(args).await?)?;
        self.shared.sizes.learn(&info)?;
        Ok(info)
    }
}
