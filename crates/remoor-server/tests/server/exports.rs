//! Who may mount what, and as whom; the MOUNT program; what keeps a server from starting.

use remoor_nfs::mnt::{self, MountStat};
use remoor_nfs::v3::{self, NfsStat};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_server::exports::Exports;
use remoor_server::{Server, StartError};

use crate::client::{Client, builder, memory, place, serve};

fn mkdir(client: &mut Client, dir: &v3::FileHandle, name: &str) -> v3::Res<v3::CreateOk, v3::WccData> {
    let attr = v3::Sattr { mode: Some(0o755), ..Default::default() };
    client.call::<v3::Mkdir>(&v3::MkdirArgs { place: place(dir, name), attr })
}

#[test]
fn mount_finds_the_closest_export_and_directories_below() {
    let server =
        serve("/x *(rw,insecure,no_root_squash,no_subtree_check)\n/x/y *(insecure,no_subtree_check)");
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    let sub = mkdir(&mut client, &root, "sub").into_result().unwrap().file.unwrap();
    client.create(&root, "file");
    assert_eq!(client.mount("/x/sub"), Ok(sub));
    assert_ne!(client.mount("/x/y").unwrap(), root);
    assert_eq!(client.mount("/x/none"), Err(MountStat::NoEnt));
    assert_eq!(client.mount("/x/file"), Err(MountStat::NotDir));
    assert_eq!(client.mount("/x/../etc"), Err(MountStat::Acces));
    assert_eq!(client.mount("/xy"), Err(MountStat::Acces));
    assert_eq!(client.mount(""), Err(MountStat::Acces));
    assert_eq!(client.mount(&format!("/x/{}", "n".repeat(256))), Err(MountStat::NameTooLong));
}

#[test]
fn mounts_are_listed_until_unmounted() {
    let server = serve("/x *(insecure,no_subtree_check)\n/z 127.0.0.0/8(insecure,no_subtree_check) ::1(ro)");
    let mut client = Client::connect(&server);
    let ok = client.call::<mnt::Mnt>(&"/x".into()).0.unwrap();
    assert_eq!(ok.flavors.0, [1], "AUTH_SYS");
    client.mount("/z").unwrap();
    client.mount("/z").unwrap();
    let mut listed = || {
        let entries = client.call::<mnt::Dump>(&()).0;
        let text = |e: mnt::MountEntry| format!("{:?}:{:?}", e.host.0, e.directory.0);
        entries.into_iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(listed(), ["b\"127.0.0.1\":b\"/x\"", "b\"127.0.0.1\":b\"/z\""]);
    let mut other = Client::connect(&server);
    other.call::<mnt::Umnt>(&"/x".into());
    assert_eq!(listed(), ["b\"127.0.0.1\":b\"/z\""]);
    other.call::<mnt::UmntAll>(&());
    assert_eq!(listed(), [""; 0]);
    let exports = other.call::<mnt::Export>(&()).0;
    let text: Vec<_> = exports.iter().map(|e| (&e.directory.0[..], e.groups.0.len())).collect();
    assert_eq!(text, [(&b"/x"[..], 0), (b"/z", 2)], "no groups means everybody");
}

#[test]
fn an_export_for_others_gives_nothing_away() {
    let server = serve("/x 192.0.2.1(rw,insecure,no_subtree_check)\n/y *(insecure,no_subtree_check)");
    let mut client = Client::connect(&server);
    assert_eq!(client.mount("/x"), Err(MountStat::Acces));
    assert_eq!(client.mount("/x/none"), Err(MountStat::Acces));
    let forged = v3::FileHandle::from("made up");
    assert_eq!(client.getattr(&forged), Err(NfsStat::BadHandle));
    let elsewhere = memory();
    let foreign = Client::connect(&elsewhere).mount("/x").unwrap();
    assert_eq!(client.getattr(&foreign), Err(NfsStat::BadHandle), "signed with another key");
}

#[test]
fn a_handle_of_an_export_that_is_not_for_this_client_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    let before = builder("/x *(insecure,no_subtree_check)").state_dir(dir.path()).start().unwrap();
    let root = Client::connect(&before).mount("/x").unwrap();
    let same = builder("/x *(insecure,no_subtree_check)").state_dir(dir.path()).start().unwrap();
    assert!(Client::connect(&same).getattr(&root).is_ok(), "the key and the identity are those of before");
    assert_ne!(before.write_verf(), same.write_verf());
    let after = builder("/x 192.0.2.1(insecure,no_subtree_check)").state_dir(dir.path()).start().unwrap();
    assert_eq!(Client::connect(&after).getattr(&root), Err(NfsStat::Stale));
    let gone = builder("/z *(insecure,no_subtree_check)").state_dir(dir.path()).start().unwrap();
    assert_eq!(Client::connect(&gone).getattr(&root), Err(NfsStat::Stale));
}

#[test]
fn a_read_only_export_changes_nothing() {
    let server = serve("/x *(ro,insecure,no_root_squash,no_subtree_check)");
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    assert_eq!(mkdir(&mut client, &root, "d").status(), NfsStat::RoFs);
    assert_eq!(client.call::<v3::Remove>(&place(&root, "d")).status(), NfsStat::RoFs);
    let args = v3::SetattrArgs { file: root.clone(), attr: v3::Sattr::default(), guard: None };
    assert_eq!(client.call::<v3::Setattr>(&args).status(), NfsStat::RoFs);
    let all = v3::AccessArgs { file: root, access: 0x3f };
    let granted = client.call::<v3::Access>(&all).into_result().unwrap().access;
    assert_eq!(granted & 0x1c, 0, "MODIFY, EXTEND and DELETE are not granted");
    assert_ne!(granted, 0);
}

