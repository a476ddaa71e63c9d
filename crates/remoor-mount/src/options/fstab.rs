//! Lines of fstab(5).

use std::fmt;

/// Types of fstab lines that this program mounts.
pub const OUR_TYPES: [&str; 2] = ["remoor", "fuse.remoor"];

/// One line of fstab(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is mounted.
    pub spec: String,
    /// Where.
    pub dir: String,
    /// Type of the file system.
    pub kind: String,
    /// Options, a list with commas.
    pub options: String,
    /// For dump(8).
    pub dump: u32,
    /// For fsck(8); what is not on a disk of this host has 0.
    pub pass: u32,
}

/// Why a line is none of fstab(5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum LineError {
    #[error("{line:?} has {fields} of the fields SPEC DIR TYPE [OPTIONS [DUMP [PASS]]]")]
    Fields { line: String, fields: usize },
    #[error("{field:?} is not a number; fields 5 and 6 are for dump(8) and fsck(8), write 0 0")]
    Number { field: String },
}

impl Line {
    /// The line that mounts this; `_netdev` is added, because systemd does not know the type to need the network.
    pub fn new(spec: impl fmt::Display, dir: &str, options: &str) -> Self {
        let has = |name| options.split(',').any(|word| word == name);
        let words = if options.is_empty() { "defaults" } else { options };
        let options = if has("_netdev") { words.to_owned() } else { format!("{words},_netdev") };
        Self { spec: spec.to_string(), dir: dir.into(), kind: OUR_TYPES[0].into(), options, dump: 0, pass: 0 }
    }

    /// A line, or nothing if it is blank or a comment.
    pub fn parse(line: &str) -> Result<Option<Self>, LineError> {
        let fields: Vec<&str> =
            line.split([' ', '\t', '\n', '\r']).filter(|field| !field.is_empty()).collect();
        let number = |at: usize| match fields.get(at) {
            Some(field) => field.parse().map_err(|_| LineError::Number { field: (*field).into() }),
            None => Ok(0),
        };
        match fields[..] {
            [] => Ok(None),
            [first, ..] if first.starts_with('#') => Ok(None),
            [spec, dir, kind, ref rest @ ..] if rest.len() <= 3 => Ok(Some(Self {
                spec: unescaped(spec),
                dir: unescaped(dir),
                kind: unescaped(kind),
                options: unescaped(rest.first().copied().unwrap_or("defaults")),
                dump: number(4)?,
                pass: number(5)?,
            })),
            _ => Err(LineError::Fields { line: line.trim().into(), fields: fields.len() }),
        }
    }

    /// Whether it is one of ours, not of another type.
    pub fn is_ours(&self) -> bool {
        OUR_TYPES.contains(&self.kind.as_str())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [&self.spec, &self.dir, &self.kind, &self.options].map(|field| escaped(field));
        write!(f, "{} {} {}", fields.join(" "), self.dump, self.pass)
    }
}

/// Characters that fields are separated by, or lines begin with, as `\040`.
fn escaped(field: &str) -> String {
    let escape = |c: char| match c {
        ' ' | '\t' | '\n' | '\r' | '\\' | '#' => format!("\\{:03o}", u32::from(c)),
        _ => c.to_string(),
    };
    field.chars().map(escape).collect()
}

/// Text of which each `\ooo` is a character of ASCII; other backslashes stand for themselves (getmntent(3)).
fn unescaped(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let digits =
            rest.get(at + 1..at + 4).filter(|digits| digits.bytes().all(|b| (b'0'..b'8').contains(&b)));
        let ascii = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        out.push(ascii.map_or('\\', char::from));
        rest = &rest[at + if ascii.is_some() { 4 } else { 1 }..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Line {
        Line::parse(text).unwrap().unwrap()
    }

    #[test]
    fn lines_have_six_fields_of_which_three_may_be_left_out() {
        let whole = line("nas:/a\\040b  /mnt\tremoor rw,_netdev 1 2\n");
        assert_eq!(
            (whole.spec.as_str(), whole.dir.as_str(), whole.dump, whole.pass),
            ("nas:/a b", "/mnt", 1, 2)
        );
        assert!(whole.is_ours() && !line("nas:/a /mnt nfs").is_ours());
        assert_eq!(line("nas:/a /mnt fuse.remoor").options, "defaults");
        assert_eq!((Line::parse("  # x"), Line::parse(" ")), (Ok(None), Ok(None)));
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text: &str| Line::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("nas:/a /mnt"),
            "\"nas:/a /mnt\" has 2 of the fields SPEC DIR TYPE [OPTIONS [DUMP [PASS]]]"
        );
        assert!(error("a b c d 0 0 0").contains("has 7 of"));
        assert!(error("a b c d x").contains("\"x\" is not a number"));
    }

    #[test]
    fn a_new_line_waits_for_the_network() {
        let text = Line::new("nas:/a b", "/mnt/#1", "noresvport").to_string();
        assert_eq!(text, "nas:/a\\040b /mnt/\\0431 remoor noresvport,_netdev 0 0");
        assert_eq!(Line::new("nas:/a", "/mnt", "").options, "defaults,_netdev");
        assert_eq!(Line::new("nas:/a", "/mnt", "ro,_netdev").options, "ro,_netdev");
    }

    #[test]
    fn backslashes_that_begin_no_character_stay() {
        assert_eq!(unescaped(r"\134\04\999\777\é\"), r"\\04\999\777\é\");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(spec in r"[a#\\ \t\né0-7]{1,9}", dir in r"[/\\ #0-7]{1,9}") {
            let written = Line { kind: "remoor".into(), ..Line::new(&spec, &dir, "ro") };
            prop_assert_eq!(Line::parse(&written.to_string()), Ok(Some(written)));
        }

        #[test]
        fn anything_is_parsed_or_refused(text in r"[\\ #0-9a\PC]{0,40}") {
            let _ = Line::parse(&text);
        }
    }
}
