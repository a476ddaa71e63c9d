//! Exports that change while clients are at work.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use remoor_nfs::mnt::MountStat;
use remoor_nfs::v3::{self, NfsStat};
use remoor_server::exports::Exports;
use remoor_server::{Reload, Running};

use crate::client::{Client, builder, place};

/// A server whose configuration a test writes.
fn start(text: &str) -> (Running, Arc<Mutex<String>>) {
    let configured = Arc::new(Mutex::new(text.to_owned()));
    let file = configured.clone();
    let source = move || Exports::parse(std::path::Path::new("exports"), file.lock().unwrap().as_bytes());
    (builder(text).source(source).start().unwrap(), configured)
}

#[test]
fn a_client_whose_export_is_gone_is_told_so_at_its_next_call() {
    let text = "/x *(rw,insecure,no_subtree_check)\n/y *(rw,insecure,no_subtree_check)";
    let (server, configured) = start(text);
    let mut client = Client::connect(&server);
    let (x, y) = (client.mount("/x").unwrap(), client.mount("/y").unwrap());
    *configured.lock().unwrap() =
        "/x 192.0.2.1(rw,insecure,no_subtree_check)\n/y *(rw,secure,no_subtree_check)".into();
    server.exporter().reload(Reload::Exactly).unwrap();
    assert_eq!(client.getattr(&x), Err(NfsStat::Stale), "the export is for another");
    assert_eq!(client.mount("/x"), Err(MountStat::Acces));
    assert_eq!(client.getattr(&y), Err(NfsStat::Perm), "from this port no longer");
    server.exporter().remove_all().unwrap();
    assert_eq!(client.getattr(&y), Err(NfsStat::Stale));
    *configured.lock().unwrap() = text.into();
    server.exporter().reload(Reload::Add).unwrap();
    assert!(client.mount("/x").is_ok(), "on the connection it had all along");
}

#[test]
fn options_change_under_a_client_that_stays() {
    let (server, _) = start("/x *(rw,insecure,no_root_squash,no_subtree_check)");
    let mut client = Client::connect(&server);
    let root = client.mount("/x").unwrap();
    let file = client.create(&root, "file");
    server.exporter().add(":/x", "ro").unwrap();
    assert_eq!(client.call::<v3::Remove>(&place(&root, "file")).status(), NfsStat::RoFs);
    assert!(client.getattr(&file).is_ok(), "the file system is the one it was");
}

#[test]
fn clients_that_stay_lose_no_call_while_exports_change() {
    let keep = "/x *(rw,insecure,no_root_squash,no_subtree_check)";
    let (server, configured) = start(&format!("{keep}\n/y *(ro,no_subtree_check)"));
    let done = AtomicBool::new(false);
    let calls = std::thread::scope(|scope| {
        let work = |name: String| {
            let (server, done) = (&server, &done);
            move || {
                let mut client = Client::connect(server);
                let root = client.mount("/x").unwrap();
                let mut calls = 0;
                while !done.load(Relaxed) || calls == 0 {
                    let file = client.create(&root, &format!("{name}-{calls}"));
                    client.write_at(&file, 0, b"data");
                    assert!(client.getattr(&file).is_ok());
                    calls += 1;
                }
                calls
            }
        };
        let workers: Vec<_> = (0..3).map(|n| scope.spawn(work(n.to_string()))).collect();
        for n in 0..200 {
            let more = if n % 2 == 0 { "" } else { "\n/y *(ro,no_subtree_check)" };
            *configured.lock().unwrap() = format!("{keep}{more}");
            server.exporter().reload(Reload::Exactly).unwrap();
        }
        done.store(true, Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<u64>()
    });
    let made = server.counters().calls.iter().find(|row| row.procedure == "CREATE").unwrap().calls;
    assert_eq!(made, calls);
    assert_eq!(server.counters().connections.broken, 0);
}
