//! What a mount chooses about its connections, with named defaults and limits.

use std::time::Duration;

/// Lowest reserved port used: `RPC_DEF_MIN_RESVPORT` of Linux (include/linux/sunrpc/xprtsock.h).
pub const RESERVED_LO: u16 = 665;
/// Highest reserved port used: `RPC_DEF_MAX_RESVPORT`.
pub const RESERVED_HI: u16 = 1023;
/// First port that needs no privilege (`net.ipv4.ip_unprivileged_port_start`).
pub const UNPRIVILEGED: u16 = 1024;
/// Lowest ephemeral port of `net.ipv4.ip_local_port_range`, unless the driver reads another.
pub const EPHEMERAL_LO: u16 = 32768;
/// Highest ephemeral port of `net.ipv4.ip_local_port_range`.
pub const EPHEMERAL_HI: u16 = 60999;
/// Ports [`Rebind::Fresh`] needs at least: the one in use, the one that races it, and one for each to follow.
pub const MIN_FRESH_PORTS: usize = 4;

/// Default silence, with calls outstanding, before a connection is doubted.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// Longest silence before a connection is doubted, after false alarms have doubled the interval. It bounds how late a
/// real failure is noticed after a slow spell; a suspicion costs one port and one connection.
pub const SUSPECT_MAX: Duration = Duration::from_secs(2);
/// How long our bytes stay unacknowledged, with a retransmission, before the path counts as dead. Linux
/// retransmits first after 200 ms (`TCP_RTO_MIN`).
pub const PATH_DEAD_AFTER: Duration = Duration::from_millis(200);
/// Default least time for one attempt: below the 1 s at which every kernel sends its first SYN again (RFC 6298
/// section 2), so that with [`Rebind::Fresh`] each SYN has its own port.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(900);
/// Longest time for one attempt.
pub const ATTEMPT_TIMEOUT_MAX: Duration = Duration::from_secs(15);
/// How long an acknowledged but unanswered in-band NULL makes a server stuck when no harm can come from moving.
pub const STUCK_AFTER: Duration = Duration::from_secs(1);
/// First delay after a failed attempt.
pub const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// Longest delay after a failed attempt.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// `timeo=600` of nfs(5), the default over TCP.
pub const TIMEO: Duration = Duration::from_secs(60);
/// Largest `timeo` (`NFS_MAX_TCP_TIMEOUT`).
pub const TIMEO_MAX: Duration = Duration::from_secs(600);
/// `retrans=2` of nfs(5), the default over TCP.
pub const RETRANS: u32 = 2;
/// Largest `retrans`.
pub const RETRANS_MAX: u32 = 100;
/// Shortest interval any option may have.
pub const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Which ports connections leave from. Both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRange {
    /// Below 1024 (`resvport`); needs CAP_NET_BIND_SERVICE.
    Reserved {
        /// Lowest port.
        lo: u16,
        /// Highest port.
        hi: u16,
    },
    /// 1024 and above (`noresvport`).
    Ephemeral {
        /// Lowest port.
        lo: u16,
        /// Highest port.
        hi: u16,
    },
}

impl PortRange {
    /// Lowest and highest port.
    pub fn bounds(self) -> (u16, u16) {
        match self {
            Self::Reserved { lo, hi } | Self::Ephemeral { lo, hi } => (lo, hi),
        }
    }

    /// Whether the ports need a privilege to bind.
    pub fn is_reserved(self) -> bool {
        matches!(self, Self::Reserved { .. })
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self::Reserved { lo: RESERVED_LO, hi: RESERVED_HI }
    }
}

/// Which port a reconnect leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rebind {
    /// The port of the first connection, as Linux does for NFSv3 with `resvport`.
    #[default]
    Same,
    /// A new port for every attempt.
    Fresh,
}

/// How a connection that is given up is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Abandon {
    /// With a RST (SO_LINGER 0): it frees a balancer's flow entry if it gets through.
    #[default]
    Reset,
    /// Without a packet, as TCP_USER_TIMEOUT ends a socket with data in flight.
    Silent,
    /// With a FIN: an ordinary close.
    Fin,
}

