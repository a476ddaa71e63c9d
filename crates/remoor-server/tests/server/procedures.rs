//! All 22 procedures of RFC 1813, over the wire.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use remoor_nfs::v3::{self, CreateHow, FileHandle, FileType, NfsStat, Sattr, StableHow};
use remoor_rpc::Bytes;
use remoor_rpc::program::Procedure;
use remoor_rpc::xdr;
use remoor_server::exports::Exports;
use remoor_server::{Running, Server};
use tempfile::TempDir;

use crate::client::{Client, builder, memory, place, serve, skip};
use crate::fault::{Fault, LOST};

/// An empty export that everybody may change as root.
struct Served {
    client: Client,
    root: FileHandle,
    server: Running,
    _dir: Option<TempDir>,
}

impl Served {
    fn new(server: Running, path: &str, dir: Option<TempDir>) -> Self {
        let mut client = Client::connect(&server);
        let root = client.mount(path).unwrap();
        Self { client, root, server, _dir: dir }
    }

    fn in_memory() -> Self {
        Self::new(memory(), "/x", None)
    }

    fn in_a_directory() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("export");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let path = path.to_str().unwrap();
        let exports = Exports::from_args([format!("{path}:rw,insecure,no_root_squash")]).unwrap();
        let builder = Server::builder().listen("127.0.0.1:0".parse().unwrap()).exports(exports);
        let server = builder.state_dir(dir.path().join("state")).node_name("a").start().unwrap();
        Self::new(server, path, Some(dir))
    }
}

