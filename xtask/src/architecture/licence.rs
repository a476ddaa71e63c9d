//! Only permissive licences, by the list in `deny.toml`, so that cargo-deny and this test cannot disagree.

use anyhow::Context;
use cargo_metadata::Package;
use spdx::{Expression, Licensee, ParseMode};

use super::{Violation, root, shown};

/// The licences that `deny.toml` allows.
pub fn allowed(deny_toml: &str) -> anyhow::Result<Vec<Licensee>> {
    let table: toml::Table = deny_toml.parse().context("deny.toml is not TOML")?;
    let list = table.get("licenses").and_then(|l| l.get("allow")).and_then(|a| a.as_array());
    let list = list.context("deny.toml has no licenses.allow")?.iter().filter_map(|v| v.as_str());
    list.map(|l| Licensee::parse(l).with_context(|| format!("deny.toml allows {l}, which is not a licence")))
        .collect()
}

/// The licences in `allowed` that bind those who link to the code: none may be there.
pub fn copyleft(allowed: &[Licensee]) -> Vec<Violation> {
    let bad = allowed.iter().map(ToString::to_string).filter(|l| l.contains("GPL") || l.contains("MPL"));
    bad.map(|licence| Violation {
        file: "deny.toml".into(),
        line: 1,
        what: format!("{licence} is allowed"),
        remedy: "Take it out and choose another crate".into(),
    })
    .collect()
}

/// Every package that cannot be used under a licence of `allowed`.
pub fn violations(packages: &[Package], allowed: &[Licensee]) -> Vec<Violation> {
    let judged = packages.iter().map(|p| (p, judge(p.license.as_deref(), allowed)));
    judged
        .filter_map(|(p, told)| {
            Some(Violation {
                file: shown(&root().join("Cargo.lock")),
                line: 1,
                what: format!("{} {}: {}", p.name, p.version, told?),
                remedy: "Choose another crate, or add a permissive licence to licenses.allow in deny.toml"
                    .into(),
            })
        })
        .collect()
}

/// What is wrong with a package's licence expression, if anything.
fn judge(licence: Option<&str>, allowed: &[Licensee]) -> Option<String> {
    let Some(licence) = licence else { return Some("it states no licence".into()) };
    match Expression::parse_mode(licence, ParseMode::LAX) {
        Err(_) => Some(format!("\"{licence}\" is not a licence expression")),
        Ok(e) if e.evaluate(|need| allowed.iter().any(|l| l.satisfies(need))) => None,
        Ok(_) => Some(format!("\"{licence}\" is not allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = r#"licenses.allow = ["MIT", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"]"#;

    #[test]
    fn one_allowed_alternative_is_enough_and_all_parts_are_needed() {
        let allowed = allowed(DENY).unwrap();
        for good in
            ["MIT", "MIT/Apache-2.0", "LGPL-2.1-or-later OR MIT", "(MIT OR GPL-3.0-only) AND Unicode-3.0"]
        {
            assert_eq!(judge(Some(good), &allowed), None, "{good}");
        }
        for bad in ["GPL-3.0-only", "MIT AND LGPL-2.1-only", "Apache-2.0", "AGPL-3.0", "no such licence"] {
            assert!(judge(Some(bad), &allowed).is_some(), "{bad}");
        }
        assert!(judge(None, &allowed).is_some());
    }

    #[test]
    fn copyleft_cannot_be_allowed() {
        assert!(copyleft(&allowed(DENY).unwrap()).is_empty());
        let list = allowed(r#"licenses.allow = ["MIT", "LGPL-3.0-or-later", "AGPL-3.0-only"]"#).unwrap();
        assert_eq!(copyleft(&list).len(), 2);
    }
}
