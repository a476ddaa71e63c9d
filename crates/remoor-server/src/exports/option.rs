//! The options of exports(5), one row each. Parser, `--help`, man page and the effective-options log read this table.

use std::fmt;

use crate::exports::identity::Fsid;

/// Anonymous user and group unless an export says otherwise, as in exports(5).
pub const ANONYMOUS: u32 = 65_534;

/// What an export's options come to for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `ro`: nothing may be changed.
    pub read_only: bool,
    /// `sync`: changes are on stable storage before they are answered.
    pub sync: bool,
    /// `secure`: the client's port must be below 1024.
    pub secure: bool,
    /// `root_squash`: user 0 and group 0 become anonymous.
    pub root_squash: bool,
    /// `all_squash`: everybody becomes anonymous.
    pub all_squash: bool,
    /// `anonuid=`.
    pub anonuid: u32,
    /// `anongid=`.
    pub anongid: u32,
    /// `subtree_check`, `no_subtree_check`, or neither given.
    pub subtree_check: Option<bool>,
    /// `fsid=`.
    pub fsid: Option<Fsid>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: true,
            sync: true,
            secure: true,
            root_squash: true,
            all_squash: false,
            anonuid: ANONYMOUS,
            anongid: ANONYMOUS,
            subtree_check: None,
            fsid: None,
        }
    }
}

/// The effective options, as `exportfs -v` would list them.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pick = |on, yes, no| if on { yes } else { no };
        write!(
            f,
            "{},{},{},{},{},{},anonuid={},anongid={}",
            pick(self.read_only, "ro", "rw"),
            pick(self.sync, "sync", "async"),
            pick(self.secure, "secure", "insecure"),
            pick(self.root_squash, "root_squash", "no_root_squash"),
            pick(self.all_squash, "all_squash", "no_all_squash"),
            pick(self.subtree_check == Some(true), "subtree_check", "no_subtree_check"),
            self.anonuid,
            self.anongid
        )?;
        self.fsid.as_ref().map_or(Ok(()), |fsid| write!(f, ",fsid={fsid}"))
    }
}

/// One option of exports(5).
#[derive(Debug)]
pub struct OptionRow {
    /// Its name, without `=`.
    pub name: &'static str,
    /// What follows `=`, if anything does.
    pub argument: Option<&'static str>,
    /// Whether it holds when nothing is said, or the value that does.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Whether this server has it.
    pub status: Status,
}

