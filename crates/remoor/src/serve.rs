//! `remoor serve`: an NFS version 3 server.

mod configured;
mod discovery;
mod limits;
mod systemd;
mod watching;

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use ipnet::IpNet;
use remoor_server::exports::{OPTIONS, OptionRow, Status};
use remoor_server::names::groups::Groups;
use remoor_server::vfs::local::OpenError;
use remoor_server::{DEFAULT_WORKERS, Exporter, Reload, Running, Server, StartError};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use self::configured::Configured;
use self::limits::LimitArgs;
use self::watching::WatchArgs;
use crate::{Failure, LogFormat, columns, state_dir};

/// Serve directories to NFS version 3 clients, as exports(5) says.
///
/// NFS and MOUNT are served on one TCP port, so that a balancer needs one rule and a client mounts with
/// `port=N,mountport=N`. Locks are not served: mount with nolock. Runs until it gets SIGTERM or SIGINT; SIGHUP reads
/// the exports again, as exportfs -ra does: a file with an error changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = after_help())]
pub(crate) struct Args {
    /// Address and port to listen on; may be repeated [default: the sockets that systemd hands over,
    /// else 127.0.0.1:2049]
    #[arg(short, long, value_name = "ADDR:PORT", help_heading = "Serving", value_parser = address)]
    listen: Vec<SocketAddr>,
    /// Export a directory: DIR, DIR:OPTIONS for every client, or DIR:CLIENT(OPTIONS); may be repeated. With
    /// memory: before it the directory is in memory, empty at first and lost at exit
    #[arg(short, long, value_name = "DIR[:OPTIONS]", help_heading = "Exports")]
    pub(crate) export: Vec<String>,
    /// Export what a file in the form of exports(5) says; may be repeated [default: /etc/exports and
    /// /etc/exports.d/*.exports, as root without --export]
    #[arg(long, value_name = "FILE", help_heading = "Exports")]
    exports: Vec<PathBuf>,
    /// Look users' groups up on this host, as rpc.mountd --manage-gids does, instead of taking the 16 at most that
    /// a client tells; what was looked up is kept for 30 minutes
    #[arg(long, help_heading = "Exports")]
    manage_gids: bool,
    /// Directory for the key of file handles and the index of files; nodes of a pair share it
    /// [default: /var/lib/remoor as root, else ~/.local/state/remoor]
    #[arg(long, value_name = "DIR", help_heading = "Serving")]
    state: Option<PathBuf>,
    /// Name of this node, by which the nodes that share a state directory differ [default: the host's name]
    #[arg(long, value_name = "NAME", help_heading = "Serving")]
    node: Option<String>,
    /// Worker threads, 2 to 1024
    #[arg(long, value_name = "N", help_heading = "Serving", default_value_t = DEFAULT_WORKERS as u16, value_parser = clap::value_parser!(u16).range(2..=1024))]
    workers: u16,
    /// Balancers that name each client by the PROXY protocol, version 2, which they must then do: as
    /// addresses or networks
    #[arg(long, value_name = "ADDR[/PREFIX]", help_heading = "Clients", value_delimiter = ',', value_parser = network)]
    proxy_from: Vec<IpNet>,
    #[command(flatten)]
    discovery: discovery::Discovery,
    #[command(flatten)]
    watching: WatchArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// Form of the log: text for people, or json, one object a line
    #[arg(long, value_name = "FORM", default_value = "text", help_heading = "Log")]
    pub(crate) log_format: LogFormat,
}

fn after_help() -> String {
    let served = OPTIONS.iter().filter(|row| matches!(row.status, Status::Implemented(_)));
    let options: String = served.map(option_row).collect();
    format!("Options of an export:\n{options}\n{EXAMPLES}")
}

const EXAMPLES: &str = "\
Examples:
  remoor serve --export /srv:rw,insecure
  remoor serve --listen 0.0.0.0:2049 --exports /etc/exports
  remoor serve --listen [::]:2049 --metrics 9464 --health 0.0.0.0:9465 --log-format json
  remoor serve --export \"memory:/scratch:192.0.2.0/24(rw,no_root_squash)\" --idle 60

`memory:` before a path exports an empty directory that is kept in memory and lost at exit; clients
mount it by the path alone.

