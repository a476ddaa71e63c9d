//! The node goes silent and comes back by itself.

use std::time::Duration;

use remoor_flow::predict;

use super::{Fault, Mended, restore, silence};

const LASTS: Duration = Duration::from_secs(2);

pub(super) const FAULT: Fault = Fault {
    name: "flap",
    about: "the node goes silent for two seconds and comes back as it was",
    lasts: Some(LASTS),
    predicted: |_| predict::Fault::Flap { back_after: LASTS },
    inject: |victim| silence(victim.topology, victim.node),
    mend: |victim| restore(victim.topology, victim.node).map(|()| Mended::Resumed),
};
