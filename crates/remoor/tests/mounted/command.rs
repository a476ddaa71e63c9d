//! The command around a mount: mount(8) and fstab, exit codes, the background, remounting, and what is left behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Instant;

use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::Test;
use crate::site::{Mount, Site, eventually, said};

pub(crate) const TESTS: &[Test] = &[
    ("fstab_lines_of_both_types_are_mounted", fstab_lines_of_both_types_are_mounted),
    ("mount_8_remounts", mount_8_remounts),
    ("exit_codes_are_those_of_mount_8", exit_codes_are_those_of_mount_8),
    ("an_interrupted_mount_leaves_nothing", an_interrupted_mount_leaves_nothing),
    ("bg_goes_on_in_the_background", bg_goes_on_in_the_background),
    ("a_mount_in_front_ends_with_a_signal", a_mount_in_front_ends_with_a_signal),
    ("a_mount_asked_to_end_writes_everything_back", a_mount_asked_to_end_writes_everything_back),
    ("an_interrupt_at_any_moment_leaves_nothing", an_interrupt_at_any_moment_leaves_nothing),
    ("a_mount_holds_nothing_of_its_caller", a_mount_holds_nothing_of_its_caller),
    ("a_mount_whose_process_was_killed_is_replaced", a_mount_whose_process_was_killed_is_replaced),
    ("a_remount_keeps_server_and_export", a_remount_keeps_server_and_export),
    ("what_is_mounted_is_not_mounted_again", what_is_mounted_is_not_mounted_again),
    ("a_remount_changes_what_can_be_changed", a_remount_changes_what_can_be_changed),
    ("status_shows_every_mount_in_words_and_in_json", status_shows_every_mount_in_words_and_in_json),
    ("metrics_are_told_over_http", metrics_are_told_over_http),
    ("a_hundred_cycles_leave_nothing_behind", a_hundred_cycles_leave_nothing_behind),
];

const REMOOR: &str = env!("CARGO_BIN_EXE_remoor");

/// An empty directory to mount on.
fn target(site: &Site, name: &str) -> Mount {
    let dir = site.dir.path().join(name);
    fs::create_dir(&dir).unwrap();
    Mount { dir }
}

fn source(site: &Site) -> String {
    format!("127.0.0.1:{}", site.native().display())
}

/// Has mount(8) find this program as its helper, in this mount namespace alone.
fn install(site: &Site) {
    let sbin = site.dir.path().join("sbin");
    fs::create_dir(&sbin).unwrap();
    for name in ["mount.remoor", "mount.fuse.remoor"] {
        std::os::unix::fs::symlink(REMOOR, sbin.join(name)).unwrap();
    }
    let lower = format!("lowerdir={}:/usr/sbin", sbin.display());
    let data = std::ffi::CString::new(lower).unwrap();
    mount("none", "/usr/sbin", "overlay", MountFlags::RDONLY, &*data).unwrap();
}

fn uninstall() {
    assert!(Command::new("umount").args(["-l", "/usr/sbin"]).status().unwrap().success());
}

