//! `remoor mount`, and the same as a helper of mount(8): an NFS export as a file system of this host.

mod background;
mod daemon;
mod desk;
pub(crate) mod exit;
pub(crate) mod helper;
mod log;
mod order;
mod remount;
mod report;
mod sys;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

pub(crate) use self::order::resolved;

use self::exit::Failed;
use self::order::Order;
use crate::Failure;
use crate::control::print;
use crate::mount_options::{self, Check};

/// Mount an NFS version 3 export through FUSE, with the options of nfs(5).
///
/// Returns when the mount can be used; a process in the background serves it until it is unmounted with umount(8), or
/// with fusermount3 -u by the ordinary user who mounted it. SIGTERM writes everything back and unmounts.
#[derive(Debug, clap::Args)]
#[command(after_long_help = after_help())]
pub(crate) struct Args {
    /// Server and export: server:/export, [ADDRESS]:/export or nfs://server/export
    #[arg(required_unless_present_any = ["help_options", "check"])]
    spec: Option<String>,
    /// Where to mount: a directory
    #[arg(required_unless_present_any = ["help_options", "check"])]
    dir: Option<OsString>,
    /// Options of nfs(5) and mount(8), separated by commas; may be repeated, and the last one wins
    #[arg(short, long, value_name = "OPTIONS", help_heading = "Mounting")]
    options: Vec<String>,
    /// Stay in front, and log to standard error; SIGINT unmounts
    #[arg(short, long, help_heading = "Running")]
    foreground: bool,
    /// Ignore unknown options
    #[arg(short, long, help_heading = "Mounting")]
    sloppy: bool,
    /// No effect, for those used to mount(8): there is no mtab
    #[arg(short, long, help_heading = "Mounting")]
    no_mtab: bool,
    /// Tell what is done
    #[arg(short, long, help_heading = "Running")]
    verbose: bool,
    /// Mount read-only, as -o ro does
    #[arg(short, long, help_heading = "Mounting")]
    read_only: bool,
    /// Mount read-write, as -o rw does
    #[arg(short = 'w', long = "rw", conflicts_with = "read_only", help_heading = "Mounting")]
    read_write: bool,
    /// Do everything but mount
    #[arg(long, help_heading = "Mounting")]
    fake: bool,
    /// Append the log to this file instead of telling syslog, or standard error with -f
    #[arg(long, value_name = "FILE", help_heading = "Running")]
    log_file: Option<PathBuf>,
    /// Tell /metrics of this mount over HTTP there, for Prometheus
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Running")]
    metrics: Option<SocketAddr>,
    /// Explain every option, and mount nothing
    #[arg(long, help_heading = "Looking", conflicts_with_all = ["check", "fstab_line"])]
    help_options: bool,
    /// Explain what a line of fstab(5), in quotes, or the lines of a file come to, and mount nothing
    #[arg(long, value_name = "LINE|FILE", help_heading = "Looking", conflicts_with_all = ["fstab_line", "spec"])]
    check: Option<String>,
    /// Print the line of fstab(5) that mounts the same, and mount nothing
    #[arg(long, help_heading = "Looking")]
    fstab_line: bool,
    /// With --help-options or --check: print JSON
    #[arg(long, help_heading = "Looking")]
    json: bool,
    /// With --check: a warning is a failure
    #[arg(long, requires = "check", help_heading = "Looking")]
    strict: bool,
    /// Serve the mount in the background, for the command of this name that waits for reports on standard output
    #[arg(long, value_name = "PROGRAM", hide = true, conflicts_with = "foreground")]
    detached: Option<String>,
}

fn after_help() -> String {
    format!("{EXAMPLES}\n\n{}", exit::HELP)
}

const EXAMPLES: &str = "\
Examples:
  remoor mount server:/srv/data /mnt
  remoor mount -o noresvport,soft,timeo=100 server:/srv/data /mnt
  remoor mount -o remount,ro server:/srv/data /mnt
  remoor mount -f -o resvport,rebind=fresh nfs://192.0.2.1/srv/data /mnt
  remoor mount --check /etc/fstab

In /etc/fstab, with a link /sbin/mount.remoor to this program:
  server:/srv/data  /mnt  remoor  resvport,rebind=fresh,_netdev,nofail  0  0
  server:/srv/data  /mnt  remoor  noresvport,_netdev,bg                 0  0

The first comes back from a fresh reserved port, and works with exports that are `secure`. The
second comes back from a fresh port above 1023: it needs no privilege, but an `insecure` export.

`remoor status` shows what a mount does, also while its server is away. An ordinary user needs the
package fuse3, and noresvport. A mount whose process was killed is replaced by the next mount there,
or removed with umount -l.";

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if args.help_options || args.check.is_some() || args.fstab_line {
        return args.look().map_err(as_mount_fails);
    }
    args.run().map_err(|Failed { code, message }| Failure::Exit(code, anyhow::anyhow!(message)))
}

/// With the codes of mount(8): whatever is looked at, and is wrong, is wrong usage.
fn as_mount_fails(failure: Failure) -> Failure {
    match failure {
        Failure::Usage(error) | Failure::Cannot(error) => Failure::Exit(exit::USAGE, error),
        other => other,
    }
}

impl Args {
    /// What is asked for besides mounting.
    fn look(self) -> Result<(), Failure> {
        if self.help_options {
            return print(&if self.json { mount_options::help_json() } else { mount_options::help_text() });
        }
        if let Some(argument) = &self.check {
            let check = Check::new(argument)?;
            print(&if self.json { check.json() } else { check.text() })?;
            return check.verdict(self.strict);
        }
        let order = self.order();
        let dir = std::path::absolute(&order.dir).map_err(Failure::usage)?;
        print(&mount_options::fstab_line(&order.spec, &dir, &order.options)?)
    }

    fn run(self) -> Result<(), Failed> {
        let (foreground, detached) = (self.foreground, self.detached.is_some());
        let order = self.order();
        match (foreground, detached) {
            (true, _) => order.in_front(),
            (_, true) => order.detached(),
            _ => order.in_background(),
        }
    }

    fn order(self) -> Order {
        let mut options = self.options;
        options.extend(self.read_only.then(|| "ro".to_owned()));
        options.extend(self.read_write.then(|| "rw".to_owned()));
        Order {
            program: self.detached.unwrap_or_else(|| "remoor".to_owned()),
            spec: self.spec.unwrap_or_default(),
            dir: self.dir.unwrap_or_default().into(),
            options: options.join(","),
            sloppy: self.sloppy,
            fake: self.fake,
            verbose: self.verbose,
            log_file: self.log_file.map(|file| std::path::absolute(&file).unwrap_or(file)),
            metrics: self.metrics,
        }
    }
}
