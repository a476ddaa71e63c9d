//! What a row of the table says about its option.

use super::{MountOptions, Wrong};

/// One option of a mount.
#[derive(Debug, Clone, Copy)]
pub struct OptionRow {
    /// Its name, without `=`. One that ends in `*` stands for all names that begin so.
    pub name: &'static str,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// What follows the name.
    pub argument: Argument,
    /// `yes` or `no` for an option without argument, or the value that holds when nothing is said.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// What it is about.
    pub group: Group,
    /// Whether this mount has it.
    pub status: Status,
    /// Whether `-o remount` can change it.
    pub live: bool,
}

/// What an option is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Server, protocol and ports at the server.
    Server,
    /// Source ports, and how a connection that fails is left and replaced.
    Failover,
    /// How long a call, or the mount itself, is tried.
    Patience,
    /// What is kept of names and attributes.
    Caches,
    /// How data is read and written.
    Data,
    /// Locks and security.
    Security,
    /// Flags of the mount, and who may use it.
    Access,
    /// What mount(8) and systemd read in fstab(5).
    Fstab,
}

impl Group {
    /// All, in the order help shows them.
    pub const ALL: [Self; 8] = [
        Self::Server,
        Self::Failover,
        Self::Patience,
        Self::Caches,
        Self::Data,
        Self::Security,
        Self::Access,
        Self::Fstab,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Server => "Server and protocol",
            Self::Failover => "Source ports and failover",
            Self::Patience => "Timeouts and retries",
            Self::Caches => "Attributes and names",
            Self::Data => "Data",
            Self::Security => "Locks and security",
            Self::Access => "Flags and access",
            Self::Fstab => "Read by mount(8) and systemd in fstab(5)",
        }
    }
}

/// What follows an option's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    None,
    /// `=VALUE`, or nothing.
    Optional(&'static str),
    /// `=VALUE`.
    Required(&'static str),
}

/// Whether this mount has an option.
#[derive(Debug, Clone, Copy)]
pub enum Status {
    /// It does what it says.
    Implemented(Apply),
    /// It does what it says; [`remoor_client::options`] has its meaning.
    Connection,
    /// mount(8) or systemd obeys it, here it only sets what it implies.
    Mount8(Apply),
    /// It is accepted and changes nothing, for this reason.
    NoEffect(&'static str),
    /// It is refused, because to accept it would promise what is not kept.
    Refused {
        /// What is not there.
        reason: &'static str,
        /// What to write instead.
        instead: &'static str,
    },
}

/// Sets an option from its argument, which is empty if there is none.
pub type Apply = fn(&mut MountOptions, &str) -> Result<(), Wrong>;

/// The kinds of [`Status`], by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It does what it says.
    Implemented,
    /// mount(8) or systemd obeys it.
    Mount8,
    /// It is accepted and changes nothing.
    NoEffect,
    /// It is refused.
    Refused,
}

impl Class {
    /// Its name in help and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Implemented => "implemented",
            Self::Mount8 => "mount(8)",
            Self::NoEffect => "no effect",
            Self::Refused => "refused",
        }
    }
}

impl OptionRow {
    /// The option as it is written: `ro`, `timeo=DECISECONDS`, `fsc[=TAG]`.
    pub fn usage(&self) -> String {
        match self.argument {
            Argument::None => self.name.into(),
            Argument::Optional(value) => format!("{}[={value}]", self.name),
            Argument::Required(value) => format!("{}={value}", self.name),
        }
    }

    /// What it is to this mount.
    pub fn class(&self) -> Class {
        match self.status {
            Status::Implemented(_) | Status::Connection => Class::Implemented,
            Status::Mount8(_) => Class::Mount8,
            Status::NoEffect(_) => Class::NoEffect,
            Status::Refused { .. } => Class::Refused,
        }
    }

    /// Why it has no effect or is refused, and what to write instead.
    pub fn reason(&self) -> Option<String> {
        match self.status {
            Status::NoEffect(reason) => Some(reason.into()),
            Status::Refused { reason, instead } => Some(format!("{reason}; {instead}")),
            _ => None,
        }
    }

    /// Whether an option of this name is meant.
    pub fn is_named(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => self.name == name || self.aliases.contains(&name),
        }
    }
}
