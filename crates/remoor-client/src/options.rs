//! Options of a connection, in the syntax of nfs(5). One table holds them all; help and errors come from it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use remoor_nfs::reconnect::{
    Abandon, Config, ConfigError, PortRange, RESERVED_HI, RESERVED_LO, Rebind, Recovery, Stuck,
};
use remoor_rpc::net;

/// Most connections of one client: `NFS_MAX_CONNECTIONS` of fs/nfs/client.c.
pub const MAX_CONNECTIONS: u32 = 16;

/// One option: how it is written and what it does.
#[derive(Debug)]
pub struct OptionRow {
    /// Its name.
    pub name: &'static str,
    /// Its argument as help shows it; empty if it takes none.
    pub argument: &'static str,
    /// What it does, with its default.
    pub meaning: &'static str,
    apply: fn(&mut Options, &str) -> Result<(), &'static str>,
}

const fn row(
    name: &'static str,
    argument: &'static str,
    meaning: &'static str,
    apply: fn(&mut Options, &str) -> Result<(), &'static str>,
) -> OptionRow {
    OptionRow { name, argument, meaning, apply }
}

/// Every option, in the order help shows them.
pub static TABLE: &[OptionRow] = &[
    row(
        "resvport",
        "",
        "leave from a reserved port, 665-1023 (default); needs CAP_NET_BIND_SERVICE",
        |o, _| {
            o.reserved = true;
            Ok(())
        },
    ),
    row(
        "noresvport",
        "",
        "leave from a port above 1023, a fresh one for every attempt; needs an insecure export",
        |o, _| {
            o.reserved = false;
            Ok(())
        },
    ),
    row(
        "rebind",
        "same|fresh",
        "port of a reconnect (default: same with resvport, fresh with noresvport)",
        |o, v| {
            o.rebind = Some(match v {
                "same" => Rebind::Same,
                "fresh" => Rebind::Fresh,
                _ => return Err("must be same or fresh"),
            });
            Ok(())
        },
    ),
    row(
        "abandon",
        "reset|silent|fin",
        "how a dead connection is closed: RST (default), no packet, FIN",
        |o, v| {
            o.abandon = match v {
                "reset" => Abandon::Reset,
                "silent" => Abandon::Silent,
                "fin" => Abandon::Fin,
                _ => return Err("must be reset, silent or fin"),
            };
            Ok(())
        },
    ),
    row("hard", "", "a call is retried until it is answered (default)", |o, _| {
        o.recovery = Recovery::Hard;
        Ok(())
    }),
    row("soft", "", "a call fails with EIO after timeo x (retrans + 1)", |o, _| {
        o.recovery = Recovery::Soft;
        Ok(())
    }),
    row("softerr", "", "a call fails with ETIMEDOUT after timeo x (retrans + 1)", |o, _| {
        o.recovery = Recovery::SoftErr;
        Ok(())
    }),
    row(
        "timeo",
        "DECISECONDS",
        "wait before a call is sent again on a live connection (default 600)",
        |o, v| {
            o.timeo = Duration::from_millis(100) * number(v)?;
            Ok(())
        },
    ),
    row("retrans", "N", "retransmissions before a major timeout (default 2)", |o, v| {
        o.retrans = number(v)?;
        Ok(())
    }),
    row(
        "suspect",
        "MILLISECONDS",
        "silence with calls in flight before the server is doubted (default 300)",
        |o, v| {
            o.suspect = Duration::from_millis(u64::from(number(v)?));
            Ok(())
        },
    ),
    row(
        "stuck",
        "MILLISECONDS|careful|timeo",
        "when a server that ACKs but does not answer is left (default careful)",
        |o, v| {
            o.stuck = match v {
                "careful" => Stuck::Careful,
                "timeo" => Stuck::Timeo,
                ms => Stuck::After(Duration::from_millis(u64::from(number(ms)?))),
            };
            Ok(())
        },
    ),
    row(
        "nconnect",
        "N",
        "connections to the server, 1 to 16, over which calls are spread (default 1)",
        |o, v| {
            o.nconnect = match number(v)? {
                n @ 1..=MAX_CONNECTIONS => n,
                _ => return Err("must be from 1 to 16"),
            };
            Ok(())
        },
    ),
];

