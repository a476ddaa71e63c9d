//! Attributes, names and permissions that are kept.

use std::time::Duration;

use remoor_nfs::v3::{self, NfsStat, Sattr};

use super::host::{Host, Invalid, READ, pass, user};
use crate::errno::Errno;
use crate::fs::config::{ACDIRMIN, ACREGMIN, LookupCache};
use crate::fs::{Config, Lookup, ROOT};

fn mode(mode: u32) -> Sattr {
    Sattr { mode: Some(mode), ..Sattr::default() }
}

#[tokio::test]
async fn attributes_are_asked_for_once_in_acregmin() {
    let host = Host::memory();
    let mount = host.mount().await;
    let file = mount.make(ROOT, "f").await.node;
    let before = host.calls("GETATTR");
    let attr = mount.fs.getattr(&user(0), file).await.unwrap();
    assert!(!attr.valid.is_zero() && attr.valid <= ACREGMIN, "{:?}", attr.valid);
    assert_eq!(host.calls("GETATTR"), before);
    pass(ACREGMIN).await;
    mount.attr(file).await.unwrap();
    mount.attr(file).await.unwrap();
    assert_eq!(host.calls("GETATTR"), before + 1);
}

#[tokio::test]
async fn noac_asks_each_time_and_lets_the_kernel_keep_nothing() {
    let host = Host::memory();
    let mount = host.mount_with(Config { attribute_cache: false, ..Config::default() }).await;
    let entry = mount.make(ROOT, "f").await;
    assert_eq!((entry.valid, entry.attr.valid), (Duration::ZERO, Duration::ZERO));
    let before = host.calls("GETATTR");
    mount.attr(entry.node).await.unwrap();
    mount.attr(entry.node).await.unwrap();
    assert_eq!(host.calls("GETATTR"), before + 2);
}

#[tokio::test]
async fn a_change_by_another_client_is_seen_when_the_time_is_over_and_the_kernel_is_told() {
    let host = Host::memory();
    let (a, b) = (host.mount().await, host.mount().await);
    let at_a = a.make(ROOT, "f").await.node;
    let at_b = b.find(ROOT, "f").await.unwrap().node;
    a.told();
    b.told();
    b.fs.setattr(&user(0), at_b, None, Sattr { size: Some(7), ..Sattr::default() }).await.unwrap();
    assert_eq!(a.attr(at_a).await.unwrap().size, 0, "within acregmin");
    pass(ACREGMIN).await;
    assert_eq!(a.attr(at_a).await.unwrap().size, 7);
    assert_eq!(a.told(), [Invalid::Data(at_a)]);
    assert_eq!(b.told(), [], "its own change is none");
}

#[tokio::test]
async fn our_own_changes_are_not_somebody_elses() {
    let host = Host::memory();
    let mount = host.mount().await;
    let dir = mount.mkdir(ROOT, "d").await.node;
    let file = mount.make(dir, "f").await.node;
    mount.fs.setattr(&user(0), file, None, mode(0o600)).await.unwrap();
    mount.fs.link(&user(0), file, ROOT, b"g").await.unwrap();
    mount.rename("g", "h").await.unwrap();
    mount.unlink(ROOT, "h").await.unwrap();
    assert_eq!(mount.attr(file).await.unwrap().nlink, 1);
    mount.unlink(dir, "f").await.unwrap();
    mount.fs.rmdir(&user(0), ROOT, b"d").await.unwrap();
    pass(ACDIRMIN).await;
    mount.attr(ROOT).await.unwrap();
    assert_eq!(mount.told(), []);
}

#[tokio::test]
async fn an_older_answer_does_not_replace_a_newer_one() {
    let host = Host::memory();
    let other = host.mount().await;
    let (mount, relay) = host.mount_relayed(Config { attribute_cache: false, ..Config::default() }).await;
    let file = mount.make(ROOT, "f").await.node;
    let held = relay.hold::<v3::Getattr>();
    let fs = mount.fs.clone();
    let before = host.calls("GETATTR");
    let old = tokio::spawn(async move { fs.getattr(&user(0), file).await });
    while host.calls("GETATTR") == before {
        tokio::task::yield_now().await;
    }
    let at_other = other.find(ROOT, "f").await.unwrap().node;
    other.fs.setattr(&user(0), at_other, None, Sattr { size: Some(9), ..Sattr::default() }).await.unwrap();
    mount.fs.access(&user(0), file, 4).await.unwrap();
    held.add_permits(1);
    assert_eq!(old.await.unwrap().unwrap().attr.size, 9, "the answer of ACCESS, asked later");
}

