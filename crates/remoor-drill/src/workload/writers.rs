//! Writers that save files as careful applications do: write to a temporary name, fsync, rename; old files are read
//! back and removed.

use std::time::Duration;

use bytes::Bytes;
use remoor_client::{Error, Unstable};

use super::{Files, Workload};
use crate::journal::Fact;

pub(super) const WORKLOAD: Workload = Workload {
    name: "writers",
    about: "four writers create, append, fsync, rename, read and remove files",
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
            remove_file(&files, writer, n - KEEP).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn final_name(writer: usize, n: usize) -> String {
    format!("writer{writer}-{n}.dat")
}

/// The bytes of a file: every file and every append has its own.
fn whole(writer: usize, n: usize) -> Bytes {
    let append = |append| {
        let line = format!("writer {writer} file {n} append {append}\n").into_bytes();
        line.into_iter().cycle().take(APPEND_BYTES)
    };
    (0..APPENDS).flat_map(append).collect()
}

async fn write_file(files: &Files, writer: usize, n: usize) -> Result<(), Error> {
    let (temporary, name) = (format!("writer{writer}-{n}.tmp"), final_name(writer, n));
    let journal = &files.journal;
    journal.set(&temporary, Fact::Creating);
    let node = files.create(&temporary).await?;
    let whole = whole(writer, n);
    journal.set(&temporary, Fact::Begins(Bytes::new(), whole.clone()));
    let mut unstable = Unstable::default();
    for append in 0..APPENDS {
        let offset = append * APPEND_BYTES;
        let data = whole.slice(offset..offset + APPEND_BYTES);
        let written = files.client.write_unstable(&node.handle, offset as u64, data, &mut unstable).await;
        files.plain("WRITE", &temporary, written)?;
    }
    let committed = files.client.commit(&node.handle, &mut unstable).await;
    files.plain("COMMIT", &temporary, committed)?;
    journal.set(&temporary, Fact::Renaming(name.clone(), whole.clone()));
    files.rename(&temporary, &name).await?;
    journal.set(&temporary, Fact::Absent);
    journal.set(&name, Fact::Holds(whole));
    journal.completed();
    Ok(())
}

/// Reads the file before it removes it: what was lost would otherwise be gone without a trace.
async fn remove_file(files: &Files, writer: usize, n: usize) -> Result<(), Error> {
    let (name, whole) = (final_name(writer, n), whole(writer, n));
    if files.read_back(&name, &whole).await? {
        files.journal.set(&name, Fact::Removing(whole));
        files.remove(&name).await?;
    }
    files.journal.set(&name, Fact::Absent);
    Ok(())
}
