//! What is where.

use std::net::{IpAddr, SocketAddr};

use remoor_rpc::portmap::rpcb::{CLTS, COTS_ORD};
use remoor_rpc::portmap::{self, v2};
use remoor_rpc::program::Program;

/// How a service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// Its number in version 2, if it has one.
    pub(super) fn of_number(number: u32) -> Option<Self> {
        match number {
            v2::TCP => Some(Self::Tcp),
            v2::UDP => Some(Self::Udp),
            _ => None,
        }
    }

    pub(super) fn number(self) -> u32 {
        match self {
            Self::Tcp => v2::TCP,
            Self::Udp => v2::UDP,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    pub(super) fn semantics(self) -> u32 {
        match self {
            Self::Tcp => COTS_ORD,
            Self::Udp => CLTS,
        }
    }

    /// Network identifier: the transport over this family (RFC 5665 section 5.2.3).
    pub(super) fn netid(self, address: IpAddr) -> &'static str {
        match (self, address) {
            (Self::Tcp, IpAddr::V4(_)) => "tcp",
            (Self::Tcp, IpAddr::V6(_)) => "tcp6",
            (Self::Udp, IpAddr::V4(_)) => "udp",
            (Self::Udp, IpAddr::V6(_)) => "udp6",
        }
    }
}

/// A version of a program, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) transport: Transport,
    /// As it is listened on.
    pub(super) address: SocketAddr,
}

/// Every version of every program that this process serves.
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
}

/// What is served at an NFS server's port: TCP only.
pub(super) const SERVED: [&Program; 2] = [&remoor_nfs::v3::PROGRAM, &remoor_nfs::mnt::PROGRAM];
/// Newest first, as rpcbind lists them.
const OWN: [&Program; 3] = [&portmap::v4::PROGRAM, &portmap::v3::PROGRAM, &portmap::v2::PROGRAM];

impl Table {
    /// NFS at some addresses, and the portmapper itself at others.
    pub(super) fn new(nfs: &[SocketAddr], own: &[SocketAddr]) -> Self {
        let at = |addresses: &[SocketAddr], programs: &[&'static Program], transport| {
            let entry = |address: &SocketAddr, program: &&Program| Entry {
                program: program.number,
                version: program.version,
                transport,
                address: *address,
            };
            let of = |program| addresses.iter().map(move |address| entry(address, program));
            programs.iter().flat_map(of).collect::<Vec<_>>()
        };
        let entries =
            [at(own, &OWN, Transport::Tcp), at(own, &OWN, Transport::Udp), at(nfs, &SERVED, Transport::Tcp)];
        Self { entries: entries.concat() }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What can be reached at `local`, an address of this host, with each entry's address as it is seen there.
    fn at(&self, program: u32, local: IpAddr) -> impl Iterator<Item = Entry> {
        let heard = move |address: IpAddr| {
            address == local || (address.is_unspecified() && address.is_ipv4() == local.is_ipv4())
        };
        let found = self.entries.iter().filter(move |e| e.program == program && heard(e.address.ip()));
        found.map(move |e| Entry { address: SocketAddr::new(local, e.address.port()), ..*e })
    }

    /// Where the program is over this transport for who asks at `local`: this version, or else another, which will tell
    /// the caller by PROG_MISMATCH what it serves. So does rpcbind (`find_service`).
    pub(super) fn find(
        &self,
        program: u32,
        version: u32,
        transport: Transport,
        local: IpAddr,
    ) -> Option<SocketAddr> {
        let mut any = self.at(program, local).filter(|e| e.transport == transport).peekable();
        let other = any.peek().map(|e| e.address);
        any.find(|e| e.version == version).map(|e| e.address).or(other)
    }

    /// Likewise, but of this version only.
    pub(super) fn find_version(
        &self,
        program: u32,
        version: u32,
        transport: Transport,
        local: IpAddr,
    ) -> Option<SocketAddr> {
        self.ways(program, version, local).find(|e| e.transport == transport).map(|e| e.address)
    }

    /// Every way to this version for who asks at `local`.
    pub(super) fn ways(&self, program: u32, version: u32, local: IpAddr) -> impl Iterator<Item = Entry> {
        self.at(program, local).filter(move |e| e.version == version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFS: u32 = 100_003;
    const MOUNT: u32 = 100_005;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn table(nfs: &[&str]) -> Table {
        let nfs: Vec<_> = nfs.iter().map(|text| address(text)).collect();
        Table::new(&nfs, &[address("0.0.0.0:111"), address("[::]:111")])
    }

    fn find(table: &Table, program: u32, version: u32, transport: Transport, local: &str) -> Option<String> {
        table.find(program, version, transport, local.parse().unwrap()).map(|a| a.to_string())
    }

    #[test]
    fn a_service_is_where_it_was_asked_for() {
        let table = table(&["0.0.0.0:2049", "[::]:2050"]);
        for program in [NFS, MOUNT] {
            assert_eq!(find(&table, program, 3, Transport::Tcp, "192.0.2.1").unwrap(), "192.0.2.1:2049");
            assert_eq!(
                find(&table, program, 3, Transport::Tcp, "2001:db8::1").unwrap(),
                "[2001:db8::1]:2050"
            );
            assert_eq!(find(&table, program, 3, Transport::Udp, "192.0.2.1"), None, "TCP only");
        }
        assert_eq!(find(&table, 100_000, 2, Transport::Udp, "192.0.2.1").unwrap(), "192.0.2.1:111");
        assert_eq!(find(&table, 100_021, 4, Transport::Tcp, "192.0.2.1"), None, "no locks");
    }

    #[test]
    fn another_version_is_told_unless_the_version_is_asked_for() {
        let table = table(&["0.0.0.0:2049"]);
        assert_eq!(find(&table, MOUNT, 1, Transport::Tcp, "192.0.2.1").unwrap(), "192.0.2.1:2049");
        let local = "192.0.2.1".parse().unwrap();
        assert_eq!(table.find_version(MOUNT, 1, Transport::Tcp, local), None);
        assert!(table.find_version(MOUNT, 3, Transport::Tcp, local).is_some());
    }

    #[test]
    fn what_listens_on_one_address_is_not_told_at_another() {
        let table = table(&["192.0.2.1:2049", "192.0.2.2:3049"]);
        assert_eq!(find(&table, NFS, 3, Transport::Tcp, "192.0.2.2").unwrap(), "192.0.2.2:3049");
        assert_eq!(find(&table, NFS, 3, Transport::Tcp, "192.0.2.3"), None);
        assert_eq!(find(&table, NFS, 3, Transport::Tcp, "::1"), None);
    }
}
