//! What a client tells of itself, several connections, and changes of its timeouts.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use remoor_client::Client;
use remoor_client::stats::Procedure;
use remoor_nfs::v3::FileHandle;

use crate::host::{Host, client_of, observed, options};

const OPTIONS: &str = "rw,insecure,no_root_squash";

fn procedure(client: &Client, name: &str) -> Procedure {
    client.snapshot().procedures.into_iter().find(|procedure| procedure.name == name).unwrap()
}

#[tokio::test]
async fn calls_bytes_and_times_are_counted_by_procedure() {
    let host = Host::start(OPTIONS);
    let client = client_of(&host, "noresvport");
    let root = client.mount("/data").await.unwrap();
    let file = client.create(&root, b"a").await.unwrap().handle;
    client.write(&file, 0, Bytes::from(vec![7; 5000])).await.unwrap();
    for _ in 0..3 {
        client.read(&file, 0, 5000).await.unwrap();
    }
    client.lookup(&root, b"none").await.unwrap_err();
    let (read, write) = (procedure(&client, "READ"), procedure(&client, "WRITE"));
    assert_eq!((&*read.program, read.calls, read.answered, read.errors), ("NFS", 3, 3, 0));
    assert_eq!(read.latency.buckets.iter().sum::<u64>(), 3);
    assert!(read.received_bytes > 15_000 && read.sent_bytes < 1000, "{read:?}");
    assert!(write.sent_bytes > 5000 && write.received_bytes < 1000, "{write:?}");
    assert!(read.latency.p50_us <= read.latency.p99_us && read.latency.p99_us <= read.latency.max_us as f64);
    assert_eq!(procedure(&client, "LOOKUP").answered, 1, "a status is an answer");
    assert_eq!(procedure(&client, "MNT").program, "MOUNT");
}

#[tokio::test]
async fn a_reconnect_is_told_with_ports_reason_and_what_was_sent_again() {
    let mut host = Host::start(OPTIONS);
    let (client, moves) = observed(&host, "noresvport");
    let root = client.mount("/data").await.unwrap();
    host.restart(OPTIONS);
    client.getattr(&root).await.unwrap();
    let told = client.snapshot();
    let [reconnect] = &told.reconnects[..] else { panic!("{told:?}") };
    assert_eq!((reconnect.from_port, reconnect.to_port), moves.lock().unwrap()[0]);
    assert!(!reconnect.reason.is_empty() && reconnect.attempts > 0, "{reconnect:?}");
    let connection = &told.connections[0];
    assert_eq!((&*connection.state, connection.responding), ("ready", true));
    assert_eq!((connection.source_port, connection.reconnects), (Some(reconnect.to_port), 1));
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(json["reconnects"][0]["to_port"], reconnect.to_port);
    assert_eq!(json["server"], host.address.to_string());
}

/// A server that takes connections and says nothing, and a client that calls it.
async fn hung() -> (TcpListener, Client, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(listener.local_addr().unwrap(), options("noresvport")).unwrap();
    let (caller, file) = (client.clone(), FileHandle::from("file"));
    let call = tokio::spawn(async move { caller.getattr(&file).await.unwrap_err().to_string() });
    while client.snapshot().in_flight.is_empty() {
        tokio::task::yield_now().await;
    }
    (listener, client, call)
}

#[tokio::test]
async fn a_snapshot_of_a_hung_server_shows_the_calls_it_owes() {
    let (_listener, client, call) = hung().await;
    let told = client.snapshot();
    assert_eq!((told.in_flight_calls, &*told.in_flight[0].name), (1, "GETATTR"));
    assert!(told.in_flight[0].age_secs >= 0.0);
    assert_ne!(told.connections[0].state, "ready");
    call.abort();
    call.await.unwrap_err();
    let told = client.snapshot();
    assert_eq!((told.in_flight_calls, told.in_flight.len()), (0, 0));
    assert_eq!(procedure(&client, "GETATTR").given_up, 1);
}

#[tokio::test]
async fn a_hard_mount_made_soft_fails_the_calls_that_wait() {
    let (_listener, client, call) = hung().await;
    client.reconfigure(&options("soft,timeo=1,retrans=1")).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(20), call).await.unwrap().unwrap();
    assert!(error.contains("soft mount") && error.contains("200ms"), "{error}");
    assert_eq!(procedure(&client, "GETATTR").errors, 1);
    let wrong = remoor_client::Options { retrans: 1000, ..options("soft") };
    client.reconfigure(&wrong).await.unwrap_err();
}

#[tokio::test]
async fn a_soft_mount_gives_up_while_it_was_never_connected() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::connect(port, options("noresvport,softerr,timeo=2,retrans=0")).unwrap();
    let file = FileHandle::from("file");
    let call = client.getattr(&file);
    let error = tokio::time::timeout(Duration::from_secs(20), call).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("softerr mount") && error.contains("200ms"), "{error}");
    assert!(client.snapshot().connections[0].last_failure.as_deref().unwrap().contains("refused"));
}

#[tokio::test]
async fn calls_are_spread_over_connections_each_from_its_own_port() {
    let mut host = Host::start(OPTIONS);
    let client = client_of(&host, "noresvport,nconnect=4");
    let root = client.mount("/data").await.unwrap();
    let ready = || client.snapshot().connections.iter().filter(|it| it.state == "ready").count();
    for _ in 0..2 {
        while ready() < 4 {
            client.getattr(&root).await.unwrap();
        }
        let told = client.snapshot().connections;
        let ports: BTreeSet<_> = told.iter().map(|connection| connection.source_port).collect();
        assert_eq!(ports.len(), 4, "{told:?}");
        let calls = (0..64).map(|_| {
            let (client, root) = (client.clone(), root.clone());
            tokio::spawn(async move { client.getattr(&root).await.unwrap() })
        });
        let calls: Vec<_> = calls.collect();
        host.restart(OPTIONS);
        for call in calls {
            call.await.unwrap();
        }
    }
}
