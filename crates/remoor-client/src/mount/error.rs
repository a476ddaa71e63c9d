//! Why a mount was not made, and whether another attempt may succeed.

use std::time::Duration;

use remoor_nfs::mnt::MountStat;
use remoor_rpc::message::ReplyStatus;

use super::dial::DialError;
use crate::call::{CallError, ConnectError};
use crate::file;
use crate::target::ResolveError;

/// A mount that was not made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// An option cannot be followed.
    #[error("option {given}: {why}")]
    Option {
        /// As it would be written.
        given: String,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// The client cannot be started with these options on this host.
    #[error(transparent)]
    Client(#[from] ConnectError),
    /// The server's name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The server has a portmapper, which does not know the program.
    #[error(
        "server {server}: its portmapper knows no {program} over TCP: start it there, or give {option}= if it runs on \
         a port of its own"
    )]
    NotRegistered {
        /// The server's name.
        server: String,
        /// The program.
        program: &'static str,
        /// The option that makes the portmapper superfluous.
        option: &'static str,
    },
    /// The server, or the network, has said no.
    #[error("server {server} is not reached: {why}; check that it runs and that its port is open")]
    Unreachable {
        /// The server's name.
        server: String,
        /// What was seen last.
        why: String,
    },
    /// No answer came.
    #[error("server {server} did not answer within {within:.1?}: {why}")]
    TimedOut {
        /// The server's name.
        server: String,
        /// How long it had.
        within: Duration,
        /// What was seen last.
        why: String,
    },
    /// The peer does not serve MOUNT.
    #[error("no MOUNT on port {port} of server {server}: give mountport= or start the portmapper there")]
    NoMountProgram {
        /// The server's name.
        server: String,
        /// Where it was looked for.
        port: u16,
    },
    /// The export wants another kind of credential.
    #[error(
        "mount of {path}: the export accepts only the credential flavors {flavors:?}, and only sys (1) can be given; \
         export it with sec=sys"
    )]
    Flavor {
        /// What was to be mounted.
        path: String,
        /// What the server said (RFC 5531 section 8.2).
        flavors: Vec<u32>,
    },
    /// The MOUNT program could not be called, or did not understand.
    #[error("mount of {path}: MOUNT at {why}")]
    Mount {
        /// What was to be mounted.
        path: String,
        /// What happened.
        why: String,
        /// Another attempt may succeed.
        temporary: bool,
    },
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] file::Error),
}

impl MountError {
    /// Whether another attempt may succeed without anything being changed here: the server was not reached or did not
    /// answer. What the server denies, and what the options ask in vain, is final.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Option { .. } | Self::Client(_) | Self::NoMountProgram { .. } | Self::Flavor { .. } => {
                false
            }
            Self::Resolve(_)
            | Self::NotRegistered { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. } => true,
            Self::Mount { temporary, .. } => *temporary,
            Self::Refused(file::Error::Mount { status, .. }) => {
                matches!(status, MountStat::Io | MountStat::ServerFault)
            }
            Self::Refused(file::Error::Call(CallError::Status { status, .. })) => {
                *status == ReplyStatus::SystemErr
            }
            Self::Refused(file::Error::Call(CallError::Failed { failure, .. })) => {
                !matches!(failure, remoor_nfs::reconnect::CallFailure::Terminal(_))
            }
            Self::Refused(_) => false,
        }
    }

    pub(super) fn of_mount_call(error: DialError, server: &str, path: &str) -> Self {
        match &error {
            DialError::Status(dest, ReplyStatus::ProgUnavail) => {
                Self::NoMountProgram { server: server.to_owned(), port: dest.port() }
            }
            DialError::Connect(..) => {
                Self::Unreachable { server: server.to_owned(), why: format!("MOUNT: {error}") }
            }
            DialError::Ended(..) => {
                Self::Mount { path: path.to_owned(), why: error.to_string(), temporary: true }
            }
            DialError::Source(_) | DialError::Status(..) | DialError::Malformed(..) => Self::Mount {
                path: path.to_owned(),
                why: error.to_string(),
                temporary: !error.is_privilege_missing()
                    && matches!(&error, DialError::Status(_, ReplyStatus::SystemErr)),
            },
        }
    }
}
