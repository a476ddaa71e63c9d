//! Values of options: what each form takes, and its words for what it does not take.

use std::net::{IpAddr, SocketAddr};

use super::error::Wrong;
use crate::fs::config::LookupCache;

/// Largest READ or WRITE: `NFS_MAX_FILE_IO_SIZE` of Linux.
pub(super) const IO_SIZE_MAX: u32 = 1 << 20;
/// What stands for an impossibly small one: `NFS_DEF_FILE_IO_SIZE`.
pub(super) const IO_SIZE_DEFAULT: u32 = 4096;
/// The unit of both, and the smallest: `NFS_MIN_FILE_IO_SIZE`.
pub(super) const IO_SIZE_UNIT: u32 = 1024;

pub(super) fn number(text: &str) -> Result<u32, Wrong> {
    const MUST_BE: Wrong = Wrong::MustBe("a whole number, up to 4294967295");
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(MUST_BE)
}

/// A user or group; 4294967295 names nobody (chown(2)).
pub(super) fn id(text: &str) -> Result<u32, Wrong> {
    const MUST_BE: Wrong = Wrong::MustBe("a number from 0 to 4294967294");
    number(text).ok().filter(|id| *id != u32::MAX).ok_or(MUST_BE)
}

/// A port; 0 is a port that is found out.
pub(super) fn port(text: &str) -> Result<Option<u16>, Wrong> {
    const MUST_BE: Wrong = Wrong::MustBe("a port from 1 to 65535, or 0 to ask the server's portmapper");
    let port = number(text).ok().and_then(|port| u16::try_from(port).ok()).ok_or(MUST_BE)?;
    Ok(Some(port).filter(|port| *port != 0))
}

/// Bytes of a READ or WRITE by the rules of nfs(5): below 1024 stands for 4096, above 1 MiB for 1 MiB, and what lies
/// between is rounded down to a multiple of 1024. 0 stands for as much as there may be.
pub(super) fn io_size(text: &str) -> Result<u32, Wrong> {
    Ok(match number(text)? {
        0 => IO_SIZE_MAX,
        bytes if bytes < IO_SIZE_UNIT => IO_SIZE_DEFAULT,
        bytes => (bytes / IO_SIZE_UNIT * IO_SIZE_UNIT).min(IO_SIZE_MAX),
    })
}

pub(super) fn address(text: &str) -> Result<Option<IpAddr>, Wrong> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    inner.parse().map(Some).map_err(|_| Wrong::MustBe("an IP address"))
}

pub(super) fn listening(text: &str) -> Result<Option<SocketAddr>, Wrong> {
    text.parse()
        .map(Some)
        .map_err(|_| Wrong::MustBe("an address and a port, as in 127.0.0.1:9465 or [::]:9465"))
}

pub(super) fn lookup_cache(text: &str) -> Result<LookupCache, Wrong> {
    match text {
        "all" => Ok(LookupCache::All),
        "pos" | "positive" => Ok(LookupCache::Positive),
        "none" => Ok(LookupCache::None),
        _ => Err(Wrong::MustBe("all, positive (or pos) or none")),
    }
}

const V3_ONLY: &str = "only NFS version 3 is spoken";
const WRITE_V3: &str = "write vers=3, or mount version 4 with the kernel's client (mount -t nfs4)";

pub(super) fn version(text: &str) -> Result<(), Wrong> {
    match text.strip_suffix(".0").unwrap_or(text) {
        "3" => Ok(()),
        "2" | "4" | "4.1" | "4.2" => Err(Wrong::Refused { reason: V3_ONLY, instead: WRITE_V3 }),
        _ => Err(Wrong::MustBe("3")),
    }
}

pub(super) fn mount_version(text: &str) -> Result<(), Wrong> {
    match text {
        "3" => Ok(()),
        "1" | "2" => Err(Wrong::Refused {
            reason: "versions 1 and 2 of MOUNT give handles of NFS version 2",
            instead: "write mountvers=3 or nothing",
        }),
        _ => Err(Wrong::MustBe("3")),
    }
}

/// Which addresses of a server are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// All.
    #[default]
    Any,
    /// Those of IPv6 (`proto=tcp6`).
    V6,
}

impl Family {
    /// Whether this address is one of them.
    pub fn has(self, address: IpAddr) -> bool {
        self == Self::Any || address.is_ipv6()
    }
}

pub(super) fn protocol(text: &str) -> Result<Family, Wrong> {
    match text {
        "tcp" => Ok(Family::Any),
        "tcp6" => Ok(Family::V6),
        "udp" | "udp6" => Err(Wrong::Refused {
            reason: "UDP is not spoken: a lost fragment can corrupt what is written (nfs(5))",
            instead: "write proto=tcp or nothing",
        }),
        "rdma" | "rdma6" => {
            Err(Wrong::Refused { reason: "RDMA is not spoken", instead: "write proto=tcp or nothing" })
        }
        _ => Err(Wrong::MustBe("tcp or tcp6")),
    }
}

