//! Opening and creating.

use remoor_nfs::v3::{self, NfsStat, Sattr};

use super::host::{EXCL, Host, READ, WRITE, pass, user};
use crate::errno::Errno;
use crate::fs::config::ACREGMIN;
use crate::fs::open::OpenFlags;
use crate::fs::{Config, ROOT};

const CREATE: OpenFlags = OpenFlags(libc::O_RDWR | libc::O_CREAT);

#[tokio::test]
async fn an_open_is_one_question_and_sees_what_was_closed_before() {
    let host = Host::memory();
    let (a, b) = (host.mount().await, host.mount().await);
    let at_a = a.make(ROOT, "f").await.node;
    let at_b = b.find(ROOT, "f").await.unwrap().node;
    b.fs.setattr(&user(0), at_b, None, Sattr { size: Some(3), ..Sattr::default() }).await.unwrap();
    let before = host.running.counters().calls.iter().map(|row| row.calls).sum::<u64>();
    let opened = a.fs.open(&user(0), at_a, READ).await.unwrap();
    assert!(!opened.keep_data, "changed by another client");
    assert_eq!(a.attr(at_a).await.unwrap().size, 3, "within acregmin of the attributes before");
    let after = host.running.counters().calls.iter().map(|row| row.calls).sum::<u64>();
    assert_eq!(after, before + 1);
    assert!(a.fs.open(&user(0), at_a, READ).await.unwrap().keep_data, "nothing has changed since");
}

#[tokio::test]
async fn nocto_opens_without_asking_while_attributes_are_fresh() {
    let host = Host::memory();
    let mount = host.mount_with(Config { close_to_open: false, ..Config::default() }).await;
    let file = mount.make(ROOT, "f").await.node;
    mount.open(file, READ).await.unwrap();
    let before = host.calls("ACCESS");
    mount.open(file, READ).await.unwrap();
    assert_eq!(host.calls("ACCESS"), before);
    pass(ACREGMIN * 4).await;
    mount.open(file, READ).await.unwrap();
    assert_eq!(host.calls("ACCESS"), before + 1);
}

#[tokio::test]
async fn permission_is_by_what_the_open_is_for() {
    let host = Host::memory();
    let mount = host.mount().await;
    let file = mount.make(ROOT, "f").await.node;
    for (mode, flags, permitted) in [
        (0o644, libc::O_RDONLY, true),
        (0o644, libc::O_WRONLY, false),
        (0o644, libc::O_RDWR, false),
        (0o622, libc::O_WRONLY, true),
        (0o622, libc::O_RDONLY, false),
        (0o711, libc::O_RDONLY, false),
        (0o711, 0x20, true),
        (0o744, 0x20, false),
    ] {
        mount.fs.setattr(&user(0), file, None, mode_is(mode)).await.unwrap();
        let opened = mount.fs.open(&user(1000), file, OpenFlags(flags)).await;
        assert_eq!(opened.is_ok(), permitted, "{mode:o} {flags:#x}: {opened:?}");
    }
    let dir = mount.mkdir(ROOT, "d").await.node;
    assert_eq!(mount.open(dir, READ).await, Err(Errno::ISDIR));
}

fn mode_is(mode: u32) -> Sattr {
    Sattr { mode: Some(mode), ..Sattr::default() }
}

#[tokio::test]
async fn o_trunc_makes_it_empty() {
    let host = Host::memory();
    let mount = host.mount().await;
    let file = mount.make(ROOT, "f").await.node;
    let sized = Sattr { size: Some(10), ..Sattr::default() };
    mount.fs.setattr(&user(0), file, None, sized).await.unwrap();
    mount.open(file, OpenFlags(libc::O_WRONLY | libc::O_TRUNC)).await.unwrap();
    assert_eq!(mount.attr(file).await.unwrap().size, 0);
    assert_eq!(mount.told(), []);
}

#[tokio::test]
async fn a_creator_may_do_what_the_open_says_whatever_the_mode() {
    let host = Host::memory();
    let mount = host.mount().await;
    mount.fs.setattr(&user(0), ROOT, None, mode_is(0o777)).await.unwrap();
    for (name, flags) in [("a", CREATE), ("b", EXCL)] {
        let made = mount.fs.create(&user(1000), ROOT, name.as_bytes(), 0, flags).await;
        let (entry, opened) = made.unwrap();
        assert_eq!((entry.attr.attr.mode & 0o7777, entry.attr.attr.uid), (0, 1000));
        assert_eq!(mount.fs.open(&user(1000), entry.node, READ).await, Err(Errno::ACCES));
        let sized = Sattr { size: Some(5), ..Sattr::default() };
        mount.fs.setattr(&user(1000), entry.node, Some(opened.id), sized).await.unwrap();
        mount.fs.release(opened.id).await.unwrap();
    }
}

