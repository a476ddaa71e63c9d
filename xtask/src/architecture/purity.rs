//! The pure crates have no I/O, clock, randomness or async, in their own code and in what they depend on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::source::{self, Mention};
use super::{Violation, root, shown};

/// The pure crates. Their feature [`IMPURE_FEATURE`] is outside the rule.
pub const PURE: &[&str] = &["remoor-rpc", "remoor-nfs", "remoor-flow"];
/// The feature that adds sockets.
pub const IMPURE_FEATURE: &str = "net";

const PASS_IN: &str = "Take it as a parameter";
const TO_THE_DRIVER: &str = "Leave it to the crate that drives this one";

/// Crates that do I/O, read a clock or the system's randomness, or run tasks.
const FORBIDDEN_CRATES: &[&str] = &[
    "async-io",
    "async-std",
    "chrono",
    "fastrand",
    "futures-executor",
    "getrandom",
    "libc",
    "mio",
    "nix",
    "once_cell",
    "quanta",
    "rustix",
    "smol",
    "socket2",
    "time",
    "tokio",
    "web-time",
];

/// Paths, and what to do instead. A path is forbidden with everything below it.
const FORBIDDEN_PATHS: &[(&str, &str)] = &[
    ("std::env", PASS_IN),
    ("std::fs", TO_THE_DRIVER),
    ("std::io", TO_THE_DRIVER),
    ("std::net::TcpListener", TO_THE_DRIVER),
    ("std::net::TcpStream", TO_THE_DRIVER),
    ("std::net::ToSocketAddrs", TO_THE_DRIVER),
    ("std::net::UdpSocket", TO_THE_DRIVER),
    ("std::os", TO_THE_DRIVER),
    ("std::process", TO_THE_DRIVER),
    ("std::thread", TO_THE_DRIVER),
    ("async", TO_THE_DRIVER),
    ("Instant::now", "Take `now: Instant` as a parameter"),
    (".elapsed", "Take `now: Instant` as a parameter and subtract"),
    ("SystemTime", "Take the time as a parameter"),
    ("rand::rng", "Take a seed"),
    ("rand::random", "Take a seed"),
    ("OsRng", "Take a seed"),
    ("SysRng", "Take a seed"),
    ("ThreadRng", "Take a seed"),
    ("RandomState", "Use a BTreeMap: the order of a hash map differs from run to run"),
    ("HashMap", "Use a BTreeMap: the order of a hash map differs from run to run"),
    ("HashSet", "Use a BTreeSet: the order of a hash set differs from run to run"),
    ("print!", "Return it"),
    ("println!", "Return it"),
    ("eprint!", "Return it"),
    ("eprintln!", "Return it"),
];

/// Everything impure that the crate's own sources name.
pub fn in_sources(name: &str) -> anyhow::Result<Vec<Violation>> {
    let lib = root().join("crates").join(name).join("src/lib.rs");
    let modules = source::modules(&lib, Some(IMPURE_FEATURE))?;
    Ok(modules.iter().flat_map(|m| in_mentions(&m.file, &m.mentions)).collect())
}

/// Everything impure among what a file names.
pub fn in_mentions(file: &Path, mentions: &[Mention]) -> Vec<Violation> {
    let forbidden = mentions.iter().filter_map(|m| Some((m, forbidden_path(&m.path)?)));
    forbidden
        .map(|(m, remedy)| Violation {
            file: shown(file),
            line: m.line,
            what: format!("`{}` in a pure crate", m.path),
            remedy: remedy.into(),
        })
        .collect()
}

fn forbidden_path(path: &str) -> Option<&'static str> {
    let segments: Vec<&str> = path.split("::").collect();
    let contains = |wanted: &str| {
        let wanted: Vec<&str> = wanted.split("::").collect();
        segments.windows(wanted.len()).any(|w| w == wanted)
    };
    FORBIDDEN_PATHS.iter().find(|(wanted, _)| contains(wanted)).map(|(_, remedy)| *remedy)
}

/// Everything impure that the crate is built with, by default features.
pub fn in_dependencies(name: &str) -> anyhow::Result<Vec<Violation>> {
    // `cargo metadata` unites the features that all members ask for; `cargo tree` resolves one package alone.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--package",
            name,
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .context("cannot run cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    Ok(in_tree(name, &String::from_utf8_lossy(&output.stdout)))
}

/// Everything impure in the output of `cargo tree`, one package a line.
fn in_tree(name: &str, tree: &str) -> Vec<Violation> {
    let packages = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut bad: Vec<&str> = packages.filter(|p| FORBIDDEN_CRATES.contains(p)).collect();
    bad.sort_unstable();
    bad.dedup();
    bad.into_iter()
        .map(|package| Violation {
            file: Path::new("crates").join(name).join("Cargo.toml"),
            line: 1,
            what: format!("the pure crate {name} is built with {package}"),
            remedy: format!("See who needs it: cargo tree -p {name} -e normal -i {package}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let file = Path::new("crates/remoor-rpc/src/x.rs");
        let module = source::parse(file, text, Some(IMPURE_FEATURE)).unwrap();
        in_mentions(file, &module.mentions).iter().map(|v| v.line).collect()
    }

    #[test]
    fn every_forbidden_path_is_found() {
        for (path, _) in FORBIDDEN_PATHS {
            let text = match path {
                p if p.starts_with('.') => format!("fn f() {{ t{p}(); }}"),
                p if p.ends_with('!') => format!("fn f() {{ {p}(); }}"),
                &"async" => "async fn f() {}".into(),
                p => format!("fn f() {{ {p}::x(); }}"),
            };
            assert_eq!(lines(&text), [1], "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_allowed() {
        let text = "use std::net::{IpAddr, SocketAddr};\nuse std::time::{Duration, Instant};\n\
                    use std::collections::BTreeMap;\nfn f(now: Instant) { g(now.duration_since(now)); }";
        assert_eq!(lines(text), [0; 0]);
    }

    #[test]
    fn imports_tests_and_lines() {
        let text = "use std::{\n  fs::File,\n  fmt,\n};\n#[cfg(test)]\nmod tests { use std::fs; }";
        assert_eq!(lines(text), [2]);
    }

    #[test]
    fn dependencies_are_judged_by_name() {
        let tree = "remoor-rpc v0.1.0 (/x)\nbytes v1.0.0\nrustix v1.0.0\nlibc v0.2.0\nlibc v0.2.0 (*)\n";
        let told = in_tree("remoor-rpc", tree);
        assert_eq!(told.len(), 2);
        assert!(told[0].what.ends_with("libc"), "{told:?}");
    }
}
