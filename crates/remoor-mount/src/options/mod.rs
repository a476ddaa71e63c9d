//! What is mounted, and how: server and export, and the options of nfs(5), mount(8) and FUSE.
//!
//! | module | subject |
//! |---|---|
//! | [`table`] | every option, one row each: parser, help, man page and checks read it |
//! | [`row`] | what a row says |
//! | [`spec`](Spec) | `server:/export`, `nfs://server/export` |
//! | [`fstab`] | lines of fstab(5) |
//! | [`check`] | what options come to, and what deserves a second look |
//! | `display`, `remount` | the effective options, and what a remount may change of them |
//! | `list`, `value`, `error` | words of a list, their values, and what is wrong with them |
//!
//! A later option takes back an earlier one. Options of a URL come before those of `-o`.

pub mod check;
mod display;
mod error;
pub mod fstab;
mod list;
mod remount;
pub mod row;
mod spec;
pub mod table;
mod url;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use remoor_client::options::TABLE as CONNECTION;
use remoor_nfs::reconnect::Recovery;

use crate::fs;

pub use error::{OptionError, Wrong};
pub use list::{LONGEST, MOST};
pub use remount::{Remount, RemountError};
pub use row::{Argument, Class, Group, OptionRow, Status};
pub use spec::{Host, LONGEST_HOST, LONGEST_PATH, MOST_HOSTS, Spec, SpecError};
pub use table::{find, table};
pub use value::Family;

/// How long a mount in the foreground is tried (`retry=2`).
pub const RETRY_FOREGROUND: Duration = Duration::from_secs(2 * 60);
/// How long a mount in the background is tried (`retry=10000`).
pub const RETRY_BACKGROUND: Duration = Duration::from_secs(10_000 * 60);

/// What the options of a mount come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountOptions {
    /// Options of the connections: source ports, failover, timeouts.
    pub connection: remoor_client::Options,
    /// Caches and data; [`Self::fs_config`] adds what other options come to.
    pub fs: fs::Config,
    /// Flags of the mount.
    pub flags: Flags,
    /// `allow_other` or `noallow_other`, if one was given.
    pub allow_other: Option<bool>,
    /// `default_permissions`: the kernel checks permissions by owner and mode.
    pub default_permissions: bool,
    /// `proto=`: addresses of the server that are used.
    pub family: Family,
    /// `port=`: the server's NFS port, unless its portmapper is to be asked.
    pub port: Option<u16>,
    /// `mountport=`: the server's MOUNT port, unless its portmapper is to be asked.
    pub mountport: Option<u16>,
    /// `mounthost=`: host that answers MOUNT, unless it is the server.
    pub mounthost: Option<String>,
    /// `mountaddr=`: address that answers MOUNT, unless it is resolved.
    pub mountaddr: Option<IpAddr>,
    /// `addr=`: address of the server, unless it is resolved.
    pub addr: Option<IpAddr>,
    /// `bg`: a mount that fails at first is tried again in the background.
    pub bg: bool,
    /// `retry=`, in minutes, if it was given.
    pub retry: Option<u32>,
    /// `metrics=`: where the mount's metrics are told over HTTP.
    pub metrics: Option<SocketAddr>,
}

/// Flags of a mount, as mount(2) has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// `ro`.
    pub read_only: bool,
    /// `nosuid`.
    pub nosuid: bool,
    /// `nodev`.
    pub nodev: bool,
    /// `noexec`.
    pub noexec: bool,
}

impl MountOptions {
    /// How long a mount is tried: `retry=`, else 2 minutes, or a week with `bg`.
    pub fn retry(&self) -> Duration {
        let default = if self.bg { RETRY_BACKGROUND } else { RETRY_FOREGROUND };
        self.retry.map_or(default, |minutes| Duration::from_secs(60 * u64::from(minutes)))
    }

    /// The options on a host where root, or an ordinary user, mounts. A mount by root is for everybody unless it says
    /// otherwise, as one of the kernel's client is; one by a user never has set-user-ID programs or devices (fusermount3).
    pub fn mounted_by(mut self, root: bool) -> Self {
        self.allow_other.get_or_insert(root);
        self.flags.nosuid |= !root;
        self.flags.nodev |= !root;
        self
    }

    /// What the file system is told.
    pub fn fs_config(&self) -> fs::Config {
        let connection = &self.connection;
        let major_timeout = connection.timeo.saturating_mul(connection.retrans.saturating_add(1));
        fs::Config {
            several_users: self.allow_other == Some(true),
            patience: Some(major_timeout).filter(|_| connection.recovery != Recovery::Hard),
            ..self.fs.clone()
        }
    }

