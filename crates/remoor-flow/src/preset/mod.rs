//! The balancers that are known, by name.
//!
//! To add one, write `preset/<name>.rs` with a `PRESET` constant and list it in [`ALL`].

mod aws_nlb;
mod azure_standard;
mod nf_conntrack;

use crate::config::Config;

/// Every known balancer.
pub const ALL: &[Preset] = &[azure_standard::PRESET, nf_conntrack::PRESET, aws_nlb::PRESET];

/// A known balancer.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What a user writes.
    pub name: &'static str,
    /// One line.
    pub description: &'static str,
    /// Where its behaviour is documented, and what is not.
    pub source: &'static str,
    /// Named deviations, written `name+variant`; several may be given.
    pub variants: &'static [Variant],
    /// The balancer without a variant.
    pub config: fn() -> Config,
}

/// A named deviation from a preset.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// What a user writes after `+`.
    pub name: &'static str,
    /// One line.
    pub description: &'static str,
    /// Changes the preset's configuration.
    pub apply: fn(&mut Config),
}

/// A preset with the variants that were asked for.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The name, as `name+variant`.
    pub name: String,
    /// The preset.
    pub preset: &'static Preset,
    /// Its configuration with the variants applied.
    pub config: Config,
}

/// A name that [`find`] does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownPreset {
    /// There is no such balancer.
    #[error("unknown balancer `{name}`{}: use one of {}", hint(.nearest), .known.join(", "))]
    Name {
        /// What was asked for.
        name: String,
        /// The known name that is most like it.
        nearest: Option<&'static str>,
        /// All known names.
        known: Vec<&'static str>,
    },
    /// The balancer has no such variant.
    #[error("balancer `{preset}` has no variant `{variant}`{}: use {}", hint(.nearest), usage(preset, .known))]
    Variant {
        /// The balancer.
        preset: &'static str,
        /// What was asked for.
        variant: String,
        /// The variant that is most like it.
        nearest: Option<&'static str>,
        /// All variants of the balancer.
        known: Vec<&'static str>,
    },
}

/// The preset that `name` or `name+variant+…` names.
///
/// # Errors
///
/// [`UnknownPreset`] lists the known names and the nearest one.
pub fn find(name: &str) -> Result<Chosen, UnknownPreset> {
    let mut parts = name.split('+');
    let base = parts.next().unwrap_or_default();
    let preset = ALL.iter().find(|preset| preset.name == base).ok_or_else(|| unknown_name(base))?;
    let mut config = (preset.config)();
    for part in parts {
        let variant = preset.variants.iter().find(|variant| variant.name == part);
        let variant = variant.ok_or_else(|| unknown_variant(preset, part))?;
        (variant.apply)(&mut config);
    }
    Ok(Chosen { name: name.to_owned(), preset, config })
}

fn unknown_name(name: &str) -> UnknownPreset {
    let known: Vec<_> = ALL.iter().map(|preset| preset.name).collect();
    UnknownPreset::Name { name: name.to_owned(), nearest: nearest(name, &known), known }
}

fn unknown_variant(preset: &Preset, variant: &str) -> UnknownPreset {
    let known: Vec<_> = preset.variants.iter().map(|variant| variant.name).collect();
    let nearest = nearest(variant, &known);
    UnknownPreset::Variant { preset: preset.name, variant: variant.to_owned(), nearest, known }
}

fn nearest(wanted: &str, known: &[&'static str]) -> Option<&'static str> {
    let wanted = wanted.to_lowercase();
    let scored = known.iter().map(|name| (strsim::jaro_winkler(&wanted, name), *name));
    scored.filter(|(score, _)| *score > 0.6).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

fn usage(preset: &str, variants: &[&'static str]) -> String {
    match variants {
        [] => format!("`{preset}` alone"),
        some => format!("`{preset}` alone or with {}", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_and_every_variant_is_found_by_name() {
        for preset in ALL {
            assert_eq!(find(preset.name).unwrap().config, (preset.config)());
            for variant in preset.variants {
                let name = format!("{}+{}", preset.name, variant.name);
                let chosen = find(&name).unwrap();
                assert_eq!(chosen.name, name);
                assert_ne!(chosen.config, (preset.config)(), "{name} changes nothing");
            }
        }
    }

    #[test]
    fn names_are_unique_and_described() {
        for (index, preset) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.name != preset.name));
            assert!(!preset.description.is_empty() && !preset.source.is_empty());
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones_and_the_nearest() {
        let error = find("azure-standart").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown balancer `azure-standart` (did you mean `azure-standard`?): \
             use one of azure-standard, nf-conntrack, aws-nlb"
        );
        let error = find("").unwrap_err().to_string();
        assert_eq!(error, "unknown balancer ``: use one of azure-standard, nf-conntrack, aws-nlb");
    }

    #[test]
    fn an_unknown_variant_lists_those_of_the_balancer() {
        let error = find("azure-standard+close-free").unwrap_err().to_string();
        assert!(error.contains("did you mean `close-frees`?"), "{error}");
        assert!(error.ends_with("alone or with syn-refreshes, close-frees, idle-rst"), "{error}");
        let error = find("aws-nlb+x").unwrap_err().to_string();
        assert_eq!(error, "balancer `aws-nlb` has no variant `x`: use `aws-nlb` alone");
    }
}
