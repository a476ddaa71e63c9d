//! What applications do during a case. One file each, and one line in [`WORKLOADS`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use remoor_client::{CallError, Client, Error, Node};
use remoor_nfs::v3::{FileHandle, NfsStat};

use crate::check::compare;
use crate::journal::{Failure, Journal};

mod appender;
mod writers;

/// Every workload, the default first.
pub const WORKLOADS: &[Workload] = &[writers::WORKLOAD, appender::WORKLOAD];

/// A running workload: ends only by being dropped, or when a call fails for good.
pub type Running = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// Something applications do.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// The name on the command line.
    pub name: &'static str,
    /// One line for a listing.
    pub about: &'static str,
    start: fn(Files) -> Vec<Running>,
}

impl Workload {
    /// The workload of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.name == name)
    }

    /// Its concurrent parts.
    pub fn start(&self, files: Files) -> Vec<Running> {
        (self.start)(files)
    }
}

/// A directory on the server, and the journal of everything done in it.
#[derive(Debug, Clone)]
pub struct Files {
    pub(crate) client: Client,
    pub(crate) dir: FileHandle,
    pub(crate) journal: Arc<Journal>,
}

impl Files {
    /// Works in `dir` through `client`.
    pub fn new(client: Client, dir: FileHandle, journal: Arc<Journal>) -> Self {
        Self { client, dir, journal }
    }

    /// Notes the reply, and tells a false error from a true one. The names of a workload belong to one writer each
    /// and are used once, so `already` (EXIST for a creation, NOENT for a removal) can only mean that the server had
    /// carried the call out before: it is journalled as false and taken as success.
    fn outcome<T>(
        &self,
        procedure: &'static str,
        name: &str,
        already: NfsStat,
        result: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        if !matches!(result, Err(Error::Call(CallError::Failed { .. } | CallError::ShutDown { .. }))) {
            self.journal.replied();
        }
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let is_false = error.status() == Some(already);
                let failure =
                    Failure { procedure, name: name.to_owned(), error: error.to_string(), is_false };
                self.journal.failed(failure);
                if is_false { Ok(None) } else { Err(error) }
            }
        }
    }

    /// A reply to a call that cannot fail falsely.
    fn plain<T>(&self, procedure: &'static str, name: &str, result: Result<T, Error>) -> Result<T, Error> {
        // No workload provokes ServerFault, so nothing is taken for a false error.
        let value = self.outcome(procedure, name, NfsStat::ServerFault, result)?;
        value.ok_or(Error::Nfs { procedure, status: NfsStat::ServerFault })
    }

    async fn create(&self, name: &str) -> Result<Node, Error> {
        let created = self.client.create(&self.dir, name.as_bytes()).await;
        match self.outcome("CREATE", name, NfsStat::Exist, created)? {
            Some(node) => Ok(node),
            None => {
                let found = self.client.lookup(&self.dir, name.as_bytes()).await;
                self.plain("LOOKUP", name, found)
            }
        }
    }

    /// Reads the whole file and compares it with what was acknowledged; a difference is a loss. Tells whether the file
    /// is there at all.
    async fn read_back(&self, name: &str, wanted: &Bytes) -> Result<bool, Error> {
        let found = self.client.lookup(&self.dir, name.as_bytes()).await;
        if matches!(&found, Err(error) if error.status() == Some(NfsStat::NoEnt)) {
            self.journal.replied();
            self.journal.lost(format!("{name}: was acknowledged and is not found"));
            return Ok(false);
        }
        let file = self.plain("LOOKUP", name, found)?;
        // One byte more than there should be shows a file that is too long.
        let read = self.client.read(&file.handle, 0, wanted.len() as u32 + 1).await;
        let (found, _) = self.plain("READ", name, read)?;
        if let Err(what) = compare(wanted, &found) {
            self.journal.lost(format!("{name}: read back, {what}"));
        }
        Ok(true)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let renamed = self.client.rename((&self.dir, from.as_bytes()), (&self.dir, to.as_bytes())).await;
        self.outcome("RENAME", from, NfsStat::NoEnt, renamed).map(drop)
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        let removed = self.client.remove(&self.dir, name.as_bytes()).await;
        self.outcome("REMOVE", name, NfsStat::NoEnt, removed).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (i, workload) in WORKLOADS.iter().enumerate() {
            assert!(!workload.about.is_empty() && !workload.about.contains('\n'), "{}", workload.name);
            assert!(WORKLOADS[i + 1..].iter().all(|other| other.name != workload.name));
            assert_eq!(Workload::named(workload.name).map(|w| w.name), Some(workload.name));
        }
    }
}