/// Whether this server has an option.
#[derive(Debug)]
pub enum Status {
    /// It does what it says.
    Implemented(Apply),
    /// It is accepted and changes nothing, for this reason.
    NoEffect(&'static str),
    /// It is refused, for this reason.
    NotYet(&'static str),
}

/// Sets an option from its argument, which is empty if it takes none; an error is what the argument should be.
pub type Apply = fn(&mut Options, &str) -> Result<(), &'static str>;

macro_rules! flag {
    ($field:ident = $value:expr) => {
        Status::Implemented(|options, _| {
            options.$field = $value;
            Ok(())
        })
    };
}

macro_rules! number {
    ($field:ident) => {
        Status::Implemented(|options, argument| {
            options.$field = argument.parse().map_err(|_| "a number from 0 to 4294967295")?;
            Ok(())
        })
    };
}

macro_rules! rows {
    ($($name:literal $(= $argument:literal)?, $default:literal, $status:expr, $meaning:literal;)*) => {
        &[$(OptionRow {
            name: $name,
            argument: { let argument: Option<&'static str> = None; $(let argument = { let _ = argument; Some($argument) };)? argument },
            default: $default,
            meaning: $meaning,
            status: $status,
        },)*]
    };
}

use Status::{Implemented, NoEffect, NotYet};

const NO_NLM: &str = "locking (NLM) is not served, mount with nolock";
const ONE_FS: &str =
    "an export is one directory tree; file systems mounted below it are exported by their own line";
const V4_ONLY: &str = "it belongs to NFS version 4";
const NO_DELAY: &str = "writes are never delayed, so there is nothing to gather";

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
    "anonuid" = "UID", "65534", number!(anonuid), "The anonymous user.";
    "anongid" = "GID", "65534", number!(anongid), "The anonymous group.";
    "no_subtree_check", "yes", flag!(subtree_check = Some(false)), "Accept a handle wherever its file has been moved to.";
    "subtree_check", "no", flag!(subtree_check = Some(true)), "Accepted as no_subtree_check: handles are signed, so none can be made up for a file outside the export, but a file that is moved out on the server stays reachable by its old handle.";
    "fsid" = "NUMBER|root|UUID", "from the path", Implemented(set_fsid), "Identify the export in file handles: must be equal on all nodes that serve it.";
    "wdelay", "yes", NoEffect(NO_DELAY), "Delay a write in case another follows.";
    "no_wdelay", "no", NoEffect(NO_DELAY), "Do not delay writes.";
    "hide", "yes", NoEffect(ONE_FS), "Do not show file systems mounted below.";
    "nocrossmnt", "yes", NoEffect(ONE_FS), "Do not cross into file systems mounted below.";
    "no_pnfs", "yes", NoEffect(V4_ONLY), "No parallel NFS.";
    "secure_locks", "yes", NoEffect(NO_NLM), "Authenticate lock requests.";
    "auth_nlm", "yes", NoEffect(NO_NLM), "Authenticate lock requests.";
    "acl", "yes", NoEffect("the NFSACL program is not served"), "Serve access control lists.";
    "no_acl", "no", NoEffect("the NFSACL program is not served"), "Do not serve access control lists.";
    "nohide", "no", NotYet(ONE_FS), "Show this file system below its parent's export.";
    "crossmnt", "no", NotYet(ONE_FS), "Cross into file systems mounted below.";
    "no_auth_nlm", "no", NotYet(NO_NLM), "Do not authenticate lock requests.";
    "insecure_locks", "no", NotYet(NO_NLM), "Do not authenticate lock requests.";
    "sec" = "FLAVOR[:FLAVOR...]", "sys", Implemented(only_sys), "Security flavors, in order of preference.";
    "xprtsec" = "POLICY[:POLICY...]", "none:tls:mtls", NotYet("RPC-with-TLS is not served"), "Transport security.";
    "squash_uids" = "LIST", "none", NotYet("use all_squash"), "Users to treat as anonymous.";
    "squash_gids" = "LIST", "none", NotYet("use all_squash"), "Groups to treat as anonymous.";
    "mountpoint" = "PATH", "none", NotYet("export the directory only while its file system is mounted"), "Export only if this is a mount point.";
    "mp" = "PATH", "none", NotYet("export the directory only while its file system is mounted"), "Export only if this is a mount point.";
    "refer" = "PATH@HOST", "none", NotYet(V4_ONLY), "Refer clients to another server.";
    "replicas" = "PATH@HOST", "none", NotYet(V4_ONLY), "Tell clients of other servers.";
    "fsloc" = "stub", "none", NotYet(V4_ONLY), "Tell clients of other servers.";
    "reexport" = "METHOD", "none", NotYet("give the export of an NFS mount its own fsid="), "Assign fsids to re-exported file systems.";
    "pnfs", "no", NotYet(V4_ONLY), "Parallel NFS.";
    "security_label", "no", NotYet(V4_ONLY), "Serve security labels.";
    "nordirplus", "no", NotYet("mount with nordirplus"), "Refuse READDIRPLUS.";
    "sign_fh", "no", NotYet("handles are always signed"), "Sign file handles.";
];

fn set_fsid(options: &mut Options, argument: &str) -> Result<(), &'static str> {
    options.fsid = Some(argument.parse()?);
    Ok(())
}

fn only_sys(_: &mut Options, argument: &str) -> Result<(), &'static str> {
    if argument == "sys" { Ok(()) } else { Err("sys; other flavors are not yet supported") }
}