/// The row of the option `name`.
pub fn row_of(name: &str) -> Option<&'static OptionRow> {
    TABLE.iter().find(|row| row.name == name)
}

fn number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "must be a whole number")
}

/// What an option string asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Leave from a reserved port.
    pub reserved: bool,
    /// Port of a reconnect, if it was given.
    pub rebind: Option<Rebind>,
    /// Close of a dead connection.
    pub abandon: Abandon,
    /// What a call does after its major timeout.
    pub recovery: Recovery,
    /// Wait before a call is sent again on a live connection.
    pub timeo: Duration,
    /// Retransmissions before a major timeout.
    pub retrans: u32,
    /// Silence before the server is doubted.
    pub suspect: Duration,
    /// When a server that only acknowledges is left.
    pub stuck: Stuck,
    /// Connections, from 1 to [`MAX_CONNECTIONS`].
    pub nconnect: u32,
}

impl Default for Options {
    fn default() -> Self {
        let config = Config::default();
        Self {
            reserved: true,
            rebind: None,
            abandon: config.abandon,
            recovery: config.recovery,
            timeo: config.timeo,
            retrans: config.retrans,
            suspect: config.suspect_after,
            stuck: config.stuck,
            nconnect: 1,
        }
    }
}

impl Options {
    /// Port of a reconnect: what was given, else what the range implies.
    pub fn rebind(&self) -> Rebind {
        self.rebind.unwrap_or(if self.reserved { Rebind::Same } else { Rebind::Fresh })
    }

    /// The machine's configuration on a host whose ephemeral ports are `ephemeral` (lowest, highest).
    pub fn config(&self, ephemeral: (u16, u16)) -> Result<Config, ConfigError> {
        let (lo, hi) = ephemeral;
        let config = Config {
            range: match self.reserved {
                true => PortRange::Reserved { lo: RESERVED_LO, hi: RESERVED_HI },
                false => PortRange::Ephemeral { lo: lo.max(1024), hi },
            },
            rebind: self.rebind(),
            abandon: self.abandon,
            recovery: self.recovery,
            timeo: self.timeo,
            retrans: self.retrans,
            suspect_after: self.suspect,
            suspect_max: Config::default().suspect_max.max(self.suspect),
            stuck: self.stuck,
            ..Config::default()
        };
        config.validate().map(|()| config)
    }

    /// Checks what was built field by field: the limits of each value, and that they fit each other.
    pub fn validate(&self) -> Result<(), OptionError> {
        self.config((1024, 65535))?;
        match self.nconnect {
            1..=MAX_CONNECTIONS => Ok(()),
            given => Err(OptionError::Connections { given }),
        }
    }

    /// The configuration on this host.
    pub(crate) fn config_here(&self) -> Result<Config, ConfigError> {
        self.config(net::local_port_range())
    }
}

/// An option string that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such option.
    #[error("unknown option {name:?}{}; known here: {}", nearest(name), names())]
    Unknown {
        /// As given.
        name: String,
    },
    /// The argument is missing, superfluous or wrong.
    #[error("option {given:?}: {why}; it is written {usage}")]
    Argument {
        /// As given.
        given: String,
        /// What is wrong.
        why: &'static str,
        /// How it is written.
        usage: String,
    },
    /// `nconnect` is out of its bounds.
    #[error("nconnect is {given} but must be from 1 to {MAX_CONNECTIONS}")]
    Connections {
        /// Value given.
        given: u32,
    },
    /// The values do not fit each other or their limits.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl OptionRow {
    /// How it is written.
    pub fn usage(&self) -> String {
        if self.argument.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}={}", self.name, self.argument)
        }
    }

    /// Sets the option in `options`. `given` is how a person wrote it, for the message; `value` is what stands behind the
    /// equals sign, if there is one. Whether all values fit each other is for [`Options::validate`] to say.
    pub fn set(&self, options: &mut Options, given: &str, value: Option<&str>) -> Result<(), OptionError> {
        let why = match (self.argument.is_empty(), value) {
            (true, None) => (self.apply)(options, ""),
            (true, Some(_)) => Err("takes no argument"),
            (false, None) => Err("needs an argument"),
            (false, Some(value)) => (self.apply)(options, value),
        };
        why.map_err(|why| OptionError::Argument { given: given.to_owned(), why, usage: self.usage() })
    }
}

