//! A database's log: one file, each record written FILE_SYNC before the next.

use std::time::Duration;

use bytes::Bytes;
use remoor_client::Error;

use super::{Files, Workload};
use crate::journal::Fact;

pub(super) const WORKLOAD: Workload = Workload {
    name: "appender",
    about: "one log file; each record is on stable storage before the next is written",
    start: |files| vec![Box::pin(append(files))],
};

const NAME: &str = "log";
/// Pause between records.
const PAUSE: Duration = Duration::from_millis(5);

async fn append(files: Files) -> Result<(), Error> {
    files.journal.set(NAME, Fact::Creating);
    let node = files.create(NAME).await?;
    let mut whole = Bytes::new();
    for n in 0.. {
        let record = Bytes::from(format!("record {n:08}\n"));
        let offset = whole.len() as u64;
        files.journal.set(NAME, Fact::Begins(whole.clone(), record.clone()));
        let written = files.client.write(&node.handle, offset, record.clone()).await;
        files.plain("WRITE", NAME, written)?;
        whole = [whole, record].concat().into();
        files.journal.set(NAME, Fact::Holds(whole.clone()));
        files.journal.completed();
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