macro_rules! on_every_vfs {
    ($($test:ident)*) => {
        mod in_memory {
            $(#[test] fn $test() { super::$test(super::Served::in_memory()); })*
        }
        mod in_a_directory {
            $(#[test] fn $test() { super::$test(super::Served::in_a_directory()); })*
        }
    };
}

on_every_vfs! {
    null_and_getattr
    setattr_and_its_guard
    lookup_stays_within_the_export
    access_grants_only_what_was_asked
    symlink_and_readlink
    write_read_and_commit
    writes_that_cannot_be
    the_three_ways_to_create
    mkdir_rmdir_and_remove
    mknod_makes_pipes_sockets_and_devices
    rename_and_link
    readdir_goes_on_and_keeps_to_its_budget
    readdirplus_tells_attributes_and_handles
    fsstat_fsinfo_and_pathconf
}

fn on(file: &FileHandle) -> v3::OnFile {
    v3::OnFile { file: file.clone() }
}

fn mode(mode: u32) -> Sattr {
    Sattr { mode: Some(mode), ..Sattr::default() }
}

fn mkdir(client: &mut Client, dir: &FileHandle, name: &str) -> v3::Res<v3::CreateOk, v3::WccData> {
    client.call::<v3::Mkdir>(&v3::MkdirArgs { place: place(dir, name), attr: mode(0o755) })
}

fn create(client: &mut Client, dir: &FileHandle, name: &str, how: CreateHow) -> NfsStat {
    client.call::<v3::Create>(&v3::CreateArgs { place: place(dir, name), how }).status()
}

fn null_and_getattr(served: Served) {
    let Served { mut client, root, .. } = served;
    client.call::<v3::Null>(&());
    let attr = client.getattr(&root).unwrap();
    assert_eq!((attr.kind, attr.mode & 0o777), (FileType::Directory, 0o755));
}

fn setattr_and_its_guard(served: Served) {
    let Served { mut client, root, .. } = served;
    let file = client.create(&root, "f");
    let before = client.getattr(&file).unwrap();
    let set = |attr, guard| v3::SetattrArgs { file: file.clone(), attr, guard };
    let wcc = client.call::<v3::Setattr>(&set(mode(0o600), Some(before.ctime))).into_result().unwrap();
    let after = wcc.after.unwrap();
    assert_eq!(after.mode & 0o777, 0o600);
    assert_eq!(wcc.before, Some((&before).into()), "nobody else changed it");
    assert_eq!(after.fsid, before.fsid);
    let size = Sattr { size: Some(5), ..Sattr::default() };
    let wrong = v3::Time { seconds: 1, nanos: 1 };
    let refused = client.call::<v3::Setattr>(&set(size.clone(), Some(wrong)));
    assert_eq!(refused.status(), NfsStat::NotSync);
    assert!(matches!(refused, v3::Res::Fail(_, wcc) if wcc.after.is_some()));
    client.call::<v3::Setattr>(&set(size, None)).into_result().unwrap();
    assert_eq!(client.getattr(&file).unwrap().size, 5);
}

fn lookup_stays_within_the_export(served: Served) {
    let Served { mut client, root, .. } = served;
    let dir = mkdir(&mut client, &root, "d").into_result().unwrap().file.unwrap();
    let found = client.lookup(&root, "d").unwrap();
    assert_eq!(found.file, dir);
    assert_eq!(found.attr.unwrap().kind, FileType::Directory);
    assert!(found.dir_attr.is_some());
    assert_eq!(client.lookup(&dir, "..").unwrap().file, root);
    assert_eq!(client.lookup(&dir, ".").unwrap().file, dir);
    assert_eq!(client.lookup(&root, "..").unwrap().file, root, "no name leads out of an export");
    assert_eq!(client.lookup(&root, "none").unwrap_err(), NfsStat::NoEnt);
    assert_eq!(client.lookup(&root, "").unwrap_err(), NfsStat::Acces);
    assert_eq!(client.lookup(&root, "d/..").unwrap_err(), NfsStat::Acces);
    assert_eq!(client.lookup(&root, &"x".repeat(256)).unwrap_err(), NfsStat::NameTooLong);
    let file = client.create(&root, "f");
    assert_eq!(client.lookup(&file, "x").unwrap_err(), NfsStat::NotDir);
}

fn access_grants_only_what_was_asked(served: Served) {
    let Served { mut client, root, .. } = served;
    let args = v3::AccessArgs { file: root, access: v3::access::READ | v3::access::LOOKUP };
    let ok = client.call::<v3::Access>(&args).into_result().unwrap();
    assert_eq!(ok.access, v3::access::READ | v3::access::LOOKUP);
    assert!(ok.attr.is_some());
}

fn symlink_and_readlink(served: Served) {
    let Served { mut client, root, .. } = served;
    let path: v3::Path = "../../etc/passwd".into();
    let args = v3::SymlinkArgs { place: place(&root, "l"), attr: Sattr::default(), path: path.clone() };
    let link = client.call::<v3::Symlink>(&args).into_result().unwrap();
    assert_eq!(link.attr.unwrap().kind, FileType::Symlink);
    let read = client.call::<v3::Readlink>(&on(&link.file.unwrap())).into_result().unwrap();
    assert_eq!(read.path, path);
    let file = client.create(&root, "f");
    assert_eq!(client.call::<v3::Readlink>(&on(&file)).status(), NfsStat::Inval);
}

fn write_read_and_commit(served: Served) {
    let Served { mut client, root, server, .. } = served;
    let file = client.create(&root, "f");
    let data: Vec<u8> = (0..1 << 20).map(|n| (n % 251) as u8).collect();
    let wrote = client.write_at(&file, 3, &data);
    assert_eq!((wrote.count, wrote.committed), (1 << 20, StableHow::FileSync));
    assert_eq!(wrote.verf, server.write_verf());
    assert_eq!(wrote.wcc.after.unwrap().size, (1 << 20) + 3);
    let mut read = |offset, count| {
        let args = v3::ReadArgs { file: file.clone(), offset, count };
        client.call::<v3::Read>(&args).into_result().unwrap()
    };
    let ok = read(3, 1 << 20);
    assert!(ok.data.0 == data && ok.eof && ok.attr.is_some());
    assert_eq!(read(0, u32::MAX).count, 1 << 20, "no more than rtmax");
    assert!(!read(0, u32::MAX).eof);
    for offset in [1 << 30, i64::MAX as u64, u64::MAX] {
        assert_eq!((read(offset, 1).count, read(offset, 1).eof), (0, true));
    }
    let args = v3::CommitArgs { file: file.clone(), offset: 0, count: 0 };
    assert_eq!(client.call::<v3::Commit>(&args).into_result().unwrap().verf, wrote.verf);
    let args = v3::CommitArgs { file, offset: u64::MAX, count: 2 };
    assert_eq!(client.call::<v3::Commit>(&args).status(), NfsStat::Inval);
}

fn writes_that_cannot_be(served: Served) {
    let Served { mut client, root, .. } = served;
    let file = client.create(&root, "f");
    let write = |file: &FileHandle, offset, count| v3::WriteArgs {
        file: file.clone(),
        offset,
        count,
        stable: StableHow::Unstable,
        data: Bytes::from_static(b"four").into(),
    };
    assert_eq!(
        client.call::<v3::Write>(&write(&file, 0, 5)).status(),
        NfsStat::Inval,
        "count is not the length"
    );
    assert_eq!(client.call::<v3::Write>(&write(&file, i64::MAX as u64, 4)).status(), NfsStat::FBig);
    assert_eq!(client.call::<v3::Write>(&write(&file, u64::MAX, 4)).status(), NfsStat::FBig);
    assert_eq!(client.getattr(&file).unwrap().size, 0);
    let on_dir = client.call::<v3::Write>(&write(&root, 0, 4)).status();
    assert!(matches!(on_dir, NfsStat::IsDir | NfsStat::Inval), "{on_dir}");
}

#[test]
fn lost_data_has_another_verifier_than_its_commit() {
    let exports = "/x *(rw,insecure,no_root_squash,no_subtree_check)";
    let server = builder(exports).vfs("/x", Fault::new()).start().unwrap();
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    let file = client.create(&root, "f");
    let first = client.write_at(&file, 0, b"safe").verf;
    let commit = v3::CommitArgs { file: file.clone(), offset: 0, count: 0 };
    assert_eq!(client.call::<v3::Commit>(&commit).into_result().unwrap().verf, first);
    assert_eq!(client.write_at(&file, LOST, b"lost").verf, first, "the one from before it was lost");
    let after = client.call::<v3::Commit>(&commit).into_result().unwrap().verf;
    assert_ne!(after, first);
    assert_eq!(client.write_at(&file, 0, b"again").verf, after);
}

#[test]
fn an_async_export_says_what_it_was_asked() {
    let server = serve("/x *(rw,async,insecure,no_root_squash,no_subtree_check)");
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    let file = client.create(&root, "f");
    assert_eq!(client.write_at(&file, 0, b"x").committed, StableHow::FileSync);
    let args = v3::CommitArgs { file, offset: 0, count: 0 };
    assert_eq!(client.call::<v3::Commit>(&args).status(), NfsStat::Ok);
}

fn the_three_ways_to_create(served: Served) {
    let Served { mut client, root, .. } = served;
    assert_eq!(create(&mut client, &root, "f", CreateHow::Guarded(mode(0o644))), NfsStat::Ok);
    assert_eq!(create(&mut client, &root, "f", CreateHow::Guarded(mode(0o644))), NfsStat::Exist);
    assert_eq!(create(&mut client, &root, "f", CreateHow::Unchecked(mode(0o644))), NfsStat::Ok);
    assert_eq!(create(&mut client, &root, "f", CreateHow::Exclusive(*b"verifier")), NfsStat::Exist);
    assert_eq!(create(&mut client, &root, "e", CreateHow::Exclusive(*b"verifier")), NfsStat::Ok);
    assert_eq!(
        create(&mut client, &root, "e", CreateHow::Exclusive(*b"verifier")),
        NfsStat::Ok,
        "sent again"
    );
    assert_eq!(create(&mut client, &root, "e", CreateHow::Exclusive(*b"Verifier")), NfsStat::Exist);
    assert_eq!(create(&mut client, &root, "..", CreateHow::Guarded(mode(0o644))), NfsStat::Exist);
}

fn mkdir_rmdir_and_remove(served: Served) {
    let Served { mut client, root, .. } = served;
    let made = mkdir(&mut client, &root, "d").into_result().unwrap();
    assert!(made.dir_wcc.after.is_some());
    let dir = made.file.unwrap();
    assert_eq!(mkdir(&mut client, &root, "d").status(), NfsStat::Exist);
    assert_eq!(mkdir(&mut client, &root, ".").status(), NfsStat::Exist);
    client.create(&dir, "f");
    assert_eq!(client.call::<v3::Rmdir>(&place(&root, "d")).status(), NfsStat::NotEmpty);
    assert_eq!(client.call::<v3::Rmdir>(&place(&dir, "f")).status(), NfsStat::NotDir);
    assert_eq!(client.call::<v3::Rmdir>(&place(&dir, ".")).status(), NfsStat::Inval);
    assert_eq!(client.call::<v3::Rmdir>(&place(&dir, "..")).status(), NfsStat::Exist);
    assert_eq!(client.call::<v3::Remove>(&place(&dir, "..")).status(), NfsStat::Acces);
    assert_eq!(client.call::<v3::Remove>(&place(&dir, "f")).status(), NfsStat::Ok);
    assert_eq!(client.call::<v3::Remove>(&place(&dir, "f")).status(), NfsStat::NoEnt);
    assert_eq!(client.call::<v3::Rmdir>(&place(&root, "d")).status(), NfsStat::Ok);
    assert_eq!(client.getattr(&dir), Err(NfsStat::Stale));
}

fn mknod_makes_pipes_sockets_and_devices(served: Served) {
    let Served { mut client, root, .. } = served;
    let mut make = |name, what| {
        let made = client.call::<v3::Mknod>(&v3::MknodArgs { place: place(&root, name), what });
        made.into_result().map(|ok| ok.attr.unwrap())
    };
    assert_eq!(make("pipe", v3::MknodData::Fifo(mode(0o600))).unwrap().kind, FileType::Fifo);
    assert_eq!(make("socket", v3::MknodData::Socket(mode(0o600))).unwrap().kind, FileType::Socket);
    assert_eq!(make("file", v3::MknodData::Other(FileType::Regular)), Err(NfsStat::BadType));
    let device = v3::Device { major: 1, minor: 3 };
    let data = || v3::DeviceData { attr: mode(0o666), device };
    match make("null", v3::MknodData::Character(data())) {
        Err(NfsStat::Perm) if !rustix::process::geteuid().is_root() => {
            return skip("device nodes in a directory", "only root makes them");
        }
        made => assert_eq!(made.unwrap().rdev, device),
    }
    assert_eq!(make("block", v3::MknodData::Block(data())).unwrap().kind, FileType::Block);
}

fn rename_and_link(served: Served) {
    let Served { mut client, root, .. } = served;
    let dir = mkdir(&mut client, &root, "d").into_result().unwrap().file.unwrap();
    let file = client.create(&root, "a");
    let args = v3::RenameArgs { from: place(&root, "a"), to: place(&dir, "b") };
    let ok = client.call::<v3::Rename>(&args).into_result().unwrap();
    let (from, to) = (ok.from.after.unwrap(), ok.to.after.unwrap());
    assert_ne!(from.fileid, to.fileid);
    assert_eq!(client.lookup(&dir, "b").unwrap().file, file);
    let again = client.call::<v3::Rename>(&args);
    assert_eq!(again.status(), NfsStat::NoEnt);
    let args = v3::RenameArgs { from: place(&root, "."), to: place(&dir, "c") };
    assert_eq!(client.call::<v3::Rename>(&args).status(), NfsStat::Inval);
    let args = v3::LinkArgs { file: file.clone(), to: place(&root, "c") };
    let ok = client.call::<v3::Link>(&args).into_result().unwrap();
    assert_eq!(ok.attr.unwrap().nlink, 2);
    assert!(ok.dir_wcc.after.is_some());
    assert_eq!(client.call::<v3::Link>(&args).status(), NfsStat::Exist);
}

fn readdir(dir: &FileHandle, cookie: u64, count: u32) -> v3::ReaddirArgs {
    v3::ReaddirArgs { dir: dir.clone(), cookie, verf: [0; 8], count }
}

fn readdirplus(dir: &FileHandle, cookie: u64, dir_count: u32, max_count: u32) -> v3::ReaddirplusArgs {
    v3::ReaddirplusArgs { dir: dir.clone(), cookie, verf: [0; 8], dir_count, max_count }
}

/// Bytes of a result without its status.
fn size<P: Procedure>(result: &P::Res) -> usize {
    xdr::to_bytes(result).len() - 4
}

fn fill(client: &mut Client, root: &FileHandle) -> Vec<String> {
    let mut names: Vec<String> = (0..100).map(|n| format!("{n:0width$}", width = 3 + n % 40)).collect();
    names.iter().for_each(|name| drop(client.create(root, name)));
    names.sort();
    names
}

fn readdir_goes_on_and_keeps_to_its_budget(served: Served) {
    let Served { mut client, root, .. } = served;
    let names = fill(&mut client, &root);
    for count in [172, 200, 333, 1024, 65536, u32::MAX] {
        let (mut seen, mut cookie) = (Vec::new(), 0);
        loop {
            let result = client.call::<v3::Readdir>(&readdir(&root, cookie, count));
            assert!(size::<v3::Readdir>(&result) <= count as usize, "{count}");
            let ok = result.into_result().unwrap();
            cookie = ok.entries.0.last().map_or(cookie, |entry| entry.cookie);
            seen.extend(ok.entries.0.into_iter().map(|e| String::from_utf8(e.name.0.to_vec()).unwrap()));
            if ok.eof {
                break;
            }
        }
        seen.sort();
        assert_eq!(seen[..2], [".", ".."], "{count}");
        assert_eq!(seen[2..], names, "{count}");
    }
    for count in [0, 103, 104, 110] {
        assert_eq!(
            client.call::<v3::Readdir>(&readdir(&root, 0, count)).status(),
            NfsStat::TooSmall,
            "{count}"
        );
    }
    let wrong = v3::ReaddirArgs { verf: [1; 8], ..readdir(&root, 1, 4096) };
    assert_eq!(client.call::<v3::Readdir>(&wrong).status(), NfsStat::BadCookie);
    let file = client.lookup(&root, &names[0]).unwrap().file;
    assert_eq!(client.call::<v3::Readdir>(&readdir(&file, 0, 4096)).status(), NfsStat::NotDir);
}

fn readdirplus_tells_attributes_and_handles(served: Served) {
    let Served { mut client, root, .. } = served;
    let names = fill(&mut client, &root);
    for (dir_count, max_count) in [(65536, 400), (40, 65536), (512, 4096), (u32::MAX, u32::MAX)] {
        let (mut seen, mut cookie) = (Vec::new(), 0);
        loop {
            let args = readdirplus(&root, cookie, dir_count, max_count);
            let result = client.call::<v3::Readdirplus>(&args);
            assert!(size::<v3::Readdirplus>(&result) <= max_count as usize);
            let ok = result.into_result().unwrap();
            let names_bytes = |e: &v3::EntryPlus| 20 + e.name.0.len().next_multiple_of(4);
            let bytes: usize = ok.entries.0.iter().map(names_bytes).sum();
            assert!(bytes <= dir_count as usize || ok.entries.0.len() == 1, "{bytes} over {dir_count}");
            cookie = ok.entries.0.last().map_or(cookie, |entry| entry.cookie);
            seen.extend(ok.entries.0);
            if ok.eof {
                break;
            }
        }
        let all = seen.len();
        seen.retain(|entry| &entry.name.0[..] != b"." && &entry.name.0[..] != b"..");
        assert_eq!(all, seen.len() + 2);
        let mut got: Vec<_> = seen.iter().map(|e| String::from_utf8(e.name.0.to_vec()).unwrap()).collect();
        got.sort();
        assert_eq!(got, names);
        let entry = &seen[7];
        assert_eq!(client.getattr(entry.file.as_ref().unwrap()).as_ref(), Ok(entry.attr.as_ref().unwrap()));
        assert_eq!(entry.fileid, entry.attr.as_ref().unwrap().fileid);
    }
    let too_small = client.call::<v3::Readdirplus>(&readdirplus(&root, 0, 4096, 150));
    assert_eq!(too_small.status(), NfsStat::TooSmall);
}

fn fsstat_fsinfo_and_pathconf(served: Served) {
    let Served { mut client, root, .. } = served;
    let stat = client.call::<v3::Fsstat>(&on(&root)).into_result().unwrap();
    assert!(stat.attr.is_some() && stat.total_bytes >= stat.free_bytes && stat.total_bytes > 0);
    let info = client.call::<v3::Fsinfo>(&on(&root)).into_result().unwrap();
    assert_eq!((info.rtmax, info.wtmax), (1 << 20, 1 << 20));
    assert_eq!(info.properties, 0x1b);
    let file = client.create(&root, "largest");
    let mut grow = |size| {
        let attr = Sattr { size: Some(size), ..Sattr::default() };
        client.call::<v3::Setattr>(&v3::SetattrArgs { file: file.clone(), attr, guard: None }).status()
    };
    assert_eq!(grow(info.maxfilesize), NfsStat::Ok);
    assert_ne!(grow(info.maxfilesize + 1), NfsStat::Ok);
    let conf = client.call::<v3::Pathconf>(&on(&root)).into_result().unwrap();
    assert_eq!((conf.name_max, conf.no_trunc, conf.case_preserving), (255, true, true));
}