#[test]
fn root_is_squashed_unless_told_otherwise() {
    let server =
        serve("/x *(rw,insecure,no_subtree_check,anonuid=77)\n/a *(rw,insecure,all_squash,no_subtree_check)");
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    assert_eq!(mkdir(&mut client, &root, "d").status(), NfsStat::Acces, "the directory is root's, mode 0755");
    client.credential = OpaqueAuth::sys(&AuthSys::new("client", 1000, 1000));
    let all = client.mount("/a").unwrap();
    assert_eq!(mkdir(&mut client, &all, "d").status(), NfsStat::Acces);
    client.credential = OpaqueAuth::none();
    assert!(client.getattr(&root).is_ok(), "AUTH_NONE is the anonymous user");
}

#[test]
fn users_and_groups_of_a_list_are_squashed() {
    let server = serve("/x *(rw,insecure,no_root_squash,no_subtree_check,squash_uids=1000-1001,anonuid=0)");
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    client.credential = OpaqueAuth::sys(&AuthSys::new("client", 1002, 1000));
    assert_eq!(mkdir(&mut client, &root, "d").status(), NfsStat::Acces, "the directory is root's, mode 0755");
    client.credential = OpaqueAuth::sys(&AuthSys::new("client", 1001, 1000));
    assert_eq!(mkdir(&mut client, &root, "d").status(), NfsStat::Ok, "who is anonymous is root here");
}

#[test]
fn readdirplus_is_refused_where_the_export_says_so() {
    let server = serve("/x *(insecure,no_subtree_check,nordirplus)\n/y *(insecure,no_subtree_check)");
    let mut client = Client::connect(&server);
    let mut status = |path: &str| {
        let dir = client.mount(path).unwrap();
        let args = v3::ReaddirplusArgs { dir, cookie: 0, verf: [0; 8], dir_count: 4096, max_count: 8192 };
        client.call::<v3::Readdirplus>(&args).status()
    };
    assert_eq!((status("/x"), status("/y")), (NfsStat::NotSupp, NfsStat::Ok));
}

#[test]
fn clients_are_recognised_by_name() {
    let server = serve("/x localhost(insecure,no_subtree_check)\n/y localhos[t](insecure,no_subtree_check)");
    let mut client = Client::connect(&server);
    for path in ["/x", "/y"] {
        let root = std::iter::repeat_with(|| client.mount(path)).take(100).find_map(Result::ok).unwrap();
        assert!(client.getattr(&root).is_ok(), "{path}");
    }
}

#[test]
fn what_must_be_mounted_and_is_not_is_not_exported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let text = format!("{} *(insecure,no_subtree_check,mp)\nmemory:/y *(insecure,mp=/proc)", path.display());
    let state = tempfile::tempdir().unwrap();
    let server = builder(&text).state_dir(state.path()).start().unwrap();
    let mut client = Client::connect(&server);
    assert_eq!(client.mount(path.to_str().unwrap()), Err(MountStat::Acces));
    assert!(client.mount("/y").is_ok());
}

#[test]
fn the_identity_is_told_as_fsid() {
    let server = serve("/x *(insecure,fsid=17,no_subtree_check)\n/y *(insecure,no_subtree_check)");
    let mut client = Client::connect(&server);
    let (x, y) = (client.mount("/x").unwrap(), client.mount("/y").unwrap());
    let fsid = client.getattr(&x).unwrap().fsid;
    assert_eq!(fsid, 17);
    assert_ne!(client.getattr(&y).unwrap().fsid, fsid);
    let rename = v3::RenameArgs { from: place(&x, "a"), to: place(&y, "b") };
    assert_eq!(client.call::<v3::Rename>(&rename).status(), NfsStat::RoFs);
}

#[test]
fn what_cannot_be_served_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let error = |args: &[&str]| {
        let builder = Server::builder().exports(Exports::from_args(args).unwrap());
        builder.state_dir(dir.path().join("state")).start().unwrap_err()
    };
    let path = dir.path().to_str().unwrap();
    assert!(matches!(error(&[]), StartError::NoExports));
    let text = error(&[&format!("{path}/none")]).to_string();
    assert!(
        text.starts_with("export \"") && text.contains("none\"") && text.contains("No such file"),
        "{text}"
    );
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(error(&[&format!("{path}/file")]).to_string().ends_with("not a directory"));
    let text = error(&["memory:/a:fsid=1", "memory:/b:fsid=1"]).to_string();
    assert_eq!(text, "\"/a\" and \"/b\" have the same identity 0x1; give one of them another fsid=");
    let local = Server::builder().exports(Exports::from_args([path]).unwrap()).start().unwrap_err();
    assert!(matches!(local, StartError::NoStateDir));
}

#[test]
fn a_node_is_named_like_a_file() {
    let start = |name: &str| crate::client::builder("/x *(ro,no_subtree_check)").node_name(name).start();
    for name in ["a", "node-1.example_org", "", &"n".repeat(64)] {
        assert!(start(name).is_ok(), "{name}");
    }
    for name in ["a/b", "..", ".hidden", "a b", "n\n", &"n".repeat(65)] {
        let error = start(name).unwrap_err().to_string();
        assert!(error.starts_with(&format!("node name {name:?}: use letters")), "{error}");
    }
}
