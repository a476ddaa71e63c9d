//! The client against a real server on loopback.

#![allow(clippy::unwrap_used, reason = "tests")]

mod addresses;
mod counts;
mod files;
mod host;
mod mounting;

use std::time::Duration;

use bytes::Bytes;
use remoor_client::{Client, Error, Unstable};
use remoor_nfs::reconnect::RESERVED_HI;
use remoor_nfs::v3::{self, NfsStat};
use remoor_rpc::auth::{AuthSys, OpaqueAuth};
use remoor_rpc::net;
use remoor_skip::skip;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use host::{Export, Host, client_of, observed, options};

#[tokio::test]
async fn files_are_made_written_read_renamed_listed_and_removed() {
    let host = Host::start("rw,insecure,no_root_squash");
    let client = client_of(&host, "noresvport");
    let root = client.mount("/data").await.unwrap();
    let file = client.create(&root, b"a").await.unwrap();
    let data = Bytes::from(vec![7; 3 << 20]);
    client.write(&file.handle, 5, data.clone()).await.unwrap();
    assert_eq!(client.getattr(&file.handle).await.unwrap().size, (3 << 20) + 5);
    let (read, eof) = client.read(&file.handle, 5, 1 << 20).await.unwrap();
    assert_eq!((&read[..], eof), (&data[..1 << 20], false));
    client.rename((&root, b"a"), (&root, b"b")).await.unwrap();
    let names: Vec<_> = client.readdirplus(&root).await.unwrap().into_iter().map(|e| e.name.0).collect();
    assert_eq!(names, [&b"b"[..]]);
    client.remove(&root, b"b").await.unwrap();
    let error = client.lookup(&root, b"b").await.unwrap_err();
    assert_eq!(error.status(), Some(NfsStat::NoEnt));
}

#[tokio::test]
async fn one_client_calls_for_several_users() {
    let host = Host::start("rw,insecure,no_root_squash");
    let client = client_of(&host, "noresvport");
    let root = client.mount("/data").await.unwrap();
    let args = v3::SetattrArgs {
        file: root.clone(),
        attr: v3::Sattr { mode: Some(0o777), ..Default::default() },
        guard: None,
    };
    client.call::<v3::Setattr>(args).await.unwrap().into_result().unwrap();
    for uid in [0, 1000, 1001] {
        let credential = OpaqueAuth::sys(&AuthSys::new("test", uid, uid));
        let place = v3::DirOp { dir: root.clone(), name: format!("of-{uid}").as_str().into() };
        let how = v3::CreateHow::Guarded(v3::Sattr::default());
        let args = v3::CreateArgs { place, how };
        let made = client.call_as::<v3::Create>(&credential, args).await.unwrap().into_result().unwrap();
        assert_eq!(made.attr.unwrap().uid, uid);
    }
}

#[tokio::test]
async fn a_directory_larger_than_one_reply_is_listed_whole() {
    let host = Host::start("rw,insecure,no_root_squash");
    let client = client_of(&host, "noresvport");
    let root = client.mount("/data").await.unwrap();
    for n in 0..1500 {
        client.create(&root, format!("file-with-a-longer-name-{n:04}").as_bytes()).await.unwrap();
    }
    let mut names: Vec<_> = client.readdirplus(&root).await.unwrap().into_iter().map(|e| e.name.0).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 1500);
}

#[tokio::test]
async fn unstable_data_is_written_again_when_the_server_is_another_instance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_string_lossy().into_owned();
    let mut host = Host::serving(Export::Directory(dir), "rw,insecure,no_root_squash");
    let client = client_of(&host, "noresvport");
    let root = client.mount(&path).await.unwrap();
    let file = client.create(&root, b"a").await.unwrap();
    let mut unstable = Unstable::default();
    client.write_unstable(&file.handle, 0, "lost?".into(), &mut unstable).await.unwrap();
    assert_eq!(unstable.len(), 5);
    host.restart("rw,insecure,no_root_squash");
    client.commit(&file.handle, &mut unstable).await.unwrap();
    assert!(unstable.is_empty());
    assert_eq!((host.calls("WRITE"), host.calls("COMMIT")), (1, 2), "written again, then committed again");
}

