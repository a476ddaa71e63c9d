//! Time of one prediction over a window of 60 s, by balancer and by what the client does.

use std::time::Instant;

use divan::Bencher;
use remoor_flow::predict::{Scenario, predict};
use remoor_flow::preset;
use remoor_nfs::reconnect::{self, Abandon, Rebind};

const BALANCERS: [&str; 3] = ["azure-standard", "nf-conntrack", "aws-nlb"];

fn main() {
    divan::main();
}

#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin; the value is never compared")]
fn origin() -> Instant {
    Instant::now()
}

fn bench(bencher: Bencher<'_, '_>, balancer: &str, rebind: Rebind, abandon: Abandon) {
    let flow = preset::find(balancer).expect("a known preset").config;
    let client = reconnect::Config { rebind, abandon, ..Default::default() };
    let scenario = Scenario::new(origin(), flow, client);
    bencher.bench_local(|| predict(&scenario));
}

#[divan::bench(args = BALANCERS)]
fn fresh_ports(bencher: Bencher<'_, '_>, balancer: &str) {
    bench(bencher, balancer, Rebind::Fresh, Abandon::Reset);
}

#[divan::bench(args = BALANCERS)]
fn same_port_silent(bencher: Bencher<'_, '_>, balancer: &str) {
    bench(bencher, balancer, Rebind::Same, Abandon::Silent);
}
