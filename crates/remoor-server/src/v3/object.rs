//! The object a handle names, for one caller: what nearly every procedure begins with.

use std::sync::atomic::Ordering::Relaxed;

use remoor_nfs::v3::{Fattr, FileHandle, NfsStat, PostOpAttr, Res, WccData, WriteVerf};

use crate::exports::Options;
use crate::names::Pending;
use crate::service::Request;
use crate::table::ServedExport;
use crate::vfs::{Caller, Made, NodeHandle, Vfs};

/// An object in an export, on behalf of a caller.
pub(super) struct Object<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) export: &'a ServedExport,
    pub(super) options: &'a Options,
    pub(super) caller: Caller,
    pub(super) node: NodeHandle,
}

impl<'a> Object<'a> {
    /// Checks in the order of knfsd's `fh_verify`: a handle that is not ours is NFS3ERR_BADHANDLE, one of an export
    /// that is gone or not for this client NFS3ERR_STALE, a port that `secure` refuses NFS3ERR_PERM. NFS3ERR_JUKEBOX while
    /// the name service does not tell who the client or its user is.
    pub(super) fn open(request: &'a Request<'a>, file: &FileHandle) -> Result<Self, NfsStat> {
        let (id, node) = request.state.signer.open(file).map_err(|_| NfsStat::BadHandle)?;
        let export = request.table.by_id(id).ok_or(NfsStat::Stale)?;
        let options = export.options_for(request.peer.ip(), request.state.names);
        let options = options.map_err(|Pending| NfsStat::Jukebox)?.ok_or(NfsStat::Stale)?;
        if !request.state.may_use_port(request.peer, export, options) {
            return Err(NfsStat::Perm);
        }
        export.watch.calls.fetch_add(1, Relaxed);
        let caller = squash(request, options)?;
        Ok(Self { request, export, options, caller, node })
    }

    /// As [`Object::open`], for a procedure that changes something.
    pub(super) fn open_writable(request: &'a Request<'a>, file: &FileHandle) -> Result<Self, NfsStat> {
        let object = Self::open(request, file)?;
        if object.options.read_only { Err(NfsStat::RoFs) } else { Ok(object) }
    }

    /// Another object of the same procedure, which must be in the same export.
    pub(super) fn with(&self, file: &FileHandle) -> Result<NodeHandle, NfsStat> {
        let (id, node) = self.request.state.signer.open(file).map_err(|_| NfsStat::BadHandle)?;
        if id == self.export.id { Ok(node) } else { Err(NfsStat::XDev) }
    }

    pub(super) fn vfs(&self) -> &dyn Vfs {
        &*self.export.vfs
    }

    /// The object's attributes.
    pub(super) fn getattr(&self) -> Result<Fattr, NfsStat> {
        self.vfs().getattr(&self.caller, &self.node).map(|attr| self.of_export(attr))
    }

    /// The object's attributes after an operation.
    pub(super) fn post_op(&self) -> PostOpAttr {
        self.getattr().ok()
    }

    /// Another object's attributes after an operation.
    pub(super) fn post_op_of(&self, node: &NodeHandle) -> PostOpAttr {
        self.vfs().getattr(&self.caller, node).ok().map(|attr| self.of_export(attr))
    }

    /// What an operation told of an object that it changed.
    pub(super) fn changed(&self, wcc: WccData) -> WccData {
        WccData { after: wcc.after.map(|attr| self.of_export(attr)), ..wcc }
    }

    /// The verifier of what is written in this epoch of the vfs (RFC 1813 section 3.3.7).
    pub(super) fn write_verf(&self, epoch: u64) -> WriteVerf {
        self.export.write_verf(self.request.state.write_verf, epoch)
    }

    /// Cache consistency data of an operation that failed: the object may have been changed by others since.
    pub(super) fn wcc(&self) -> WccData {
        WccData { before: None, after: self.post_op() }
    }

    /// Attributes with the export's identity.
    pub(super) fn of_export(&self, attr: Fattr) -> Fattr {
        Fattr { fsid: self.export.id, ..attr }
    }

    /// The handle that clients see.
    pub(super) fn seal(&self, node: &NodeHandle) -> Result<FileHandle, NfsStat> {
        self.request.state.signer.seal(self.export.id, node).map_err(|_| NfsStat::ServerFault)
    }

    /// What CREATE, MKDIR, SYMLINK and MKNOD tell of a new object.
    pub(super) fn created(&self, made: Made) -> Result<remoor_nfs::v3::CreateOk, NfsStat> {
        let file = Some(self.seal(&made.node.handle)?);
        let attr = Some(self.of_export(made.node.attr));
        Ok(remoor_nfs::v3::CreateOk { file, attr, dir_wcc: self.changed(made.dir) })
    }
}

