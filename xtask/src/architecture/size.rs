//! Files stay short enough to be read.

use std::path::Path;

use super::{Violation, shown};

/// Most lines of a source file.
pub const MAX_SOURCE_LINES: usize = 900;
/// Most lines of ARCHITECTURE.md.
pub const MAX_ARCHITECTURE_LINES: usize = 200;

/// The violation of a file with this text, if it is too long.
pub fn violation(file: &Path, text: &str, max: usize) -> Option<Violation> {
    let lines = text.lines().count();
    (lines > max).then(|| Violation {
        file: shown(file),
        line: max + 1,
        what: format!("{lines} lines, {} over the limit of {max}", lines - max),
        remedy: "Split it by subject".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed() {
        let file = Path::new("crates/x/src/lib.rs");
        assert_eq!(violation(file, "a\n\n", 2), None);
        let told = violation(file, "a\n\nb", 2).unwrap();
        assert_eq!(
            told.to_string(),
            "crates/x/src/lib.rs:3: 3 lines, 1 over the limit of 2. Split it by subject"
        );
    }
}
