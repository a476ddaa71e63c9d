//! What is to be registered with rpcbind, given what it lists.

use std::net::SocketAddr;

use remoor_rpc::portmap::rpcb::Rpcb;
use remoor_rpc::portmap::universal;

use super::table::{SERVED, Transport};

/// What one look at rpcbind's list asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// This is another server's: clients would be torn between the two, so nothing is registered.
    Foreign(Rpcb),
    /// These are missing; none if all is there.
    Set(Vec<Rpcb>),
}

/// The registrations of a server that listens on these addresses. rpcbind keeps one address for each family, so the
/// address for every interface goes before others, and the first before later ones.
pub(super) fn wanted(nfs: &[SocketAddr]) -> Vec<Rpcb> {
    let of_family = |v4: bool| {
        let family = || nfs.iter().filter(move |a| a.is_ipv4() == v4);
        family().find(|a| a.ip().is_unspecified()).or_else(|| family().next())
    };
    let addresses = [of_family(true), of_family(false)].into_iter().flatten();
    addresses
        .flat_map(|address| SERVED.map(|program| rpcb(program.number, program.version, *address)))
        .collect()
}

/// rpcbind puts the caller's own user in the place of the owner.
fn rpcb(program: u32, version: u32, address: SocketAddr) -> Rpcb {
    Rpcb {
        program,
        version,
        netid: Transport::Tcp.netid(address.ip()).into(),
        address: universal(address).as_str().into(),
        owner: "".into(),
    }
}

/// All or nothing: NFS here and MOUNT elsewhere would be no server.
pub(super) fn plan(wanted: &[Rpcb], listed: &[Rpcb]) -> Plan {
    let foreign = |listed: &&Rpcb| wanted.iter().any(|w| same_slot(w, listed) && w.address != listed.address);
    match listed.iter().find(foreign) {
        Some(other) => Plan::Foreign(other.clone()),
        None => {
            Plan::Set(wanted.iter().filter(|w| !listed.iter().any(|l| same_slot(w, l))).cloned().collect())
        }
    }
}

/// Those of `wanted` that stand in the list, and not in another server's place.
pub(super) fn ours(wanted: &[Rpcb], listed: &[Rpcb]) -> Vec<Rpcb> {
    let is_listed = |w: &&Rpcb| listed.iter().any(|l| same_slot(w, l) && l.address == w.address);
    wanted.iter().filter(is_listed).cloned().collect()
}

fn same_slot(a: &Rpcb, b: &Rpcb) -> bool {
    (a.program, a.version, &a.netid) == (b.program, b.version, &b.netid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn shown(list: &[Rpcb]) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let row = |r: &Rpcb| format!("{} {} {}", r.program, text(&r.netid.0), text(&r.address.0));
        list.iter().map(row).collect()
    }

    #[test]
    fn nfs_and_mount_are_registered_once_for_each_family() {
        let all = wanted(&addresses(&["192.0.2.1:2049", "0.0.0.0:2050", "[::1]:2049", "[::1]:2050"]));
        let expected = [
            "100003 tcp 0.0.0.0.8.2",
            "100005 tcp 0.0.0.0.8.2",
            "100003 tcp6 ::1.8.1",
            "100005 tcp6 ::1.8.1",
        ];
        assert_eq!(shown(&all), expected);
    }

    #[test]
    fn only_what_is_missing_is_set() {
        let wanted = wanted(&addresses(&["0.0.0.0:2049"]));
        assert_eq!(plan(&wanted, &[]), Plan::Set(wanted.clone()));
        assert_eq!(plan(&wanted, &wanted[..1]), Plan::Set(wanted[1..].to_vec()));
        assert_eq!(plan(&wanted, &wanted), Plan::Set(Vec::new()));
    }

    #[test]
    fn another_servers_place_is_left_to_it() {
        let all = wanted(&addresses(&["0.0.0.0:2049"]));
        let other = wanted(&addresses(&["0.0.0.0:20048", "[::]:2049"]));
        assert_eq!(plan(&all, &other), Plan::Foreign(other[0].clone()));
        assert_eq!(plan(&all, &other[1..2]), Plan::Foreign(other[1].clone()), "rpc.mountd alone");
        assert_eq!(plan(&all, &other[2..]), Plan::Set(all.clone()), "of the other family");
        assert!(ours(&all, &other).is_empty());
        assert_eq!(ours(&all, &[&all[1..], &other[..1]].concat()), all[1..]);
    }
}
