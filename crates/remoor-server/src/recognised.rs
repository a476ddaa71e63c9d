//! Clients that were recognised by their names a moment ago. Each thread remembers a few, because an export may name
//! hundreds of hosts, and to compare a client with all of them takes longer than most calls.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a thread remembers. Answers of the name service are kept far longer.
const KEEP: Duration = Duration::from_secs(1);
/// Clients and exports that a thread remembers.
const PLACES: usize = 256;

/// That a rule of an export names a client.
#[derive(Clone, Copy)]
struct Recognised {
    export: u64,
    client: IpAddr,
    rule: usize,
    until: Instant,
}

thread_local!(static RECOGNISED: RefCell<[Option<Recognised>; PLACES]> = const { RefCell::new([None; PLACES]) });

/// The number of the rule that decides for a client in the export of this serial number: remembered, or as `decide` says.
/// That no rule does, or that it is not known yet, is not remembered.
pub(crate) fn rule<E>(
    export: u64,
    client: IpAddr,
    now: Instant,
    decide: impl FnOnce() -> Result<Option<usize>, E>,
) -> Result<Option<usize>, E> {
    let place = place(export, client);
    let known = RECOGNISED.with_borrow(|all| all[place]);
    if let Some(known) = known.filter(|k| (k.export, k.client) == (export, client) && now < k.until) {
        return Ok(Some(known.rule));
    }
    let decided = decide()?;
    if let Some(rule) = decided {
        let recognised = Recognised { export, client, rule, until: now + KEEP };
        RECOGNISED.with_borrow_mut(|all| all[place] = Some(recognised));
    }
    Ok(decided)
}

/// Clients of one network differ in their last bytes.
fn place(export: u64, client: IpAddr) -> usize {
    let last = match client {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    (usize::from(last) + (export % PLACES as u64) as usize) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_remembers_for_a_moment_whom_a_rule_named() {
        let (client, other) = (IpAddr::from([192, 0, 2, 7]), IpAddr::from([198, 51, 100, 7]));
        let now = Instant::now();
        let ask = |export, client, now, answer| rule(export, client, now, || answer);
        assert_eq!(ask(u64::MAX, client, now, Err(())), Err(()));
        assert_eq!(ask(u64::MAX, client, now, Ok(None)), Ok(None));
        assert_eq!(ask(u64::MAX, client, now, Ok(Some(3))), Ok(Some(3)));
        assert_eq!(ask(u64::MAX, client, now, Err(())), Ok(Some(3)));
        assert_eq!(
            ask(u64::MAX - 1, client, now, Err(())),
            Err(()),
            "another export, or the same with other rules"
        );
        assert_eq!(ask(u64::MAX, other, now, Err(())), Err(()), "another client at the same place");
        assert_eq!(ask(u64::MAX, client, now + KEEP, Err(())), Err(()));
    }
}
