//! Servers that go away, and mounts of them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::Test;
use crate::site::{PATIENCE, Site, eventually};

pub(crate) const TESTS: &[Test] = &[
    ("a_hard_mount_waits_and_loses_nothing", a_hard_mount_waits_and_loses_nothing),
    ("a_restarted_server_gets_unstable_data_again", a_restarted_server_gets_unstable_data_again),
    ("a_soft_mount_fails_after_its_time", a_soft_mount_fails_after_its_time),
    ("a_killed_process_does_not_wait_for_a_dead_server", a_killed_process_does_not_wait_for_a_dead_server),
    ("a_signal_that_does_not_kill_does_not_interrupt", a_signal_that_does_not_kill_does_not_interrupt),
    ("a_dead_mount_is_unmounted_by_force", a_dead_mount_is_unmounted_by_force),
    ("a_dead_mount_is_unmounted_lazily", a_dead_mount_is_unmounted_lazily),
    ("status_answers_while_the_server_hangs", status_answers_while_the_server_hangs),
    ("every_connection_has_a_port_of_its_own", every_connection_has_a_port_of_its_own),
    ("resvport_leaves_from_reserved_ports", resvport_leaves_from_reserved_ports),
    ("a_mount_asked_to_end_does_not_wait_for_long", a_mount_asked_to_end_does_not_wait_for_long),
    ("what_a_killed_program_wrote_outlives_the_mount", what_a_killed_program_wrote_outlives_the_mount),
    ("unmounting_ends_the_process", unmounting_ends_the_process),
    ("a_server_that_is_away_is_an_error_in_time", a_server_that_is_away_is_an_error_in_time),
];

fn a_hard_mount_waits_and_loses_nothing() {
    let mut site = Site::plain();
    let mount = site.mount("");
    let file = File::create(mount.path("f")).unwrap();
    file.write_all_at(b"before", 0).unwrap();
    site.kill();
    let path = mount.path("g");
    let waiting = thread::spawn(move || fs::write(path, "while it is away"));
    thread::sleep(Duration::from_secs(2));
    assert!(!waiting.is_finished(), "a hard mount waits");
    site.start();
    waiting.join().unwrap().unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(site.native().join("f")).unwrap(), b"before");
    assert_eq!(fs::read(site.native().join("g")).unwrap(), b"while it is away");
}

fn a_restarted_server_gets_unstable_data_again() {
    let mut site = Site::plain();
    let mount = site.mount("");
    let file = File::create(mount.path("f")).unwrap();
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|n| (n ^ (n >> 9)) as u8).collect();
    file.write_all_at(&bytes, 0).unwrap();
    eventually("data has been sent", || fs::metadata(site.native().join("f")).unwrap().len() > 0);
    site.kill();
    // As a machine that loses power would.
    fs::write(site.native().join("f"), "").unwrap();
    site.start();
    file.sync_all().unwrap();
    assert!(fs::read(site.native().join("f")).unwrap() == bytes, "everything was sent again");
}

fn a_soft_mount_fails_after_its_time() {
    for (option, errno) in [("soft", Errno::IO), ("softerr", Errno::TIMEDOUT)] {
        let site = Site::plain();
        let mount = site.mount(&format!("{option},timeo=5,retrans=1"));
        fs::write(mount.path("f"), "x").unwrap();
        site.stop();
        let start = Instant::now();
        let error = fs::write(mount.path("g"), "y").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{option}: {error}");
        assert!(start.elapsed() >= Duration::from_millis(900), "{option}: {:?}", start.elapsed());
        site.go_on();
        eventually("it goes on", || fs::read(mount.path("f")).is_ok());
    }
}

/// Runs `line` on a mount whose server does not answer, and waits until it blocks there.
fn blocked(site: &Site, mount: &crate::site::Mount, line: &str) -> std::process::Child {
    fs::write(mount.path("f"), "x").unwrap();
    site.stop();
    let child =
        Command::new("sh").args(["-c", line]).env("D", &mount.dir).stdout(Stdio::null()).spawn().unwrap();
    eventually("a call is in flight", || {
        mount.status()["in_flight"].as_array().is_some_and(|calls| !calls.is_empty())
    });
    child
}

fn a_killed_process_does_not_wait_for_a_dead_server() {
    let site = Site::plain();
    for signal in [Signal::KILL, Signal::TERM] {
        let mount = site.mount("");
        let mut child = blocked(&site, &mount, "exec cat $D/f");
        let start = Instant::now();
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        assert!(start.elapsed() < PATIENCE / 4, "{signal:?}: {:?}", start.elapsed());
        site.go_on();
        eventually("the mount is as before", || fs::read(mount.path("f")).is_ok_and(|text| text == b"x"));
    }
}

