//! Where a server is: its name, its addresses, and who is asked for them again.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// Addresses of one name that are tried.
pub const MAX_ADDRESSES: usize = 16;
/// Least time between two questions for the addresses of one name, while attempts fail.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Tells the addresses of a name. It is asked on a thread of its own, and may block.
pub trait Resolver: Send + Sync {
    /// The addresses of `host`, the best first, each with `port`.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// getaddrinfo(3): /etc/hosts, DNS and whatever nsswitch.conf(5) has.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        (host, port).to_socket_addrs().map(Iterator::collect)
    }
}

/// A name without a usable address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver failed.
    #[error("cannot resolve server name {host:?}: {source}; check the name, /etc/hosts and the DNS")]
    Failed {
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// It has no address.
    #[error("server name {host:?} has no address; check the name, or give an address")]
    NoAddress {
        /// The name.
        host: String,
    },
    /// The resolver did not answer.
    #[error("server name {host:?} was not resolved within {within:?}; check the DNS, or give an address")]
    TimedOut {
        /// The name.
        host: String,
        /// How long it had.
        within: Duration,
    },
}

/// A server to connect to.
#[derive(Clone)]
pub struct Target {
    name: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    /// `None` for an address, which cannot change.
    resolver: Option<Arc<dyn Resolver>>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).field("addresses", &self.addresses).finish()
    }
}

impl From<SocketAddr> for Target {
    /// A server whose name is its address.
    fn from(address: SocketAddr) -> Self {
        Self { name: address.to_string(), port: address.port(), addresses: vec![address], resolver: None }
    }
}

impl Target {
    /// A server of several addresses, which are tried in turn; at most [`MAX_ADDRESSES`].
    pub fn of(name: &str, mut addresses: Vec<SocketAddr>) -> Result<Self, ResolveError> {
        addresses.truncate(MAX_ADDRESSES);
        let Some(first) = addresses.first() else {
            return Err(ResolveError::NoAddress { host: name.to_owned() });
        };
        Ok(Self { name: name.to_owned(), port: first.port(), addresses, resolver: None })
    }

    /// Resolves `host`: a name, an IPv4 address, or an IPv6 address with or without brackets and zone. A name is
    /// resolved again whenever connecting fails.
    pub async fn resolve(
        host: &str,
        port: u16,
        resolver: Arc<dyn Resolver>,
        within: Duration,
    ) -> Result<Self, ResolveError> {
        if let Some(address) = literal(host, port) {
            return Ok(Self { name: host.to_owned(), port, addresses: vec![address], resolver: None });
        }
        let addresses = ask(host, port, &resolver, within).await?;
        Ok(Self { resolver: Some(resolver), ..Self::of(host, addresses)? })
    }

    /// The same server at another port.
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self.addresses.iter_mut().for_each(|address| address.set_port(port));
        self
    }

    /// The server's name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, the best first.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// What needs no resolver.
fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, port));
    }
    let (ip, zone) = bare.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let scope = zone.parse().ok().or_else(|| interface_index(zone))?;
    Some(SocketAddrV6::new(ip, port, 0, scope).into())
}

fn interface_index(name: &str) -> Option<u32> {
    let any = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(&any, name).ok()
}

async fn ask(
    host: &str,
    port: u16,
    resolver: &Arc<dyn Resolver>,
    within: Duration,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let (answer, answered) = oneshot::channel();
    let (asked, resolver) = (host.to_owned(), Arc::clone(resolver));
    // A thread of its own: a resolver that hangs must not hold up the end of the runtime.
    let started = std::thread::Builder::new().name("remoor-resolve".to_owned()).spawn(move || {
        // Nobody waits any more, if the time was up.
        drop(answer.send(resolver.resolve(&asked, port)));
    });
    let failed = |source| ResolveError::Failed { host: host.to_owned(), source };
    started.map_err(failed)?;
    match timeout(within, answered).await {
        Err(_) => Err(ResolveError::TimedOut { host: host.to_owned(), within }),
        Ok(Err(_)) => Err(failed(io::Error::other("the resolver panicked"))),
        Ok(Ok(addresses)) => addresses.map_err(failed),
    }
}

/// A target's addresses while a client uses them, shared by its connections.
pub(crate) struct Addresses {
    name: String,
    port: u16,
    resolver: Option<Arc<dyn Resolver>>,
    asking: AtomicBool,
    book: Mutex<Book>,
}

struct Book {
    list: Vec<SocketAddr>,
    /// Index of the address that served last.
    preferred: usize,
    asked: Option<Instant>,
}