fn fstab(site: &Site, lines: &[String]) -> PathBuf {
    let path = site.dir.path().join("fstab");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn fstab_lines_of_both_types_are_mounted() {
    let site = Site::plain();
    install(&site);
    let [a, b, c] = ["a", "b", "c"].map(|name| target(&site, name));
    let port = site.port;
    let line = |mount: &Mount, kind: &str, more: &str| {
        let options = format!("noresvport,port={port},mountport={port},retry=0,_netdev,nofail{more}");
        format!("{} {} {kind} {options} 0 0", source(&site), mount.dir.display())
    };
    let lines = [line(&a, "remoor", ""), line(&b, "fuse.remoor", ",ro"), line(&c, "remoor", ",noauto")];
    let table = fstab(&site, &lines);
    let all = run("mount", &["-T", path(&table), "-a"]);
    assert!(all.status.success(), "{}", said(&all));
    assert_eq!([&a, &b, &c].map(Mount::is_mounted), [true, true, false]);
    let again = run("mount", &["-T", path(&table), "-a"]);
    assert!(again.status.success(), "what is mounted is passed over: {}", said(&again));
    fs::write(a.path("x"), "1").unwrap();
    assert!(fs::write(b.path("x"), "2").is_err());
    let named = run("mount", &["-T", path(&table), path(&c.dir)]);
    assert!(named.status.success() && c.is_mounted(), "{}", said(&named));
    for mount in [&a, &b, &c] {
        let (done, said) = mount.unmount(&[]);
        assert!(done, "{said}");
    }
    let failing = fstab(&site, &[line(&a, "remoor", ""), line(&b, "remoor", ",port=1,mountport=1")]);
    let some = run("mount", &["-T", path(&failing), "-a"]);
    assert_eq!((some.status.code(), a.is_mounted()), (Some(64), true), "{}", said(&some));
    uninstall();
}

fn mount_8_remounts() {
    let site = Site::plain();
    install(&site);
    let mounted = site.mount("");
    let remount = run("mount", &["-o", "remount,ro", path(&mounted.dir)]);
    assert!(remount.status.success(), "{}", said(&remount));
    assert!(fs::write(mounted.path("x"), "").is_err());
    let remount = run("mount", &["-o", "remount,rw", path(&mounted.dir)]);
    assert!(remount.status.success(), "{}", said(&remount));
    fs::write(mounted.path("x"), "").unwrap();
    uninstall();
}

fn exit_codes_are_those_of_mount_8() {
    let site = Site::plain();
    let mount = target(&site, "m");
    let ends = |command: &mut Command, code: i32, text: &str| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {}", said(&output));
        assert!(said(&output).contains(text), "{command:?}: {}", said(&output));
        assert!(!mount.is_mounted());
    };
    ends(Command::new(REMOOR).args(["mount", "nothing"]), 1, "Usage:");
    ends(Command::new(REMOOR).args(["mount", "nothing"]).arg(&mount.dir), 1, "names no server");
    ends(&mut site.mounting("tmeo=3", &mount.dir), 1, "did you mean \"timeo\"?");
    ends(&mut site.mounting("vers=4", &mount.dir), 1, "only NFS version 3 is spoken");
    ends(site.mounting("tmeo=3", &mount.dir).args(["-s", "--fake"]), 0, "\"tmeo=3\" is ignored");
    ends(&mut site.mounting("retry=0,port=1,mountport=1", &mount.dir), 32, "refused");
    ends(&mut site.mounting("", &site.dir.path().join("absent")), 32, "mkdir -p");
    ends(&mut site.mounting("remount,ro", &mount.dir), 32, "nothing that remoor serves");
    let other = format!("127.0.0.1:{}x", site.native().display());
    let ports = format!("noresvport,port={0},mountport={0}", site.port);
    ends(Command::new(REMOOR).args(["mount", "-o", &ports, &other]).arg(&mount.dir), 32, "MNT3ERR_");
}

fn an_interrupted_mount_leaves_nothing() {
    let mut site = Site::plain();
    site.kill();
    let mount = target(&site, "m");
    let mut child = site.mounting("retry=5", &mount.dir).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("next try in")), "it tells what it waits for");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(8), "{rest:?}");
    assert!(rest.last().is_some_and(|line| line.contains("interrupted; nothing is mounted")), "{rest:?}");
    site.start();
    assert!(!mount.is_mounted());
}

fn bg_goes_on_in_the_background() {
    let mut site = Site::plain();
    site.kill();
    let mount = target(&site, "m");
    let output = site.mounting("bg,retry=1", &mount.dir).stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success() && said(&output).contains("trying on in the background"),
        "{}",
        said(&output)
    );
    assert!(!mount.is_mounted());
    site.start();
    eventually("it is mounted", || mount.is_mounted());
}