#[tokio::test]
async fn o_excl_makes_a_file_once() {
    let host = Host::memory();
    let mount = host.mount().await;
    let (entry, _) = mount.create("f", EXCL).await.unwrap();
    let attr = entry.attr.attr;
    assert_eq!((attr.mode & 0o7777, attr.size), (0o644, 0));
    assert!(attr.mtime.seconds > 1_700_000_000 && attr.atime.seconds > 1_700_000_000, "{attr:?}");
    assert_eq!(mount.create("f", EXCL).await, Err(Errno::EXIST));
}

#[tokio::test]
async fn o_excl_on_a_server_without_it_is_guarded() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    relay.refuse::<v3::Create, _, _>(NfsStat::NotSupp, 1);
    mount.create("f", EXCL).await.unwrap();
    assert_eq!(mount.create("f", EXCL).await, Err(Errno::EXIST));
    mount.create("g", EXCL).await.unwrap();
    assert_eq!(host.calls("SETATTR"), 0, "none was made with a verifier");
}

#[tokio::test]
async fn a_file_somebody_else_made_meanwhile_is_opened() {
    let host = Host::memory();
    let (a, b) = (host.mount().await, host.mount().await);
    assert_eq!(a.find(ROOT, "f").await, Err(Errno::NOENT));
    let other = b.make(ROOT, "f").await.attr.attr.fileid;
    let (entry, _) = a.create("f", CREATE).await.unwrap();
    assert_eq!(entry.attr.attr.fileid, other);
    assert_eq!(a.create("f", EXCL).await, Err(Errno::EXIST));
    b.fs.setattr(&user(0), b.find(ROOT, "f").await.unwrap().node, None, mode_is(0o600)).await.unwrap();
    let refused = a.fs.create(&user(1000), ROOT, b"f", 0o644, CREATE).await;
    assert_eq!(refused, Err(Errno::ACCES));
}

#[tokio::test]
async fn creating_over_a_link_lets_the_kernel_follow_it() {
    let host = Host::memory();
    let (a, b) = (host.mount().await, host.mount().await);
    assert_eq!(a.find(ROOT, "l").await, Err(Errno::NOENT));
    b.fs.symlink(&user(0), ROOT, b"l", b"target").await.unwrap();
    assert_eq!(a.create("l", CREATE).await, Err(Errno::STALE));
}

#[tokio::test]
async fn an_open_given_up_leaves_nothing_open() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let file = mount.make(ROOT, "f").await.node;
    let held = relay.hold::<v3::Access>();
    let fs = mount.fs.clone();
    let before = host.calls("ACCESS");
    let opening = tokio::spawn(async move { fs.open(&user(0), file, WRITE).await });
    while host.calls("ACCESS") == before {
        tokio::task::yield_now().await;
    }
    opening.abort();
    assert!(opening.await.unwrap_err().is_cancelled());
    held.add_permits(100);
    mount.unlink(ROOT, "f").await.unwrap();
    assert_eq!(mount.names(ROOT).await, [""; 0], "a plain REMOVE: nobody has it open");
}

#[tokio::test]
async fn a_create_given_up_is_done_to_its_end() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let held = relay.hold::<v3::Create>();
    let fs = mount.fs.clone();
    let creating = tokio::spawn(async move { fs.create(&user(0), ROOT, b"f", 0o640, EXCL).await });
    while host.calls("CREATE") == 0 {
        tokio::task::yield_now().await;
    }
    creating.abort();
    assert!(creating.await.unwrap_err().is_cancelled());
    held.add_permits(1);
    while host.calls("SETATTR") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(mount.find(ROOT, "f").await.unwrap().attr.attr.mode & 0o7777, 0o640);
}

#[tokio::test]
async fn what_is_not_open_cannot_be_closed() {
    let host = Host::memory();
    let mount = host.mount().await;
    let (_, id) = mount.create("f", CREATE).await.unwrap();
    mount.fs.release(id).await.unwrap();
    assert_eq!(mount.fs.release(id).await, Err(Errno::BADF));
}

#[tokio::test]
async fn an_exclusive_create_asks_for_nothing_it_was_told() {
    let host = Host::memory();
    let mount = host.mount().await;
    let before = host.calls("GETATTR");
    let (made, _) = mount.fs.create(&user(0), ROOT, b"f", 0o640, EXCL).await.unwrap();
    assert_eq!(host.calls("GETATTR"), before, "SETATTR has told the attributes");
    assert_eq!((made.attr.attr.mode & 0o7777, made.attr.attr.size), (0o640, 0));
    assert!(!made.valid.is_zero() && !made.attr.valid.is_zero(), "the kernel may keep both");
}
