//! What `-o remount` changes. The kernel's client answers EINVAL to a change it cannot make on a mount that is in use; here
//! the option is named.

use super::{MountOptions, OptionError, Parsed, find, list};

/// New options of a mount that is there.
#[derive(Debug, Clone)]
pub struct Remount {
    /// What all options come to.
    pub options: MountOptions,
    /// Effective options that hold no more.
    pub removed: Vec<String>,
    /// Effective options that hold from now on.
    pub added: Vec<String>,
}

/// Why a mount was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemountError {
    /// An option cannot be taken at all.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Options cannot be changed while the mount is in use.
    #[error(
        "cannot change {} on a mount that is in use; unmount, and mount with the new options", .0.join(", ")
    )]
    Fixed(
        /// What would have changed, as written.
        Vec<String>,
    ),
}

impl MountOptions {
    /// These options with others set over them, if a mount can change to them while it is in use.
    pub fn remount(&self, list: &str, sloppy: bool) -> Result<Remount, RemountError> {
        let options = Parsed::onto(self.clone(), &[list], sloppy)?.options;
        let (old, new) = (self.effective(), options.effective());
        let only = |these: &[String], others: &[String]| -> Vec<String> {
            these.iter().filter(|word| !others.contains(word)).cloned().collect()
        };
        let (removed, added) = (only(&old, &new), only(&new, &old));
        let fixed = fixed(&removed, &added);
        if fixed.is_empty() {
            Ok(Remount { options, removed, added })
        } else {
            Err(RemountError::Fixed(fixed))
        }
    }
}

/// What of a change cannot be made: the new option, or the old one to which there is no new one.
fn fixed(removed: &[String], added: &[String]) -> Vec<String> {
    let name = |word: &str| list::split(word).0.to_owned();
    let is_fixed = |word: &&String| !find(&name(word)).is_some_and(|row| row.live);
    let replaced = |old: &&String| added.iter().any(|new| name(new) == name(old));
    let removed = removed.iter().filter(|old| !replaced(old)).filter(is_fixed);
    let added: Vec<String> = added.iter().filter(is_fixed).cloned().collect();
    if added.is_empty() { removed.map(|old| format!("{old} to its default")).collect() } else { added }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> MountOptions {
        "soft,noresvport,acregmin=5,uid=7".parse().unwrap()
    }

    #[test]
    fn what_can_be_changed_is_changed_and_the_rest_stays() {
        let list = "remount,ro,nosuid,hard,timeo=50,retrans=4,suspect=100,noac,lookupcache=none,nocto,sync";
        let remount = running().remount(list, false).unwrap();
        assert_eq!(remount.removed, ["rw", "soft", "timeo=600", "retrans=2"]);
        let added = [
            "ro",
            "sync",
            "nosuid",
            "noac",
            "nocto",
            "lookupcache=none",
            "hard",
            "suspect=100",
            "timeo=50",
            "retrans=4",
        ];
        assert_eq!(remount.added, added);
        let both = format!("soft,noresvport,acregmin=5,uid=7,{list}");
        assert_eq!(remount.options, both.parse().unwrap());
    }

    #[test]
    fn what_cannot_be_changed_is_named() {
        let error = |list: &str| running().remount(list, false).unwrap_err().to_string();
        assert_eq!(
            error("remount,resvport,rsize=4096,ro"),
            "cannot change rsize=4096, resvport on a mount that is in use; unmount, and mount with the new options"
        );
        assert!(error("rebind=fresh").contains("cannot change rebind=fresh"));
        assert!(error("uid=8").contains("cannot change uid=8"));
        assert!(error("timeo=x").contains("whole number"));
    }

    #[test]
    fn repeating_what_holds_changes_nothing() {
        let merged = "remount,rw,relatime,user_id=0,group_id=0,allow_other,soft,noresvport,rsize=1048576";
        let running = MountOptions { allow_other: Some(true), ..running() };
        let remount = running.remount(merged, false).unwrap();
        assert_eq!((remount.removed.len(), remount.added.len(), remount.options), (0, 0, running));
    }
}