fn a_mount_in_front_ends_with_a_signal() {
    let site = Site::plain();
    let mount = target(&site, "m");
    let mut command = site.mounting("", &mount.dir);
    let mut child = command.arg("-f").stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it is mounted", || mount.is_mounted());
    fs::write(mount.path("x"), "").unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!mount.is_mounted());
}

fn a_mount_asked_to_end_writes_everything_back() {
    let site = Site::plain();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mount = site.mount("");
        let daemon = mount.daemon();
        let file = fs::File::create(mount.path("f")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 100_000], 0).unwrap();
        kill_process(daemon, signal).unwrap();
        eventually("it is unmounted", || !mount.is_mounted());
        assert_eq!(fs::read(site.native().join("f")).unwrap(), [7; 100_000], "{signal:?}");
        drop(file);
        eventually("the process ends", || test_kill_process(daemon).is_err());
        fs::remove_file(site.native().join("f")).unwrap();
    }
}

fn an_interrupt_at_any_moment_leaves_nothing() {
    let site = Site::plain();
    let mount = target(&site, "m");
    let start = Instant::now();
    let mut first = site.mounting("", &mount.dir).arg("-f").stderr(Stdio::null()).spawn().unwrap();
    eventually("it is mounted", || mount.is_mounted());
    let takes = start.elapsed();
    kill_process(Pid::from_child(&first), Signal::TERM).unwrap();
    first.wait().unwrap();
    for n in 0..40 {
        let mut child = site.mounting("", &mount.dir).arg("-f").stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(takes * n / 30);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
        assert!(!mount.is_mounted(), "ended after {n}/30 of the {takes:?} that it takes to mount");
    }
}

fn a_mount_holds_nothing_of_its_caller() {
    let site = Site::plain();
    let mount = target(&site, "m");
    let mounting = site.mounting("", &mount.dir);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 9>\"$0\"; exec \"$@\""]).arg(site.dir.path().join("lock"));
    let output = shell.arg(mounting.get_program()).args(mounting.get_args()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let files = fs::read_dir(format!("/proc/{}/fd", mount.daemon().as_raw_nonzero())).unwrap();
    let held: Vec<_> = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok()).collect();
    assert!(!held.contains(&site.dir.path().join("lock")), "{held:?}");
}

fn a_mount_whose_process_was_killed_is_replaced() {
    let site = Site::plain();
    let mount = site.mount("");
    let daemon = mount.daemon();
    fs::write(mount.path("f"), "x").unwrap();
    kill_process(daemon, Signal::KILL).unwrap();
    eventually("the mount is dead", || fs::read(mount.path("f")).is_err());
    let again = site.mounting("", &mount.dir).output().unwrap();
    assert!(again.status.success() && said(&again).contains("whose process was gone"), "{}", said(&again));
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"x");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let there = table.lines().filter(|line| line.split(' ').nth(4) == mount.dir.to_str()).count();
    assert_eq!(there, 1, "{table}");
}

fn a_remount_keeps_server_and_export() {
    let site = Site::plain();
    let mount = site.mount("");
    let other = run(REMOOR, &["mount", "-o", "remount,ro", "192.0.2.7:/other", path(&mount.dir)]);
    assert_eq!(other.status.code(), Some(1), "{}", said(&other));
    assert!(said(&other).contains("does not change server and export"), "{}", said(&other));
    fs::write(mount.path("x"), "").unwrap();
}

fn what_is_mounted_is_not_mounted_again() {
    let site = Site::plain();
    let mount = site.mount("");
    let output = site.mounting("", &mount.dir).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(32), "{}", said(&output));
    assert!(said(&output).contains("is already mounted on"), "{}", said(&output));
    let url = format!("nfs://127.0.0.1:{0}{1}?mountport={0}", site.port, site.native().display());
    let by_url = run(REMOOR, &["mount", "-o", "noresvport", &url, path(&mount.dir)]);
    assert!(said(&by_url).contains("is already mounted on"), "{}", said(&by_url));
}

