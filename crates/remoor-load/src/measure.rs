//! What a load took: time, and processors on both sides.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::param::clock_ticks_per_second;
use serde_json::json;

use crate::drive::{Done, Load};

/// The process of the server, if it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server(pub(crate) Option<u32>);

impl Server {
    fn cpu_seconds(self) -> anyhow::Result<f64> {
        self.0.map_or(Ok(0.0), |pid| cpu_seconds(&pid.to_string()))
    }
}

/// Runs a load; its line of JSON has the fields of nfsload's.
pub(crate) async fn measured(
    server: Server,
    load: &Load,
    run: impl Future<Output = anyhow::Result<Done>>,
) -> anyhow::Result<serde_json::Value> {
    let (theirs, own, began) = (server.cpu_seconds()?, cpu_seconds("self")?, Instant::now());
    let mut done = run.await?;
    let seconds = began.elapsed().as_secs_f64();
    let (theirs, own) = (server.cpu_seconds()? - theirs, cpu_seconds("self")? - own);
    done.took.sort_unstable();
    Ok(json!({
        "op": load.name(), "depth": load.depth, "connections": 1, "calls": done.calls, "bytes": done.bytes,
        "seconds": seconds, "calls_per_second": done.calls as f64 / seconds,
        "mib_per_second": done.bytes as f64 / seconds / f64::from(1 << 20),
        "client_cpu_seconds": own, "server_cpu_seconds": theirs,
        "p50_us": part(&done.took, 0.5), "p99_us": part(&done.took, 0.99), "max_us": part(&done.took, 1.0),
    }))
}

/// The time within which this part of the calls was answered, in microseconds.
fn part(sorted: &[Duration], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(0.0, |took| took.as_secs_f64() * 1e6)
}

/// utime and stime of /proc/PID/stat, proc(5).
fn cpu_seconds(pid: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} tells no CPU time"))?;
    Ok(ticks as f64 / clock_ticks_per_second() as f64)
}

fn ticks(stat: &str) -> Option<u64> {
    // The command's name may hold spaces and parentheses; the fields after it are numbers, the first a state.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (x"), None);
        assert!(cpu_seconds("self").unwrap() >= 0.0);
    }

    #[test]
    fn parts_of_times() {
        let took: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!((part(&took, 0.5).round(), part(&took, 1.0).round()), (51.0, 100.0));
        assert_eq!(part(&[], 0.5), 0.0);
    }
}
