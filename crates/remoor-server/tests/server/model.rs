//! The same random calls to a server of a directory and to one of the model in memory: every reply and the final tree
//! are the same, as far as two file systems can agree.

use proptest::collection::vec;
use proptest::prelude::*;
use remoor_nfs::v3::*;
use remoor_rpc::Bytes;
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::program::Procedure;
use remoor_server::exports::Exports;
use remoor_server::{Running, Server};
use rustix::process::geteuid;

use crate::client::{Client, serve, skip};
use crate::ops::{Attributes, NAMES, Op, Pick, op};

/// What a reply tells, without what two file systems name differently: numbers, handles, times.
#[derive(Debug, PartialEq)]
struct Told {
    status: NfsStat,
    /// Attributes in the order of the reply. Those from before a change depend on who else was at work.
    attributes: Vec<Option<Attributes>>,
    rest: Rest,
}

#[derive(Debug, PartialEq, Default)]
enum Rest {
    #[default]
    Nothing,
    Bits(u32),
    Data(Bytes, bool),
    Names(Vec<Bytes>),
    Written(u32),
}

/// A client of one of the two servers, with the objects it was shown; both were shown as many.
struct Side {
    client: Client,
    seen: Vec<FileHandle>,
}

fn told(status: NfsStat, attributes: impl IntoIterator<Item = PostOpAttr>, rest: Rest) -> Told {
    let attributes = attributes.into_iter().map(|attr| attr.as_ref().map(Attributes::from)).collect();
    Told { status, attributes, rest }
}

impl Side {
    fn new(server: &Running, path: &str) -> Self {
        let mut client = Client::connect(server);
        let root = client.mount(path).unwrap();
        let open = Sattr { mode: Some(0o777), ..Sattr::default() };
        let args = SetattrArgs { file: root.clone(), attr: open, guard: None };
        client.call::<Setattr>(&args).into_result().unwrap();
        Self { client, seen: vec![root] }
    }

    fn object(&self, pick: Pick) -> FileHandle {
        self.seen[pick % self.seen.len()].clone()
    }

    fn place(&self, dir: Pick, name: Pick) -> DirOp {
        DirOp { dir: self.object(dir), name: Bytes::from_static(NAMES[name % NAMES.len()]).into() }
    }

    fn made<P: Procedure<Res = Res<CreateOk, WccData>>>(&mut self, args: &P::Args) -> Told {
        match self.client.call::<P>(args) {
            Res::Ok(ok) => {
                self.seen.extend(ok.file);
                told(NfsStat::Ok, [ok.attr, ok.dir_wcc.after], Rest::Nothing)
            }
            Res::Fail(status, wcc) => told(status, [wcc.after], Rest::Nothing),
        }
    }

    fn changed<P: Procedure<Res = Res<WccData, WccData>>>(&mut self, args: &P::Args) -> Told {
        let res = self.client.call::<P>(args);
        let status = res.status();
        let (Res::Ok(wcc) | Res::Fail(_, wcc)) = res;
        told(status, [wcc.after], Rest::Nothing)
    }

    /// A procedure whose failure tells the object's attributes.
    fn asked<P, T>(&mut self, args: &P::Args, ok: impl FnOnce(T) -> (PostOpAttr, Rest)) -> Told
    where
        P: Procedure<Res = Res<T, PostOpAttr>>,
    {
        match self.client.call::<P>(args) {
            Res::Ok(value) => {
                let (attr, rest) = ok(value);
                told(NfsStat::Ok, [attr], rest)
            }
            Res::Fail(status, attr) => told(status, [attr], Rest::Nothing),
        }
    }

