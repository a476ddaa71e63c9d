//! Two nodes that export the same directory, and one that starts again.

use std::path::Path;

use remoor_nfs::v3::{self, FileHandle};
use remoor_server::exports::Exports;
use remoor_server::{Running, Server};
use tempfile::TempDir;

use crate::client::{Client, place};

/// A directory `export` to serve and one, `state`, that the nodes share.
fn shared() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let export = dir.path().canonicalize().unwrap().join("export");
    std::fs::create_dir(&export).unwrap();
    let path = export.to_str().unwrap().to_owned();
    (dir, path)
}

fn node(name: &str, dir: &Path, export: &str) -> Running {
    let exports = Exports::from_args([format!("{export}:rw,insecure,no_root_squash")]).unwrap();
    let builder = Server::builder().exports(exports).node_name(name).state_dir(dir.join("state"));
    builder.listen("127.0.0.1:0".parse().unwrap()).start().unwrap()
}

fn read(client: &mut Client, file: &FileHandle) -> v3::ReadOk {
    let args = v3::ReadArgs { file: file.clone(), offset: 0, count: 100 };
    client.call::<v3::Read>(&args).into_result().unwrap()
}

#[test]
fn a_handle_from_one_node_is_good_on_the_other() {
    let (dir, export) = shared();
    let (a, b) = (node("a", dir.path(), &export), node("b", dir.path(), &export));
    let (mut on_a, mut on_b) = (Client::connect(&a), Client::connect(&b));
    let root = on_a.mount(&export).unwrap();
    assert_eq!(on_b.mount(&export).unwrap(), root);
    let file = on_a.create(&root, "file");
    let verf = on_a.write_at(&file, 0, b"written on a").verf;
    assert_eq!(&read(&mut on_b, &file).data.0[..], b"written on a");
    let (attr_a, attr_b) = (on_a.getattr(&file).unwrap(), on_b.getattr(&file).unwrap());
    assert_eq!((attr_a.fsid, attr_a.fileid), (attr_b.fsid, attr_b.fileid));
    assert_ne!(on_b.write_at(&file, 0, b"written on b").verf, verf, "unstable data of a is not b's");
    let rename = v3::RenameArgs { from: place(&root, "file"), to: place(&root, "renamed") };
    on_b.call::<v3::Rename>(&rename).into_result().unwrap();
    assert_eq!(&read(&mut on_a, &file).data.0[..], b"written on b", "a handle is not a name");
}

#[test]
fn handles_outlive_the_server() {
    let (dir, export) = shared();
    let first = node("a", dir.path(), &export);
    let mut client = Client::connect(&first);
    let root = client.mount(&export).unwrap();
    let file = client.create(&root, "file");
    let verf = client.write_at(&file, 0, b"before").verf;
    assert!(first.stop());
    let second = node("a", dir.path(), &export);
    let mut client = Client::connect(&second);
    assert_eq!(&read(&mut client, &file).data.0[..], b"before");
    assert_ne!(client.write_at(&file, 0, b"after").verf, verf);
}

#[test]
fn a_link_out_of_the_export_leads_nowhere() {
    let (dir, export) = shared();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(dir.path(), Path::new(&export).join("out")).unwrap();
    let server = node("a", dir.path(), &export);
    let mut client = Client::connect(&server);
    let root = client.mount(&export).unwrap();
    let link = client.lookup(&root, "out").unwrap();
    assert_eq!(link.attr.unwrap().kind, v3::FileType::Symlink);
    assert_eq!(client.lookup(&link.file, "secret").unwrap_err(), v3::NfsStat::NotDir);
    assert_eq!(client.lookup(&root, "..").unwrap().file, root);
    assert!(client.mount(&format!("{export}/out")).is_err());
    assert!(client.mount(&format!("{export}/../secret")).is_err());
}