While it runs: `remoor status` shows clients, exports and latencies, `remoor exportfs` changes the
exports, and SIGHUP reads them again. A balancer's probe asks GET /health.

A `secure` export (the default) refuses source ports above 1023, as the Linux server does: clients
that mount with noresvport need `insecure`.

Exit codes: 0 stopped by a signal; 2 the command line, an option or a file of exports is wrong; 3 it
cannot run here: a port, a permission, or another server of this node's name.";

fn option_row(row: &OptionRow) -> String {
    let default = if row.default == "yes" { " (default)" } else { "" };
    let meaning = format!("{}{default}", row.meaning.trim_end_matches('.'));
    columns::row(&format!("  {}", row.usage()), 25, &meaning)
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::cannot)?;
    raise_open_files();
    let running = args.start()?;
    let told = args.discovery.start(&running.local_addrs())?;
    systemd::ready();
    for signal in signals.forever() {
        if signal == SIGHUP {
            reload(running.exporter().clone());
            continue;
        }
        tracing::info!("stopping on {}", signal_name(signal).unwrap_or("a signal"));
        break;
    }
    systemd::stopping();
    drop(told);
    running.stop();
    Ok(())
}

/// On a thread of its own: a file system that does not answer must not keep the server from stopping.
fn reload(exporter: Arc<Exporter>) {
    let run = move || {
        systemd::reloading();
        if let Err(error) = exporter.reload(Reload::Exactly) {
            tracing::error!("exports stay as they were: {error}");
        }
        systemd::ready();
    };
    if let Err(error) = std::thread::Builder::new().name("reload".to_owned()).spawn(run) {
        tracing::error!("exports stay as they were: cannot start a thread to read them: {error}");
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write ADDR:PORT or [ADDR]:PORT, as in 0.0.0.0:2049".to_owned())
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse().or_else(|_| text.parse().map(|address: IpAddr| IpNet::from(address)));
    parsed.map_err(|_| {
        "give an address or a network such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32".to_owned()
    })
}

/// Every connection and every file in use takes a descriptor. Programs that use select(2) get a low limit by default, and
/// this is none of them.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let shown = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    let (from, to) = (shown(current), shown(maximum));
    if current == maximum {
        return tracing::debug!("limit of open files is {to}");
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!("limit of open files raised from {from} to {to}"),
        Err(e) => {
            tracing::debug!("limit of open files stays at {from}, because it cannot be raised to {to}: {e}")
        }
    }
}

/// The whole message: those of the server's errors tell their cause themselves.
fn said(error: impl Display) -> anyhow::Error {
    anyhow!("{error}")
}

impl Args {
    fn start(&self) -> Result<Running, Failure> {
        let configured = Configured::new(&self.export, &self.exports);
        let mut server = Server::builder()
            .exports(configured.read().map_err(|e| Failure::Usage(said(e)))?)
            .source(move || configured.read())
            .node_name(self.node.as_deref().unwrap_or_default())
            .state_dir(self.state_dir()?)
            .exclusive()
            .limits(self.limits.limits())
            .proxy_from(self.proxy_from.iter().copied())
            .workers(self.workers.into());
        if self.manage_gids {
            if !geteuid().is_root() {
                tracing::warn!(
                    "--manage-gids has no effect: only root can act as its callers and their groups"
                );
            }
            server = server.manage_gids(Groups::default());
        }
        server = self.watching.apply(server, self.node.as_deref())?;
        for address in &self.listen {
            server = server.listen(*address);
        }
        for listener in systemd::listeners()? {
            server = server.listener(listener);
        }
        server.start().map_err(|error| match error {
            StartError::Local(OpenError::StateInside { .. }) => Failure::Usage(said(error)),
            StartError::Io(_)
            | StartError::Key(_)
            | StartError::StateDir { .. }
            | StartError::Local(_)
            | StartError::Vfs { .. }
            | StartError::Silent { .. }
            | StartError::NodeTaken(_)
            | StartError::Attend(_) => Failure::Cannot(said(error)),
            wrong => Failure::Usage(said(wrong)),
        })
    }

    fn state_dir(&self) -> Result<PathBuf, Failure> {
        let unknown = || anyhow!("HOME is not set to an absolute path: name a directory with --state");
        self.state.clone().or_else(state_dir::default).ok_or_else(|| Failure::Usage(unknown()))
    }
}