/// The moves of a client whose server is restarted three times.
async fn moves_over_restarts(text: &str) -> Vec<(u16, u16)> {
    let mut host = Host::start("rw,insecure,no_root_squash");
    let (client, moves) = observed(&host, text);
    let root = client.mount("/data").await.unwrap();
    for _ in 0..3 {
        host.restart("rw,insecure,no_root_squash");
        client.getattr(&root).await.unwrap();
    }
    let moves = moves.lock().unwrap().clone();
    assert_eq!(moves.len(), 3, "{moves:?}");
    moves
}

#[tokio::test]
async fn a_restarted_server_is_found_again_from_a_fresh_port() {
    let moves = moves_over_restarts("noresvport").await;
    let mut ports: Vec<u16> = moves.iter().map(|(_, to)| *to).chain([moves[0].0]).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4, "every connection has its own port");
}

#[tokio::test]
async fn a_restarted_server_is_found_again_from_the_same_port() {
    let moves = moves_over_restarts("noresvport,rebind=same").await;
    assert!(moves.iter().all(|(from, to)| from == to), "{moves:?}");
}

#[tokio::test]
async fn a_secure_export_refuses_an_unprivileged_port_and_the_error_names_the_remedies() {
    let host = Host::start("rw,secure,no_root_squash");
    let client = client_of(&host, "noresvport");
    let error = client.mount("/data").await.unwrap_err();
    assert!(matches!(error, Error::Mount { .. }));
    let text = error.to_string();
    assert!(
        text.contains("MNT3ERR_ACCES") && text.contains("resvport") && text.contains("insecure"),
        "{text}"
    );
}

#[tokio::test]
async fn a_soft_mount_gives_up_on_a_server_that_is_gone() {
    let mut host = Host::start("rw,insecure,no_root_squash");
    let client = Client::connect(host.address, options("noresvport,soft,timeo=2,retrans=1")).unwrap();
    let root = client.mount("/data").await.unwrap();
    host.running.take().unwrap().stop();
    let answer = tokio::time::timeout(Duration::from_secs(20), client.getattr(&root)).await;
    let error = answer.expect("soft ends by itself").unwrap_err();
    assert!(error.to_string().contains("soft mount"), "{error}");
}

#[test]
fn without_the_privilege_for_reserved_ports_every_call_fails_at_once_and_names_the_remedies() {
    let first_free = net::unprivileged_port_start();
    if first_free <= RESERVED_HI {
        return skip(
            "without_the_privilege_for_reserved_ports_every_call_fails_at_once_and_names_the_remedies",
            format!("net.ipv4.ip_unprivileged_port_start is {first_free}; set it to 1024"),
        );
    }
    // Capabilities are a thread's own, and this thread ends with the test.
    let test = std::thread::spawn(|| {
        let mut own = capabilities(None).unwrap();
        own.effective.remove(CapabilitySet::NET_BIND_SERVICE);
        set_capabilities(None, own).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(mount_without_privilege());
    });
    test.join().unwrap();
}

async fn mount_without_privilege() {
    let host = Host::start("rw,no_root_squash");
    for text in ["resvport", "resvport,rebind=fresh"] {
        let client = Client::connect(host.address, options(text)).unwrap();
        for _ in 0..2 {
            let answer = tokio::time::timeout(Duration::from_secs(5), client.mount("/data")).await;
            let error = answer.expect("an error no retry can cure").unwrap_err().to_string();
            for part in ["reserved source port", "CAP_NET_BIND_SERVICE", "noresvport", "insecure"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_reply() {
    let host = Host::start("rw,insecure,no_root_squash");
    let client = client_of(&host, "noresvport");
    let root = client.mount("/data").await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64u8 {
        let (client, root) = (client.clone(), root.clone());
        tasks.spawn(async move {
            let name = [b'f', n];
            let file = client.create(&root, &hex(&name)).await.unwrap();
            client.write(&file.handle, 0, Bytes::from(vec![n; 5000])).await.unwrap();
            let (read, _) = client.read(&file.handle, 0, 5000).await.unwrap();
            assert!(read.len() == 5000 && read.iter().all(|b| *b == n));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect()
}
