//! Namespaces of its own for everything a scenario starts: a network with no way out, and processes that end with it.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, ensure};

use super::cache;
use crate::report::Counts;

/// Set within; names the file that the counts are left in.
const INSIDE: &str = "REMOOR_GUEST_COUNTS";

/// Whether this process is in a sandbox.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again with these arguments in a sandbox, and returns what it counted.
pub(crate) fn enter(arguments: &[OsString]) -> anyhow::Result<Counts> {
    fs::create_dir_all(cache()).with_context(|| format!("cannot make {}", cache().display()))?;
    let left = cache().join(format!("counts-{}", std::process::id()));
    // By the time it is called again, cargo may have replaced it.
    let program = cache().join(format!("xtask-{}", std::process::id()));
    fs::copy("/proc/self/exe", &program).context("cannot copy this program")?;
    // Of a process namespace whose first process dies, every process is killed.
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(&program).args(arguments).env(INSIDE, &left).stdin(Stdio::piped());
    let mut child = command.spawn().context("cannot run unshare (package util-linux)")?;
    let leash = child.stdin.take();
    child.wait().context("cannot wait for the sandbox")?;
    drop(leash);
    fs::remove_file(&program)?;
    let text = fs::read_to_string(&left).context("the scenario ended early: see above")?;
    fs::remove_file(&left)?;
    parse(&text).with_context(|| format!("`{text}` are no counts"))
}

/// Ends this process when the one outside does, however that ended. The first process of a namespace ignores the signals
/// by which others end, so that an interrupted scenario would go on; standard input is a pipe that only the one outside
/// holds.
pub(crate) fn end_with_parent() {
    thread::spawn(|| {
        // Nothing is ever written to it: any answer is the end.
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(1)
    });
}

/// Leaves the counts for the process outside.
pub(crate) fn leave(counts: Counts) -> anyhow::Result<()> {
    let file = std::env::var_os(INSIDE).context("this is no sandbox")?;
    let Counts { passed, failed, skipped } = counts;
    Ok(fs::write(file, format!("{passed} {failed} {skipped}"))?)
}

fn parse(text: &str) -> Option<Counts> {
    let numbers: Vec<usize> = text.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [passed, failed, skipped] = numbers[..] else { return None };
    Some(Counts { passed, failed, skipped })
}

/// A wire between this network namespace and a guest; gone when dropped, which is after the guest.
#[derive(Debug)]
pub(super) struct Link {
    /// The TAP device here.
    pub(super) tap: String,
    /// The address here, also the guest's gateway.
    pub(super) here: Ipv4Addr,
    /// The guest's address.
    pub(super) guest: Ipv4Addr,
    /// The guest's hardware address; the same at every boot, so that nothing that remembers it is wrong.
    pub(super) mac: String,
}

impl Link {
    /// Makes wire number `n`. Guests reach each other through this namespace.
    pub(super) fn make(n: u8) -> anyhow::Result<Self> {
        let link = Self {
            tap: format!("guest{n}"),
            here: Ipv4Addr::new(10, 213, n, 1),
            guest: Ipv4Addr::new(10, 213, n, 2),
            mac: format!("02:00:0a:d5:{n:02x}:02"),
        };
        let (tap, address) = (link.tap.as_str(), format!("{}/30", link.here));
        ip(&["link", "set", "lo", "up"])?;
        ip(&["tuntap", "add", "dev", tap, "mode", "tap"])?;
        ip(&["address", "add", &address, "dev", tap])?;
        ip(&["link", "set", tap, "up"])?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch forwarding on")?;
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A wire that stays makes the next of its number fail, with a message.
        let _ = ip(&["link", "delete", &self.tap]);
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("ip").args(arguments).status().context("cannot run ip (package iproute2)")?;
    ensure!(status.success(), "ip {} ended with {status}", arguments.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_back() {
        assert_eq!(parse("3 1 2"), Some(Counts { passed: 3, failed: 1, skipped: 2 }));
        assert_eq!(parse("3 1"), None);
        assert_eq!(parse("a b c"), None);
    }
}
