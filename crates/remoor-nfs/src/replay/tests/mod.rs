//! Tests of the whole cache in virtual time.

mod lessons;
mod limits;
mod network;
mod property;

use std::sync::OnceLock;
use std::time::Instant;

/// The instant virtual time starts from. Nothing depends on its value.
#[allow(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
pub(super) fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}
