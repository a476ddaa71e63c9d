//! Several threads of callers, several readers of the connection.

use std::fs;
use std::path::Path;
use std::thread;

use crate::served::Served;

const CALLERS: usize = 8;
const ROUNDS: usize = 40;

#[test]
fn callers_and_readers_in_parallel() {
    let Some(mut served) = Served::with("callers_and_readers_in_parallel", 3) else { return };
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let root = &served.root;
            scope.spawn(move || (0..ROUNDS).for_each(|round| exercise(root, caller, round)));
        }
    });
    assert_eq!(fs::read_dir(&served.root).unwrap().count(), 0);
    served.unmount();
    assert_eq!(served.ended(), [remoor_fuse::Ended::Unmounted; 3]);
    assert!(served.memory.destroyed.load(std::sync::atomic::Ordering::SeqCst));
}

/// Dropping data waits for pages that are being read: for the very session that must answer the READ.
#[test]
fn a_notification_that_waits_for_a_read_holds_nothing_up() {
    let Some(served) = Served::with("a_notification_that_waits_for_a_read_holds_nothing_up", 1) else {
        return;
    };
    let path = served.path("gated");
    fs::write(&path, "abc").unwrap();
    let reading = thread::spawn(move || fs::read(path).unwrap());
    served.wait_for_read();
    let node = served.memory.change("gated", b"new");
    served.notifier.invalidate_data(node, 0, 0);
    served.notifier.invalidate_attributes(node);
    for i in 0..10 {
        fs::write(served.path(&format!("file-{i}")), "abc").unwrap();
    }
    assert_eq!(served.memory.waiting.now(), 1);
    served.memory.gate.close();
    assert_eq!(reading.join().unwrap(), b"new");
}

fn exercise(root: &Path, caller: usize, round: usize) {
    let dir = root.join(format!("dir-{caller}"));
    fs::create_dir(&dir).unwrap();
    let data: Vec<u8> = (0..200_000 + round * 1000).map(|i| (i * caller) as u8).collect();
    fs::write(dir.join("file"), &data).unwrap();
    fs::rename(dir.join("file"), dir.join("renamed")).unwrap();
    assert!(fs::read(dir.join("renamed")).unwrap() == data);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    fs::remove_file(dir.join("renamed")).unwrap();
    fs::remove_dir(&dir).unwrap();
}