impl FromStr for Options {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for given in text.split(',').map(str::trim).filter(|given| !given.is_empty()) {
            let (name, value) =
                given.split_once('=').map_or((given, None), |(name, value)| (name, Some(value)));
            let row = row_of(name).ok_or_else(|| OptionError::Unknown { name: name.to_owned() })?;
            row.set(&mut options, given, value)?;
        }
        options.validate()?;
        Ok(options)
    }
}

impl fmt::Display for Options {
    /// The choices about ports and leaving, as options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.reserved { "resvport" } else { "noresvport" })?;
        match self.rebind {
            Some(Rebind::Same) => f.write_str(",rebind=same")?,
            Some(Rebind::Fresh) => f.write_str(",rebind=fresh")?,
            None => {}
        }
        match self.abandon {
            Abandon::Reset => Ok(()),
            Abandon::Silent => f.write_str(",abandon=silent"),
            Abandon::Fin => f.write_str(",abandon=fin"),
        }
    }
}

fn names() -> String {
    TABLE.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
}

fn nearest(name: &str) -> String {
    let close = TABLE.iter().map(|row| (strsim::damerau_levenshtein(name, row.name), row.name)).min();
    close.filter(|(d, _)| *d <= 2).map_or(String::new(), |(_, near)| format!(" (did you mean {near:?}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_linux() {
        let options: Options = "".parse().unwrap();
        assert_eq!(options, Options::default());
        assert_eq!((options.reserved, options.rebind()), (true, Rebind::Same));
        let options: Options = "noresvport".parse().unwrap();
        assert_eq!((options.reserved, options.rebind()), (false, Rebind::Fresh));
    }

    #[test]
    fn display_parses_back() {
        for text in ["resvport", "noresvport,rebind=same", "resvport,rebind=fresh,abandon=silent"] {
            assert_eq!(text.parse::<Options>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn options_built_field_by_field_are_checked_as_those_of_a_string() {
        let mut options = Options { nconnect: 16, ..Options::default() };
        assert_eq!(options.validate(), Ok(()));
        assert_eq!("nconnect=16".parse(), Ok(options.clone()));
        row_of("timeo").unwrap().set(&mut options, "timeo=5", Some("5")).unwrap();
        assert_eq!(options.timeo, Duration::from_millis(500));
        for given in [0, 17] {
            options.nconnect = given;
            assert_eq!(options.validate(), Err(OptionError::Connections { given }));
            assert!(format!("nconnect={given}").parse::<Options>().is_err());
        }
        let wrong = Options { retrans: 1000, ..Options::default() };
        assert!(matches!(wrong.validate(), Err(OptionError::Config(_))));
    }

    #[test]
    fn mistakes_are_named_with_the_remedy() {
        let error = |text: &str| text.parse::<Options>().unwrap_err().to_string();
        assert!(
            error("noresvprt").starts_with("unknown option \"noresvprt\" (did you mean \"noresvport\"?)")
        );
        assert_eq!(
            error("rebind=maybe"),
            "option \"rebind=maybe\": must be same or fresh; it is written rebind=same|fresh"
        );
        assert!(error("hard=1").contains("takes no argument"));
        assert!(error("timeo").contains("needs an argument"));
        assert!(error("timeo=x").contains("whole number"));
        assert!(error("timeo=6001").contains("timeo"));
    }
}
