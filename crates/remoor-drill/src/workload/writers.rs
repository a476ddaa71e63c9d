//! Writers that save files as careful applications do: write to a temporary name, fsync, rename; old files are removed.

use std::time::Duration;

use bytes::Bytes;
use remoor_client::{Error, Unstable};

use super::{Files, Workload};
use crate::journal::Fact;

pub(super) const WORKLOAD: Workload = Workload {
    name: "writers",
    about: "four writers create, append, fsync, rename and remove files",
    start: |files| (0..WRITERS).map(|n| Box::pin(write_files(files.clone(), n)) as _).collect(),
};

const WRITERS: usize = 4;
/// Appends to each file before it is committed.
const APPENDS: usize = 3;
/// Bytes of each append; not a multiple of a page, so that appends share pages.
const APPEND_BYTES: usize = 3000;
/// Files a writer keeps before it removes the oldest.
const KEEP: usize = 5;
/// Pause between files.
const PAUSE: Duration = Duration::from_millis(20);

async fn write_files(files: Files, writer: usize) -> Result<(), Error> {
    for n in 0.. {
        write_file(&files, writer, n).await?;
        if n >= KEEP {
            remove_file(&files, &final_name(writer, n - KEEP)).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn final_name(writer: usize, n: usize) -> String {
    format!("writer{writer}-{n}.dat")
}

/// The bytes of an append: every file and every append has its own.
fn content(writer: usize, n: usize, append: usize) -> Bytes {
    let line = format!("writer {writer} file {n} append {append}\n");
    line.bytes().cycle().take(APPEND_BYTES).collect()
}

async fn write_file(files: &Files, writer: usize, n: usize) -> Result<(), Error> {
    let (temporary, name) = (format!("writer{writer}-{n}.tmp"), final_name(writer, n));
    let journal = &files.journal;
    journal.begin(&temporary);
    let node = files.create(&temporary).await?;
    journal.set(&temporary, Fact::Holds(Bytes::new()));
    let mut whole = Vec::new();
    let mut unstable = Unstable::default();
    for append in 0..APPENDS {
        let data = content(writer, n, append);
        let offset = whole.len() as u64;
        whole.extend_from_slice(&data);
        let written = files.client.write_unstable(&node.handle, offset, data, &mut unstable).await;
        files.plain("WRITE", &temporary, written)?;
    }
    let committed = files.client.commit(&node.handle, &mut unstable).await;
    files.plain("COMMIT", &temporary, committed)?;
    let whole = Fact::Holds(whole.into());
    journal.set(&temporary, whole.clone());
    journal.begin(&temporary);
    journal.begin(&name);
    files.rename(&temporary, &name).await?;
    journal.set(&temporary, Fact::Absent);
    journal.set(&name, whole);
    journal.completed();
    Ok(())
}

async fn remove_file(files: &Files, name: &str) -> Result<(), Error> {
    files.journal.begin(name);
    files.remove(name).await?;
    files.journal.set(name, Fact::Absent);
    Ok(())
}
