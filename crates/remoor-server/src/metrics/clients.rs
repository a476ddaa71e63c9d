//! Calls and bytes of each client, by address. Which of its connections and ports they came from is the network's to
//! tell.

use std::cell::RefCell;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;

/// Clients whose calls are counted one by one; the one unheard of for longest is forgotten.
const MAX_CLIENTS: NonZeroUsize = NonZeroUsize::new(8192).unwrap();
/// Clients that a thread finds without a lock.
const NEAR: usize = 64;

/// Counts of the clients of one server.
pub(crate) struct Clients {
    /// Tells this server's counts from those of another in the same process.
    server: u64,
    all: Mutex<LruCache<IpAddr, Arc<Counts>>>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
    /// Milliseconds from the server's start to the last call's end.
    last_millis: AtomicU64,
}

/// What one client has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientCalls {
    /// Where it calls from.
    pub address: IpAddr,
    /// Calls that were answered.
    pub calls: u64,
    /// Bytes of its calls.
    pub request_bytes: u64,
    /// Bytes of the replies.
    pub reply_bytes: u64,
    /// Milliseconds from the server's start to its last call.
    pub last_millis: u64,
}

type Near = [Option<(u64, IpAddr, Arc<Counts>)>; NEAR];

thread_local!(static NEAREST: RefCell<Near> = const { RefCell::new([const { None }; NEAR]) });

impl Clients {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { server: NEXT.fetch_add(1, Relaxed), all: Mutex::new(LruCache::new(MAX_CLIENTS)) }
    }

    pub(super) fn count(
        &self,
        client: IpAddr,
        since_start: Duration,
        (request_bytes, reply_bytes): (usize, usize),
    ) {
        self.near(client, |counts| {
            counts.calls.fetch_add(1, Relaxed);
            counts.request_bytes.fetch_add(request_bytes as u64, Relaxed);
            counts.reply_bytes.fetch_add(reply_bytes as u64, Relaxed);
            counts.last_millis.store(since_start.as_millis() as u64, Relaxed);
        });
    }

    /// All that are remembered.
    pub(crate) fn list(&self) -> Vec<ClientCalls> {
        let of = |(address, counts): (&IpAddr, &Arc<Counts>)| ClientCalls {
            address: *address,
            calls: counts.calls.load(Relaxed),
            request_bytes: counts.request_bytes.load(Relaxed),
            reply_bytes: counts.reply_bytes.load(Relaxed),
            last_millis: counts.last_millis.load(Relaxed),
        };
        self.lock().iter().map(of).collect()
    }

    fn near(&self, client: IpAddr, count: impl FnOnce(&Counts)) {
        NEAREST.with_borrow_mut(|near| {
            let place = &mut near[place(client)];
            match place {
                Some((server, address, counts)) if *server == self.server && *address == client => {
                    count(counts)
                }
                _ => {
                    let counts = self.counts_of(client.to_canonical());
                    count(&counts);
                    *place = Some((self.server, client, counts));
                }
            }
        });
    }

    fn counts_of(&self, client: IpAddr) -> Arc<Counts> {
        self.lock().get_or_insert(client, Arc::default).clone()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<IpAddr, Arc<Counts>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a thread looks first. Clients of one network differ in their last bytes.
fn place(client: IpAddr) -> usize {
    let last = match client {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    usize::from(last) % NEAR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(clients: &Clients, address: &str) {
        clients.count(address.parse().unwrap(), Duration::ZERO, (10, 20));
    }

    fn calls(clients: &Clients) -> Vec<(String, u64)> {
        let mut list: Vec<_> = clients.list().into_iter().map(|c| (c.address.to_string(), c.calls)).collect();
        list.sort();
        list
    }

    #[test]
    fn a_client_is_an_address_however_it_is_written() {
        let (one, other) = (Clients::new(), Clients::new());
        for address in ["192.0.2.7", "::ffff:192.0.2.7", "192.0.2.71", "192.0.2.7"] {
            count(&one, address);
        }
        count(&other, "192.0.2.7");
        assert_eq!(calls(&one), [("192.0.2.7".to_owned(), 3), ("192.0.2.71".to_owned(), 1)]);
        assert_eq!(calls(&other), [("192.0.2.7".to_owned(), 1)]);
    }

    #[test]
    fn clients_that_share_a_place_are_told_apart() {
        let clients = Clients::new();
        for _ in 0..5 {
            count(&clients, "192.0.2.1");
            count(&clients, "198.51.100.65");
        }
        assert_eq!(calls(&clients), [("192.0.2.1".to_owned(), 5), ("198.51.100.65".to_owned(), 5)]);
    }

    #[test]
    fn clients_are_bounded() {
        let clients = Clients::new();
        for n in 0..MAX_CLIENTS.get() as u32 + 10 {
            clients.count(IpAddr::from(n.to_be_bytes()), Duration::ZERO, (0, 0));
        }
        assert_eq!(clients.list().len(), MAX_CLIENTS.get());
    }
}
