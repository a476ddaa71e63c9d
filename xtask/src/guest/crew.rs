//! Writers under load around one crash after another: a kernel client's and our own client's.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};

use super::Programs;
use super::service::{Control, Place, Told, compare};
use crate::report::Counts;

/// Longest and shortest time under load before a crash.
const LOAD: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(1800));
/// Losses of a round that are told.
const MAX_TOLD: usize = 10;

/// A generator of random moments; the seed is told, so that a schedule can be had again.
#[derive(Debug)]
pub(crate) struct Moments(u64);

impl Moments {
    /// The given seed, or one from the clock.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let clock =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.subsec_nanos().into());
        let seed = seed.unwrap_or_else(clock);
        println!("moments are from --seed {seed}");
        Self(seed)
    }

    /// Time under load before the next crash.
    pub(crate) fn next(&mut self) -> Duration {
        // Knuth's MMIX; the low bits are weak and left out.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let span = (LOAD.1 - LOAD.0).as_millis() as u64;
        LOAD.0 + Duration::from_millis((self.0 >> 33) % span)
    }
}

/// All writers of a scenario.
pub(crate) struct Crew {
    controls: Vec<Control>,
    /// Begins the line of a round in which something was lost.
    lost: &'static str,
    acknowledged: u64,
    repeated: u64,
    verifier: Option<String>,
    slowest: Duration,
}

/// What a round showed.
struct Rest {
    who: &'static str,
    told: Told,
    took: Duration,
}

impl Crew {
    /// Writers that are at work; `lost` begins the line of a round in which something was lost.
    pub(crate) fn new(controls: Vec<Control>, lost: &'static str) -> anyhow::Result<Self> {
        let mut crew =
            Self { controls, lost, acknowledged: 0, repeated: 0, verifier: None, slowest: Duration::ZERO };
        let rests = crew.rest()?;
        // What comes after a crash is compared with this.
        crew.progress(&rests, false);
        crew.slowest = Duration::ZERO;
        crew.resume()?;
        Ok(crew)
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        self.controls.iter_mut().try_for_each(Control::resume)
    }

    /// After a crash: waits until every writer has had its answers, compares what was acknowledged with what is in
    /// `places`, tells, and lets them go on.
    pub(crate) fn round(
        &mut self,
        name: &str,
        programs: &Programs,
        places: &[Place<'_>],
        new_verifier: bool,
    ) -> anyhow::Result<Counts> {
        let rests = self.rest()?;
        let mut wrong = Vec::new();
        for rest in &rests {
            wrong.extend(rest.told.failures.iter().map(|failure| format!("{}: {failure}", rest.who)));
            for place in places {
                let losses = compare(programs, &rest.told, *place)?;
                wrong.extend(losses.into_iter().map(|loss| format!("{}: {loss}", rest.who)));
            }
        }
        wrong.extend(self.progress(&rests, new_verifier));
        self.tell(name, &rests, &wrong);
        self.resume()?;
        Ok(Counts::of(wrong.is_empty()))
    }

    fn rest(&mut self) -> anyhow::Result<Vec<Rest>> {
        let results: Vec<_> = thread::scope(|scope| {
            let pause = |control: &'_ mut Control| {
                let (told, took) = control.pause()?;
                anyhow::Ok(Rest { who: control.who, told, took })
            };
            let started: Vec<_> = self.controls.iter_mut().map(|c| scope.spawn(move || pause(c))).collect();
            started.into_iter().map(|thread| thread.join()).collect()
        });
        results.into_iter().map(|result| result.ok().context("a thread panicked")?).collect()
    }

    /// A round without work proves nothing, and neither does one whose server is the same as before.
    fn progress(&mut self, rests: &[Rest], new_verifier: bool) -> Vec<String> {
        let sum = |key| rests.iter().map(|rest| rest.told.number(key)).sum::<u64>();
        let mut wrong = Vec::new();
        if sum("acknowledged") <= self.acknowledged {
            wrong.push("nothing was acknowledged since the round before".to_owned());
        }
        let verifier = rests.iter().find_map(|rest| rest.told.verifier()).map(str::to_owned);
        if new_verifier && verifier.is_some() && verifier == self.verifier {
            wrong.push(format!(
                "the write verifier is still {}",
                self.verifier.as_deref().unwrap_or_default()
            ));
        }
        self.verifier = verifier;
        (self.acknowledged, self.repeated) = (sum("acknowledged"), sum("repeated"));
        self.slowest = rests.iter().map(|rest| rest.took).fold(self.slowest, Duration::max);
        wrong
    }

    fn tell(&self, name: &str, rests: &[Rest], wrong: &[String]) {
        let verdict = if wrong.is_empty() { "ok" } else { self.lost };
        let rested: Vec<_> = rests
            .iter()
            .map(|rest| format!("{} at rest after {:.1} s", rest.who, rest.took.as_secs_f64()))
            .collect();
        let (acknowledged, repeated) = (self.acknowledged, self.repeated);
        println!(
            "{verdict} {name}: {}; {acknowledged} acknowledged so far, {repeated} answered as repeated",
            rested.join(", ")
        );
        wrong.iter().take(MAX_TOLD).for_each(|what| println!("    {what}"));
        if wrong.len() > MAX_TOLD {
            println!("    and {} more", wrong.len() - MAX_TOLD);
        }
    }

    /// The figures of all rounds.
    pub(crate) fn summary(&self, began: Instant) -> anyhow::Result<String> {
        ensure!(self.acknowledged > 0, "nothing was acknowledged");
        Ok(format!(
            "{} calls acknowledged, {} answered as repeated, slowest return {:.1} s, {:.0} s in all",
            self.acknowledged,
            self.repeated,
            self.slowest.as_secs_f64(),
            began.elapsed().as_secs_f64()
        ))
    }
}

/// Where our own client's writers obey, in the sandbox.
pub(crate) fn dialled_control() -> SocketAddr {
    ([127, 0, 0, 1], CONTROL_PORT).into()
}

/// The port on which writers obey.
pub(super) const CONTROL_PORT: u16 = 7000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_within_bounds_and_repeat_from_a_seed() {
        let moments = |seed| {
            let mut moments = Moments::new(Some(seed));
            (0..100).map(|_| moments.next()).collect::<Vec<_>>()
        };
        assert_eq!(moments(7), moments(7));
        assert_ne!(moments(7), moments(8));
        assert!(moments(7).iter().all(|moment| (LOAD.0..LOAD.1).contains(moment)));
        assert!(moments(7).iter().max() > moments(7).iter().min());
    }
}