/// When a server that acknowledges but does not answer is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stuck {
    /// After [`STUCK_AFTER`] when a second execution can do no harm (only idempotent calls are outstanding, or the
    /// server replays across ports), and when the server has been seen to answer out of order. Otherwise after `timeo`,
    /// because a server that takes one call at a time cannot answer the in-band NULL while it is healthy.
    #[default]
    Careful,
    /// After `timeo`, always.
    Timeo,
    /// After this time, always.
    After(Duration),
}

/// What a call does after its major timeout (nfs(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recovery {
    /// Keeps trying.
    #[default]
    Hard,
    /// Fails with EIO.
    Soft,
    /// Fails with ETIMEDOUT.
    SoftErr,
}

/// The program a connection is for: its NULL must be answered before the connection is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProbedProgram {
    /// NFS version 3.
    #[default]
    Nfs,
    /// MOUNT version 3, on a port that may serve nothing else.
    Mnt,
}

/// Everything a [`super::Machine`] can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Ports to leave from.
    pub range: PortRange,
    /// Port of a reconnect.
    pub rebind: Rebind,
    /// Close of a connection that is given up.
    pub abandon: Abandon,
    /// Silence with calls outstanding before a connection is doubted; the machine takes four times the smoothed
    /// reply time when that is more.
    pub suspect_after: Duration,
    /// What false alarms may raise `suspect_after` to.
    pub suspect_max: Duration,
    /// How long our bytes stay unacknowledged, with a retransmission, before the path is dead.
    pub path_dead_after: Duration,
    /// Least time for one attempt; three times the last known round trip when that is more.
    pub attempt_timeout: Duration,
    /// Longest time for one attempt.
    pub attempt_timeout_max: Duration,
    /// When a server that only acknowledges is left.
    pub stuck: Stuck,
    /// Whether the server answers a resent call from its reply cache whatever port it comes from.
    pub server_replays: bool,
    /// First delay after a failed attempt, before jitter.
    pub backoff_min: Duration,
    /// Longest delay after a failed attempt.
    pub backoff_max: Duration,
    /// `timeo`: wait before a call is sent again on a live connection; grows by itself each time.
    pub timeo: Duration,
    /// `retrans`: the major timeout is `timeo * (retrans + 1)`.
    pub retrans: u32,
    /// `hard`, `soft` or `softerr`.
    pub recovery: Recovery,
    /// Whose NULL proves a connection.
    pub program: ProbedProgram,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            range: PortRange::default(),
            rebind: Rebind::default(),
            abandon: Abandon::default(),
            suspect_after: SUSPECT_AFTER,
            suspect_max: SUSPECT_MAX,
            path_dead_after: PATH_DEAD_AFTER,
            attempt_timeout: ATTEMPT_TIMEOUT,
            attempt_timeout_max: ATTEMPT_TIMEOUT_MAX,
            stuck: Stuck::default(),
            server_replays: false,
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            timeo: TIMEO,
            retrans: RETRANS,
            recovery: Recovery::default(),
            program: ProbedProgram::default(),
        }
    }
}

/// Why a [`Config`] cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The range is empty or reaches out of its class.
    #[error("source port range {lo}-{hi} is not usable: {why}")]
    Range {
        /// Lowest port given.
        lo: u16,
        /// Highest port given.
        hi: u16,
        /// What is wrong and what to do.
        why: &'static str,
    },
    /// Too few ports remain after exclusions.
    #[error(
        "source port range {lo}-{hi} has {usable} usable ports but needs {needed}: widen the range or exclude fewer"
    )]
    TooFewPorts {
        /// Lowest port given.
        lo: u16,
        /// Highest port given.
        hi: u16,
        /// Ports left.
        usable: usize,
        /// Ports needed.
        needed: usize,
    },
    /// An interval is out of its bounds.
    #[error("{option} is {given:?} but must be from {least:?} to {most:?}")]
    Interval {
        /// The option's name.
        option: &'static str,
        /// Value given.
        given: Duration,
        /// Least value.
        least: Duration,
        /// Largest value.
        most: Duration,
    },
    /// `retrans` is out of its bounds.
    #[error("retrans is {given} but must be at most {RETRANS_MAX}")]
    Retrans {
        /// Value given.
        given: u32,
    },
}

