//! A comma-separated list of options, with values in quotes as mount(8) takes them.

use super::error::OptionError;

/// Length, in bytes, that a list stays below: mount(2) passes one page.
pub const LONGEST: usize = 4096;
/// Most options of one list.
pub const MOST: usize = 256;

/// The options of a list: a comma in double quotes separates nothing.
pub(super) fn words(list: &str) -> Result<Vec<&str>, OptionError> {
    if list.len() >= LONGEST {
        return Err(OptionError::TooLong { length: list.len() });
    }
    let mut quoted = false;
    let separates = |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    let words: Vec<&str> =
        list.split(separates).map(str::trim).filter(|word: &&str| !word.is_empty()).collect();
    match words.last() {
        Some(word) if quoted => Err(OptionError::Quote { word: (*word).to_owned() }),
        _ if words.len() > MOST => Err(OptionError::TooMany { count: words.len() }),
        _ => Ok(words),
    }
}

/// Name and value of an option; the quotes around a value are no part of it.
pub(super) fn split(word: &str) -> (&str, Option<&str>) {
    let Some((name, value)) = word.split_once('=') else { return (word, None) };
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    (name, Some(inner.filter(|inner| !inner.contains('"')).unwrap_or(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_separate_nothing() {
        assert_eq!(words("rw,,soft , timeo=5,").unwrap(), ["rw", "soft", "timeo=5"]);
        assert_eq!(words("comment=\"a,b\",ro").unwrap(), ["comment=\"a,b\"", "ro"]);
        assert_eq!(words("").unwrap(), [""; 0]);
        assert_eq!(split("comment=\"a,b\""), ("comment", Some("a,b")));
        assert_eq!(split("x=\"a\"b\""), ("x", Some("\"a\"b\"")));
        assert_eq!(split("x=a=b"), ("x", Some("a=b")));
        assert_eq!(split("ro"), ("ro", None));
    }

    #[test]
    fn open_quotes_and_long_lists_are_refused() {
        assert_eq!(words("ro,x=\"a,b"), Err(OptionError::Quote { word: "x=\"a,b".into() }));
        assert!(words("\"").is_err());
        assert_eq!(words(&"x".repeat(LONGEST)), Err(OptionError::TooLong { length: LONGEST }));
        assert_eq!(words(&"x,".repeat(MOST + 1)), Err(OptionError::TooMany { count: MOST + 1 }));
        assert_eq!(words(&"x,".repeat(MOST)).unwrap().len(), MOST);
    }
}
