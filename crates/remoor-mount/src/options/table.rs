//! The options of a mount, one row each: those of nfs(5), of mount(8), of FUSE, and our own. Parser, `--help-options`, man
//! page, `--check` and `-o remount` read this table.

use std::sync::LazyLock;
use std::time::Duration;

use remoor_client::options::TABLE as CONNECTION;

use super::row::{Argument, Group, OptionRow, Status};
use super::{MountOptions, Wrong, value};

/// Every option, in the order help shows them.
pub fn table() -> &'static [OptionRow] {
    static ROWS: LazyLock<Vec<OptionRow>> = LazyLock::new(|| {
        let groups = [SERVER, FAILOVER, PATIENCE, CACHES, DATA, SECURITY, ACCESS, FSTAB];
        groups.concat().into_iter().map(worded).collect()
    });
    &ROWS
}

/// The row of an option, by its name or another one.
pub fn find(name: &str) -> Option<&'static OptionRow> {
    table().iter().find(|row| row.is_named(name))
}

/// A row of the connection's with the words that its own table has for it.
fn worded(row: OptionRow) -> OptionRow {
    if !matches!(row.status, Status::Connection) {
        return row;
    }
    match CONNECTION.iter().find(|its| its.name == row.name) {
        Some(its) if its.argument.is_empty() => OptionRow { meaning: its.meaning, ..row },
        Some(its) => OptionRow { meaning: its.meaning, argument: Argument::Required(its.argument), ..row },
        None => row,
    }
}

macro_rules! set {
    ($($field:ident).+ = $value:expr) => {
        Status::Implemented(|options, _| {
            options.$($field).+ = $value;
            Ok(())
        })
    };
    ($($field:ident).+ <- $parse:expr) => {
        Status::Implemented(|options, text| {
            options.$($field).+ = $parse(text)?;
            Ok(())
        })
    };
}

