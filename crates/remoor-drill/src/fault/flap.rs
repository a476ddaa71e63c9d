//! The node goes silent and comes back by itself.

use std::time::Duration;

use super::{Fault, Mended, restore, silence};

pub(super) const FAULT: Fault = Fault {
    name: "flap",
    about: "the node goes silent for two seconds and comes back as it was",
    lasts: Some(Duration::from_secs(2)),
    inject: |victim| silence(victim.topology, victim.node),
    mend: |victim| restore(victim.topology, victim.node).map(|()| Mended::Resumed),
};
