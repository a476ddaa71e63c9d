//! The MOUNT program, RFC 1813 section 5. Access is decided as rpc.mountd does: a path that is not exported, not
//! exported to this client, or asked for from a port that `secure` refuses is MNT3ERR_ACCES; only a path missing
//! below an export is MNT3ERR_NOENT. While the name service does not tell who the client is: MNT3ERR_SERVERFAULT.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use remoor_nfs::mnt::{self, DirPath, ExportEntry, MountEntry, MountOk, MountRes, MountStat, Name};
use remoor_nfs::v3::{FileType, NfsStat};
use remoor_rpc::auth::Flavor;
use remoor_rpc::xdr::{Array, List, Opaque};

use crate::exports::ClientSpec;
use crate::names::Pending;
use crate::service::{Request, Row, row};
use crate::state::ANY_MOUNT;
use crate::table::ServedExport;
use crate::vfs::{Caller, NodeHandle};

/// MOUNT has no status for "later", so the client is told of a failure: it was not refused for good.
const UNDECIDED: &str =
    "the name service has not told who this client is; mount again, and see that it works";

/// The table of procedures.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        row::<mnt::Null>(|_, ()| ()),
        row::<mnt::Mnt>(|request, path| MountRes(mount(request, &path))),
        row::<mnt::Dump>(|request, ()| dump(request)),
        row::<mnt::Umnt>(|request, path| request.state.unmounted(request.peer.ip(), Some(as_path(&path)))),
        row::<mnt::UmntAll>(|request, ()| request.state.unmounted(request.peer.ip(), None)),
        row::<mnt::Export>(|request, ()| exports(request)),
    ]
}

fn as_path(path: &DirPath) -> &Path {
    Path::new(OsStr::from_bytes(&path.0))
}

fn mount(request: &Request<'_>, path: &DirPath) -> Result<MountOk, MountStat> {
    let path = as_path(path);
    let client = request.peer.ip();
    // The path is the client's word: as `Debug` it has no control characters, which could forge lines of the log.
    let refused = |why: &str, status| {
        if request.state.is_news(client, ANY_MOUNT) {
            let port = request.peer.port();
            tracing::warn!(client = %client.to_canonical(), port, ?path, "mount refused: {why}");
        }
        status
    };
    let export = request.table.above(path).ok_or_else(|| refused("no such export", MountStat::Acces))?;
    let options = export
        .options_for(client, request.state.names)
        .map_err(|Pending| refused(UNDECIDED, MountStat::ServerFault))?
        .ok_or_else(|| refused("not exported to this client", MountStat::Acces))?;
    if !request.state.may_use_port(request.peer, export, options) {
        return Err(MountStat::Acces);
    }
    let node = walk(export, path)?;
    let handle = request.state.signer.seal(export.id, &node).map_err(|_| MountStat::ServerFault)?;
    request.state.mounted(client, path);
    let port = request.peer.port();
    tracing::info!(client = %client.to_canonical(), port, ?path, %options, "mounted");
    Ok(MountOk { handle, flavors: Array(vec![Flavor::Sys.number()]) })
}

/// From the export's root down to the path, as the server itself: rpc.mountd resolves it as root, too. Symbolic
/// links are not followed, so the way never leaves the export.
fn walk(export: &ServedExport, path: &Path) -> Result<NodeHandle, MountStat> {
    let server = Caller { uid: 0, gid: 0, gids: Vec::new() };
    let mut node = export.vfs.root().map_err(stat)?;
    for component in path.strip_prefix(&export.path).map_err(|_| MountStat::Acces)?.components() {
        let Component::Normal(name) = component else { return Err(MountStat::Acces) };
        if name.len() > crate::v3::MAX_NAME {
            return Err(MountStat::NameTooLong);
        }
        let found = export.vfs.lookup(&server, &node, name.as_bytes()).map_err(stat)?;
        if found.attr.kind != FileType::Directory {
            return Err(MountStat::NotDir);
        }
        node = found.handle;
    }
    Ok(node)
}

fn stat(status: NfsStat) -> MountStat {
    match status {
        NfsStat::NoEnt => MountStat::NoEnt,
        NfsStat::NotDir => MountStat::NotDir,
        NfsStat::Acces | NfsStat::Perm => MountStat::Acces,
        NfsStat::NameTooLong => MountStat::NameTooLong,
        NfsStat::Io | NfsStat::Stale => MountStat::Io,
        _ => MountStat::ServerFault,
    }
}

fn name(text: impl ToString) -> Name {
    Name::from(text.to_string().as_str())
}

fn dir_path(path: &Path) -> DirPath {
    Opaque(bytes::Bytes::copy_from_slice(path.as_os_str().as_bytes()))
}

fn dump(request: &Request<'_>) -> List<MountEntry> {
    let entry = |(client, path): (_, std::path::PathBuf)| MountEntry {
        host: name(client),
        directory: dir_path(&path),
    };
    List(request.state.mounts().into_iter().map(entry).collect())
}

/// An empty list of groups means everybody.
fn exports(request: &Request<'_>) -> List<ExportEntry> {
    let groups = |export: &ServedExport| {
        let all = export.rules.iter().any(|rule| rule.client == ClientSpec::Any);
        let named = export.rules.iter().filter(|_| !all).map(|rule| name(&rule.client));
        List(named.collect())
    };
    let entry =
        |export: &ServedExport| ExportEntry { directory: dir_path(&export.path), groups: groups(export) };
    List(request.table.exports().iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exports::Exports;
    use crate::handle::Signer;
    use crate::names::fixed::NeverAnswers;
    use crate::state::State;
    use crate::state::tests::logged;
    use crate::vfs::memory::MemoryVfs;

    fn status(state: &State, client: &str, path: &str) -> Option<MountStat> {
        let (table, peer) = (state.table(), format!("{client}:700").parse().unwrap());
        mount(&Request { state, table: &table, peer, credential: None }, &path.into()).err()
    }

    /// A server whose name service is never done.
    fn state(text: &str) -> State {
        let exports = Exports::parse(Path::new("exports"), text.as_bytes()).unwrap().list;
        let served = exports.into_iter().map(|export| {
            ServedExport::of(export.path, 1, Arc::new(MemoryVfs::new(1 << 20, 1)), export.rules)
        });
        let mut state = State::new(served.collect(), Signer::new([0; 32]), [0; 8]);
        state.names = &NeverAnswers;
        state
    }

    #[test]
    fn a_client_whose_name_is_still_to_come_is_not_refused_for_good() {
        let state = state("/a *.example.org 192.0.2.0/24");
        let log = logged(|| {
            assert_eq!(status(&state, "198.51.100.1", "/a"), Some(MountStat::ServerFault));
            assert_eq!(status(&state, "192.0.2.1", "/a"), None);
            assert_eq!(status(&state, "192.0.2.1", "/b"), Some(MountStat::Acces));
        });
        assert!(log.contains("the name service has not told who this client is; mount again"), "{log}");
        assert!(!log.contains("not exported to this client"), "{log}");
    }

    #[test]
    fn a_path_forges_no_line_of_the_log() {
        let state = state("/a 192.0.2.0/24");
        let log = logged(|| {
            status(&state, "192.0.2.1", "/b\n2026-01-01 INFO mounted\r\u{1b}[2J\u{9b}2J");
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(!log.trim_end().contains(char::is_control), "{log:?}");
    }
}
