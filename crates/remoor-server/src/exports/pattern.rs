//! Host names with wildcards, as exports(5) has them.

use std::fmt;
use std::sync::Arc;

/// A host name with `*` (any characters, dots included), `?` (any one character) and `[...]` (one of a class: `[a-z]`,
/// negated by `^` or `!`). A backslash takes the next character as it is. Case does not count, as in host names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Arc<str>,
    parts: Arc<[Part]>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Many,
    One,
    Byte(u8),
    Class { negated: bool, ranges: Vec<(u8, u8)> },
}

impl Pattern {
    /// Whether a word has to be read as a pattern.
    pub(super) fn is_one(word: &str) -> bool {
        word.contains(['*', '?', '['])
    }

    /// `None` if a class is not closed or has a range that is upside down.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let lower = text.to_ascii_lowercase();
        let mut rest = lower.as_bytes();
        while !rest.is_empty() {
            let (part, after) = part(rest)?;
            parts.push(part);
            rest = after;
        }
        Some(Self { text: text.into(), parts: parts.into() })
    }

    /// Whether it is the name of a host. The time is at most the product of both lengths: after a mismatch only the
    /// latest `*` is tried with one character more, since what an earlier one could take, the latest can, too.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let (mut part, mut at, mut retry) = (0, 0, None);
        while at < name.len() {
            match self.parts.get(part) {
                Some(Part::Many) => {
                    retry = Some((part, at));
                    part += 1;
                }
                Some(one) if one.takes(name[at].to_ascii_lowercase()) => {
                    (part, at) = (part + 1, at + 1);
                }
                _ => {
                    let Some((many, taken)) = retry else { return false };
                    retry = Some((many, taken + 1));
                    (part, at) = (many + 1, taken + 1);
                }
            }
        }
        self.parts[part..].iter().all(|part| *part == Part::Many)
    }

    /// Whether it looks as if addresses were meant, which names are never compared with.
    pub fn resembles_addresses(&self) -> bool {
        let of_address = |c: char| c.is_ascii_digit() || matches!(c, '.' | '*' | '?' | '[' | ']' | '-');
        self.text.contains(|c: char| c.is_ascii_digit()) && self.text.chars().all(of_address)
    }
}

impl Part {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Many => false,
            Self::One => true,
            Self::Byte(b) => *b == byte,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&byte)) != *negated
            }
        }
    }
}

fn part(text: &[u8]) -> Option<(Part, &[u8])> {
    Some(match text {
        [b'*', rest @ ..] => (Part::Many, rest),
        [b'?', rest @ ..] => (Part::One, rest),
        [b'[', b'^' | b'!', rest @ ..] => class(true, rest)?,
        [b'[', rest @ ..] => class(false, rest)?,
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => (Part::Byte(*byte), rest),
        [] => return None,
    })
}

/// A class up to its `]`, which as the first character stands for itself.
fn class(negated: bool, text: &[u8]) -> Option<(Part, &[u8])> {
    let mut ranges = Vec::new();
    let mut rest = text;
    loop {
        match rest {
            [b']', after @ ..] if !ranges.is_empty() => {
                return Some((Part::Class { negated, ranges }, after));
            }
            [from, b'-', to, after @ ..] if *to != b']' => {
                ranges.push((*from <= *to).then_some((*from, *to))?);
                rest = after;
            }
            [byte, after @ ..] => {
                ranges.push((*byte, *byte));
                rest = after;
            }
            [] => return None,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    /// By definition, in as much time as it takes.
    fn matches_by_definition(parts: &[Part], name: &[u8]) -> bool {
        match (parts, name) {
            ([], _) => name.is_empty(),
            ([Part::Many, rest @ ..], _) => (0..=name.len()).any(|n| matches_by_definition(rest, &name[n..])),
            ([part, rest @ ..], [byte, after @ ..]) => {
                part.takes(*byte) && matches_by_definition(rest, after)
            }
            (_, []) => false,
        }
    }

    #[test]
    fn the_wildcards_of_the_manual_page() {
        assert!(matches("*.cs.foo.edu", "a.cs.foo.edu"));
        assert!(matches("*.cs.foo.edu", "a.b.cs.foo.edu"), "dots, too");
        assert!(!matches("*.cs.foo.edu", "cs.foo.edu"));
        assert!(matches("proj*.local.domain", "PROJ7.Local.domain"));
        assert!(matches("buildhost[0-9].local.domain", "buildhost7.local.domain"));
        assert!(!matches("buildhost[0-9].local.domain", "buildhostx.local.domain"));
        assert!(!matches("buildhost[^0-9].local.domain", "buildhost7.local.domain"));
        assert!(matches("h?st[!a]", "h.stb") && !matches("h?st", "hst"));
        assert!(matches("[]a]\\*", "]*") && matches("[a-]", "-"));
    }

    #[test]
    fn a_class_must_be_closed_and_in_order() {
        for bad in ["[", "[a", "a[]", "[^]", "[z-a]"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn patterns_of_addresses_are_noticed() {
        let resembles = |text| Pattern::parse(text).unwrap().resembles_addresses();
        assert!(resembles("192.0.2.*") && resembles("10.?.[0-9].*"));
        assert!(!resembles("*.example.org") && !resembles("*.*"));
    }

    proptest! {
        #[test]
        fn it_matches_what_the_definition_does(pattern in "[ab*?]{0,8}|(\\[\\^?[ab]\\]|\\*|b){0,5}", name in "[abAB.]{0,10}") {
            let pattern = Pattern::parse(&pattern).unwrap();
            let expected = matches_by_definition(&pattern.parts, name.to_ascii_lowercase().as_bytes());
            prop_assert_eq!(pattern.matches(&name), expected);
        }

        #[test]
        fn any_text_is_a_pattern_or_none(text in "\\PC{0,20}", name in "\\PC{0,20}") {
            let _ = Pattern::parse(&text).map(|pattern| pattern.matches(&name));
        }
    }

    /// With a search that tries every split this would not end.
    #[test]
    fn many_stars_are_no_attack() {
        let pattern = Pattern::parse(&("*a".repeat(200) + "c")).unwrap();
        assert!(!pattern.matches(&"a".repeat(2000)));
    }
}
