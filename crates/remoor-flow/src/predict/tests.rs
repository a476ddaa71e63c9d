//! Failovers whose outcome is known from real kernels or from the vendor.

use std::time::Duration;

use remoor_nfs::reconnect::{self, Abandon, PortRange, Rebind, Stuck};

use super::*;
use crate::{preset, script};

fn client(rebind: Rebind, abandon: Abandon) -> reconnect::Config {
    reconnect::Config { rebind, abandon, stuck: Stuck::After(Duration::from_millis(400)), ..Default::default() }
}

fn noresvport() -> reconnect::Config {
    let range = PortRange::Ephemeral { lo: reconnect::EPHEMERAL_LO, hi: reconnect::EPHEMERAL_HI };
    reconnect::Config { range, ..client(Rebind::Fresh, Abandon::Reset) }
}

fn scenario(balancer: &str, client: reconnect::Config) -> Scenario {
    Scenario::new(script::origin(), preset::find(balancer).unwrap().config, client)
}

#[test]
fn look() {
    for balancer in ["azure-standard", "azure-standard+close-frees", "nf-conntrack", "aws-nlb"] {
        for (name, client) in [
            ("noresvport", noresvport()),
            ("resvport fresh", client(Rebind::Fresh, Abandon::Reset)),
            ("resvport reset", client(Rebind::Same, Abandon::Reset)),
            ("resvport silent", client(Rebind::Same, Abandon::Silent)),
            ("resvport fin", client(Rebind::Same, Abandon::Fin)),
        ] {
            for fault in [
                Fault::None,
                Fault::Silent,
                Fault::Kill,
                Fault::Stop { resume_after: Duration::from_secs(20) },
                Fault::Flap { back_after: Duration::from_secs(5) },
            ] {
                let scenario = Scenario { fault, ..scenario(balancer, client.clone()) };
                let started = script::origin();
                let p = predict(&scenario).unwrap();
                eprintln!("{balancer} {name} {fault:?}: gap {:?} rebind {:?} pinned {} frees {:?} attempts {} [{:?}]", p.gap, p.rebind, p.pinned, p.flow_frees_at, p.attempts.len(), started.elapsed());
            }
        }
    }
}
