//! `remoor serve --portmap`.

use crate::host::{ADDRESS, Host, Program};

const TOOLS: [(&str, &str); 2] = [("rpcinfo", "rpcbind"), ("showmount", "nfs-common")];

fn host(test: &str) -> Option<(Host, Program)> {
    let host = Host::up(test, &TOOLS)?;
    let server = host.serve("state", 2049, &["--portmap"], "portmapper listening on [::]:111");
    Some((host, server))
}

#[test]
fn rpcinfo_lists_and_calls_what_is_served() {
    let Some((host, _server)) = host("rpcinfo_lists_and_calls_what_is_served") else { return };
    let listed = host.said(&format!("rpcinfo -p {ADDRESS}"));
    let row = |words: &[&str]| listed.lines().any(|line| line.split_whitespace().eq(words.iter().copied()));
    assert!(row(&["100003", "3", "tcp", "2049", "nfs"]), "{listed}");
    assert!(row(&["100005", "3", "tcp", "2049", "mountd"]), "{listed}");
    assert!(row(&["100000", "2", "udp", "111", "portmapper"]), "{listed}");
    assert!(host.said(&format!("rpcinfo -s {ADDRESS}")).contains("100003  3         tcp6,tcp"));
    let ready = "program 100003 version 3 ready and waiting";
    for line in ["-t 192.0.2.5 nfs 3", "-t 192.0.2.5 nfs", "-T tcp 192.0.2.5 nfs", "-T tcp6 ::1 nfs 3"] {
        assert!(host.said(&format!("rpcinfo {line}")).contains(ready), "{line}");
    }
    let own = host.said(&format!("rpcinfo -u {ADDRESS} 100000"));
    assert!((2..=4).all(|version| own.contains(&format!("version {version} ready"))), "{own}");
    assert!(host.said(&format!("rpcinfo -l {ADDRESS} nfs 3")).contains("192.0.2.5.8.1"));
}

#[test]
fn rpcinfo_is_told_what_is_not_served() {
    let Some((host, _server)) = host("rpcinfo_is_told_what_is_not_served") else { return };
    let refused = |line: &str| {
        let (good, said) = host.run(line);
        assert!(!good, "{line}: {said}");
        said
    };
    let mismatch = refused("rpcinfo -t 192.0.2.5 mountd 1");
    assert!(mismatch.contains("low version = 3, high version = 3"), "{mismatch}");
    for line in ["-u 192.0.2.5 nfs 3", "-t 192.0.2.5 100021", "-t 192.0.2.5 100227"] {
        let said = refused(&format!("rpcinfo {line}"));
        assert!(said.contains("Program not registered"), "{line}: {said}");
    }
    // To the NFS port itself (universal address), whatever the portmapper says.
    for program in ["100021 4", "100227 3"] {
        let said = refused(&format!("rpcinfo -a 192.0.2.5.8.1 -T tcp {program}"));
        assert!(said.contains("Program unavailable"), "{program}: {said}");
    }
}

#[test]
fn showmount_shows_exports_over_both_families() {
    let Some((host, _server)) = host("showmount_shows_exports_over_both_families") else { return };
    for address in [ADDRESS, "localhost", "::1"] {
        let exports = host.said(&format!("showmount -e {address}"));
        assert!(exports.contains(&format!("{} (everyone)", host.export())), "{exports}");
    }
    assert!(host.said(&format!("showmount -a {ADDRESS}")).starts_with("All mount points on"));
    assert!(host.said(&format!("showmount -d {ADDRESS}")).starts_with("Directories on"));
}

/// The options of a line in fstab, and no port. mount.nfs asks for MOUNT over UDP first; what it finds is in its words,
/// whether or not this kernel has NFS.
#[test]
fn mount_finds_both_programs_without_being_told_a_port() {
    let test = "mount_finds_both_programs_without_being_told_a_port";
    let Some((host, _server)) = host(test) else { return };
    host.said("mkdir /run/mnt");
    let options = "defaults,vers=3,noresvport,_netdev,nolock";
    let (mounted, said) =
        host.run(&format!("mount.nfs -v {ADDRESS}:{} /run/mnt -o {options}", host.export()));
    if mounted {
        host.said("umount -f /run/mnt");
    }
    for program in [100_003, 100_005] {
        let found = format!("trying {ADDRESS} prog {program} vers 3 prot TCP port 2049");
        assert!(said.contains(&found), "{said}");
    }
}
