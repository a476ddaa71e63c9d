//! The options of exports(5), one row each. Parser, `--help`, man page, `remoor exports options` and the notes of
//! `remoor exports check` read this table.

use std::path::Path;

use crate::exports::options::{MountPoint, Options, set_ids};

/// One option of exports(5).
#[derive(Debug)]
pub struct OptionRow {
    /// Its name, without `=`.
    pub name: &'static str,
    /// What follows the name.
    pub argument: Argument,
    /// `yes` or `no` for an option without argument, or the value that holds when nothing is said.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Whether this server has it.
    pub status: Status,
}

/// What follows an option's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    None,
    /// `=VALUE`, or nothing.
    Optional(&'static str),
    /// `=VALUE`.
    Required(&'static str),
}

/// Whether this server has an option.
#[derive(Debug)]
pub enum Status {
    /// It does what it says.
    Implemented(Apply),
    /// It is accepted and changes nothing, for this reason.
    NoEffect(&'static str),
    /// It is refused, because to accept it would promise what is not kept.
    Refused {
        /// What is not there.
        reason: &'static str,
        /// What to write instead.
        instead: &'static str,
    },
}

/// Sets an option from its argument, which is empty if there is none; an error is what the argument should be.
pub type Apply = fn(&mut Options, &str) -> Result<(), &'static str>;

impl OptionRow {
    /// The option as it is written: `ro`, `anonuid=UID`, `mp[=PATH]`.
    pub fn usage(&self) -> String {
        match self.argument {
            Argument::None => self.name.into(),
            Argument::Optional(value) => format!("{}[={value}]", self.name),
            Argument::Required(value) => format!("{}={value}", self.name),
        }
    }

    /// The option that says the opposite, if both are flags.
    pub fn opposite(&self) -> Option<&'static str> {
        let pair = |(a, b)| match self.name {
            name if name == a => Some(b),
            name if name == b => Some(a),
            _ => None,
        };
        OPPOSITES.iter().copied().find_map(pair)
    }
}

macro_rules! flag {
    ($field:ident = $value:expr) => {
        Status::Implemented(|options, _| {
            options.$field = $value;
            Ok(())
        })
    };
}

macro_rules! id {
    ($field:ident) => {
        Status::Implemented(|options, argument| {
            options.$field = id(argument)?;
            Ok(())
        })
    };
}

macro_rules! ids {
    ($field:ident) => {
        Status::Implemented(|options, argument| set_ids(&mut options.$field, argument))
    };
}

macro_rules! refused {
    ($reason:expr, $instead:expr) => {
        Status::Refused { reason: $reason, instead: $instead }
    };
}

macro_rules! argument {
    () => {
        Argument::None
    };
    ($value:literal) => {
        Argument::Required($value)
    };
    ([$value:literal]) => {
        Argument::Optional($value)
    };
}

macro_rules! rows {
    ($($name:literal $(= $argument:tt)?, $default:literal, $status:expr, $meaning:literal;)*) => {
        &[$(OptionRow {
            name: $name,
            argument: argument!($($argument)?),
            default: $default,
            meaning: $meaning,
            status: $status,
        },)*]
    };
}

use Status::{Implemented, NoEffect};

const NO_NLM: &str = "locking (NLM) is not served, mount with nolock";
const ONE_FS: &str = "it is always so: an export ends at the file systems mounted below it";
const NOT_CROSSED: &str =
    "an export ends where another file system is mounted, and clients get NFS3ERR_ACCES there";
const EXPORT_EACH: &str = "give each file system its own line, and mount each on the client";
const V4_ONLY: &str = "it belongs to NFS version 4, which is not served";
const NO_DELAY: &str = "writes are never delayed, so there is nothing to gather";
const NO_ACL: &str = "the NFSACL program is not served; the file system's ACLs are enforced, but not shown";

/// Every option of exports(5).
pub static OPTIONS: &[OptionRow] = rows![
    "ro", "yes", flag!(read_only = true), "Refuse every change with NFS3ERR_ROFS.";
    "rw", "no", flag!(read_only = false), "Allow changes.";
    "sync", "yes", flag!(sync = true), "Answer when changes are on stable storage.";
    "async", "no", flag!(sync = false), "Answer before changes are on stable storage: a crash of the server loses acknowledged data.";
    "secure", "yes", flag!(secure = true), "Serve only clients whose source port is below 1024 (mount option resvport).";
    "insecure", "no", flag!(secure = false), "Serve clients from any source port (mount option noresvport).";
    "root_squash", "yes", flag!(root_squash = true), "Treat user 0 and group 0 as anonymous.";
    "no_root_squash", "no", flag!(root_squash = false), "Let the client's root be root.";
    "all_squash", "no", flag!(all_squash = true), "Treat every user and group as anonymous.";
    "no_all_squash", "yes", flag!(all_squash = false), "Take users as the client tells them.";
    "anonuid" = "UID", "65534", id!(anonuid), "The anonymous user.";
    "anongid" = "GID", "65534", id!(anongid), "The anonymous group.";
    "squash_uids" = "UID[-UID],...", "none", ids!(squash_uids), "Treat these users as anonymous, too.";
    "squash_gids" = "GID[-GID],...", "none", ids!(squash_gids), "Treat these groups as anonymous, too.";
    "no_subtree_check", "yes", Implemented(|_, _| Ok(())), "Accept a handle wherever its file has been moved to.";
    "subtree_check", "no", NoEffect("handles are signed, so none can be made up for a file outside the export; a file that is moved out of it on the server stays reachable by its old handle"), "Check for each call that its file is still below the exported directory.";
    "fsid" = "NUMBER|root|UUID", "from the path", Implemented(set_fsid), "Identify the export in file handles: must be equal on all nodes that serve it. Of a number and a UUID the number counts.";
    "mountpoint" = ["PATH"], "none", Implemented(set_mountpoint), "Export only if this path, or else the exported directory, is a mount point when the exports are loaded.";
    "mp" = ["PATH"], "none", Implemented(set_mountpoint), "Short for mountpoint.";
    "nordirplus", "no", flag!(nordirplus = true), "Answer READDIRPLUS with NFS3ERR_NOTSUPP, so that clients use READDIR.";
    "sec" = "sys", "sys", Implemented(only_sys), "The security flavor; no other is served.";
    "xprtsec" = "POLICY[:POLICY...]", "none", Implemented(only_none), "Transport security; only none is served.";
    "wdelay", "yes", NoEffect(NO_DELAY), "Delay a write in case another follows.";
    "no_wdelay", "no", NoEffect(NO_DELAY), "Do not delay writes.";
    "hide", "yes", NoEffect(ONE_FS), "Do not show file systems mounted below.";
    "nocrossmnt", "yes", NoEffect(ONE_FS), "Do not cross into file systems mounted below.";
    "nohide", "no", refused!(NOT_CROSSED, EXPORT_EACH), "Show this file system below its parent's export.";
    "crossmnt", "no", refused!(NOT_CROSSED, EXPORT_EACH), "Cross into file systems mounted below.";
    "secure_locks", "yes", NoEffect(NO_NLM), "Authenticate lock requests.";
    "insecure_locks", "no", NoEffect(NO_NLM), "Do not authenticate lock requests.";
    "auth_nlm", "yes", NoEffect(NO_NLM), "Authenticate lock requests.";
    "no_auth_nlm", "no", NoEffect(NO_NLM), "Do not authenticate lock requests.";
    "acl", "yes", NoEffect(NO_ACL), "Serve access control lists.";
    "no_acl", "no", NoEffect(NO_ACL), "Do not serve access control lists.";
    "sign_fh", "no", NoEffect("handles are always signed"), "Sign file handles.";
    "no_pnfs", "yes", NoEffect(V4_ONLY), "No parallel NFS.";
    "pnfs", "no", NoEffect(V4_ONLY), "Parallel NFS.";
    "replicas" = "PATH@HOST", "none", NoEffect(V4_ONLY), "Tell clients of other servers.";
    "refer" = "PATH@HOST", "none", refused!(V4_ONLY, "mount from the other server"), "Refer clients to another server.";
    "fsloc" = "stub", "none", refused!(V4_ONLY, "mount from the other server"), "Tell clients of other servers.";
    "security_label", "no", refused!(V4_ONLY, "remove it, and do not rely on labels set by clients"), "Serve security labels.";
    "reexport" = "METHOD", "none", refused!("no database of fsids is kept", "give the export of an NFS mount its own fsid="), "Assign fsids to re-exported file systems.";
];

/// Flags of which one takes back the other.
const OPPOSITES: [(&str, &str); 13] = [
    ("ro", "rw"),
    ("sync", "async"),
    ("secure", "insecure"),
    ("root_squash", "no_root_squash"),
    ("all_squash", "no_all_squash"),
    ("subtree_check", "no_subtree_check"),
    ("wdelay", "no_wdelay"),
    ("hide", "nohide"),
    ("crossmnt", "nocrossmnt"),
    ("acl", "no_acl"),
    ("pnfs", "no_pnfs"),
    ("secure_locks", "insecure_locks"),
    ("auth_nlm", "no_auth_nlm"),
];

/// A user or group as exportfs(8) reads it: -2 is the classic nobody, 4294967294. -1 names nobody at all
/// (setfsuid(2)).
fn id(argument: &str) -> Result<u32, &'static str> {
    const MUST_BE: &str = "a number from 0 to 4294967294, or -2 for that";
    let number: i64 = argument.parse().map_err(|_| MUST_BE)?;
    let id = if number == -2 { u32::MAX - 1 } else { u32::try_from(number).map_err(|_| MUST_BE)? };
    if id == u32::MAX || argument.starts_with('+') { Err(MUST_BE) } else { Ok(id) }
}

