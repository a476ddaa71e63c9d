//! Why options were not taken.

use super::table::table;

/// Fewer different letters than this look like a slip.
const SLIP: usize = 4;
/// Longer than any option and slip; the distance takes the product of both lengths.
const LONGEST_NAME: usize = 32;

/// Why an option was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum OptionError {
    #[error("unknown option {name:?}{}", suggestion(name))]
    Unknown { name: String },
    #[error("option {given:?} is refused: {reason}; {instead}")]
    Refused { given: String, reason: &'static str, instead: &'static str },
    #[error("option {name:?} needs a value: {usage}")]
    NeedsValue { name: &'static str, usage: String },
    #[error("option {name:?} takes no value, but has {value:?}")]
    TakesNoValue { name: &'static str, value: String },
    #[error("option {given:?}: must be {must_be}")]
    BadValue { given: String, must_be: &'static str },
    #[error(transparent)]
    Connection(#[from] remoor_client::OptionError),
    #[error("a quote is opened in {word:?} and not closed; close it, or write the value without")]
    Quote { word: String },
    #[error("{length} characters of options are too many; mount(2) takes less than {}", super::list::LONGEST)]
    TooLong { length: usize },
    #[error("{count} options are too many; at most {} are taken", super::list::MOST)]
    TooMany { count: usize },
}

/// What is wrong with the value of an option whose name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is none of the values there are, which are these.
    MustBe(&'static str),
    /// It is one that nfs(5) has and this mount has not.
    Refused {
        /// What is not there.
        reason: &'static str,
        /// What to write instead.
        instead: &'static str,
    },
}

impl Wrong {
    pub(super) fn of(self, given: &str) -> OptionError {
        let given = given.to_owned();
        match self {
            Self::MustBe(must_be) => OptionError::BadValue { given, must_be },
            Self::Refused { reason, instead } => OptionError::Refused { given, reason, instead },
        }
    }
}

/// The known name that is nearest to one that is not, if it is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let names = table().iter().flat_map(|row| [row.name].into_iter().chain(row.aliases.iter().copied()));
    let distance = |known: &&str| strsim::damerau_levenshtein(known, name);
    let nearest = names.filter(|_| name.len() < LONGEST_NAME).min_by_key(distance);
    nearest.filter(|known| distance(known) < SLIP.min(name.len()))
}

fn suggestion(name: &str) -> String {
    nearest(name).map_or_else(
        || "; see remoor mount --help-options, or ignore unknown options with -s".into(),
        |near| format!("; did you mean {near:?}?"),
    )
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        for (slip, meant) in
            [("noresvprt", "noresvport"), ("timo", "timeo"), ("sfot", "soft"), ("actimo", "actimeo")]
        {
            assert_eq!(nearest(slip), Some(meant));
        }
        for other in ["frobnicate", "", "z", &"x".repeat(1000)] {
            assert_eq!(nearest(other), None, "{other}");
        }
    }
}