macro_rules! only {
    ($check:expr) => {
        Status::Implemented(|_, text| $check(text))
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

macro_rules! live {
    () => {
        false
    };
    (live) => {
        true
    };
}

/// Rows of a group; `@live` before one that a remount can change.
macro_rules! rows {
    ($group:ident: $($(@$live:ident)? $name:literal $(| $alias:literal)* $(= $argument:tt)?, $default:literal,
       $status:expr, $meaning:literal;)*) => {
        &[$(OptionRow {
            name: $name,
            aliases: &[$($alias),*],
            argument: argument!($($argument)?),
            default: $default,
            meaning: $meaning,
            group: Group::$group,
            status: $status,
            live: live!($($live)?),
        },)*]
    };
}

use Status::{Connection, Implemented, Mount8, NoEffect};

const V4_ONLY: &str = "it belongs to NFS version 4, and version 3 is spoken";
const WRITE_V3: &str = "write vers=3 or nothing, or use the kernel's client (mount -t nfs4)";
const NO_UDP: &str = "UDP is not spoken: a lost fragment can corrupt what is written (nfs(5))";
const NO_RDMA: &str = "RDMA is not spoken";
const WRITE_TCP: &str = "write proto=tcp or nothing";
const NO_TLS: &str = "RPC-with-TLS is not spoken";
const OWN_CACHE: &str = "every mount has caches and connections of its own";
const LOCAL_LOCKS: &str = "locks hold among the processes of this host only, as with nolock: the lock manager's protocol is not spoken";
const NO_ACL: &str = "the NFSACL program is not spoken; the server enforces ACLs, but they are not shown";
const ATIME: &str = "the server keeps access times; what is read from the cache does not reach it";
const SIGKILL: &str =
    "as with Linux since 2.6.25, SIGKILL always interrupts a call, and no other signal does";
const NO_DISK_CACHE: &str = "nothing is cached on a local disk";
const FROM_SERVER: &str = "the server says it (PATHCONF)";
const ALWAYS_SO: &str = "it is always so";
const NO_KERNEL_LOCKS: &str = "mandatory locks have left the kernel in 5.15";
const RDIRPLUS: &str =
    "READDIRPLUS is used where attributes are wanted, and READDIR where the server has no other";
const KERNEL_FUSE: &str = "the mount sets it itself; mount(8) repeats it from /proc/mounts for a remount";
const NO_LABELS: &str = "security labels are not passed on";
const BY_POLICY: &str = "remove it; files get the label that the policy has for FUSE";
const NOT_LIBFUSE: &str = "caches follow the server's attributes, as nfs(5) has it, not FUSE's options";

static SERVER: &[OptionRow] = rows![Server:
    "vers" | "nfsvers" = "3", "3", only!(value::version), "NFS version; only 3 is spoken.";
    "v3", "yes", Implemented(nothing), "NFS version 3.";
    "v2" | "v4" | "v4.0" | "v4.1" | "v4.2", "no", refused!("only NFS version 3 is spoken", WRITE_V3), "Another NFS version.";
    "minorversion" = "N", "none", refused!(V4_ONLY, WRITE_V3), "Minor version of NFS version 4.";
    "proto" = "tcp|tcp6", "tcp", set!(family <- value::protocol), "Transport: tcp takes every address of the server, tcp6 those of IPv6.";
    "tcp", "yes", Implemented(nothing), "Transport TCP.";
    "udp" | "udp6", "no", refused!(NO_UDP, WRITE_TCP), "Transport UDP.";
    "rdma" | "rdma6", "no", refused!(NO_RDMA, WRITE_TCP), "Transport RDMA.";
    "port" = "PORT", "0", set!(port <- value::port), "The server's NFS port; 0 asks its portmapper, and takes 2049 if there is none.";
    "mountport" = "PORT", "0", set!(mountport <- value::port), "The server's MOUNT port; 0 asks its portmapper, and takes the NFS port if there is none.";
    "mountproto" = "tcp|tcp6", "tcp", only!(|text| value::protocol(text).map(drop)), "Transport of MOUNT.";
    "mountvers" = "3", "3", only!(value::mount_version), "Version of MOUNT.";
    "mounthost" = "HOST", "the server", set!(mounthost <- value::host), "Host that answers MOUNT.";
    "mountaddr" = "ADDR", "resolved", set!(mountaddr <- value::address), "Address that answers MOUNT.";
    "addr" = "ADDR", "resolved", set!(addr <- value::address), "Address of the server; its name is then not resolved.";
    "nconnect" = "N", "1", Connection, "";
    "source" = "SPEC", "none", NoEffect("the server and its export are the first argument"), "Server and export.";
    "clientaddr" = "ADDR", "none", NoEffect(V4_ONLY), "Address for callbacks.";
    "max_connect" = "N", "1", NoEffect(V4_ONLY), "Most addresses of one server.";
    "notrunkdiscovery", "yes", NoEffect(V4_ONLY), "Do not look for more addresses of the server.";
    "trunkdiscovery", "no", NoEffect(V4_ONLY), "Look for more addresses of the server.";
    "nomigration", "yes", NoEffect(V4_ONLY), "No migration of exports.";
    "migration", "no", refused!(V4_ONLY, "remove it; name all addresses of a server as A,B:/EXPORT"), "Follow an export to another server.";
];

static FAILOVER: &[OptionRow] = rows![Failover:
    "resvport", "yes", Connection, "";
    "noresvport", "no", Connection, "";
    "rebind", "same or fresh", Connection, "";
    "abandon", "reset", Connection, "";
    @live "suspect", "300", Connection, "";
    "stuck", "careful", Connection, "";
];

static PATIENCE: &[OptionRow] = rows![Patience:
    @live "hard", "yes", Connection, "";
    @live "soft", "no", Connection, "";
    @live "softerr", "no", Connection, "";
    @live "timeo", "600", Connection, "";
    @live "retrans", "2", Connection, "";
    @live "fg", "yes", set!(bg = false), "A mount that fails is tried again in the foreground, for the time of retry=.";
    @live "bg", "no", set!(bg = true), "A mount that fails at first is tried again in the background.";
    @live "retry" = "MINUTES", "2, or 10000 with bg", set!(retry <- |text| value::number(text).map(Some)), "How long a mount is tried; 0 tries once.";
    "intr", "no", NoEffect(SIGKILL), "Signals interrupt calls.";
    "nointr", "yes", NoEffect(SIGKILL), "Signals do not interrupt calls.";
    "softreval", "no", NoEffect("attributes whose time is over are asked for again, for as long as the server is away"), "Use attributes from the cache while the server is away.";
    "nosoftreval", "yes", NoEffect(ALWAYS_SO), "Do not use outdated attributes while the server is away.";
    "fatal_neterrors" = "LIST", "none", NoEffect("a hard mount outlasts every error of the network"), "Errors of the network that end calls of a hard mount.";
];

static CACHES: &[OptionRow] = rows![Caches:
    @live "ac", "yes", set!(fs.attribute_cache = true), "Keep attributes.";
    @live "noac", "no", set!(fs.attribute_cache = false), "Keep no attributes, and write as with sync: other hosts' changes are seen at once, at the cost of a call for each look.";
    @live "acregmin" = "SECONDS", "3", set!(fs.acregmin <- seconds), "Shortest time attributes of a file are kept.";
    @live "acregmax" = "SECONDS", "60", set!(fs.acregmax <- seconds), "Longest time attributes of a file are kept.";
    @live "acdirmin" = "SECONDS", "30", set!(fs.acdirmin <- seconds), "Shortest time attributes of a directory are kept.";
    @live "acdirmax" = "SECONDS", "60", set!(fs.acdirmax <- seconds), "Longest time attributes of a directory are kept.";
    @live "actimeo" = "SECONDS", "none", Implemented(set_actimeo), "Sets all four.";
    @live "lookupcache" = "all|positive|none", "all", set!(fs.lookup_cache <- value::lookup_cache), "Names that are kept: those that exist and those that do not (all), those that exist (positive or pos), none.";
    @live "cto", "yes", set!(fs.close_to_open = true), "Close-to-open: an open sees what was written before the last close on any host.";
    @live "nocto", "no", set!(fs.close_to_open = false), "An open trusts attributes that are kept.";
    "rdirplus" = ["none|force"], "yes", NoEffect(RDIRPLUS), "Read directories with READDIRPLUS.";
    "nordirplus", "no", NoEffect(RDIRPLUS), "Read directories with READDIR.";
    "sharecache", "yes", NoEffect(OWN_CACHE), "Mounts of one export share caches.";
    "nosharecache", "no", NoEffect(OWN_CACHE), "Mounts of one export share nothing.";
    "fsc" = ["TAG"], "no", NoEffect(NO_DISK_CACHE), "Cache data on a local disk.";
    "nofsc", "yes", NoEffect(ALWAYS_SO), "Do not cache data on a local disk.";
];

static DATA: &[OptionRow] = rows![Data:
    "rsize" = "BYTES", "1048576", set!(fs.rsize <- value::io_size), "Most bytes of one READ, a multiple of 1024 up to 1048576; the server's limit counts, too.";
    "wsize" = "BYTES", "1048576", set!(fs.wsize <- value::io_size), "Most bytes of one WRITE, a multiple of 1024 up to 1048576; the server's limit counts, too.";
    "bsize" = "BYTES", "none", NoEffect("the mount chooses it"), "Block size shown.";
    @live "sync", "no", set!(fs.sync = true), "A write returns when its data is on the server's stable storage.";
    @live "async", "yes", set!(fs.sync = false), "Data is written behind, and is stable after fsync or close.";
    "dirsync", "no", NoEffect(ALWAYS_SO), "Changes of directories are stable when they return.";
    "write" = "lazy", "lazy", only!(value::write_mode), "When data is written behind: when there is enough of it, or time.";
    "alignwrite", "yes", NoEffect("only bytes that were written are sent, so that writers on other hosts lose none"), "Extend writes to whole pages.";
    "noalignwrite", "no", NoEffect(ALWAYS_SO), "Do not extend writes to whole pages.";
    "namlen" = "N", "none", NoEffect(FROM_SERVER), "Longest name.";
    "posix", "no", NoEffect(FROM_SERVER), "Ask the server for the limits of names.";
    "noposix", "yes", NoEffect(FROM_SERVER), "Do not ask the server for the limits of names.";
];

static SECURITY: &[OptionRow] = rows![Security:
    "nolock", "yes", Implemented(nothing), "Locks hold among the processes of this host only.";
    "lock", "no", NoEffect(LOCAL_LOCKS), "Locks hold among all clients of the server.";
    "local_lock" = "all|flock|posix|none", "all", Implemented(local_lock), "Locks that hold among the processes of this host only: all of them, whatever is asked for.";
    "sec" = "sys", "sys", only!(value::flavor), "Security flavor; of a list like krb5:sys, sys is used.";
    "xprtsec" = "none", "none", only!(value::transport_security), "Transport security.";
    "cert_serial" = "ID", "none", refused!(NO_TLS, "use a VPN or WireGuard"), "Certificate of mutual TLS.";
    "privkey_serial" = "ID", "none", refused!(NO_TLS, "use a VPN or WireGuard"), "Key of mutual TLS.";
    "acl", "yes", NoEffect(NO_ACL), "Serve access control lists by NFSACL.";
    "noacl", "no", NoEffect(NO_ACL), "Do not use NFSACL.";
    "context" = "LABEL", "none", refused!(NO_LABELS, BY_POLICY), "Security label of all files.";
    "fscontext" = "LABEL", "none", refused!(NO_LABELS, BY_POLICY), "Security label of the file system.";
    "defcontext" = "LABEL", "none", refused!(NO_LABELS, BY_POLICY), "Security label of files without one.";
    "rootcontext" = "LABEL", "none", refused!(NO_LABELS, BY_POLICY), "Security label of the root.";
];

static ACCESS: &[OptionRow] = rows![Access:
    @live "rw", "yes", set!(flags.read_only = false), "Allow changes.";
    @live "ro", "no", set!(flags.read_only = true), "Refuse every change.";
    @live "suid", "yes", set!(flags.nosuid = false), "Obey set-user-ID bits; an ordinary user's mount never does.";
    @live "nosuid", "no", set!(flags.nosuid = true), "Ignore set-user-ID bits and file capabilities.";
    @live "dev", "yes", set!(flags.nodev = false), "Device nodes are devices; never on an ordinary user's mount.";
    @live "nodev", "no", set!(flags.nodev = true), "Device nodes are no devices.";
    @live "exec", "yes", set!(flags.noexec = false), "Allow programs to be executed.";
    @live "noexec", "no", set!(flags.noexec = true), "Refuse to execute programs.";
    "allow_other", "yes for root", set!(allow_other = Some(true)), "All users of this host may use the mount; for an ordinary user's mount /etc/fuse.conf must have user_allow_other.";
    "noallow_other", "no", set!(allow_other = Some(false)), "Only the user who mounts may use the mount.";
    "allow_root", "no", refused!("FUSE knows the user who mounts and everybody, nothing between", "write allow_other"), "Root may use the mount, too.";
    "default_permissions", "no", set!(default_permissions = true), "Check permissions by owner and mode on this host instead of asking the server.";
    "uid" = "UID", "the server's", set!(fs.uid <- |text| value::id(text).map(Some)), "Show every file as owned by this user.";
    "gid" = "GID", "the server's", set!(fs.gid <- |text| value::id(text).map(Some)), "Show every file as of this group.";
    "metrics" = "ADDR:PORT", "none", set!(metrics <- value::listening), "Tell /metrics of this mount over HTTP there, for Prometheus.";
    "umask" = "MASK", "none", refused!("the server keeps modes", "set the umask of the processes that create files"), "Bits that modes do not have.";
    "atime" | "relatime" | "strictatime" | "diratime", "yes", NoEffect(ATIME), "Change access times.";
    "noatime" | "nodiratime" | "norelatime" | "nostrictatime", "no", NoEffect(ATIME), "Do not change access times.";
    "lazytime" | "nolazytime", "no", NoEffect(ATIME), "Change times on disk late.";
    "mand" | "nomand", "no", NoEffect(NO_KERNEL_LOCKS), "Mandatory locks.";
    "iversion" | "noiversion", "no", NoEffect("the server keeps change attributes"), "Count changes of inodes.";
    "silent" | "loud", "no", NoEffect("the kernel prints nothing about FUSE mounts"), "Print messages of the kernel, or do not.";
    "max_read" = "BYTES", "rsize", NoEffect("a READ is bounded by rsize="), "Most bytes of one FUSE read.";
    "fsname" = "NAME", "the server", NoEffect("server and export are shown"), "Source shown in /proc/mounts.";
    "subtype" = "NAME", "remoor", NoEffect("the type shown is fuse.remoor"), "Type shown in /proc/mounts.";
    "nonempty", "yes", NoEffect(ALWAYS_SO), "Mount over a directory with files.";
    "fd" | "rootmode" | "user_id" | "group_id" | "blksize" = "N", "none", NoEffect(KERNEL_FUSE), "What the kernel is told of a FUSE mount.";
    "auto_unmount", "no", refused!("nothing outlives the daemon to do it", "unmount with umount, or umount -l if the daemon was killed"), "Unmount when the daemon ends in any way.";
    "direct_io", "no", refused!(NOT_LIBFUSE, "write noac, or open files with O_DIRECT"), "Do not cache data.";
    "kernel_cache", "no", refused!(NOT_LIBFUSE, "write nocto, and actimeo= with a long time"), "Keep data over opens.";
    "auto_cache", "no", NoEffect(ALWAYS_SO), "Keep data over opens of an unchanged file.";
    "attr_timeout" | "ac_attr_timeout" = "SECONDS", "none", refused!(NOT_LIBFUSE, "write actimeo="), "How long attributes are kept.";
    "entry_timeout" | "negative_timeout" = "SECONDS", "none", refused!(NOT_LIBFUSE, "write lookupcache= and actimeo="), "How long names are kept.";
];

static FSTAB: &[OptionRow] = rows![Fstab:
    "defaults", "yes", Mount8(nothing), "Holds the place of options; takes back none.";
    "auto", "yes", Mount8(nothing), "Mounted by mount -a and at boot.";
    "noauto", "no", Mount8(nothing), "Mounted by mount DIR only.";
    "nofail", "no", Mount8(nothing), "The boot goes on without it.";
    "_netdev", "no", Mount8(nothing), "It needs the network: the boot mounts it after, and the shutdown unmounts it before.";
    "user" = ["NAME"], "no", Mount8(of_a_user), "An ordinary user may mount it; implies noexec, nosuid and nodev unless they are taken back after it.";
    "users", "no", Mount8(of_a_user), "Ordinary users may mount it, and unmount each other's; implies the same.";
    "owner", "no", Mount8(of_an_owner), "The owner of the source may mount it; implies nosuid and nodev.";
    "group" = ["NAME"], "no", Mount8(of_an_owner), "The group of the source may mount it; implies nosuid and nodev.";
    "nouser" | "nousers" | "noowner" | "nogroup", "yes", Mount8(nothing), "Only root may mount it.";
    "remount", "no", Mount8(nothing), "Change the options of a mount that is there.";
    "sloppy", "no", Mount8(nothing), "Ignore unknown options (-s).";
    "comment" = "TEXT", "none", Mount8(nothing), "A note for those who read the line.";
    "uhelper" = "NAME", "none", Mount8(nothing), "Program that umount calls.";
    "helper" = "NAME", "none", Mount8(nothing), "Program that unmounts, noted by mount(8).";
    "x-*" = ["VALUE"], "none", Mount8(nothing), "For programs that read fstab, for example x-systemd.automount or x-mount.mkdir.";
    "X-*" = ["VALUE"], "none", Mount8(nothing), "As x-, not remembered while mounted.";
];

fn nothing(_: &mut MountOptions, _: &str) -> Result<(), Wrong> {
    Ok(())
}

fn seconds(text: &str) -> Result<Duration, Wrong> {
    value::number(text).map(|seconds| Duration::from_secs(seconds.into()))
}

fn set_actimeo(options: &mut MountOptions, text: &str) -> Result<(), Wrong> {
    let time = seconds(text)?;
    let fs = &mut options.fs;
    [fs.acregmin, fs.acregmax, fs.acdirmin, fs.acdirmax] = [time; 4];
    Ok(())
}

fn local_lock(_: &mut MountOptions, text: &str) -> Result<(), Wrong> {
    match text {
        "all" | "flock" | "posix" | "none" => Ok(()),
        _ => Err(Wrong::MustBe("all; locks are always local")),
    }
}

fn of_a_user(options: &mut MountOptions, text: &str) -> Result<(), Wrong> {
    options.flags.noexec = true;
    of_an_owner(options, text)
}

fn of_an_owner(options: &mut MountOptions, _: &str) -> Result<(), Wrong> {
    options.flags.nosuid = true;
    options.flags.nodev = true;
    Ok(())
}
