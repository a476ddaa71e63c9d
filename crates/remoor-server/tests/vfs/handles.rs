//! A handle means the same file after renames, restarts and on every node; and nothing once the file is gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use remoor_nfs::v3::{CreateHow, NfsStat, Sattr};
use remoor_server::vfs::local::{LocalVfs, OpenError, Scheme};
use remoor_server::vfs::{NodeHandle, Vfs};

use crate::served::{Served, directory, file, own, schemes, text};

/// Set for the part of a test that runs in a user namespace: the export, the state directory and a handle in hex.
const INSIDE: &str = "REMOOR_TEST_INSIDE";

#[test]
fn a_restart_changes_no_handle() {
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        let root = vfs.root().unwrap();
        let dir = directory(&vfs, &root, "dir");
        let node = file(&vfs, &dir.handle, "file", "text");
        drop(vfs);
        let vfs = served.node("a", scheme);
        assert_eq!(vfs.root().unwrap(), root);
        assert_eq!(text(&vfs, &node.handle), "text");
        assert_eq!(vfs.lookup(&own(), &dir.handle, b"file").unwrap().handle, node.handle);
        assert_eq!(vfs.lookup(&own(), &dir.handle, b"..").unwrap().handle, root);
    }
}

#[test]
fn two_nodes_agree_while_both_rename() {
    for &scheme in schemes() {
        let served = Served::new();
        let (a, b) = (served.node("a", scheme), served.node("b", scheme));
        let root = a.root().unwrap();
        assert_eq!(b.root().unwrap(), root);
        let (one, two) = (directory(&a, &root, "one"), directory(&b, &root, "two"));
        let node = file(&a, &one.handle, "file", "text");
        assert_eq!(text(&b, &node.handle), "text");
        a.rename(&own(), (&one.handle, b"file"), (&two.handle, b"moved")).unwrap();
        assert_eq!(text(&b, &node.handle), "text");
        b.rename(&own(), (&root, b"two"), (&one.handle, b"below")).unwrap();
        assert_eq!(a.lookup(&own(), &two.handle, b"moved").unwrap().handle, node.handle);
        assert_eq!(b.lookup(&own(), &two.handle, b"..").unwrap().handle, one.handle);
        drop((a, b));
        let c = served.node("c", scheme);
        assert_eq!(text(&c, &node.handle), "text");
    }
}

#[test]
fn renames_on_the_host_are_followed() {
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        let root = vfs.root().unwrap();
        let (one, two) = (directory(&vfs, &root, "one"), directory(&vfs, &root, "two"));
        let beside = file(&vfs, &one.handle, "file", "beside");
        let away = file(&vfs, &one.handle, "other", "away");
        drop(vfs);
        let path = served.dir();
        fs::rename(path.join("one/file"), path.join("one/beside")).unwrap();
        fs::rename(path.join("one/other"), path.join("two/away")).unwrap();
        fs::create_dir(path.join("deep")).unwrap();
        fs::rename(path.join("two"), path.join("deep/er")).unwrap();
        let vfs = served.node("a", scheme);
        assert_eq!(text(&vfs, &beside.handle), "beside");
        assert_eq!(text(&vfs, &away.handle), "away");
        assert_eq!(vfs.lookup(&own(), &two.handle, b"away").unwrap().handle, away.handle);
    }
}

#[test]
fn without_any_index_the_export_is_searched() {
    let served = Served::new();
    let vfs = served.node("a", Scheme::Fileid);
    let dir = directory(&vfs, &vfs.root().unwrap(), "dir");
    let node = file(&vfs, &dir.handle, "file", "text");
    drop(vfs);
    let index = served.options("a", None).state_dir.join("index");
    let logs = fs::read_dir(&index).unwrap().flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap());
    for log in logs.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()) {
        fs::remove_file(log).unwrap();
    }
    let vfs = served.node("a", Scheme::Fileid);
    assert_eq!(text(&vfs, &node.handle), "text");
    assert_eq!(vfs.lookup(&own(), &dir.handle, b"file").unwrap().handle, node.handle);
}

#[test]
fn what_is_removed_is_stale_everywhere_at_once() {
    for &scheme in schemes() {
        let served = Served::new();
        let (a, b) = (served.node("a", scheme), served.node("b", scheme));
        let root = a.root().unwrap();
        let (node, dir) = (file(&a, &root, "file", "text"), directory(&a, &root, "dir"));
        assert_eq!(text(&b, &node.handle), "text");
        assert!(b.getattr(&own(), &dir.handle).is_ok());
        a.remove(&own(), &root, b"file").unwrap();
        a.rmdir(&own(), &root, b"dir").unwrap();
        for vfs in [&a, &b] {
            assert_eq!(vfs.getattr(&own(), &node.handle), Err(NfsStat::Stale));
            assert_eq!(vfs.read(&own(), &node.handle, 0, 1).err(), Some(NfsStat::Stale));
            assert_eq!(vfs.lookup(&own(), &dir.handle, b"x"), Err(NfsStat::Stale));
            assert_eq!(vfs.mkdir(&own(), &dir.handle, b"x", &Sattr::default()), Err(NfsStat::Stale));
        }
        let later = file(&a, &root, "file", "later");
        assert_ne!(later.handle, node.handle);
        assert_eq!(served.node("c", scheme).getattr(&own(), &node.handle), Err(NfsStat::Stale));
    }
}