    fn run(&mut self, op: &Op) -> Told {
        match op {
            Op::Lookup(dir, name) => self.look_up(&self.place(*dir, *name)),
            Op::Create(dir, name, how) => {
                self.made::<Create>(&CreateArgs { place: self.place(*dir, *name), how: how.clone() })
            }
            Op::Mkdir(dir, name, attr) => {
                self.made::<Mkdir>(&MkdirArgs { place: self.place(*dir, *name), attr: attr.clone() })
            }
            Op::Symlink(dir, name) => {
                let path = Bytes::from_static(b"some/where").into();
                let (place, attr) = (self.place(*dir, *name), Sattr::default());
                self.made::<Symlink>(&SymlinkArgs { place, attr, path })
            }
            Op::Mknod(dir, name, what) => {
                self.made::<Mknod>(&MknodArgs { place: self.place(*dir, *name), what: what.clone() })
            }
            Op::Remove(dir, name) => self.changed::<Remove>(&self.place(*dir, *name)),
            Op::Rmdir(dir, name) => self.changed::<Rmdir>(&self.place(*dir, *name)),
            Op::Rename(from, to) => self.rename(self.place(from.0, from.1), self.place(to.0, to.1)),
            Op::Link(node, to) => self.link(self.object(*node), self.place(to.0, to.1)),
            Op::Setattr(node, attr) => {
                let args = SetattrArgs { file: self.object(*node), attr: attr.clone(), guard: None };
                self.changed::<Setattr>(&args)
            }
            Op::Write(node, at, data) => self.write(self.object(*node), *at, data),
            Op::Read(node, offset, count) => {
                let args = ReadArgs { file: self.object(*node), offset: *offset, count: *count };
                self.asked::<Read, _>(&args, |ok| (ok.attr, Rest::Data(ok.data.0, ok.eof)))
            }
            Op::Access(node, access) => {
                let args = AccessArgs { file: self.object(*node), access: *access };
                self.asked::<Access, _>(&args, |ok| (ok.attr, Rest::Bits(ok.access)))
            }
            Op::Readlink(node) => self.asked::<Readlink, _>(&OnFile { file: self.object(*node) }, |ok| {
                (ok.attr, Rest::Data(ok.path.0, true))
            }),
            Op::Readdir(node) => self.list(self.object(*node)),
            Op::Commit(node) => self.commit(self.object(*node)),
        }
    }

    fn look_up(&mut self, place: &DirOp) -> Told {
        match self.client.call::<Lookup>(place) {
            Res::Ok(ok) => {
                self.seen.push(ok.file);
                told(NfsStat::Ok, [ok.attr, ok.dir_attr], Rest::Nothing)
            }
            Res::Fail(status, dir) => told(status, [dir], Rest::Nothing),
        }
    }

    fn rename(&mut self, from: DirOp, to: DirOp) -> Told {
        let res = self.client.call::<Rename>(&RenameArgs { from, to });
        let status = res.status();
        let (Res::Ok(wcc) | Res::Fail(_, wcc)) = res;
        told(status, [wcc.from.after, wcc.to.after], Rest::Nothing)
    }

    fn link(&mut self, file: FileHandle, to: DirOp) -> Told {
        let res = self.client.call::<Link>(&LinkArgs { file, to });
        let status = res.status();
        let (Res::Ok(wcc) | Res::Fail(_, wcc)) = res;
        told(status, [wcc.attr, wcc.dir_wcc.after], Rest::Nothing)
    }

    fn write(&mut self, file: FileHandle, offset: u64, data: &[u8]) -> Told {
        let (count, stable) = (data.len() as u32, StableHow::Unstable);
        let data = Bytes::copy_from_slice(data).into();
        match self.client.call::<Write>(&WriteArgs { file, offset, count, stable, data }) {
            Res::Ok(ok) => told(NfsStat::Ok, [ok.wcc.after], Rest::Written(ok.count)),
            Res::Fail(status, wcc) => told(status, [wcc.after], Rest::Nothing),
        }
    }

    fn commit(&mut self, file: FileHandle) -> Told {
        match self.client.call::<Commit>(&CommitArgs { file, offset: 0, count: 0 }) {
            Res::Ok(ok) => told(NfsStat::Ok, [ok.wcc.after], Rest::Nothing),
            Res::Fail(status, wcc) => told(status, [wcc.after], Rest::Nothing),
        }
    }

