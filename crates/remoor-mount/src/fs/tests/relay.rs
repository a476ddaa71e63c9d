//! Stands between a mount and its server: answers calls itself, or holds their replies.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use remoor_nfs::v3::{NfsStat, Res};
use remoor_rpc::message::{Call, Message, ReplyStatus, encode_reply, peek_xid};
use remoor_rpc::program::Procedure;
use remoor_rpc::record::{Record, RecordReader};
use remoor_rpc::xdr::Xdr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

/// What becomes of a call.
pub(super) enum Deed {
    Pass,
    Reply(Record),
    /// Nobody answers.
    Drop,
    /// The server executes it; its reply waits for a permit.
    Hold(Arc<Semaphore>),
    /// The server gets it with a permit.
    Delay(Arc<Semaphore>),
}

type Rule = Box<dyn FnMut(&Call) -> Deed + Send>;

/// A relay and its rule.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    rule: Arc<Mutex<Rule>>,
}

impl Relay {
    pub(super) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| Deed::Pass)));
        let ruled = rule.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                relay(client, server, ruled.clone());
            }
        });
        Self { address, rule }
    }

    /// From now on `rule` decides.
    pub(super) fn rule(&self, rule: impl FnMut(&Call) -> Deed + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// The next `times` calls of `P` are refused with `status`.
    pub(super) fn refuse<P, T, F>(&self, status: NfsStat, mut times: usize)
    where
        P: Procedure<Res = Res<T, F>>,
        T: Xdr,
        F: Xdr + Default,
    {
        self.rule(move |call| {
            if !is::<P>(call) || times == 0 {
                return Deed::Pass;
            }
            times -= 1;
            reply::<P>(call, &Res::Fail(status, F::default()))
        });
    }

    /// Replies to `P` wait for permits of what is returned.
    pub(super) fn hold<P: Procedure>(&self) -> Arc<Semaphore> {
        let permits = Arc::new(Semaphore::new(0));
        let given = permits.clone();
        self.rule(move |call| if is::<P>(call) { Deed::Hold(given.clone()) } else { Deed::Pass });
        permits
    }
}

pub(super) fn is<P: Procedure>(call: &Call) -> bool {
    (call.header.program, call.header.procedure) == (P::PROGRAM, P::NUMBER)
}

pub(super) fn reply<P: Procedure>(call: &Call, res: &P::Res) -> Deed {
    Deed::Reply(encode_reply(call.xid, &ReplyStatus::Success, res))
}

fn relay(client: TcpStream, server: TcpStream, rule: Arc<Mutex<Rule>>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let held: Arc<Mutex<HashMap<u32, Arc<Semaphore>>>> = Arc::default();
    let (replies, queue) = mpsc::unbounded_channel();
    let (answers, holding) = (replies.clone(), held.clone());
    tokio::spawn(write(to_client, queue));
    tokio::spawn(async move {
        let (calls, queue) = mpsc::unbounded_channel();
        tokio::spawn(write(to_server, queue));
        each(from_client, |record| {
            let Message::Call(call) = Message::decode(record.clone()).unwrap() else { panic!("a reply") };
            match (rule.lock().unwrap())(&call) {
                Deed::Pass => calls.send(record).ok(),
                Deed::Reply(reply) => answers.send(reply.message()).ok(),
                Deed::Delay(permits) => {
                    let calls = calls.clone();
                    tokio::spawn(async move {
                        permits.acquire().await.unwrap().forget();
                        calls.send(record).ok();
                    });
                    None
                }
                Deed::Drop => None,
                Deed::Hold(permits) => {
                    holding.lock().unwrap().insert(call.xid, permits);
                    calls.send(record).ok()
                }
            };
        })
        .await;
    });
    tokio::spawn(each(from_server, move |record| {
        let permits = held.lock().unwrap().remove(&peek_xid(&record).unwrap());
        let replies = replies.clone();
        tokio::spawn(async move {
            if let Some(permits) = permits {
                permits.acquire().await.unwrap().forget();
            }
            replies.send(record).ok();
        });
    }));
}

async fn each(mut from: OwnedReadHalf, mut take: impl FnMut(Bytes)) {
    let mut reader = RecordReader::new(2 << 20);
    while from.read_buf(reader.buffer()).await.is_ok_and(|n| n > 0) {
        while let Some(record) = reader.next_record().unwrap() {
            take(record);
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut records: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(record) = records.recv().await {
        let record = Record::new(vec![record]);
        if to.write_all(&record.segments().concat()).await.is_err() {
            return;
        }
    }
}
