//! What a case came to, in one word, one sign and one colour.

use std::time::Duration;

use crate::report::{CaseReport, Verdict, seconds};

/// What a case came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Replies came again after this gap, as predicted.
    Recovered(Duration),
    /// None came, as predicted.
    Hangs,
    /// It came out otherwise than predicted, or data is missing.
    Failed,
}

impl Outcome {
    pub(super) fn of(case: &CaseReport) -> Self {
        match (case.verdict, case.gap) {
            (Verdict::Fail, _) => Self::Failed,
            (Verdict::Pass, Some(gap)) => Self::Recovered(gap),
            (Verdict::Pass, None) => Self::Hangs,
        }
    }

    /// Class of the elements that show it.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Recovered(_) => "recovered",
            Self::Hangs => "hangs",
            Self::Failed => "failed",
        }
    }

    /// A sign that differs in shape, for those who see no colours.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Recovered(_) => "✓",
            Self::Hangs => "■",
            Self::Failed => "✗",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Recovered(_) => "recovered",
            Self::Hangs => "hangs as predicted",
            Self::Failed => "failed",
        }
    }
}

/// The measured gap of `case` in words.
pub(super) fn gap(case: &CaseReport) -> String {
    match case.gap {
        Some(gap) => seconds(gap),
        None => format!("over {}", seconds(case.window)),
    }
}

/// The predicted gap of `case` in words.
pub(super) fn predicted_gap(case: &CaseReport) -> String {
    match case.expected.gap {
        Some(gap) => seconds(gap),
        None => format!("over {}", seconds(case.window)),
    }
}
