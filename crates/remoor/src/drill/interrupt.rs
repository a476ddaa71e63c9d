//! What a drill does when it is told to end early.

use std::path::PathBuf;
use std::{fs, io, thread};

use remoor_drill::namespace;

/// Tries to remove a directory that a server may write to until it is dead: a failed one leaves less for the next.
const REMOVALS: usize = 100;

/// A drill that is interrupted leaves nothing behind, neither processes nor files.
pub(super) fn remove_on_signal(dir: PathBuf) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGQUIT, SIGTERM])?;
    if !hangup_is_ignored() {
        signals.add_signal(SIGHUP)?;
    }
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Ending matters more than a file that cannot be removed.
            namespace::kill_processes();
            let removed = || fs::remove_dir_all(&dir).is_ok() || !dir.exists();
            let _ = (0..REMOVALS).any(|_| removed());
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// nohup(1) ignores SIGHUP so that a command goes on without its terminal.
pub(crate) fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, signal_hook::consts::SIGHUP)
}

/// Whether a process with this /proc/PID/status ignores `signal`: bit n - 1 of SigIgn stands for signal n (proc(5)).
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_known() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000004002\n";
        assert!(ignores(status, 1) && ignores(status, 13));
        assert!(!ignores(status, 2) && !ignores("", 1));
    }
}