impl Addresses {
    pub(crate) fn new(target: Target) -> Self {
        let Target { name, port, addresses, resolver } = target;
        let book = Book { list: addresses, preferred: 0, asked: None };
        Self { name, port, resolver, asking: AtomicBool::new(false), book: Mutex::new(book) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn list(&self) -> Vec<SocketAddr> {
        let book = self.book();
        let (before, from) = book.list.split_at(book.preferred);
        from.iter().chain(before).copied().collect()
    }

    /// Where the `attempt`th attempt in a row goes, counted from 1: to the address that served last, then to the
    /// others in turn.
    pub(crate) fn choose(&self, attempt: u32) -> SocketAddr {
        let book = self.book();
        book.list[(book.preferred + attempt.saturating_sub(1) as usize) % book.list.len()]
    }

    /// `address` serves.
    pub(crate) fn proven(&self, address: SocketAddr) {
        let mut book = self.book();
        if let Some(at) = book.list.iter().position(|known| *known == address) {
            book.preferred = at;
        }
    }

    /// Asks for the addresses again, in the background; what was known stays until there is an answer. Attempts do not
    /// wait for it. A resolver that hangs is not asked a second time before it has answered.
    pub(crate) fn refresh(self: &Arc<Self>) {
        let Some(resolver) = self.resolver.clone() else { return };
        if !self.is_due() || self.asking.swap(true, Acquire) {
            return;
        }
        let this = Arc::clone(self);
        let started = std::thread::Builder::new().name("remoor-resolve".to_owned()).spawn(move || {
            let _asked = Asked(&this.asking);
            match resolver.resolve(&this.name, this.port) {
                Ok(addresses) => this.replace(addresses),
                Err(error) => tracing::info!(server = this.name, "the name is not resolved again: {error}"),
            }
        });
        if let Err(error) = started {
            self.asking.store(false, Release);
            tracing::warn!(server = self.name, "no thread to resolve the name again: {error}");
        }
    }

    fn is_due(&self) -> bool {
        let (mut book, now) = (self.book(), Instant::now());
        let due = book.asked.is_none_or(|asked| now >= asked + ASK_EVERY);
        if due {
            book.asked = Some(now);
        }
        due
    }

    /// An answer without addresses replaces nothing.
    fn replace(&self, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(MAX_ADDRESSES);
        let mut book = self.book();
        let changed = addresses.iter().any(|address| !book.list.contains(address))
            || book.list.iter().any(|address| !addresses.contains(address));
        if addresses.is_empty() || !changed {
            return;
        }
        tracing::info!(server = self.name, "the name now has the addresses {addresses:?}");
        let served = book.list[book.preferred];
        book.preferred = addresses.iter().position(|address| *address == served).unwrap_or(0);
        book.list = addresses;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that is over when this is dropped, also by a resolver that panics.
struct Asked<'a>(&'a AtomicBool);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn book(list: &[&str]) -> Addresses {
        Addresses::new(Target::of("server", list.iter().map(|text| address(text)).collect()).unwrap())
    }

    #[test]
    fn addresses_are_taken_in_turn_from_the_one_that_served() {
        let book = book(&["127.0.0.1:1", "127.0.0.2:1", "[::1]:1"]);
        let turns = |book: &Addresses| (1..=4).map(|n| book.choose(n).ip().to_string()).collect::<Vec<_>>();
        assert_eq!(turns(&book), ["127.0.0.1", "127.0.0.2", "::1", "127.0.0.1"]);
        book.proven(address("[::1]:1"));
        assert_eq!(turns(&book), ["::1", "127.0.0.1", "127.0.0.2", "::1"]);
        assert_eq!(book.list()[0], address("[::1]:1"));
    }

    #[test]
    fn a_new_answer_replaces_the_old_one_unless_it_is_empty() {
        let book = book(&["127.0.0.1:1", "127.0.0.2:1"]);
        book.proven(address("127.0.0.2:1"));
        book.replace(Vec::new());
        assert_eq!(book.list(), ["127.0.0.2:1", "127.0.0.1:1"].map(address), "the last good answer is kept");
        book.replace(["127.0.0.3:1", "127.0.0.2:1"].map(address).to_vec());
        assert_eq!(book.choose(1), address("127.0.0.2:1"), "what served is still the first");
        book.replace(vec![address("127.0.0.4:1")]);
        assert_eq!(book.choose(1), address("127.0.0.4:1"));
    }

    #[test]
    fn no_more_addresses_are_kept_than_the_limit() {
        let many: Vec<_> = (0..100).map(|n| SocketAddr::new([127, 0, 0, n].into(), 1)).collect();
        let book = Addresses::new(Target::of("server", many.clone()).unwrap());
        assert_eq!(book.list().len(), MAX_ADDRESSES);
        book.replace(many[20..].to_vec());
        assert_eq!(book.list().len(), MAX_ADDRESSES);
    }

    #[test]
    fn addresses_need_no_resolver() {
        let told = |host| literal(host, 2049).map(|address| address.to_string());
        assert_eq!(told("192.0.2.1").unwrap(), "192.0.2.1:2049");
        assert_eq!(told("[2001:db8::1]").unwrap(), "[2001:db8::1]:2049");
        assert_eq!(told("2001:db8::1").unwrap(), "[2001:db8::1]:2049");
        assert_eq!(told("fe80::1%7").unwrap(), "[fe80::1%7]:2049");
        assert_eq!(told("fe80::1%no-such-interface"), None);
        assert_eq!(told("server.example"), None);
    }

    struct Hangs(Mutex<std::sync::mpsc::Receiver<()>>);

    impl Resolver for Hangs {
        fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            self.0.lock().unwrap().recv().ok();
            Err(io::Error::other("over"))
        }
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_costs_its_time_and_no_more() {
        let (_release, held) = std::sync::mpsc::channel();
        let within = Duration::from_millis(10);
        let resolver = Arc::new(Hangs(Mutex::new(held)));
        let error = Target::resolve("server.example", 2049, resolver, within).await.unwrap_err();
        assert!(
            error.to_string().contains("server.example") && error.to_string().contains("10ms"),
            "{error}"
        );
    }
}
