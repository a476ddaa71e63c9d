//! The MOUNT program where it is: on the port of NFS, on a port that was named, or where the portmapper says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use remoor_client::mount::dial;
use remoor_client::{CallError, Client};
use remoor_nfs::mnt;
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::message::ReplyStatus;
use remoor_rpc::portmap::{self, v2};
use remoor_rpc::program::Procedure;
use tokio::sync::OnceCell;

/// How long a server has for one call: it is up, since NFS has answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// Calls MOUNT.
#[derive(Debug)]
pub(crate) struct Mounter {
    client: Client,
    server: SocketAddr,
    reserved: bool,
    /// Its own port; `None` for that of NFS.
    port: OnceCell<Option<u16>>,
}

impl Mounter {
    /// Of the server that `client` calls at `server`; `port` if one was named.
    pub(crate) fn new(client: Client, server: SocketAddr, port: Option<u16>, reserved: bool) -> Self {
        let port = OnceCell::new_with(port.filter(|port| *port != server.port()).map(Some));
        Self { client, server, reserved, port }
    }

    pub(crate) async fn call<P: Procedure>(&self, args: P::Args) -> Result<P::Res>
    where
        P::Args: Clone,
    {
        let find = || async { find(&self.client, self.server).await };
        match self.port.get_or_try_init(find).await? {
            None => Ok(self.client.call::<P>(args).await?),
            Some(port) => call_at::<P>(SocketAddr::new(self.server.ip(), *port), self.reserved, args).await,
        }
    }
}

/// Where MOUNT is: most servers with one port have it there, and others tell their portmapper.
async fn find(client: &Client, server: SocketAddr) -> Result<Option<u16>> {
    match client.call::<mnt::Null>(()).await {
        Ok(()) => return Ok(None),
        Err(CallError::Status {
            status: ReplyStatus::ProgUnavail | ReplyStatus::ProgMismatch { .. },
            ..
        }) => {}
        Err(error) => return Err(error.into()),
    }
    let mapping =
        v2::Mapping { program: mnt::Null::PROGRAM, version: mnt::Null::VERSION, protocol: v2::TCP, port: 0 };
    let portmapper = SocketAddr::new(server.ip(), portmap::PORT);
    let port = call_at::<v2::GetPort>(portmapper, false, mapping).await.with_context(|| {
        format!("{server} has no MOUNT, and its portmapper does not tell where it is; name it with ?mountport=PORT")
    })?;
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(Some(port)),
        _ => bail!("{server} has no MOUNT version 3 over TCP; name its port with ?mountport=PORT"),
    }
}

/// One call over a connection of its own, in limited time.
async fn call_at<P: Procedure>(server: SocketAddr, reserved: bool, args: P::Args) -> Result<P::Res> {
    let user = AuthSys::new("", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let credential = OpaqueAuth::sys(&user);
    let called = tokio::time::timeout(PATIENCE, dial::call::<P>(server, reserved, &credential, &args)).await;
    let called = called.with_context(|| format!("{server} gave no answer in {} s", PATIENCE.as_secs()));
    called.and_then(|called| Ok(called?)).with_context(|| P::NAME)
}