    /// By READDIRPLUS in small replies, so that cookies matter.
    fn list(&mut self, dir: FileHandle) -> Told {
        let (mut names, mut cookie, mut verf) = (Vec::new(), 0, [0; 8]);
        loop {
            let args = ReaddirplusArgs { dir: dir.clone(), cookie, verf, dir_count: 512, max_count: 1024 };
            match self.client.call::<Readdirplus>(&args) {
                Res::Fail(status, attr) => return told(status, [attr], Rest::Nothing),
                Res::Ok(ok) => {
                    names.extend(ok.entries.0.iter().map(|entry| entry.name.0.clone()));
                    (cookie, verf) = (ok.entries.0.last().map_or(cookie, |entry| entry.cookie), ok.verf);
                    if ok.eof {
                        names.sort();
                        return told(NfsStat::Ok, [ok.dir_attr], Rest::Names(names));
                    }
                    assert!(!ok.entries.0.is_empty(), "a reply neither goes on nor ends");
                }
            }
        }
    }

    /// Attributes of everything seen, which tells what became stale.
    fn objects(&mut self) -> Vec<Result<Attributes, NfsStat>> {
        let seen = self.seen.clone();
        seen.iter().map(|file| self.client.getattr(file).map(|attr| (&attr).into())).collect()
    }

    /// Paths with attributes and contents.
    fn tree(&mut self, dir: FileHandle, path: &str, out: &mut Vec<(String, Attributes, Option<Told>)>) {
        let Rest::Names(names) = self.list(dir.clone()).rest else { panic!("{path} cannot be listed") };
        for name in names.into_iter().filter(|name| !matches!(&name[..], b"." | b"..")) {
            let place = DirOp { dir: dir.clone(), name: name.clone().into() };
            let found = self.client.call::<Lookup>(&place).into_result().unwrap();
            let (path, attr) = (format!("{path}/{}", name.escape_ascii()), found.attr.unwrap());
            let file = found.file.clone();
            let data = (attr.kind == FileType::Regular).then(|| {
                let args = ReadArgs { file, offset: 0, count: 1 << 20 };
                self.asked::<Read, _>(&args, |ok| (ok.attr, Rest::Data(ok.data.0, ok.eof)))
            });
            out.push((path.clone(), (&attr).into(), data));
            if attr.kind == FileType::Directory {
                self.tree(found.file, &path, out);
            }
        }
    }

    fn become_user(&mut self, (uid, gids): (u32, &[u32])) {
        let mut sys = AuthSys::new("client", uid, uid);
        sys.gids.0 = gids.to_vec();
        self.client.credential = OpaqueAuth::sys(&sys);
    }
}

const OPTIONS: &str = "rw,insecure,no_root_squash,no_subtree_check";
const USERS: [(u32, &[u32]); 3] = [(0, &[]), (1000, &[]), (1001, &[1000])];

/// A server of a new directory.
fn directory() -> (Running, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let export = place.path().join("export");
    std::fs::create_dir(&export).unwrap();
    let exports = Exports::from_args([format!("{}:{OPTIONS}", export.display())]).unwrap();
    let server = Server::builder().exports(exports).state_dir(place.path().join("state"));
    (server.listen("127.0.0.1:0".parse().unwrap()).start().unwrap(), place)
}

fn compare(ops: &[(Pick, Op)]) {
    let ((local, place), memory) = (directory(), serve(&format!("/x *({OPTIONS})")));
    let path = place.path().join("export");
    let mut sides = [Side::new(&local, path.to_str().unwrap()), Side::new(&memory, "/x")];
    for (n, (user, op)) in ops.iter().enumerate() {
        let user = USERS[user % USERS.len()];
        sides.iter_mut().for_each(|side| side.become_user(user));
        let [local, memory] = sides.each_mut().map(|side| side.run(op));
        assert_eq!(local, memory, "call {n} by {user:?}: {op:?}");
        let [local, memory] = sides.each_mut().map(Side::objects);
        assert_eq!(local, memory, "objects after call {n} by {user:?}: {op:?}");
    }
    let [local, memory] = sides.each_mut().map(|side| {
        let mut out = Vec::new();
        side.become_user(USERS[0]);
        side.tree(side.seen[0].clone(), "", &mut out);
        out
    });
    assert_eq!(local, memory);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_server_of_a_directory_answers_like_one_of_the_model(ops in vec((any::<Pick>(), op()), 1..120)) {
        if !geteuid().is_root() {
            // Every user is the server's own then, and the model would have to be told so.
            skip("the server against the model", "calls run as their callers only as root");
            return Ok(());
        }
        compare(&ops);
    }
}
