//! Connecting to the server, and asking it for the export.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use remoor_client::mount::{MountError, Mounted, Places, Request};
use remoor_client::{Observer, Resolver, SystemResolver, file};
use remoor_nfs::mnt::MountStat;
use remoor_nfs::reconnect::Notice;

use super::Refused;
use crate::options::{Family, Host, MountOptions, Spec};

/// A client of the server, and the export's root.
pub(super) async fn reach(
    spec: &Spec,
    options: &MountOptions,
    within: Duration,
    trying: Arc<dyn Fn(String) + Send + Sync>,
) -> Result<Mounted, Refused> {
    let host = name(spec);
    trying(format!("trying {host} ..."));
    let request = Request {
        options: options.connection.clone(),
        places: places(options),
        within,
        resolver: Arc::new(Names::new(spec, options)),
        observer: observer(host.clone(), trying),
        ..Request::new(&host, &spec.path)
    };
    request.mount().await.map_err(|error| match error.is_temporary() {
        true => Refused::ForNow(error.to_string()),
        false => Refused::ForGood(told(&error, spec, options.connection.reserved)),
    })
}

/// A refusal of the export says nothing of its reason; from a reserved port it cannot be the port.
fn told(error: &MountError, spec: &Spec, reserved: bool) -> String {
    let MountError::Refused(file::Error::Mount { status: MountStat::Acces, .. }) = error else {
        return error.to_string();
    };
    let why = match reserved {
        true => "the server does not export it to this host; showmount -e lists what it exports",
        false => {
            "the server does not export it to this host, or only to ports below 1024 (`secure`); mount with \
             resvport, or export it with insecure"
        }
    };
    format!("mount of {spec}: {}: {why}", MountStat::Acces)
}

/// One host as it is, so that an address is taken for one; several with commas.
fn name(spec: &Spec) -> String {
    spec.hosts.iter().map(Host::as_str).collect::<Vec<_>>().join(",")
}

fn places(options: &MountOptions) -> Places {
    let (port, mountport) = (options.port, options.mountport);
    Places { port, mountport, mounthost: options.mnt_host(), ..Places::default() }
}

/// Tells the attempts to connect; later, nobody listens.
fn observer(host: String, trying: Arc<dyn Fn(String) + Send + Sync>) -> Observer {
    Arc::new(move |_, notice| match notice {
        Notice::AttemptFailed { .. } | Notice::AttemptTimedOut { .. } => trying(format!("{host}: {notice}")),
        _ => {}
    })
}

/// The addresses of all names of a server.
struct Names {
    hosts: Vec<Host>,
    address: Option<IpAddr>,
    family: Family,
}

impl Names {
    fn new(spec: &Spec, options: &MountOptions) -> Self {
        Self { hosts: spec.hosts.clone(), address: options.addr, family: options.family }
    }

    fn all(&self, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Some(address) = self.address {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let (mut addresses, mut outcome) = (Vec::new(), Ok(()));
        for host in &self.hosts {
            match SystemResolver.resolve(host.as_str(), port) {
                Ok(found) => addresses.extend(found),
                Err(e) => outcome = Err(e),
            }
        }
        // One name that is resolved is enough.
        if addresses.is_empty() { outcome.map(|()| addresses) } else { Ok(addresses) }
    }
}

impl Resolver for Names {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        // Another name is that of `mounthost=`.
        let is_server = host == self.hosts.iter().map(Host::as_str).collect::<Vec<_>>().join(",");
        let addresses = if is_server { self.all(port)? } else { SystemResolver.resolve(host, port)? };
        Ok(addresses.into_iter().filter(|address| self.family.has(address.ip())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(spec: &str, options: &str) -> Vec<String> {
        let (spec, options): (Spec, MountOptions) = (spec.parse().unwrap(), options.parse().unwrap());
        let found = Names::new(&spec, &options).resolve(&name(&spec), 2049).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn several_names_are_one_server() {
        assert_eq!(resolved("127.0.0.1,127.0.0.2:/e", ""), ["127.0.0.1:2049", "127.0.0.2:2049"]);
        assert_eq!(resolved("127.0.0.1,[::1]:/e", "proto=tcp6"), ["[::1]:2049"]);
        assert_eq!(resolved("nowhere.invalid:/e", "addr=192.0.2.7"), ["192.0.2.7:2049"]);
    }

    #[test]
    fn the_port_is_blamed_only_if_it_can_be() {
        let refused = |status| MountError::from(file::Error::Mount { path: "/a".to_owned(), status });
        let spec: Spec = "nas:/a".parse().unwrap();
        let told = |status, reserved| told(&refused(status), &spec, reserved);
        assert!(told(MountStat::Acces, false).contains("mount of nas:/a: MNT3ERR_ACCES"));
        assert!(told(MountStat::Acces, false).contains("resvport"));
        assert!(!told(MountStat::Acces, true).contains("resvport"));
        assert!(told(MountStat::NoEnt, true).contains("no such export"));
    }

    #[test]
    fn places_are_those_of_the_options() {
        let options: MountOptions = "port=2050,mountport=635,mounthost=m".parse().unwrap();
        let places = places(&options);
        assert_eq!(
            (places.port, places.mountport, places.mounthost.as_deref()),
            (Some(2050), Some(635), Some("m"))
        );
    }
}
