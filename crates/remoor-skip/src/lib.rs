//! How a test says that it was skipped; for tests only. `cargo xtask test` names the file, lists what is in it, and fails
//! where nothing may be skipped.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Names the file that skips are appended to.
const LOG: &str = "REMOOR_SKIP_LOG";

/// Says that a test, or a part of it, does not run here, and why: what is missing. Without a log the line is shown.
///
/// # Panics
/// If the log cannot be written: a skip must not be silent.
#[allow(clippy::print_stderr, reason = "without a log the line is shown")]
pub fn skip(test: &str, why: impl Display) {
    let line = line(test, why);
    match std::env::var_os(LOG) {
        Some(log) => {
            append(Path::new(&log), &line).unwrap_or_else(|e| panic!("cannot write {log:?}: {e}: {line}"))
        }
        None => eprint!("SKIPPED {line}"),
    }
}

fn line(test: &str, why: impl Display) -> String {
    format!("{test}: because {why}\n")
}

/// In one write, since tests of several processes do this at a time.
fn append(log: &Path, line: &str) -> io::Result<()> {
    File::options().append(true).create(true).open(log)?.write_all(line.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended() {
        let log = std::env::temp_dir().join(format!("remoor-skip-{}", std::process::id()));
        append(&log, &line("a", "package x is missing")).unwrap();
        append(&log, &line("b", "this is not root")).unwrap();
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert_eq!(text, "a: because package x is missing\nb: because this is not root\n");
    }

    #[test]
    fn a_log_that_cannot_be_written_is_an_error() {
        assert!(append(Path::new("/proc/self/skips"), "a").is_err());
    }
}