#[tokio::test]
async fn names_are_asked_for_once_and_missing_ones_too() {
    let host = Host::memory();
    let mount = host.mount().await;
    mount.make(ROOT, "f").await;
    let before = host.calls("LOOKUP");
    mount.find(ROOT, "f").await.unwrap();
    assert_eq!(host.calls("LOOKUP"), before, "just made");
    for _ in 0..3 {
        let Lookup::Missing { valid } = mount.look(ROOT, "none").await.unwrap() else { panic!("found") };
        assert!(!valid.is_zero());
    }
    assert_eq!(host.calls("LOOKUP"), before + 1);
    pass(ACDIRMIN).await;
    mount.look(ROOT, "none").await.unwrap();
    assert_eq!(host.calls("LOOKUP"), before + 2);
}

#[tokio::test]
async fn lookupcache_positive_and_none_keep_what_they_say() {
    let host = Host::memory();
    for (cache, found, missing) in [(LookupCache::Positive, 0, 2), (LookupCache::None, 2, 2)] {
        let mount = host.mount_with(Config { lookup_cache: cache, ..Config::default() }).await;
        mount.make(ROOT, &format!("{cache:?}")).await;
        let before = host.calls("LOOKUP");
        for _ in 0..2 {
            let valid = mount.find(ROOT, &format!("{cache:?}")).await.unwrap().valid;
            assert_eq!(valid.is_zero(), cache == LookupCache::None);
        }
        assert_eq!(host.calls("LOOKUP") - before, found, "{cache:?}");
        for _ in 0..2 {
            assert_eq!(mount.look(ROOT, "no").await.unwrap(), Lookup::Missing { valid: Duration::ZERO });
        }
        assert_eq!(host.calls("LOOKUP") - before, found + missing, "{cache:?}");
    }
}

#[tokio::test]
async fn names_below_a_directory_another_client_changed_are_looked_up_again() {
    let host = Host::memory();
    let (a, b) = (host.mount().await, host.mount().await);
    a.make(ROOT, "f").await;
    assert!(matches!(a.look(ROOT, "new").await, Ok(Lookup::Missing { .. })));
    b.make(ROOT, "new").await;
    b.rename("f", "g").await.unwrap();
    pass(ACDIRMIN).await;
    a.told();
    a.attr(ROOT).await.unwrap();
    let told = a.told();
    assert!(told.contains(&Invalid::Attributes(ROOT)), "{told:?}");
    for name in ["f", "new"] {
        assert!(told.contains(&Invalid::Entry(ROOT, name.into())), "{told:?}");
    }
    assert_eq!(a.find(ROOT, "f").await, Err(Errno::NOENT));
    a.find(ROOT, "new").await.unwrap();
}

#[tokio::test]
async fn a_lookup_overtaken_by_our_own_change_is_not_kept() {
    let host = Host::memory();
    let (mount, relay) = host.mount_relayed(Config::default()).await;
    let held = relay.hold::<v3::Lookup>();
    let fs = mount.fs.clone();
    let before = host.calls("LOOKUP");
    let late = tokio::spawn(async move { fs.lookup(&user(0), ROOT, b"f").await });
    while host.calls("LOOKUP") == before {
        tokio::task::yield_now().await;
    }
    mount.make(ROOT, "f").await;
    held.add_permits(1);
    assert_eq!(late.await.unwrap().unwrap(), Lookup::Missing { valid: Duration::ZERO });
    mount.find(ROOT, "f").await.unwrap();
}

#[tokio::test]
async fn a_handle_gone_stale_is_replaced_by_the_next_lookup() {
    let host = Host::memory();
    let (a, b) = (host.mount().await, host.mount().await);
    let old = a.make(ROOT, "f").await.node;
    b.unlink(ROOT, "f").await.unwrap();
    let new = b.make(ROOT, "f").await;
    assert_eq!(a.open(old, READ).await, Err(Errno::STALE));
    assert_eq!(a.told(), [Invalid::Entry(ROOT, "f".into())]);
    let found = a.find(ROOT, "f").await.unwrap();
    assert_eq!((found.node == old, found.attr.attr.fileid), (false, new.attr.attr.fileid));
    a.open(found.node, READ).await.unwrap();
}

