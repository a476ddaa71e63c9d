//! Which source port each attempt leaves from.
//!
//! The machine chooses ephemeral ports too, instead of leaving them to connect(2): only then can "a new port for
//! every attempt" be promised and tested.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::config::{Config, ConfigError, MIN_FRESH_PORTS, Rebind};

/// How long a port is not used again for the same server, so that no balancer still maps it to a dead node: the
/// longest idle time Azure Load Balancer documents for ordinary flows (30 min; its default is 4 min). GCP keeps
/// flows for 600 s and AWS NLB for 350 s.
pub const LONGEST_BALANCER_IDLE: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usage {
    Never,
    Excluded,
    InUse,
    Released(Instant),
}

/// A port, and how long ago it was used if that is too recent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) port: u16,
    pub(super) reused_after: Option<Duration>,
}

/// The ports of one mount.
#[derive(Debug)]
pub(super) struct Ports {
    lo: u16,
    rebind: Rebind,
    usage: Vec<Usage>,
    kept: Option<u16>,
    rng: StdRng,
}

impl Ports {
    pub(super) fn new(config: &Config, excluded: &[u16], seed: u64) -> Result<Self, ConfigError> {
        let (lo, hi) = config.range.bounds();
        let mut usage = vec![Usage::Never; usize::from(hi - lo) + 1];
        for port in excluded.iter().filter(|port| (lo..=hi).contains(*port)) {
            usage[usize::from(port - lo)] = Usage::Excluded;
        }
        let usable = usage.iter().filter(|usage| **usage == Usage::Never).count();
        let needed = if config.rebind == Rebind::Fresh { MIN_FRESH_PORTS } else { 1 };
        if usable < needed {
            return Err(ConfigError::TooFewPorts { lo, hi, usable, needed });
        }
        Ok(Self { lo, rebind: config.rebind, usage, kept: None, rng: StdRng::seed_from_u64(seed) })
    }

    /// The port of the next attempt; it is in use from here on. `None` while every port is in use, which
    /// [`MIN_FRESH_PORTS`] keeps from happening.
    pub(super) fn choose(&mut self, now: Instant) -> Option<Choice> {
        let choice = match (self.rebind, self.kept) {
            (Rebind::Same, Some(port)) => Choice { port, reused_after: None },
            _ => self.unused(now).or_else(|| self.longest_unused(now))?,
        };
        self.set(choice.port, Usage::InUse);
        if self.rebind == Rebind::Same {
            self.kept = Some(choice.port);
        }
        Some(choice)
    }

    /// The connection or attempt from `port` is over.
    pub(super) fn release(&mut self, port: u16, now: Instant) {
        self.set(port, Usage::Released(now));
    }

    /// Gives up a kept port that cannot be bound.
    pub(super) fn forget_kept(&mut self) {
        self.kept = None;
    }

    fn unused(&mut self, now: Instant) -> Option<Choice> {
        let len = self.usage.len();
        let start = self.rng.random_range(0..len);
        let index = (start..len).chain(0..start).find(|index| match self.usage[*index] {
            Usage::Never => true,
            Usage::Released(at) => now.saturating_duration_since(at) >= LONGEST_BALANCER_IDLE,
            Usage::Excluded | Usage::InUse => false,
        })?;
        Some(Choice { port: self.port(index), reused_after: None })
    }

    fn longest_unused(&self, now: Instant) -> Option<Choice> {
        let released = |(index, usage): (usize, &Usage)| match usage {
            Usage::Released(at) => Some((*at, index)),
            _ => None,
        };
        let (at, index) = self.usage.iter().enumerate().filter_map(released).min()?;
        Some(Choice { port: self.port(index), reused_after: Some(now.saturating_duration_since(at)) })
    }

    fn port(&self, index: usize) -> u16 {
        self.lo + index as u16
    }

    fn set(&mut self, port: u16, usage: Usage) {
        self.usage[usize::from(port - self.lo)] = usage;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::config::PortRange;
    use super::super::tests::epoch;
    use super::*;

    fn ports(rebind: Rebind, lo: u16, hi: u16, excluded: &[u16]) -> Ports {
        let config = Config { range: PortRange::Reserved { lo, hi }, rebind, ..Config::default() };
        Ports::new(&config, excluded, 1).unwrap()
    }

    #[test]
    fn fresh_never_repeats_until_the_range_is_exhausted_then_takes_the_longest_unused() {
        let now = epoch();
        let mut ports = ports(Rebind::Fresh, 700, 709, &[703, 2049]);
        let mut taken = Vec::new();
        for step in 0..9u32 {
            let at = now + Duration::from_secs(1) * step;
            let choice = ports.choose(at).unwrap();
            assert_eq!(choice.reused_after, None);
            ports.release(choice.port, at);
            taken.push(choice.port);
        }
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 9);
        assert!(!taken.contains(&703), "excluded");
        let again = ports.choose(now + Duration::from_secs(9)).unwrap();
        assert_eq!(again, Choice { port: taken[0], reused_after: Some(Duration::from_secs(9)) });
    }

    #[test]
    fn a_port_is_fresh_again_after_the_longest_balancer_idle_time() {
        let now = epoch();
        let mut ports = ports(Rebind::Fresh, 700, 703, &[]);
        for _ in 0..4 {
            let choice = ports.choose(now).unwrap();
            ports.release(choice.port, now);
        }
        let choice = ports.choose(now + LONGEST_BALANCER_IDLE).unwrap();
        assert_eq!(choice.reused_after, None);
    }

    #[test]
    fn a_port_in_use_is_never_chosen() {
        let mut ports = ports(Rebind::Fresh, 700, 703, &[]);
        let taken: BTreeSet<_> = (0..4).map(|_| ports.choose(epoch()).unwrap().port).collect();
        assert_eq!(taken.len(), 4);
        assert_eq!(ports.choose(epoch()), None);
    }

    #[test]
    fn same_keeps_its_port_until_it_is_told_to_forget_it() {
        let mut ports = ports(Rebind::Same, 700, 799, &[]);
        let first = ports.choose(epoch()).unwrap().port;
        ports.release(first, epoch());
        assert_eq!(ports.choose(epoch()).unwrap().port, first);
        ports.release(first, epoch());
        ports.forget_kept();
        assert_ne!(ports.choose(epoch()).unwrap().port, first);
    }

    #[test]
    fn too_few_ports_are_refused() {
        let config = Config {
            range: PortRange::Reserved { lo: 700, hi: 704 },
            rebind: Rebind::Fresh,
            ..Config::default()
        };
        let error = Ports::new(&config, &[700, 701], 1).unwrap_err();
        assert_eq!(error, ConfigError::TooFewPorts { lo: 700, hi: 704, usable: 3, needed: MIN_FRESH_PORTS });
    }
}
