//! The Linux kernel as the balancer: nftables DNAT and nf_conntrack with their defaults.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use remoor_flow::Health;

use super::{Balancer, BalancerError, FlowView};
use crate::namespace::Host;
use crate::topology::{Node, SERVICE, Topology};

/// Where Debian and others keep nft; seldom in an ordinary user's PATH.
const SYSTEM_DIRECTORIES: &str = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin";

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Per thread: /proc/net follows the thread group's first thread.
const CONNTRACK: &str = "/proc/thread-self/net/nf_conntrack";

/// A balancer made of the kernel's own parts. The rules go away with the balancer's host.
#[derive(Debug)]
pub struct KernelBalancer {
    host: Host,
    nft: PathBuf,
    health: [Health; 2],
}

impl KernelBalancer {
    /// Loads the rules and turns forwarding on; both nodes are up.
    ///
    /// # Errors
    /// [`BalancerError::NoNft`] when nft is not installed, others when the kernel refuses a step.
    pub fn start(topology: &Topology) -> Result<Self, BalancerError> {
        let balancer = Self { host: topology.balancer().clone(), nft: find_nft()?, health: [Health::Up; 2] };
        balancer.load("load its rules", &(rules() + &active(balancer.health)))?;
        let written = balancer.host.run(|| fs::write(IP_FORWARD, "1"))?;
        written.map_err(|source| BalancerError::Proc {
            attempted: "write",
            path: IP_FORWARD,
            remedy: "mount /proc read-write (a container may mount it read-only)",
            source,
        })?;
        Ok(balancer)
    }

    /// Runs `nft -f -` on the balancer's host; one run is one transaction.
    fn load(&self, attempted: &'static str, script: &str) -> Result<(), BalancerError> {
        let failed = |said: String| BalancerError::Nft { attempted, said };
        let output = self.host.run(|| run_with_input(Command::new(&self.nft).args(["-f", "-"]), script))?;
        match output {
            Ok(said) if said.is_empty() => Ok(()),
            Ok(said) => Err(failed(said)),
            Err(e) => Err(failed(e.to_string())),
        }
    }
}

impl Balancer for KernelBalancer {
    fn set_health(&mut self, node: Node, health: Health) -> Result<(), BalancerError> {
        let mut changed = self.health;
        changed[node.index()] = health;
        self.load("change the backend of new flows", &active(changed))?;
        self.health = changed;
        Ok(())
    }

    fn flows(&self) -> Result<Vec<FlowView>, BalancerError> {
        let text = self.host.run(|| fs::read_to_string(CONNTRACK))?;
        let text = text.map_err(|source| BalancerError::Proc {
            attempted: "read",
            path: CONNTRACK,
            remedy: "the kernel needs CONFIG_NF_CONNTRACK_PROCFS",
            source,
        })?;
        Ok(text.lines().filter_map(parse_flow).collect())
    }
}

/// The rules, with an empty map of the backend in use.
fn rules() -> String {
    let (service, port) = (SERVICE.ip(), SERVICE.port());
    // What is still addressed to the service after destination NAT (priority -100) has no backend or no valid
    // connection; without the drop the kernel would answer it with ICMP for want of a route.
    format!(
        "table ip remoor {{
           map active {{ type ipv4_addr : ipv4_addr; }}
           chain translate {{
             type nat hook prerouting priority -100; policy accept;
             tcp dport {port} dnat to ip daddr map @active
           }}
           chain unserved {{
             type filter hook prerouting priority -90; policy accept;
             ip daddr {service} drop
           }}
         }}\n"
    )
}

/// Makes the first node that is up the backend of new flows.
fn active(health: [Health; 2]) -> String {
    let flush = "flush map ip remoor active\n".to_owned();
    match Node::ALL.into_iter().find(|node| health[node.index()] == Health::Up) {
        Some(node) => {
            let backend = Topology::node_service(node);
            flush + &format!("add element ip remoor active {{ {} : {} }}\n", SERVICE.ip(), backend.ip())
        }
        None => flush,
    }
}

fn find_nft() -> Result<PathBuf, BalancerError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(env::split_paths(SYSTEM_DIRECTORIES))
        .map(|directory| directory.join("nft"))
        .find(|candidate| candidate.is_file());
    found.ok_or_else(|| BalancerError::NoNft(SYSTEM_DIRECTORIES.to_owned()))
}

/// Runs a command with `input`; yields what it complained about in one line, nothing when it succeeded.
fn run_with_input(command: &mut Command, input: &str) -> io::Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    match (output.status.success(), said.is_empty()) {
        (true, _) => Ok(String::new()),
        (false, true) => Ok(output.status.to_string()),
        (false, false) => Ok(said),
    }
}

/// Reads one line of nf_conntrack (`ct_seq_show`): protocol names and numbers, seconds left, state, then the tuple of
/// the original direction and that of the replies, which come from the node.
fn parse_flow(line: &str) -> Option<FlowView> {
    let mut words = line.split_whitespace();
    if words.nth(2)? != "tcp" {
        return None;
    }
    let expires_in = Duration::from_secs(words.nth(1)?.parse().ok()?);
    let state = words.next()?.to_owned();
    let values = |key: &str| line.split_whitespace().filter_map(|w| w.strip_prefix(key)).collect::<Vec<_>>();
    let (sources, ports) = (values("src="), values("sport="));
    let address: Ipv4Addr = sources.first()?.parse().ok()?;
    let replier: Ipv4Addr = sources.get(1)?.parse().ok()?;
    let client = SocketAddrV4::new(address, ports.first()?.parse().ok()?);
    let node = Node::ALL.into_iter().find(|node| *Topology::node_service(*node).ip() == replier)?;
    Some(FlowView { client, node, state, expires_in })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_that_is_up_is_active() {
        assert!(active([Health::Up, Health::Up]).contains("10.81.9.9 : 10.81.2.2"));
        assert!(active([Health::Down, Health::Up]).contains("10.81.9.9 : 10.81.3.2"));
        assert!(!active([Health::Down, Health::Down]).contains("add element"));
    }

    #[test]
    fn a_conntrack_line_is_read() {
        let line = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.81.1.2 dst=10.81.9.9 sport=940 dport=2049 \
                    src=10.81.3.2 dst=10.81.1.2 sport=2049 dport=940 [ASSURED] mark=0 zone=0 use=2";
        let flow = parse_flow(line).unwrap();
        assert_eq!((flow.client.to_string().as_str(), flow.node), ("10.81.1.2:940", Node::B));
        assert_eq!((flow.state.as_str(), flow.expires_in.as_secs()), ("ESTABLISHED", 431_999));
    }

    #[test]
    fn other_lines_are_skipped() {
        for line in
            ["", "ipv4 2 udp 17 29 src=10.81.1.2", "ipv4 2 tcp 6 x ESTABLISHED", "ipv4 2 tcp 6 9 CLOSE src=a"]
        {
            assert_eq!(parse_flow(line), None, "{line}");
        }
    }

    #[test]
    fn a_missing_nft_is_named_with_its_remedy() {
        let text = BalancerError::NoNft(SYSTEM_DIRECTORIES.to_owned()).to_string();
        assert!(text.contains("apt-get install nftables") && text.contains("/usr/sbin"));
    }
}