/// A security flavor, or several to choose from, in a list with colons.
pub(super) fn flavor(text: &str) -> Result<(), Wrong> {
    let flavors: Vec<&str> = text.split(':').collect();
    let known = ["sys", "none", "krb5", "krb5i", "krb5p", "lkey", "lkeyi", "lkeyp", "spkm", "spkmi", "spkmp"];
    if flavors.iter().any(|flavor| !known.contains(flavor)) {
        return Err(Wrong::MustBe("sys"));
    }
    match flavors.contains(&"sys") {
        true => Ok(()),
        false if text == "none" => Err(Wrong::Refused {
            reason: "calls carry the user they are made for (AUTH_SYS)",
            instead: "write sec=sys, and all_squash in the server's exports",
        }),
        false => Err(Wrong::Refused {
            reason: "Kerberos is not spoken",
            instead: "write sec=sys if the server's exports permit it, or use the kernel's client",
        }),
    }
}

pub(super) fn transport_security(text: &str) -> Result<(), Wrong> {
    match text {
        "none" => Ok(()),
        "tls" | "mtls" => Err(Wrong::Refused {
            reason: "RPC-with-TLS is not spoken, and to go on without it would expose what is to be protected",
            instead: "use a VPN or WireGuard and write xprtsec=none",
        }),
        _ => Err(Wrong::MustBe("none")),
    }
}

/// When data is written behind: `Opt_write` of fs/nfs/fs_context.c.
pub(super) fn write_mode(text: &str) -> Result<(), Wrong> {
    match text {
        "lazy" => Ok(()),
        "eager" | "wait" => Err(Wrong::Refused {
            reason: "data is written behind, as with write=lazy",
            instead: "write sync, or call fsync where it matters",
        }),
        _ => Err(Wrong::MustBe("lazy")),
    }
}

/// The name or address of a host, which may not hold what separates options and hosts.
pub(super) fn host(text: &str) -> Result<Option<String>, Wrong> {
    let host: super::Host = text.parse().map_err(|_| Wrong::MustBe("a host name or an IP address"))?;
    Ok(Some(host.as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_nfs5_says() {
        let sizes = [
            ("0", 1 << 20),
            ("1", 4096),
            ("1023", 4096),
            ("1024", 1024),
            ("2047", 1024),
            ("65536", 65536),
            ("65537", 65536),
            ("1048577", 1 << 20),
            ("4294967295", 1 << 20),
        ];
        for (text, bytes) in sizes {
            assert_eq!(io_size(text), Ok(bytes), "{text}");
        }
        assert!(io_size("64k").is_err() && io_size("-1").is_err() && io_size("+1").is_err());
    }

    #[test]
    fn numbers_have_their_limits() {
        assert_eq!((id("65534"), id("4294967295").is_err(), id("-2").is_err()), (Ok(65534), true, true));
        assert_eq!((port("0"), port("2049"), port("65536").is_err()), (Ok(None), Ok(Some(2049)), true));
        assert!(number("").is_err() && number("4294967296").is_err() && number("1 ").is_err());
    }

    #[test]
    fn addresses_may_stand_in_brackets() {
        let v6 = Ok(Some("2001:db8::1".parse().unwrap()));
        assert_eq!((address("2001:db8::1"), address("[2001:db8::1]")), (v6, v6));
        assert!(address("[192.0.2.1").is_err() && address("nas").is_err());
        assert!(Family::V6.has("::1".parse().unwrap()) && !Family::V6.has("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_nfs5_has_and_we_have_not_is_refused_with_the_remedy() {
        let refused = |wrong| matches!(wrong, Err(Wrong::Refused { .. }));
        assert!(["2", "4", "4.0", "4.1", "4.2"].iter().all(|v| refused(version(v))));
        assert!(["udp", "udp6", "rdma", "rdma6"].iter().all(|p| refused(protocol(p).map(drop))));
        assert!(["none", "krb5", "krb5i", "krb5p", "krb5:krb5p"].iter().all(|s| refused(flavor(s))));
        assert!(
            refused(transport_security("mtls")) && refused(mount_version("2")) && refused(write_mode("wait"))
        );
        assert_eq!(
            (version("3"), version("3.0"), flavor("krb5:sys"), flavor("sys")),
            (Ok(()), Ok(()), Ok(()), Ok(()))
        );
        for wrong in [version("5"), flavor("dh"), flavor(""), transport_security("x"), mount_version("4")] {
            assert!(matches!(wrong, Err(Wrong::MustBe(_))), "{wrong:?}");
        }
    }
}