#[tokio::test]
async fn the_same_handle_is_the_same_node_until_it_is_forgotten() {
    let host = Host::memory();
    let mount = host.mount().await;
    let first = mount.make(ROOT, "f").await.node;
    let link = mount.fs.link(&user(0), first, ROOT, b"g").await.unwrap().node;
    let again = mount.find(ROOT, "g").await.unwrap().node;
    assert_eq!([link, again], [first, first]);
    mount.fs.forget(first, 2);
    mount.attr(first).await.unwrap();
    mount.fs.forget(first, 1);
    assert_eq!(mount.attr(first).await, Err(Errno::STALE));
    assert_ne!(mount.find(ROOT, "f").await.unwrap().node, first, "numbers are not used again");
    mount.fs.forget(ROOT, u64::MAX);
    mount.attr(ROOT).await.unwrap();
}

#[tokio::test]
async fn what_others_may_not_search_is_not_told_them_from_the_cache() {
    let host = Host::memory();
    let mount = host.mount_with(Config { several_users: true, ..Config::default() }).await;
    let dir = mount.mkdir(ROOT, "d").await.node;
    mount.make(dir, "f").await;
    assert!(!mount.find(dir, "f").await.unwrap().valid.is_zero(), "all may search");
    mount.fs.setattr(&user(0), dir, None, mode(0o700)).await.unwrap();
    assert!(mount.told().contains(&Invalid::Entry(dir, "f".into())));
    assert!(mount.find(dir, "f").await.unwrap().valid.is_zero(), "the kernel must ask");
    assert_eq!(mount.fs.lookup(&user(1000), dir, b"f").await, Err(Errno::ACCES));
    let before = host.calls("ACCESS");
    assert_eq!(mount.fs.lookup(&user(1000), dir, b"f").await, Err(Errno::ACCES));
    assert_eq!(host.calls("ACCESS"), before, "kept for this identity");
    mount.fs.setattr(&user(0), dir, None, mode(0o711)).await.unwrap();
    mount.fs.lookup(&user(1000), dir, b"f").await.unwrap();
}

#[tokio::test]
async fn access_asks_once_for_each_identity_until_the_mode_changes() {
    let host = Host::memory();
    let mount = host.mount().await;
    let file = mount.make(ROOT, "f").await.node;
    let before = host.calls("ACCESS");
    for _ in 0..2 {
        mount.fs.access(&user(1000), file, 4).await.unwrap();
        assert_eq!(mount.fs.access(&user(1000), file, 2).await, Err(Errno::ACCES));
        mount.fs.access(&user(0), file, 6).await.unwrap();
    }
    assert_eq!(host.calls("ACCESS"), before + 2);
    mount.fs.setattr(&user(0), file, None, mode(0o666)).await.unwrap();
    mount.fs.access(&user(1000), file, 2).await.unwrap();
}

#[tokio::test]
async fn uid_and_gid_options_change_what_is_shown() {
    let host = Host::memory();
    let mount = host.mount_with(Config { uid: Some(7), gid: Some(8), ..Config::default() }).await;
    let shown = mount.make(ROOT, "f").await.attr.attr;
    assert_eq!((shown.uid, shown.gid), (7, 8));
}

#[tokio::test]
async fn jukebox_is_tried_again_and_a_soft_mount_gives_up() {
    let host = Host::memory();
    let patience = Some(Duration::from_millis(350));
    let (mount, relay) = host.mount_relayed(Config { patience, ..Config::default() }).await;
    relay.refuse::<v3::Readlink, _, _>(NfsStat::Jukebox, 1);
    mount.fs.symlink(&user(0), ROOT, b"l", b"text").await.unwrap();
    let link = mount.find(ROOT, "l").await.unwrap().node;
    assert_eq!(mount.fs.readlink(&user(0), link).await.unwrap(), "text");
    relay.refuse::<v3::Readlink, _, _>(NfsStat::Jukebox, usize::MAX);
    assert_eq!(mount.fs.readlink(&user(0), link).await, Err(Errno::IO));
}