#[test]
fn a_removed_name_of_two_leaves_the_handle() {
    for &scheme in schemes() {
        let served = Served::new();
        let vfs = served.node("a", scheme);
        let root = vfs.root().unwrap();
        let node = file(&vfs, &root, "file", "text");
        vfs.link(&own(), &node.handle, &root, b"other").unwrap();
        vfs.remove(&own(), &root, b"other").unwrap();
        assert_eq!(text(&vfs, &node.handle), "text");
        drop(vfs);
        assert_eq!(text(&served.node("a", scheme), &node.handle), "text");
    }
}

#[test]
fn an_exclusive_create_is_known_again_on_the_other_node() {
    for &scheme in schemes() {
        let served = Served::new();
        let (a, b) = (served.node("a", scheme), served.node("b", scheme));
        let root = a.root().unwrap();
        let create = |vfs: &LocalVfs, verf| {
            vfs.create(&own(), &root, b"file", &CreateHow::Exclusive(verf)).map(|made| made.node)
        };
        let node = create(&a, *b"verifier").unwrap();
        assert_eq!(create(&b, *b"verifier").unwrap().handle, node.handle);
        assert_eq!(create(&served.node("c", scheme), *b"verifier").unwrap().handle, node.handle);
        assert_eq!(create(&b, *b"another!"), Err(NfsStat::Exist));
    }
}

#[test]
fn few_descriptors_serve_many_files() {
    for &scheme in schemes() {
        let served = Served::new();
        let options = || remoor_server::vfs::local::LocalOptions {
            max_open: std::num::NonZeroUsize::new(2),
            ..served.options("a", Some(scheme))
        };
        let vfs = LocalVfs::open(&served.dir(), &options()).unwrap();
        let mut dirs = vec![vfs.root().unwrap()];
        for depth in 0..20 {
            let dir = directory(&vfs, &dirs[depth], "dir");
            dirs.push(dir.handle);
        }
        let files: Vec<_> = dirs.iter().map(|dir| file(&vfs, dir, "file", "text")).collect();
        for vfs in [vfs, LocalVfs::open(&served.dir(), &options()).unwrap()] {
            assert!(files.iter().rev().all(|node| text(&vfs, &node.handle) == "text"));
        }
    }
}

#[test]
fn nodes_can_not_use_different_schemes() {
    if schemes().len() < 2 {
        let served = Served::new();
        let error = LocalVfs::open(&served.dir(), &served.options("a", Some(Scheme::Kernel))).unwrap_err();
        assert!(matches!(error, OpenError::Kernel { .. }), "{error}");
        return;
    }
    let served = Served::new();
    assert_eq!(served.node("a", Scheme::Fileid).scheme().0, Scheme::Fileid);
    assert_eq!(served.node("b", Scheme::Kernel).scheme().0, Scheme::Fileid, "the first node decides");
}

#[test]
fn the_state_directory_must_be_out_of_reach() {
    let served = Served::new();
    let mut options = served.options("a", None);
    options.state_dir = served.dir().join("state");
    let error = LocalVfs::open(&served.dir(), &options).unwrap_err();
    assert!(matches!(error, OpenError::StateInside { .. }), "{error}");
}

#[test]
fn nobody_else_looks_into_the_state_directory() {
    let served = Served::new();
    let vfs = served.node("a", Scheme::Fileid);
    file(&vfs, &vfs.root().unwrap(), "file", "");
    let mut pending = vec![served.options("a", None).state_dir];
    while let Some(path) = pending.pop() {
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o077, 0, "{}", path.display());
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

/// A node in a user namespace, where kernel handles are refused, serves what a node outside serves.
#[test]
fn a_user_namespace_gives_the_same_handles() {
    if let Ok(inside) = std::env::var(INSIDE) {
        return inside_user_namespace(&inside);
    }
    let served = Served::new();
    let vfs = served.node("outside", Scheme::Fileid);
    let root = vfs.root().unwrap();
    let (dir, node) = (directory(&vfs, &root, "dir"), file(&vfs, &root, "file", "text"));
    let (state, hex) = (served.options("", None).state_dir, |handle: &NodeHandle| hex(handle));
    let inside = [
        &served.dir().display().to_string(),
        &state.display().to_string(),
        &hex(&node.handle),
        &hex(&dir.handle),
    ]
    .map(String::as_str)
    .join("\n");
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "handles::a_user_namespace_gives_the_same_handles", "--nocapture"])
        .env(INSIDE, inside)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&[done.stdout, done.stderr].concat()));
    assert_eq!(text(&vfs, &node.handle), "text");
    assert_eq!(vfs.lookup(&own(), &dir.handle, b"moved inside").unwrap().handle, node.handle);
    assert!(vfs.lookup(&own(), &dir.handle, b"made inside").is_ok());
}

fn inside_user_namespace(inside: &str) {
    let parts: Vec<&str> = inside.split('\n').collect();
    let options = remoor_server::vfs::local::LocalOptions {
        state_dir: parts[1].into(),
        scheme: None,
        ..Served::new().options("inside", None)
    };
    let vfs = LocalVfs::open(parts[0].as_ref(), &options).unwrap();
    assert_eq!(vfs.scheme().0, Scheme::Fileid);
    assert!(vfs.scheme().1.contains("open files by kernel handle"), "{}", vfs.scheme().1);
    assert!(vfs.is_single_user());
    let root = vfs.root().unwrap();
    let (node, dir) = (bytes(parts[2]), bytes(parts[3]));
    assert_eq!(text(&vfs, &node), "text");
    assert_eq!(vfs.lookup(&own(), &root, b"file").unwrap().handle, node);
    vfs.rename(&own(), (&root, b"file"), (&dir, b"moved inside")).unwrap();
    file(&vfs, &dir, "made inside", "");
}

fn hex(handle: &NodeHandle) -> String {
    handle.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> NodeHandle {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect::<Vec<_>>()
        .into()
}
