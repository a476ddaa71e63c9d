//! Names of files on their way to people: bytes that may be anything.

use std::io::IsTerminal;

/// `name` as it may be shown on a terminal: what would be obeyed or would mislead there is escaped as in Rust's and C's
/// strings, and so is a backslash, so that every name has a text of its own.
pub(crate) fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() || reorders(c) {
                text.extend(c.escape_default())
            } else {
                text.push(c)
            }
        }
        text.extend(
            chunk.invalid().iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).map(char::from),
        );
    }
    text
}

/// Characters that have no shape of their own but change how their neighbours are shown: bidirectional controls
/// (Unicode annex 9) and separators of lines.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}' | '\u{feff}')
}

/// How names go to standard output: escaped on a terminal, as they are to a program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    escape: bool,
}

impl Names {
    /// For standard output as it is.
    pub(crate) fn of_stdout() -> Self {
        Self { escape: std::io::stdout().is_terminal() }
    }

    /// The bytes to write for `name`.
    pub(crate) fn shown(self, name: &[u8]) -> Vec<u8> {
        if self.escape { escaped(name).into_bytes() } else { name.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(escaped("Größe 日本".as_bytes()), "Größe 日本");
        assert_eq!(escaped(b"a\x1b[2J\nb\\\xff\x80"), "a\\u{1b}[2J\\nb\\\\\\xff\\x80");
        assert_eq!(escaped("a\u{202e}txt.exe".as_bytes()), "a\\u{202e}txt.exe");
        assert_eq!(
            (Names { escape: false }.shown(b"\n\xff"), Names { escape: true }.shown(b"\n")),
            (b"\n\xff".to_vec(), b"\\n".to_vec())
        );
    }

    proptest! {
        #[test]
        fn two_names_never_look_the_same(a in prop::collection::vec(any::<u8>(), 0..8), b in prop::collection::vec(any::<u8>(), 0..8)) {
            prop_assert_eq!(a == b, escaped(&a) == escaped(&b));
            prop_assert!(!escaped(&a).contains(char::is_control));
        }
    }
}