fn set_fsid(options: &mut Options, argument: &str) -> Result<(), &'static str> {
    use super::Fsid::{Number, Uuid};
    let fsid = argument.parse()?;
    if !matches!((options.fsid, fsid), (Some(Number(_)), Uuid(_))) {
        options.fsid = Some(fsid);
    }
    Ok(())
}

fn set_mountpoint(options: &mut Options, argument: &str) -> Result<(), &'static str> {
    let path = Path::new(argument);
    options.mountpoint = Some(match argument {
        "" => MountPoint::Export,
        _ if path.is_absolute() => MountPoint::Path(path.into()),
        _ => return Err("an absolute path"),
    });
    Ok(())
}

fn only_sys(_: &mut Options, argument: &str) -> Result<(), &'static str> {
    match argument {
        "sys" => Ok(()),
        _ if argument.contains("krb5") => Err("sys; Kerberos is not served, restrict clients by address"),
        _ => Err("sys; no other security flavor is served"),
    }
}

fn only_none(_: &mut Options, argument: &str) -> Result<(), &'static str> {
    if argument == "none" { Ok(()) } else { Err("none; RPC-with-TLS is not served, use a VPN or WireGuard") }
}

/// Why an option was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum OptionError {
    #[error("option {name:?} is refused: {reason}; {instead}")]
    Refused { name: &'static str, reason: &'static str, instead: &'static str },
    #[error("unknown option {name:?}{}", suggestion(name))]
    Unknown { name: String },
    #[error("option {name:?} needs a value: {usage}")]
    NeedsValue { name: &'static str, usage: String },
    #[error("option {name:?} takes no value, but has {value:?}")]
    TakesNoValue { name: &'static str, value: String },
    #[error("option {name}={value}: must be {must_be}")]
    BadValue { name: &'static str, value: String, must_be: &'static str },
}

fn suggestion(name: &str) -> String {
    /// Fewer different letters than this look like a slip.
    const SLIP: usize = 4;
    /// Longer than any option and slip; the distance takes the product of both lengths.
    const LONGEST: usize = 32;
    let distance = |row: &&OptionRow| strsim::levenshtein(row.name, name);
    let rows = OPTIONS.iter().filter(|_| name.len() < LONGEST);
    let nearest = rows.min_by_key(distance).filter(|row| distance(row) < SLIP.min(name.len()));
    nearest.map_or_else(
        || "; see remoor exports options".into(),
        |row| format!("; did you mean {:?}?", row.name),
    )
}

/// The options of a comma-separated list. The lists of `squash_uids=` and `squash_gids=` have commas of their own: what
/// begins with a digit belongs to them.
pub(super) fn words(list: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        match words.last_mut() {
            Some(last) if last.starts_with("squash_") && part.starts_with(|c: char| c.is_ascii_digit()) => {
                last.push(',');
                last.push_str(part);
            }
            _ => words.push(part.into()),
        }
    }
    words
}

/// Applies one option, `name` or `name=value`; its row says whether that had an effect.
pub(super) fn apply(options: &mut Options, word: &str) -> Result<&'static OptionRow, OptionError> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let Some(row) = OPTIONS.iter().find(|row| row.name == name) else {
        return Err(OptionError::Unknown { name: name.into() });
    };
    match row.status {
        Status::Refused { reason, instead } => {
            return Err(OptionError::Refused { name: row.name, reason, instead });
        }
        Status::NoEffect(_) => {
            argument(row, value)?;
        }
        Status::Implemented(set) => {
            let value = argument(row, value)?;
            let bad = |must_be| OptionError::BadValue { name: row.name, value: value.into(), must_be };
            set(options, value).map_err(bad)?;
        }
    }
    Ok(row)
}

