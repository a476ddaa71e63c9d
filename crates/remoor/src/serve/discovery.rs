//! How clients that know no port find the server: `--portmap` and `--rpcbind`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::anyhow;
use remoor_server::portmap::{PORT, Portmapper, Registration};

use crate::Failure;

/// Value of `--portmap` without one.
const WHERE_NFS_IS: &str = "listen";

/// Options by which clients are told the port.
#[derive(Debug, clap::Args)]
pub(crate) struct Discovery {
    /// Answer as the host's portmapper at port 111, TCP and UDP, for hosts without rpcbind: clients then
    /// need no port= and mountport=. May be repeated with addresses [default: port 111 of the addresses
    /// that NFS listens on]
    #[arg(
        long,
        value_name = "ADDR[:PORT]",
        help_heading = "Clients",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = WHERE_NFS_IS,
        conflicts_with = "rpcbind"
    )]
    portmap: Vec<Place>,
    /// Register NFS and MOUNT with this host's rpcbind, for as long as the server runs
    #[arg(long, help_heading = "Clients")]
    rpcbind: bool,
}

/// Where the portmapper is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On every address that NFS listens on.
    WhereNfsIs,
    At(SocketAddr),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == WHERE_NFS_IS {
            return Ok(Self::WhereNfsIs);
        }
        let with_port = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT)));
        with_port
            .map(Self::At)
            .map_err(|_| "give an address such as 192.0.2.1, 0.0.0.0:111 or [::]:111".to_owned())
    }
}

/// What tells clients the port; ends when dropped.
#[derive(Debug)]
pub(super) struct Told {
    _portmapper: Option<Portmapper>,
    _registration: Option<Registration>,
}

impl Discovery {
    /// Tells clients that NFS is at these addresses.
    pub(super) fn start(&self, nfs: &[SocketAddr]) -> Result<Told, Failure> {
        let places = self.places(nfs);
        let portmapper = (!places.is_empty()).then(|| Portmapper::start(&places, nfs)).transpose();
        let registration = self.rpcbind.then(|| Registration::start(nfs)).transpose();
        Ok(Told {
            _portmapper: portmapper.map_err(|e| Failure::Cannot(anyhow!("{e}")))?,
            _registration: registration.map_err(Failure::cannot)?,
        })
    }

    /// Each address once, and none that the address for every interface stands for.
    fn places(&self, nfs: &[SocketAddr]) -> Vec<SocketAddr> {
        let at = |place: &Place| match place {
            Place::At(address) => vec![*address],
            Place::WhereNfsIs => nfs.iter().map(|address| SocketAddr::new(address.ip(), PORT)).collect(),
        };
        let all: BTreeSet<SocketAddr> = self.portmap.iter().flat_map(at).collect();
        let covers = |any: &SocketAddr, one: &SocketAddr| {
            any != one
                && any.ip().is_unspecified()
                && (any.port(), any.is_ipv4()) == (one.port(), one.is_ipv4())
        };
        all.iter().filter(|one| !all.iter().any(|any| covers(any, one))).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        discovery: Discovery,
    }

    fn places(options: &[&str]) -> Vec<String> {
        let cli = Cli::try_parse_from([&["x"], options].concat()).unwrap();
        let nfs = ["192.0.2.1:2049", "192.0.2.1:3049", "[::1]:2049"].map(|text| text.parse().unwrap());
        cli.discovery.places(&nfs).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_portmapper_is_where_nfs_is_unless_told_otherwise() {
        assert_eq!(places(&[]), [""; 0]);
        assert_eq!(places(&["--portmap"]), ["192.0.2.1:111", "[::1]:111"]);
        assert_eq!(places(&["--portmap=0.0.0.0"]), ["0.0.0.0:111"]);
        assert_eq!(places(&["--portmap=127.0.0.1:1111", "--portmap=[::]:7"]), ["127.0.0.1:1111", "[::]:7"]);
    }

    #[test]
    fn an_address_for_every_interface_stands_for_the_others_of_its_family() {
        let cli = Cli::try_parse_from(["x", "--portmap"]).unwrap();
        let places = |nfs: &[&str]| -> Vec<String> {
            let nfs: Vec<_> = nfs.iter().map(|text| text.parse().unwrap()).collect();
            cli.discovery.places(&nfs).iter().map(ToString::to_string).collect()
        };
        assert_eq!(places(&["0.0.0.0:2049", "127.0.0.1:2050", "[::1]:2049"]), ["0.0.0.0:111", "[::1]:111"]);
        assert_eq!(places(&["127.0.0.1:1", "[::1]:2", "[::]:3"]), ["127.0.0.1:111", "[::]:111"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for options in [&["--portmap=host"][..], &["--portmap", "--rpcbind"], &["--portmap", "0.0.0.0"]] {
            assert!(Cli::try_parse_from([&["x"], options].concat()).is_err(), "{options:?}");
        }
    }
}
