//! Silly names that are about to go.
//!
//! A program that has closed a removed file may remove its directory, or list it, before the silly name is gone: the
//! kernel tells of the close by a RELEASE that close(2) does not wait for. What comes after the RELEASE waits here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::node::{NodeId, lock};

/// By directory, what is closed when a name is gone.
type Table = HashMap<NodeId, Vec<watch::Receiver<()>>>;

/// Names that are being removed, by directory.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    table: Arc<Mutex<Table>>,
}

/// A name that is being removed, until dropped.
#[derive(Debug)]
pub(crate) struct Departure {
    dir: NodeId,
    /// Closed first, so that [`Drop`] finds it so.
    gone: Option<watch::Sender<()>>,
    table: Arc<Mutex<Table>>,
}

impl Leaving {
    /// A name in `dir` is about to be removed.
    pub(crate) fn begin(&self, dir: NodeId) -> Departure {
        let (gone, is_gone) = watch::channel(());
        lock(&self.table).entry(dir).or_default().push(is_gone);
        Departure { dir, gone: Some(gone), table: self.table.clone() }
    }

    /// No name is about to be removed.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.table).is_empty()
    }

    /// Waits until those names in `dir` are gone that are about to be removed now. Each is as long as one call.
    pub(crate) async fn wait(&self, dir: NodeId) {
        let all = lock(&self.table).get(&dir).cloned().unwrap_or_default();
        for mut is_gone in all {
            while is_gone.changed().await.is_ok() {}
        }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.gone = None;
        let mut table = lock(&self.table);
        if let Some(all) = table.get_mut(&self.dir) {
            all.retain(|is_gone| is_gone.has_changed().is_ok());
            if all.is_empty() {
                table.remove(&self.dir);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    use super::*;

    fn is_done(waiting: Pin<&mut impl Future>) -> bool {
        waiting.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn only_what_was_leaving_before_is_waited_for() {
        let (leaving, dir) = (Leaving::default(), NodeId(5));
        let (first, second) = (leaving.begin(dir), leaving.begin(dir));
        let mut waiting = pin!(leaving.wait(dir));
        assert!(!is_done(waiting.as_mut()));
        let later = leaving.begin(dir);
        drop(second);
        assert!(!is_done(waiting.as_mut()));
        drop(first);
        waiting.await;
        assert!(!leaving.is_empty());
        drop(later);
        assert!(leaving.is_empty());
    }

    #[tokio::test]
    async fn other_directories_do_not_wait() {
        let leaving = Leaving::default();
        let _departure = leaving.begin(NodeId(5));
        assert!(is_done(pin!(leaving.wait(NodeId(6)))));
    }
}
