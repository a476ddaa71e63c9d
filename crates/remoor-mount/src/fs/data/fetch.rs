//! One range being read from the server.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use remoor_nfs::v3::{Read, ReadArgs, Res};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::super::call::now;
use super::super::{Credential, Fs, Node};
use super::pool::Reservation;
use crate::errno::Errno;

/// The bytes in order; fewer than asked for at the end of the file.
type Fetched = Result<Vec<Bytes>, Errno>;

/// A range that is read in a task of its own, which ends when nobody wants it any more.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) asked: Instant,
    result: watch::Receiver<Option<Fetched>>,
    task: AbortHandle,
    _memory: Option<Reservation>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fetch {
    /// What was read.
    pub(super) async fn get(&self) -> Fetched {
        let mut result = self.result.clone();
        let fetched = result.wait_for(Option::is_some).await;
        fetched.ok().and_then(|fetched| fetched.clone()).unwrap_or(Err(Errno::IO))
    }

    /// A fetch that was answered.
    #[cfg(test)]
    pub(super) fn done((start, end): (u64, u64), asked: Instant) -> Self {
        let (_, result) = watch::channel(Some(Ok(vec![Bytes::from(vec![0; (end - start) as usize])])));
        let task = tokio::spawn(std::future::ready(())).abort_handle();
        Self { start, end, asked, result, task, _memory: None }
    }
}

impl Fs {
    /// Begins to read a range.
    pub(super) fn fetch(
        self: &Arc<Self>,
        node: &Arc<Node>,
        who: &Arc<Credential>,
        (start, end): (u64, u64),
        memory: Option<Reservation>,
    ) -> Fetch {
        let (tell, result) = watch::channel(None);
        let (fs, node, who) = (self.clone(), node.clone(), who.clone());
        let task = tokio::spawn(async move {
            let fetched = fs.read_range(&node, &who, start, end).await;
            tell.send(Some(fetched)).ok();
        });
        Fetch { start, end, asked: now(), result, task: task.abort_handle(), _memory: memory }
    }

    /// Reads a range that fits one READ, with more READs if the server's answers are short.
    pub(super) async fn read_range(&self, node: &Node, who: &Credential, start: u64, end: u64) -> Fetched {
        let mut parts = Vec::with_capacity(1);
        let mut at = start;
        while at < end {
            let count = (end - at) as u32;
            let asked = self.ask();
            let args = ReadArgs { file: node.handle.clone(), offset: at, count };
            match self.call::<Read, _, _>(who, args).await? {
                Res::Ok(ok) => {
                    self.learn_if_told(node, ok.attr.as_ref(), asked);
                    let data = ok.data.0;
                    if data.len() > count as usize {
                        tracing::warn!("READ of {count} bytes: the server sent {}", data.len());
                        return Err(Errno::IO);
                    }
                    at += data.len() as u64;
                    // A server that sends nothing although it is not the end is not asked again.
                    let last = ok.eof || data.is_empty();
                    parts.push(data);
                    if last {
                        break;
                    }
                }
                Res::Fail(status, attr) => {
                    self.learn_if_told(node, attr.as_ref(), asked);
                    return Err(self.refused(node, status));
                }
            }
        }
        Ok(parts)
    }
}