    /// Host that answers MOUNT, unless it is the server: `mountaddr=` is where `mounthost=` was resolved to.
    pub fn mnt_host(&self) -> Option<String> {
        self.mountaddr.map(|address| address.to_string()).or_else(|| self.mounthost.clone())
    }

    fn set(&mut self, row: &OptionRow, word: &str, value: Option<&str>) -> Result<(), OptionError> {
        match row.status {
            Status::Refused { reason, instead } => {
                Err(OptionError::Refused { given: word.to_owned(), reason, instead })
            }
            Status::NoEffect(_) => argument(row, value).map(drop),
            Status::Implemented(apply) | Status::Mount8(apply) => {
                let value = argument(row, value)?;
                apply(self, value).map_err(|wrong| wrong.of(word))
            }
            Status::Connection => self.set_connection(row, word, value),
        }
    }

    fn set_connection(
        &mut self,
        row: &OptionRow,
        word: &str,
        value: Option<&str>,
    ) -> Result<(), OptionError> {
        let its = CONNECTION.iter().find(|its| its.name == row.name);
        let its = its.ok_or_else(|| OptionError::Unknown { name: row.name.to_owned() })?;
        argument(row, value)?;
        Ok(its.set(&mut self.connection, word, value)?)
    }

    /// Times as they come into effect: none is kept shorter than its shortest.
    fn settle(&mut self) -> Result<(), OptionError> {
        self.fs.acregmax = self.fs.acregmax.max(self.fs.acregmin);
        self.fs.acdirmax = self.fs.acdirmax.max(self.fs.acdirmin);
        self.connection.validate()?;
        Ok(())
    }
}

fn argument<'a>(row: &OptionRow, value: Option<&'a str>) -> Result<&'a str, OptionError> {
    match (row.argument, value) {
        (Argument::None, Some(value)) => {
            Err(OptionError::TakesNoValue { name: row.name, value: value.into() })
        }
        (Argument::Required(_), None | Some("")) => {
            Err(OptionError::NeedsValue { name: row.name, usage: row.usage() })
        }
        (_, value) => Ok(value.unwrap_or_default()),
    }
}

/// A list of options, with what it comes to.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// What all options come to.
    pub options: MountOptions,
    /// Each option, in its order.
    pub given: Vec<Given>,
    /// Unknown options, which `sloppy` ignores.
    pub ignored: Vec<String>,
}

/// An option as it was given.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its row.
    pub row: &'static OptionRow,
    /// As it was written.
    pub word: String,
}

impl Parsed {
    /// The options of a mount: those of its URL, then those of `-o`. `sloppy` ignores unknown ones, as the option does.
    pub fn new(spec: &Spec, list: &str, sloppy: bool) -> Result<Self, OptionError> {
        Self::onto(MountOptions::default(), &[&spec.options, list], sloppy)
    }

    /// Options that are set over others, list by list.
    fn onto(base: MountOptions, lists: &[&str], sloppy: bool) -> Result<Self, OptionError> {
        let mut words = Vec::new();
        for list in lists {
            words.extend(list::words(list)?);
        }
        let sloppy = sloppy || words.contains(&"sloppy");
        let mut parsed = Self { options: base, ..Self::default() };
        words.into_iter().try_for_each(|word| parsed.take(word, sloppy))?;
        parsed.options.settle()?;
        Ok(parsed)
    }

    fn take(&mut self, word: &str, sloppy: bool) -> Result<(), OptionError> {
        let (name, value) = list::split(word);
        match table::find(name) {
            Some(row) => {
                self.options.set(row, word, value)?;
                self.given.push(Given { row, word: word.to_owned() });
                Ok(())
            }
            None if sloppy => {
                self.ignored.push(word.to_owned());
                Ok(())
            }
            None => Err(OptionError::Unknown { name: name.to_owned() }),
        }
    }

    /// Whether an option was given, by its name in the table.
    pub fn has(&self, name: &str) -> bool {
        self.given.iter().any(|given| given.row.name == name)
    }

    /// `remount`: a mount that is there is to be changed.
    pub fn is_remount(&self) -> bool {
        self.has("remount")
    }
}

impl std::str::FromStr for MountOptions {
    type Err = OptionError;

    fn from_str(list: &str) -> Result<Self, OptionError> {
        Parsed::onto(Self::default(), &[list], false).map(|parsed| parsed.options)
    }
}

#[cfg(test)]
mod tests;
