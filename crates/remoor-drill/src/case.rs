//! A case: one balancer, one set of mount options, one fault. And the matrix that `remoor drill` runs by default.

use std::fmt;
use std::time::Duration;

use remoor_client::{OptionError, Options};
use remoor_flow::preset::{self, Chosen, UnknownPreset};
use remoor_nfs::reconnect::{Recovery, Stuck};

use crate::fault::{FAULTS, Fault};
use crate::workload::{WORKLOADS, Workload};

/// Name of the balancer that is the Linux kernel itself.
pub const KERNEL: &str = "kernel";
/// The preset that models [`KERNEL`].
const KERNEL_PRESET: &str = "nf-conntrack";
/// Balancers of the default matrix.
pub const DEFAULT_BALANCERS: [&str; 3] = ["azure-standard", "nf-conntrack", "aws-nlb"];
/// Mount options of the default matrix: what Linux does, and three ways to do better.
pub const DEFAULT_OPTIONS: [&str; 4] =
    ["resvport,abandon=silent", "resvport", "noresvport", "resvport,rebind=fresh"];
/// Fault of the default matrix.
pub const DEFAULT_FAULT: &str = "silent";
/// How long a client may take after a fault.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(6);
/// Silence of a server that acknowledges before the drill's client leaves it. A mount is more careful, because it does
/// not know its server; in a drill both servers are the drill's own.
pub const STUCK_AFTER: Duration = Duration::from_millis(400);

/// What stands between client and nodes.
#[derive(Debug, Clone)]
pub enum BalancerChoice {
    /// A flow-table model that forwards real packets.
    Model(Chosen),
    /// nftables DNAT and nf_conntrack. Holds the preset that predicts it.
    Kernel(Chosen),
}

/// One run of the drill.
#[derive(Debug, Clone)]
pub struct Case {
    /// What stands between client and nodes.
    pub balancer: BalancerChoice,
    /// Mount options.
    pub options: Options,
    /// Mount options as they were written.
    pub options_text: String,
    /// How the node is broken.
    pub fault: &'static Fault,
    /// What the applications do.
    pub workload: &'static Workload,
    /// How long the client may take after the fault.
    pub window: Duration,
    /// From the fault until the balancer marks the node down.
    pub probe_delay: Duration,
    /// Faults in turn: A, then B, then A…
    pub rounds: u32,
    /// Start of every choice that is random.
    pub seed: u64,
}

/// A case that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// No such balancer.
    #[error("{0}, or `{KERNEL}` for nftables on this machine; see remoor drill --list")]
    Balancer(#[from] UnknownPreset),
    /// A mount option.
    #[error("-o {given}: {source}")]
    Options {
        /// As written.
        given: String,
        /// What is wrong.
        source: OptionError,
    },
    /// A mount that gives calls up.
    #[error(
        "-o {given}: a drill needs a hard mount; with soft or softerr its own client gives calls up, and nothing could be said of the servers"
    )]
    Soft {
        /// As written.
        given: String,
    },
    /// The window ends before the balancer notices.
    #[error("a window of {} s ends before the balancer notices after {} s: make --window longer than --probe-delay", window.as_secs_f64(), probe_delay.as_secs_f64())]
    Window {
        /// As given.
        window: Duration,
        /// As given.
        probe_delay: Duration,
    },
    /// No such fault.
    #[error("unknown fault `{given}`: use one of {}; see remoor drill --list", names(FAULTS.iter().map(|f| f.name)))]
    Fault {
        /// As written.
        given: String,
    },
    /// No such workload.
    #[error("unknown workload `{given}`: use one of {}; see remoor drill --list", names(WORKLOADS.iter().map(|w| w.name)))]
    Workload {
        /// As written.
        given: String,
    },
}

fn names(all: impl Iterator<Item = &'static str>) -> String {
    all.collect::<Vec<_>>().join(", ")
}

impl BalancerChoice {
    /// The balancer of this name.
    ///
    /// # Errors
    /// [`UnknownPreset`] lists the known names.
    pub fn named(name: &str) -> Result<Self, UnknownPreset> {
        if name == KERNEL {
            preset::find(KERNEL_PRESET).map(Self::Kernel)
        } else {
            preset::find(name).map(Self::Model)
        }
    }

    /// The flow table it has, or is predicted by.
    pub fn chosen(&self) -> &Chosen {
        match self {
            Self::Model(chosen) | Self::Kernel(chosen) => chosen,
        }
    }
}

impl fmt::Display for BalancerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(chosen) => f.write_str(&chosen.name),
            Self::Kernel(_) => f.write_str(KERNEL),
        }
    }
}

