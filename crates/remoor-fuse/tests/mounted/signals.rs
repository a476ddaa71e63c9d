//! Signals to processes that wait for a file: SIGKILL ends them, others do not disturb them.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::Advice;
use rustix::process::{Pid, Signal, kill_process};

use crate::served::{Served, eventually};

/// Reads once, with handlers that are called without SA_RESTART, and prints what came.
const READER: &str = r#"
    $SIG{$_} = sub { } for qw(ALRM CHLD USR1);
    open(my $file, "<", $ARGV[0]) or die "open: $!\n";
    my $n = sysread($file, my $data, 100);
    print defined $n ? "read $n\n" : "error $!\n";
"#;

fn reader(served: &Served) -> Child {
    let path = served.path("direct gated");
    fs::write(&path, "0123456789").unwrap();
    let child = Command::new("perl").args(["-e", READER]).arg(path).stdout(Stdio::piped()).spawn().unwrap();
    served.wait_for_read();
    child
}

/// Sends a signal, and waits until the session knows: with its FUSE_INTERRUPT queued the kernel waits uninterruptibly,
/// and interrupts are read before other requests (`fuse_dev_do_read`), of which STATFS is never cached.
fn signal(served: &Served, child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
    let status = format!("/proc/{}/status", child.id());
    eventually("its wait is uninterruptible", || {
        fs::read_to_string(&status).unwrap().lines().any(|line| line.starts_with("State:\tD"))
    });
    rustix::fs::statvfs(&served.root).unwrap();
}

fn said(mut child: Child) -> String {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text
}

#[test]
fn sigkill_ends_a_cat_that_waits_for_ever() {
    let Some(served) = Served::with("sigkill_ends_a_cat_that_waits_for_ever", 1) else { return };
    killed_cat(&served);
}

#[test]
fn sigkill_ends_a_cat_with_several_readers() {
    let Some(served) = Served::with("sigkill_ends_a_cat_with_several_readers", 3) else { return };
    (0..20).for_each(|_| killed_cat(&served));
}

/// The kernel itself ends a wait for a page, and its READ goes on: nobody is told.
#[test]
fn sigkill_ends_a_cat_that_waits_for_the_page_cache() {
    let Some(served) = Served::with("sigkill_ends_a_cat_that_waits_for_the_page_cache", 1) else { return };
    let path = served.path("gated");
    fs::write(&path, "abc").unwrap();
    rustix::fs::fadvise(File::open(&path).unwrap(), 0, None, Advice::DontNeed).unwrap();
    kill_a_cat(&served, &path);
    assert_eq!(served.memory.waiting.now(), 1);
}

fn killed_cat(served: &Served) {
    let path = served.path("direct gated");
    fs::write(&path, "abc").unwrap();
    kill_a_cat(served, &path);
    eventually("its request is dropped", || served.memory.waiting.now() == 0);
}

fn kill_a_cat(served: &Served, path: &Path) {
    let mut cat = Command::new("cat").arg(path).stdout(Stdio::null()).spawn().unwrap();
    served.wait_for_read();
    cat.kill().unwrap();
    eventually("cat has ended", || cat.try_wait().unwrap().is_some());
}

#[test]
fn signals_with_a_handler_do_not_disturb() {
    let Some(served) = Served::with("signals_with_a_handler_do_not_disturb", 1) else { return };
    let child = reader(&served);
    for sent in [Signal::ALARM, Signal::CHILD, Signal::USR1] {
        signal(&served, &child, sent);
    }
    served.memory.gate.add_permits(1);
    assert_eq!(said(child), "read 10\n");
}

#[test]
fn sigkill_ends_what_was_interrupted_before() {
    let Some(served) = Served::with("sigkill_ends_what_was_interrupted_before", 1) else { return };
    let mut child = reader(&served);
    signal(&served, &child, Signal::ALARM);
    assert_eq!(served.memory.waiting.now(), 1);
    child.kill().unwrap();
    eventually("it has ended", || child.try_wait().unwrap().is_some());
    assert_eq!(said(child), "");
}

/// Whoever is killed elsewhere closes its files on its way out. SIGKILL is not pending for the thread then, and no
/// further signal reaches it.
#[test]
fn a_killed_process_ends_though_its_files_cannot_be_flushed() {
    let Some(served) = Served::with("a_killed_process_ends_though_its_files_cannot_be_flushed", 1) else {
        return;
    };
    let script = r#"open(my $file, ">", $ARGV[0]) or die; syswrite $file, "abc"; kill KILL => $$; sleep"#;
    let path = served.path("flush gated");
    let mut child = Command::new("perl").args(["-e", script]).arg(path).spawn().unwrap();
    served.wait_for_read();
    eventually("it has ended", || child.try_wait().unwrap().is_some());
    eventually("its request is dropped", || served.memory.waiting.now() == 0);
}

/// An exit that nobody asked for is waited for: what it wrote must arrive.
#[test]
fn an_exit_waits_for_what_was_written() {
    let Some(served) = Served::with("an_exit_waits_for_what_was_written", 1) else { return };
    let script =
        r#"open(my $file, ">", $ARGV[0]) or die; syswrite $file, "abc"; close($file) or die; print "closed""#;
    let path = served.path("flush gated");
    let child = Command::new("perl").args(["-e", script]).arg(path).stdout(Stdio::piped()).spawn().unwrap();
    served.wait_for_read();
    signal_other(&served, &child);
    served.memory.gate.add_permits(1);
    assert_eq!(said(child), "closed");
}

/// A signal whose default is to be ignored interrupts nothing.
fn signal_other(served: &Served, child: &Child) {
    kill_process(Pid::from_child(child), Signal::WINCH).unwrap();
    rustix::fs::statvfs(&served.root).unwrap();
    assert_eq!(served.memory.waiting.now(), 1);
}
