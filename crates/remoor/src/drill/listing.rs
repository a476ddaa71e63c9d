//! `remoor drill --list`: every name the command line takes.

use remoor_drill::case;
use remoor_drill::fault::FAULTS;
use remoor_drill::workload::WORKLOADS;
use remoor_flow::preset;

use crate::columns;

/// Balancers, faults, workloads and mount options.
pub(super) fn listing() -> String {
    const HEAD: usize = 21;
    let row = |name: &str, about: &str| columns::row(&format!("  {name}"), HEAD, about);
    let balancers = preset::ALL.iter().map(|preset| {
        let variant = |v: &preset::Variant| columns::row(&format!("    +{}", v.name), HEAD, v.description);
        row(preset.name, preset.description)
            + &columns::row("    source", HEAD, preset.source)
            + &preset.variants.iter().map(variant).collect::<String>()
    });
    let balancers: String = balancers.collect();
    let kernel = row(case::KERNEL, "nftables DNAT and nf_conntrack of this kernel (needs nft)");
    let faults: String = FAULTS.iter().map(|fault| row(fault.name, fault.about)).collect();
    let workloads: String = WORKLOADS.iter().map(|workload| row(workload.name, workload.about)).collect();
    let options = remoor_client::options::TABLE.iter();
    let options: String = options.map(|o| columns::row(&format!("  {}", o.usage()), 37, o.meaning)).collect();
    format!(
        "Balancers (-b), each with its variants (preset+variant):\n{balancers}{kernel}\nFaults (-f):\n{faults}\n\
         Workloads (-w):\n{workloads}\nMount options (-o), separated by commas:\n{options}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_has_every_name_and_fits() {
        let listing = listing();
        assert!(listing.lines().all(|line| line.chars().count() <= columns::WIDTH), "{listing}");
        let names = preset::ALL.iter().map(|preset| preset.name).chain(FAULTS.iter().map(|fault| fault.name));
        for name in names.chain(WORKLOADS.iter().map(|workload| workload.name)).chain([case::KERNEL]) {
            assert!(listing.contains(&format!("  {name}")), "{name}\n{listing}");
        }
    }
}