fn argument<'a>(row: &'static OptionRow, value: Option<&'a str>) -> Result<&'a str, OptionError> {
    match (row.argument, value) {
        (Argument::None, Some(value)) => {
            Err(OptionError::TakesNoValue { name: row.name, value: value.into() })
        }
        (Argument::Required(_), None) => Err(OptionError::NeedsValue { name: row.name, usage: row.usage() }),
        (_, value) => Ok(value.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exports::Fsid;

    fn set(words: &[&str]) -> Options {
        let mut options = Options::default();
        for word in words {
            apply(&mut options, word).unwrap();
        }
        options
    }

    #[test]
    fn names_are_unique_and_defaults_agree() {
        let mut names: Vec<_> = OPTIONS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OPTIONS.len());
        let flags = OPTIONS.iter().filter(|row| row.default == "yes").map(|row| row.name.to_owned());
        let values = ["anonuid", "anongid", "sec", "xprtsec"].map(|name| {
            let row = OPTIONS.iter().find(|row| row.name == name).unwrap();
            format!("{name}={}", row.default)
        });
        let all: Vec<String> = flags.chain(values).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(set(&all), Options::default(), "the column of defaults is what the defaults are");
    }

    #[test]
    fn every_row_says_what_it_is() {
        for row in OPTIONS {
            assert!(row.meaning.ends_with('.') && row.meaning.len() > 10, "{}", row.name);
            match row.status {
                Status::Implemented(_) => {}
                Status::NoEffect(reason) => assert!(reason.len() > 10, "{}", row.name),
                Status::Refused { reason, instead } => {
                    assert!(reason.len() > 10 && instead.len() > 10, "{}", row.name)
                }
            }
            if let Some(opposite) = row.opposite() {
                let opposite = OPTIONS.iter().find(|other| other.name == opposite).unwrap();
                assert_eq!(opposite.opposite(), Some(row.name));
                assert_ne!(row.default, opposite.default, "one of {} and its opposite holds", row.name);
            }
        }
    }

    #[test]
    fn every_flag_has_its_effect() {
        for word in ["rw", "async", "insecure", "no_root_squash", "all_squash", "nordirplus"] {
            let text = set(&[word]).to_string();
            assert!(text.split(',').any(|o| o == word), "{word}: {text}");
            assert_ne!(set(&[word]), Options::default());
            if let Some(opposite) = OPTIONS.iter().find(|row| row.name == word).unwrap().opposite() {
                assert_eq!(set(&[word, opposite]), Options::default());
            }
        }
        assert_eq!((set(&["anonuid=7"]).anonuid, set(&["anongid=8"]).anongid), (7, 8));
        assert_eq!(set(&["anonuid=-2"]).anonuid, 4_294_967_294);
        assert_eq!(set(&["mp"]).mountpoint, Some(MountPoint::Export));
        assert_eq!(set(&["mountpoint=/a"]).mountpoint, Some(MountPoint::Path("/a".into())));
    }

    #[test]
    fn of_a_number_and_a_uuid_the_number_counts() {
        let uuid = "fsid=12345678-1234-1234-1234-123456789abc";
        assert_eq!(set(&["fsid=root"]).fsid, Some(Fsid::Number(0)));
        assert_eq!(set(&["fsid=3", uuid]).fsid, Some(Fsid::Number(3)));
        assert_eq!(set(&[uuid, "fsid=3"]).fsid, Some(Fsid::Number(3)));
        assert!(matches!(set(&[uuid]).fsid, Some(Fsid::Uuid(_))));
    }

    #[test]
    fn lists_within_lists() {
        assert_eq!(
            words("rw,squash_uids=0-15,20,anonuid=5,,squash_gids=3,4-5"),
            ["rw", "squash_uids=0-15,20", "anonuid=5", "squash_gids=3,4-5"]
        );
        assert_eq!(words("rw,7"), ["rw", "7"]);
        let options = set(&["squash_uids=0-15,20", "squash_gids=3"]);
        assert!(options.squashes_uid(15) && options.squashes_uid(20) && !options.squashes_uid(16));
        assert!(options.squashes_gid(3) && !options.squashes_gid(4));
    }

    #[test]
    fn refusals_say_what_and_why() {
        let error = |word| apply(&mut Options::default(), word).unwrap_err().to_string();
        assert_eq!(
            error("crossmnt"),
            "option \"crossmnt\" is refused: an export ends where another file system is mounted, and clients \
             get NFS3ERR_ACCES there; give each file system its own line, and mount each on the client"
        );
        assert!(
            error("xprtsec=tls").starts_with("option xprtsec=tls: must be none; RPC-with-TLS is not served")
        );
        assert!(
            error("sec=sys:krb5").starts_with("option sec=sys:krb5: must be sys; Kerberos is not served")
        );
        assert_eq!(
            error("no_rot_squash"),
            "unknown option \"no_rot_squash\"; did you mean \"no_root_squash\"?"
        );
        assert_eq!(error("frobnicate"), "unknown option \"frobnicate\"; see remoor exports options");
        assert_eq!(error("anonuid"), "option \"anonuid\" needs a value: anonuid=UID");
        assert_eq!(error("rw=1"), "option \"rw\" takes no value, but has \"1\"");
        assert_eq!(error("pnfs=1"), "option \"pnfs\" takes no value, but has \"1\"");
        for bad in ["anonuid=-1", "anonuid=4294967295", "anongid=", "anongid=x", "anonuid=+1", "anonuid=-3"] {
            assert!(error(bad).ends_with("must be a number from 0 to 4294967294, or -2 for that"), "{bad}");
        }
        assert!(error("fsid=x").starts_with("option fsid=x: must be a number below"));
        assert_eq!(error("mp=a"), "option mp=a: must be an absolute path");
        assert!(error("squash_uids=5-3").contains("must be numbers and ranges"));
        assert!(error(&"x".repeat(100_000)).ends_with("see remoor exports options"));
    }
}
