//! Tests of the whole machine in virtual time.

mod chaos;
mod pair;
mod property;
mod scenario;
mod transition;

use std::time::Instant;

/// The instant virtual time starts from. Nothing depends on its value.
#[allow(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
pub(super) fn epoch() -> Instant {
    Instant::now()
}