impl Config {
    /// Checks every bound that does not depend on the excluded ports.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_range()?;
        let stuck = if let Stuck::After(after) = self.stuck { after } else { STUCK_AFTER };
        for (option, given, least, most) in [
            ("suspect_after", self.suspect_after, INTERVAL_MIN, TIMEO_MAX),
            ("suspect_max", self.suspect_max, self.suspect_after, TIMEO_MAX),
            ("path_dead_after", self.path_dead_after, INTERVAL_MIN, TIMEO_MAX),
            ("attempt_timeout", self.attempt_timeout, INTERVAL_MIN, TIMEO_MAX),
            ("attempt_timeout_max", self.attempt_timeout_max, self.attempt_timeout, TIMEO_MAX),
            ("stuck", stuck, INTERVAL_MIN, TIMEO_MAX),
            ("backoff_min", self.backoff_min, INTERVAL_MIN, TIMEO_MAX),
            ("backoff_max", self.backoff_max, self.backoff_min, TIMEO_MAX),
            ("timeo", self.timeo, INTERVAL_MIN, TIMEO_MAX),
        ] {
            if given < least || given > most {
                return Err(ConfigError::Interval { option, given, least, most });
            }
        }
        if self.retrans > RETRANS_MAX {
            return Err(ConfigError::Retrans { given: self.retrans });
        }
        Ok(())
    }

    fn validate_range(&self) -> Result<(), ConfigError> {
        let (lo, hi) = self.range.bounds();
        let why = match self.range {
            _ if lo == 0 || lo > hi => {
                "it is empty; give a lowest port of at least 1 that is not above the highest"
            }
            PortRange::Reserved { .. } if hi >= UNPRIVILEGED => {
                "reserved ports end at 1023; use noresvport above it"
            }
            PortRange::Ephemeral { .. } if lo < UNPRIVILEGED => {
                "unprivileged ports start at 1024; use resvport below it"
            }
            _ => return Ok(()),
        };
        Err(ConfigError::Range { lo, hi, why })
    }

    /// `timeo * (retrans + 1)`: when a call counts as not answered at all.
    pub(super) fn major_timeout(&self) -> Duration {
        self.timeo * (self.retrans + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_is_what_linux_does() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!((config.range.bounds(), config.rebind), ((665, 1023), Rebind::Same));
        assert_eq!(config.major_timeout(), Duration::from_secs(180));
    }

    #[test]
    fn a_reserved_range_cannot_reach_unprivileged_ports() {
        let config = Config { range: PortRange::Reserved { lo: 1000, hi: 1024 }, ..Config::default() };
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains("1000-1024") && message.contains("noresvport"), "{message}");
        let config = Config { range: PortRange::Ephemeral { lo: 1023, hi: 2000 }, ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().contains("resvport"));
    }

    #[test]
    fn empty_ranges_are_refused() {
        for (lo, hi) in [(0, 900), (900, 899)] {
            let config = Config { range: PortRange::Reserved { lo, hi }, ..Config::default() };
            assert!(matches!(config.validate(), Err(ConfigError::Range { .. })), "{lo}-{hi}");
        }
    }

    #[test]
    fn an_interval_out_of_bounds_is_named() {
        let config = Config { suspect_after: Duration::ZERO, ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().starts_with("suspect_after is 0ns"));
        let config = Config { backoff_max: Duration::from_millis(1), ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().starts_with("backoff_max"));
        let config = Config { stuck: Stuck::After(Duration::ZERO), ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().starts_with("stuck"));
        let config = Config { retrans: RETRANS_MAX + 1, ..Config::default() };
        assert!(matches!(config.validate(), Err(ConfigError::Retrans { .. })));
    }
}
