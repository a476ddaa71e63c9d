//! Which ports this host may use.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;

/// `RPC_DEF_MIN_RESVPORT..=RPC_DEF_MAX_RESVPORT` of include/linux/sunrpc/xprtsock.h.
const RESERVED: RangeInclusive<u16> = 665..=1023;
/// Default of net.ipv4.ip_local_port_range, ip(7).
const EPHEMERAL: (u16, u16) = (32768, 60999);

/// Ports a client must not leave from: reserved ports of a service (/etc/services and /etc/bindresvport.blacklist, as
/// bindresvport(3) skips them) and what net.ipv4.ip_local_reserved_ports keeps for others. A file that is not there
/// excludes nothing.
pub fn excluded_ports() -> Vec<u16> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let services = read("/etc/services");
    let blacklist = read("/etc/bindresvport.blacklist");
    let kept = read("/proc/sys/net/ipv4/ip_local_reserved_ports");
    let ports = services_ports(&services).chain(listed_ports(&blacklist)).chain(port_ranges(&kept));
    ports.collect::<BTreeSet<u16>>().into_iter().collect()
}

/// `8080,9148-9150`, as Documentation/networking/ip-sysctl has it.
fn port_ranges(text: &str) -> impl Iterator<Item = u16> {
    let range = |part: &str| {
        let (lo, hi) = part.split_once('-').unwrap_or((part, part));
        Some(lo.trim().parse::<u16>().ok()?..=hi.trim().parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten()
}

fn services_ports(text: &str) -> impl Iterator<Item = u16> {
    lines(text)
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('/')?.0.parse().ok())
        .filter(reserved)
}

fn listed_ports(text: &str) -> impl Iterator<Item = u16> {
    lines(text).filter_map(|line| line.trim().parse().ok()).filter(reserved)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default())
}

fn reserved(port: &u16) -> bool {
    RESERVED.contains(port)
}

/// Lowest and highest ephemeral port of this network namespace.
pub fn local_port_range() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_whitespace().map_while(|word| word.parse().ok());
    match (words.next(), words.next()) {
        (Some(lo), Some(hi)) if lo <= hi => (lo, hi),
        _ => EPHEMERAL,
    }
}

/// First port that needs no privilege in this network namespace: net.ipv4.ip_unprivileged_port_start.
pub fn unprivileged_port_start() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_blacklist_are_read_with_their_comments() {
        let services = "# ports\nimaps  993/tcp  # secure imap\nimaps 993/udp\nhttp 80/tcp\nbad\n";
        assert_eq!(services_ports(services).collect::<Vec<_>>(), [993, 993]);
        assert_eq!(listed_ports("# none\n 873 # rsync\n70000\n22\n").collect::<Vec<_>>(), [873]);
    }

    #[test]
    fn ports_kept_for_others_are_read_with_their_ranges() {
        assert_eq!(port_ranges("8080,9148-9150\n").collect::<Vec<_>>(), [8080, 9148, 9149, 9150]);
        assert_eq!(port_ranges("\n").count() + port_ranges("x,9-3,70000").count(), 0);
    }

    #[test]
    fn the_port_range_is_a_range() {
        let (lo, hi) = local_port_range();
        assert!(lo <= hi && hi >= 1024);
    }
}