fn a_remount_changes_what_can_be_changed() {
    let site = Site::plain();
    let mount = site.mount("timeo=600");
    let options = || mount.status()["options"].as_str().unwrap().to_owned();
    assert!(options().contains(",hard,") && options().contains("timeo=600"), "{}", options());
    let changed = site.mounting("remount,soft,timeo=50,acregmin=1", &mount.dir).output().unwrap();
    assert!(changed.status.success(), "{}", said(&changed));
    assert!(["soft", "timeo=50", "acregmin=1"].iter().all(|o| options().contains(o)), "{}", options());
    let before = options();
    let refused = site.mounting("remount,rsize=4096", &mount.dir).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("cannot change rsize=4096"), "{}", said(&refused));
    assert_eq!(options(), before);
}

fn status_shows_every_mount_in_words_and_in_json() {
    let site = Site::plain();
    let (a, b) = (site.mount(""), site.mount("soft"));
    fs::write(a.path("x"), "1").unwrap();
    let text = said(&run(REMOOR, &["status"]));
    for part in [path(&a.dir), path(&b.dir), "NFS CREATE", "0 reconnects", "in flight"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&run(REMOOR, &["status", "--json"]).stdout).unwrap();
    assert_eq!(json["mounts"].as_array().unwrap().len(), 2, "{json}");
    let ports = &a.status()["connections"][0]["source_port"];
    assert!(ports.as_u64().is_some_and(|port| port > 1023), "{ports}");
    kill_process(b.daemon(), Signal::KILL).unwrap();
    eventually("it is told that nobody answers", || {
        said(&run(REMOOR, &["status"])).contains("no process answers")
    });
    let alone = run(REMOOR, &["status", path(&site.native())]);
    assert_eq!(alone.status.code(), Some(2));
    assert!(said(&alone).contains("is no mount of remoor's; there are "), "{}", said(&alone));
}

fn metrics_are_told_over_http() {
    use std::io::{Read, Write};
    let site = Site::plain();
    let mount = target(&site, "m");
    let address = format!("127.0.0.1:{}", site.port + 10_000);
    let option = format!("metrics={address}");
    let mounted = site.mounting(&option, &mount.dir).output().unwrap();
    assert!(mounted.status.success(), "{}", said(&mounted));
    let taken = target(&site, "n");
    let refused = site.mounting("", &taken.dir).args(["--metrics", &address]).output().unwrap();
    assert_eq!((refused.status.code(), taken.is_mounted()), (Some(1), false), "{}", said(&refused));
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains("\nremoor_mount_responding 1\n"), "{page}");
}

/// Processes of this program that serve mounts.
fn daemons(site: &Site) -> usize {
    let own = source(site);
    let of = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let lines = fs::read_dir("/proc").unwrap().flatten().map(of);
    lines.filter(|line| String::from_utf8_lossy(line).contains(&own)).count()
}

fn a_hundred_cycles_leave_nothing_behind() {
    let site = Site::plain();
    let mount = target(&site, "m");
    let sockets = || fs::read_dir("/run/remoor/mounts").map_or(0, |dir| dir.count());
    let (before, files) = (sockets(), fs::read_dir(site.dir.path()).unwrap().count());
    for n in 0..100 {
        let output = site.mounting("", &mount.dir).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{n}: {}", said(&output));
        fs::write(mount.path("x"), n.to_string()).unwrap();
        let (done, said) = mount.unmount(&[]);
        assert!(done && !mount.is_mounted(), "{n}: {said}");
    }
    eventually("every process has ended", || daemons(&site) == 0);
    // The mount of a test before this may be about to end, and takes its socket with it.
    eventually("no socket is left", || sockets() <= before);
    assert_eq!(fs::read_dir(site.dir.path()).unwrap().count(), files);
}