/// What a matrix varies, as names, and what all its cases share.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Balancers.
    pub balancers: Vec<String>,
    /// Mount options.
    pub options: Vec<String>,
    /// Faults.
    pub faults: Vec<String>,
    /// The workload.
    pub workload: String,
    /// How long the client may take after a fault.
    pub window: Duration,
    /// From a fault until the balancer marks the node down.
    pub probe_delay: Duration,
    /// Faults in turn.
    pub rounds: u32,
    /// Start of every choice that is random.
    pub seed: u64,
}

impl Default for Matrix {
    fn default() -> Self {
        Self {
            balancers: DEFAULT_BALANCERS.map(str::to_owned).into(),
            options: DEFAULT_OPTIONS.map(str::to_owned).into(),
            faults: vec![DEFAULT_FAULT.to_owned()],
            workload: WORKLOADS[0].name.to_owned(),
            window: DEFAULT_WINDOW,
            probe_delay: Duration::ZERO,
            rounds: 1,
            seed: 1,
        }
    }
}

impl Matrix {
    /// Every combination, balancers outermost.
    ///
    /// # Errors
    /// [`CaseError`] for the first name or option that is not known.
    pub fn cases(&self) -> Result<Vec<Case>, CaseError> {
        let &Self { window, probe_delay, .. } = self;
        if window <= probe_delay {
            return Err(CaseError::Window { window, probe_delay });
        }
        let mut cases = Vec::new();
        for balancer in &self.balancers {
            for fault in &self.faults {
                for options in &self.options {
                    cases.push(self.case(balancer, fault, options)?);
                }
            }
        }
        Ok(cases)
    }

    fn case(&self, balancer: &str, fault: &str, options_text: &str) -> Result<Case, CaseError> {
        let workload = Workload::named(&self.workload)
            .ok_or_else(|| CaseError::Workload { given: self.workload.clone() })?;
        Ok(Case {
            balancer: BalancerChoice::named(balancer)?,
            options: parse_options(options_text)?,
            options_text: options_text.to_owned(),
            fault: Fault::named(fault).ok_or_else(|| CaseError::Fault { given: fault.to_owned() })?,
            workload,
            window: self.window,
            probe_delay: self.probe_delay,
            rounds: self.rounds,
            seed: self.seed,
        })
    }
}

fn parse_options(given: &str) -> Result<Options, CaseError> {
    let parsed = given.parse::<Options>();
    let mut options = parsed.map_err(|source| CaseError::Options { given: given.to_owned(), source })?;
    if options.recovery != Recovery::Hard {
        return Err(CaseError::Soft { given: given.to_owned() });
    }
    // Asked for, even the default stands.
    let chosen = given.split(',').any(|option| option.trim().starts_with("stuck="));
    if !chosen {
        options.stuck = Stuck::After(STUCK_AFTER);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_matrix_has_twelve_cases() {
        let cases = Matrix::default().cases().unwrap();
        assert_eq!(cases.len(), 12);
        assert_eq!(cases[0].balancer.to_string(), "azure-standard");
        assert_eq!(cases[0].options_text, "resvport,abandon=silent");
        assert!(cases.iter().all(|case| case.fault.name == "silent"));
    }

    #[test]
    fn the_drills_own_patience_gives_way_to_any_that_was_asked_for() {
        assert_eq!(parse_options("noresvport").unwrap().stuck, Stuck::After(STUCK_AFTER));
        assert_eq!(parse_options("noresvport,stuck=careful").unwrap().stuck, Stuck::Careful);
        assert_eq!(parse_options("stuck=timeo").unwrap().stuck, Stuck::Timeo);
    }

    #[test]
    fn unknown_names_are_told_with_the_known_ones() {
        let error = |matrix: Matrix| matrix.cases().unwrap_err().to_string();
        let message = error(Matrix { balancers: vec!["azure".into()], ..Matrix::default() });
        assert!(message.contains("azure-standard") && message.contains("kernel"), "{message}");
        let message = error(Matrix { faults: vec!["flood".into()], ..Matrix::default() });
        assert!(message.contains("`flood`") && message.contains("silent, kill, stop, flap"), "{message}");
        let message = error(Matrix { options: vec!["soft".into()], ..Matrix::default() });
        assert!(message.contains("hard mount"), "{message}");
        let message = error(Matrix { probe_delay: DEFAULT_WINDOW, ..Matrix::default() });
        assert!(message.contains("--window"), "{message}");
        let message = error(Matrix { workload: "x".into(), ..Matrix::default() });
        assert!(message.contains("writers"), "{message}");
        let message = error(Matrix { options: vec!["noresvprt".into()], ..Matrix::default() });
        assert!(message.starts_with("-o noresvprt: ") && message.contains("noresvport"), "{message}");
    }
}