fn a_signal_that_does_not_kill_does_not_interrupt() {
    let site = Site::plain();
    let mount = site.mount("");
    let mut child = blocked(&site, &mount, "trap : USR1; read line < $D/f; echo $line > $D/done");
    for _ in 0..5 {
        kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    assert!(child.try_wait().unwrap().is_none(), "it waits on");
    site.go_on();
    child.wait().unwrap();
    assert_eq!(fs::read(mount.path("done")).unwrap(), b"x\n");
}

fn a_dead_mount_is_unmounted_by_force() {
    let site = Site::plain();
    let mount = site.mount("");
    let daemon = mount.daemon();
    let mut child = blocked(&site, &mount, "exec cat $D/f");
    let (good, said) = mount.unmount(&["-f"]);
    if !good {
        // As with the kernel's client the mount is busy, but its calls are aborted; then its process takes it away.
        child.wait().unwrap();
        eventually(&said, || !mount.is_mounted());
    }
    child.wait().unwrap();
    assert!(!mount.is_mounted());
    eventually("the daemon ends", || test_kill_process(daemon).is_err());
}

fn a_dead_mount_is_unmounted_lazily() {
    let site = Site::plain();
    let mount = site.mount("");
    let mut child = blocked(&site, &mount, "exec cat $D/f");
    let (good, said) = mount.unmount(&["-l"]);
    assert!(good, "{said}");
    assert!(!mount.is_mounted());
    child.kill().unwrap();
    child.wait().unwrap();
}

fn a_mount_asked_to_end_does_not_wait_for_long() {
    let site = Site::plain();
    let mount = site.mount("");
    let daemon = mount.daemon();
    let file = File::create(mount.path("f")).unwrap();
    site.stop();
    file.write_all_at(b"never there", 0).unwrap();
    let start = Instant::now();
    kill_process(daemon, Signal::TERM).unwrap();
    eventually("the daemon ends", || test_kill_process(daemon).is_err());
    assert!(start.elapsed() < Duration::from_secs(24), "{:?}", start.elapsed());
    assert!(!mount.is_mounted());
}

fn what_a_killed_program_wrote_outlives_the_mount() {
    let site = Site::plain();
    let mount = site.mount("");
    let daemon = mount.daemon();
    let line = "exec >$D/f; read go; printf abc; read end";
    let mut command = Command::new("sh");
    let mut child = command.args(["-c", line]).env("D", &mount.dir).stdin(Stdio::piped()).spawn().unwrap();
    eventually("the file is there", || site.native().join("f").exists());
    site.stop();
    writeln!(child.stdin.as_mut().unwrap(), "go").unwrap();
    eventually("it has written", || mount.status()["kept"]["dirty_bytes"] == 3);
    child.kill().unwrap();
    child.wait().unwrap();
    let (good, said) = mount.unmount(&["-l"]);
    assert!(good, "{said}");
    thread::sleep(Duration::from_secs(4));
    test_kill_process(daemon).expect("it has not given up");
    site.go_on();
    eventually("the daemon ends", || test_kill_process(daemon).is_err());
    assert_eq!(fs::read(site.native().join("f")).unwrap(), b"abc");
}

fn status_answers_while_the_server_hangs() {
    let site = Site::plain();
    let mount = site.mount("");
    let mut child = blocked(&site, &mount, "exec cat $D/f");
    let start = Instant::now();
    let status = mount.status();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!status["in_flight"].as_array().unwrap().is_empty(), "{status}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Source ports of the connections to a port, as the kernel has them.
fn source_ports(port: u16) -> Vec<u16> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let of = |field: &str| u16::from_str_radix(field.split(':').nth(1).unwrap(), 16).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[3] == "01" && of(row[2]) == port).map(|row| of(row[1])).collect()
}

fn every_connection_has_a_port_of_its_own() {
    let mut site = Site::plain();
    let mount = site.mount("");
    let mut seen = source_ports(site.port);
    for _ in 0..4 {
        site.kill();
        site.start();
        fs::write(mount.path("f"), "x").unwrap();
        let now = source_ports(site.port);
        assert!(now.iter().all(|port| *port > 1023 && !seen.contains(port)), "{now:?} after {seen:?}");
        seen.extend(now);
    }
}

fn resvport_leaves_from_reserved_ports() {
    let mut site = Site::plain();
    let mount = site.mount("resvport");
    let first = source_ports(site.port);
    assert!(!first.is_empty() && first.iter().all(|port| *port < 1024), "{first:?}");
    site.kill();
    site.start();
    fs::write(mount.path("f"), "x").unwrap();
    assert_eq!(source_ports(site.port), first, "the same port, as Linux does");
    drop(mount);
    let mount = site.mount("resvport,rebind=fresh");
    let first = source_ports(site.port);
    site.kill();
    site.start();
    fs::write(mount.path("f"), "x").unwrap();
    let second = source_ports(site.port);
    assert!(second.iter().all(|port| *port < 1024 && !first.contains(port)), "{second:?} after {first:?}");
}

fn unmounting_ends_the_process() {
    let site = Site::plain();
    let mount = site.mount("");
    let daemon = mount.daemon();
    fs::write(mount.path("f"), "x").unwrap();
    let (good, said) = mount.unmount(&[]);
    assert!(good, "{said}");
    eventually("the daemon ends", || test_kill_process(daemon).is_err());
    assert!(source_ports(site.port).is_empty());
}

fn a_server_that_is_away_is_an_error_in_time() {
    let mut site = Site::plain();
    site.kill();
    let dir = site.dir.path().join("mnt");
    fs::create_dir(&dir).unwrap();
    let start = Instant::now();
    let output = site.mounting("retry=0", &dir).output().unwrap();
    assert_eq!(output.status.code(), Some(32), "{}", crate::site::said(&output));
    assert!(start.elapsed() < PATIENCE);
    assert!(crate::site::said(&output).contains("refused"), "{}", crate::site::said(&output));
}