/// Why an option was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum OptionError {
    #[error("option {name:?} is not yet supported: {reason}; remove it")]
    NotYet { name: String, reason: &'static str },
    #[error("unknown option {name:?}{}", suggestion(name))]
    Unknown { name: String },
    #[error("option {name:?} needs a value: {name}={argument}")]
    NeedsValue { name: &'static str, argument: &'static str },
    #[error("option {name:?} takes no value, but has {value:?}")]
    TakesNoValue { name: &'static str, value: String },
    #[error("option {name}={value}: must be {must_be}")]
    BadValue { name: &'static str, value: String, must_be: &'static str },
}

fn suggestion(name: &str) -> String {
    /// Fewer different letters than this look like a slip.
    const SLIP: usize = 4;
    let distance = |row: &&OptionRow| strsim::levenshtein(row.name, name);
    let nearest = OPTIONS.iter().min_by_key(distance).filter(|row| distance(row) < SLIP.min(name.len()));
    nearest.map_or_else(|| "; see exports(5)".into(), |row| format!("; did you mean {:?}?", row.name))
}

/// Applies one option, `name` or `name=value`; the reason if it is accepted without effect.
pub(super) fn apply(options: &mut Options, word: &str) -> Result<Option<&'static str>, OptionError> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let Some(row) = OPTIONS.iter().find(|row| row.name == name) else {
        return Err(OptionError::Unknown { name: name.into() });
    };
    match row.status {
        Status::NoEffect(reason) => Ok(Some(reason)),
        Status::NotYet(reason) => Err(OptionError::NotYet { name: name.into(), reason }),
        Status::Implemented(set) => set_value(options, row, set, value).map(|()| None),
    }
}

fn set_value(
    options: &mut Options,
    row: &'static OptionRow,
    set: Apply,
    value: Option<&str>,
) -> Result<(), OptionError> {
    let argument = match (row.argument, value) {
        (None, None) => "",
        (Some(_), Some(value)) => value,
        (Some(argument), None) => return Err(OptionError::NeedsValue { name: row.name, argument }),
        (None, Some(value)) => {
            return Err(OptionError::TakesNoValue { name: row.name, value: value.into() });
        }
    };
    let bad = |must_be| OptionError::BadValue { name: row.name, value: argument.into(), must_be };
    set(options, argument).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_agree() {
        let mut names: Vec<_> = OPTIONS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OPTIONS.len());
        let mut options = Options::default();
        for row in OPTIONS.iter().filter(|row| row.default == "yes" && row.name != "no_subtree_check") {
            apply(&mut options, row.name).unwrap();
        }
        for name in ["anonuid", "anongid"] {
            let row = OPTIONS.iter().find(|row| row.name == name).unwrap();
            apply(&mut options, &format!("{name}={}", row.default)).unwrap();
        }
        assert_eq!(options, Options::default(), "the column of defaults is what the defaults are");
    }

    #[test]
    fn every_flag_has_its_effect() {
        let set = |word: &str| {
            let mut options = Options::default();
            apply(&mut options, word).unwrap();
            options.to_string()
        };
        for word in ["rw", "async", "insecure", "no_root_squash", "all_squash", "subtree_check"] {
            assert!(set(word).split(',').any(|o| o == word), "{word}: {}", set(word));
            assert_ne!(set(word), Options::default().to_string());
        }
        assert!(set("anonuid=7").contains("anonuid=7,anongid=65534"));
        assert!(set("anongid=8").contains("anongid=8"));
        assert!(set("fsid=root").ends_with(",fsid=0"));
    }

    #[test]
    fn refusals_say_what_and_why() {
        let error = |word| apply(&mut Options::default(), word).unwrap_err().to_string();
        assert_eq!(
            error("xprtsec=tls"),
            "option \"xprtsec\" is not yet supported: RPC-with-TLS is not served; remove it"
        );
        assert_eq!(error("sec=krb5"), "option sec=krb5: must be sys; other flavors are not yet supported");
        assert_eq!(apply(&mut Options::default(), "sec=sys"), Ok(None));
        assert_eq!(
            error("no_rot_squash"),
            "unknown option \"no_rot_squash\"; did you mean \"no_root_squash\"?"
        );
        assert_eq!(error("frobnicate"), "unknown option \"frobnicate\"; see exports(5)");
        assert_eq!(error("anonuid"), "option \"anonuid\" needs a value: anonuid=UID");
        assert_eq!(error("rw=1"), "option \"rw\" takes no value, but has \"1\"");
        assert_eq!(error("anonuid=-2"), "option anonuid=-2: must be a number from 0 to 4294967295");
        assert_eq!(error("fsid=x"), "option fsid=x: must be a number, root, or a UUID");
    }
}