/// `root_squash` and `all_squash`, as knfsd's `nfsd_setuser`: group 0 is squashed among the others, too.
fn squash(request: &Request<'_>, options: &Options) -> Result<Caller, NfsStat> {
    let anonymous = || Caller { uid: options.anonuid, gid: options.anongid, gids: Vec::new() };
    let Some(sys) = request.credential.as_ref().filter(|_| !options.all_squash) else {
        return Ok(anonymous());
    };
    let gid = |gid| if options.squashes_gid(gid) { options.anongid } else { gid };
    let uid = if options.squashes_uid(sys.uid) { options.anonuid } else { sys.uid };
    // By the user whom the client names; the first group stays the client's word, and so do all of a user that the server
    // does not know (`svcauth_unix_set_client`).
    let managed = request.state.groups.as_ref().map_or(Ok(None), |groups| groups.groups_of(sys.uid));
    let managed = managed.map_err(|Pending| NfsStat::Jukebox)?;
    let gids = managed.as_deref().unwrap_or(&sys.gids.0).iter().copied().map(gid).collect();
    Ok(Caller { uid, gid: gid(sys.gid), gids })
}

/// A result that on failure tells `F` of the object, if there is one.
pub(super) fn answer<'a, T, F: Default>(
    object: Result<Object<'a>, NfsStat>,
    run: impl FnOnce(&Object<'a>) -> Result<T, NfsStat>,
    failed: impl FnOnce(&Object<'a>) -> F,
) -> Res<T, F> {
    match object {
        Err(status) => Res::Fail(status, F::default()),
        Ok(object) => run(&object).map_or_else(|status| Res::Fail(status, failed(&object)), Res::Ok),
    }
}

#[cfg(test)]
mod tests {
    use remoor_rpc::auth::AuthSys;

    use super::*;
    use crate::state::State;
    use crate::table::Table;

    fn squashed(credential: Option<(u32, u32, Vec<u32>)>, options: &Options) -> Caller {
        let state = State::new(Vec::new(), crate::handle::Signer::new([0; 32]), [0; 8]);
        let credential = credential.map(|(uid, gid, gids)| {
            let mut sys = AuthSys::new("client", uid, gid);
            sys.gids.0 = gids;
            sys
        });
        let peer = "127.0.0.1:1".parse().unwrap();
        squash(&Request { state: &state, table: &Table::default(), peer, credential }, options).unwrap()
    }

    #[test]
    fn groups_are_the_servers_if_it_manages_them() {
        struct Known;
        impl crate::state::UserGroups for Known {
            fn groups_of(&self, uid: u32) -> Result<Option<std::sync::Arc<[u32]>>, Pending> {
                if uid == 8 { Err(Pending) } else { Ok((uid == 5).then(|| [0, 70].into())) }
            }
        }
        let mut state = State::new(Vec::new(), crate::handle::Signer::new([0; 32]), [0; 8]);
        state.groups = Some(Box::new(Known));
        let options = Options::default();
        let caller = |uid| {
            let mut sys = AuthSys::new("client", uid, 6);
            sys.gids.0 = vec![4];
            let peer = "127.0.0.1:1".parse().unwrap();
            let request = Request { state: &state, table: &Table::default(), peer, credential: Some(sys) };
            squash(&request, &options)
        };
        assert_eq!(caller(5), Ok(Caller { uid: 5, gid: 6, gids: vec![options.anongid, 70] }));
        assert_eq!(caller(8), Err(NfsStat::Jukebox));
        assert_eq!(
            caller(7),
            Ok(Caller { uid: 7, gid: 6, gids: vec![4] }),
            "a user that the server does not know"
        );
    }

    #[test]
    fn who_the_caller_becomes() {
        let options = Options { anonuid: 7, anongid: 8, ..Options::default() };
        let anonymous = Caller { uid: 7, gid: 8, gids: vec![] };
        let caller = |uid, gid, gids| Caller { uid, gid, gids };
        assert_eq!(squashed(None, &options), anonymous);
        assert_eq!(squashed(Some((0, 0, vec![0, 4])), &options), caller(7, 8, vec![8, 4]));
        assert_eq!(squashed(Some((5, 0, vec![])), &options), caller(5, 8, vec![]));
        assert_eq!(squashed(Some((5, 6, vec![4])), &options), caller(5, 6, vec![4]));
        let no_root = Options { root_squash: false, ..options.clone() };
        assert_eq!(squashed(Some((0, 0, vec![0])), &no_root), caller(0, 0, vec![0]));
        let all = Options { all_squash: true, root_squash: false, ..options };
        assert_eq!(squashed(Some((5, 6, vec![4])), &all), anonymous);
    }
}
