//! Dependencies point down only. Development dependencies are free: a test may use the crates above it.

use std::path::PathBuf;

use cargo_metadata::{DependencyKind, Package};

use super::{Violation, read, shown};

/// The crates, lowest first. A crate may depend on those before it.
pub const ORDER: &[&str] = &[
    "remoor-skip",
    "remoor-control",
    "remoor-rpc",
    "remoor-nfs",
    "remoor-flow",
    "remoor-client",
    "remoor-load",
    "remoor-server",
    "remoor-fuse",
    "remoor-trace",
    "remoor-balance",
    "remoor-mount",
    "remoor-drill",
    "remoor-guest",
    "remoor",
];

/// Pairs in which the first may not name the second although it stands above it, with the reason.
pub const APART: &[(&str, &str, &str)] = &[
    ("remoor-server", "remoor-client", "server and client meet on the wire only"),
    ("remoor-mount", "remoor-server", "server and client meet on the wire only"),
    (
        "remoor-balance",
        "remoor-nfs",
        "the balancer forwards bytes; probes are a trait that the binary injects",
    ),
];

/// A crate as far as this rule sees it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its manifest.
    pub manifest: PathBuf,
    /// Names of the crates it needs to be built.
    pub needs: Vec<String>,
}

impl From<&Package> for Node {
    fn from(package: &Package) -> Self {
        let built = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        Self {
            name: package.name.to_string(),
            manifest: package.manifest_path.clone().into(),
            needs: built.map(|d| d.name.clone()).collect(),
        }
    }
}

/// Every dependency that does not point down.
pub fn violations(nodes: &[Node]) -> Vec<Violation> {
    nodes.iter().flat_map(|node| node.needs.iter().filter_map(|need| judge(node, need))).collect()
}

/// Every crate of the product that has no place in [`ORDER`].
pub fn unplaced(nodes: &[Node]) -> Vec<Violation> {
    let unplaced = nodes.iter().filter(|n| n.name.starts_with("remoor") && rank(&n.name).is_none());
    unplaced
        .map(|n| {
            let what = format!("{} has no place in the order of the crates", n.name);
            violation(n, &n.name, what, "Add it to ORDER in xtask/src/architecture/direction.rs")
        })
        .collect()
}

fn rank(name: &str) -> Option<usize> {
    ORDER.iter().position(|n| *n == name)
}

fn judge(node: &Node, need: &str) -> Option<Violation> {
    let lower = rank(need)?;
    if let Some((_, _, why)) = APART.iter().find(|(a, b, _)| *a == node.name && *b == need) {
        let what = format!("{} depends on {need}, but {why}", node.name);
        return Some(violation(node, need, what, "Move what is shared to a crate below both"));
    }
    if rank(&node.name).is_none_or(|upper| lower < upper) {
        return None;
    }
    let what = format!("{} depends on {need}, which is not below it", node.name);
    Some(violation(node, need, what, "Move what is needed down, or pass it in from above"))
}

fn violation(node: &Node, word: &str, what: String, remedy: &str) -> Violation {
    let text = read(&node.manifest).unwrap_or_default();
    let line = text.lines().position(|l| l.contains(word)).map_or(1, |i| i + 1);
    Violation { file: shown(&node.manifest), line, what, remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, needs: &[&str]) -> Vec<String> {
        let needs = needs.iter().map(ToString::to_string).collect();
        let node = Node { name: name.into(), manifest: PathBuf::new(), needs };
        violations(&[node]).into_iter().map(|v| v.what).collect()
    }

    #[test]
    fn down_is_allowed() {
        assert_eq!(told("remoor-drill", &["remoor-rpc", "remoor-server", "tokio"]), [""; 0]);
        assert_eq!(told("xtask", &["remoor-rpc"]), [""; 0]);
    }

    #[test]
    fn up_and_self_are_refused() {
        let up = told("remoor-rpc", &["remoor-nfs"]);
        assert_eq!(up, ["remoor-rpc depends on remoor-nfs, which is not below it"]);
        assert_eq!(told("remoor-rpc", &["remoor-rpc"]).len(), 1);
    }

    #[test]
    fn server_and_client_are_apart_both_ways() {
        assert_eq!(told("remoor-server", &["remoor-client"]).len(), 1);
        assert_eq!(told("remoor-client", &["remoor-server"]).len(), 1);
        assert_eq!(told("remoor-balance", &["remoor-nfs"]).len(), 1);
    }

    #[test]
    fn a_crate_without_a_place_is_refused() {
        let node = |name: &str| Node { name: name.into(), manifest: PathBuf::new(), needs: Vec::new() };
        let told = unplaced(&[node("remoor-extra"), node("remoor-rpc"), node("xtask")]);
        assert_eq!(told.len(), 1);
        assert!(told[0].what.starts_with("remoor-extra"));
    }
}
