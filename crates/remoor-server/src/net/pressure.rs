//! Clients that read slowly, replies that are large, workers that are few: no call is left to itself.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remoor_rpc::xdr::Writer;

use super::{Answer, Entrances, Handle, How, Kind, Limits, Malformed, Origin, Service, locked, start};

/// Far above what any reply needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const HEADER: usize = 16;

/// What a call asks for: how long its reply is, how long it takes, and whether it is a NULL call.
#[derive(Debug, Clone, Copy, Default)]
struct Ask {
    number: u32,
    reply_bytes: u32,
    micros: u32,
    is_null: bool,
}

impl Ask {
    fn record(self) -> Vec<u8> {
        let words = [self.number, self.reply_bytes, self.micros, self.is_null.into()];
        let mark = 1 << 31 | HEADER as u32;
        [mark].iter().chain(&words).flat_map(|word| word.to_be_bytes()).collect()
    }

    fn of(record: &[u8]) -> Self {
        let word = |n: usize| u32::from_be_bytes(record[4 * n..4 * n + 4].try_into().unwrap());
        Self { number: word(0), reply_bytes: word(1), micros: word(2), is_null: word(3) == 1 }
    }

    /// Bytes of the reply on the wire.
    fn wire(self) -> usize {
        4 + 4 + self.reply_bytes as usize
    }
}

/// Answers what it is asked, when it is asked to; a call with a gate's number waits for it.
struct Asked {
    gates: Vec<(u32, Mutex<Receiver<()>>)>,
    began: Mutex<Sender<u32>>,
    data: Bytes,
    served: AtomicUsize,
}

const MAX_REPLY: usize = 1 << 20;

impl Asked {
    fn new(gated: &[u32]) -> (Arc<Self>, Vec<Sender<()>>, Receiver<u32>) {
        let (began, begun) = channel();
        let (open, gates) =
            gated.iter().map(|n| (*n, channel())).map(|(n, (s, r))| (s, (n, r.into()))).unzip();
        (
            Arc::new(Self {
                gates,
                began: began.into(),
                data: vec![7; MAX_REPLY].into(),
                served: AtomicUsize::new(0),
            }),
            open,
            begun,
        )
    }
}

impl Service for Asked {
    fn kind(&self, record: &[u8]) -> Kind {
        let ask = Ask::of(record);
        Kind {
            is_null: ask.is_null,
            is_idempotent: !ask.number.is_multiple_of(3),
            class: (ask.number % 4) as u8,
        }
    }

    fn serve(&self, _: &Origin, record: Bytes, reply: &mut Writer) -> Result<Answer, Malformed> {
        let ask = Ask::of(&record);
        if let Some((number, gate)) = self.gates.iter().find(|(number, _)| *number == ask.number) {
            locked(&self.began).send(*number).unwrap();
            let _ = locked(gate).recv();
        }
        if ask.micros > 0 {
            thread::sleep(Duration::from_micros(ask.micros.into()));
        }
        self.served.fetch_add(1, Relaxed);
        reply.u32(ask.number);
        reply.encoded(self.data.slice(..ask.reply_bytes as usize));
        Ok(Answer::Now)
    }
}

fn serve(service: Arc<Asked>, workers: usize, limits: Limits) -> Handle<Asked> {
    let address = [SocketAddr::from(([127, 0, 0, 1], 0))];
    start(service, Entrances { addresses: &address, ..Entrances::default() }, workers, limits).unwrap()
}

struct Client(TcpStream);

impl Client {
    fn connect(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn ask(&mut self, ask: Ask) {
        self.0.write_all(&ask.record()).unwrap();
    }

    /// The number of the call that is answered next.
    fn answered(&mut self) -> u32 {
        let mut head = [0; 8];
        self.0.read_exact(&mut head).unwrap_or_else(|e| panic!("a call is not answered: {e}"));
        let len = u32::from_be_bytes(head[..4].try_into().unwrap()) & !(1 << 31);
        self.0.read_exact(&mut vec![0; len as usize - 4]).unwrap();
        u32::from_be_bytes(head[4..].try_into().unwrap())
    }
}

/// The calls of a connection whose client does not read are held. Here the last of its replies are sent by a worker
/// that was in a slow call of it, and no worker sees the event that the socket takes bytes again.
#[test]
fn a_held_connection_goes_on_whoever_sends_its_replies() {
    const SLOW: u32 = 1;
    const NULL: u32 = 2;
    let (service, gates, begun) = Asked::new(&[SLOW, NULL]);
    let limits = Limits { reply_bytes: 0, ..Limits::default() };
    let mut handle = serve(service, 3, limits);
    let at = handle.local_addrs()[0];
    let mut client = Client::connect(at);
    client.ask(Ask { number: SLOW, ..Ask::default() });
    assert_eq!(begun.recv().unwrap(), SLOW);
    let connection = handle.net.snapshot()[0].clone();
    let id = connection.origin.connection;
    let large = Ask { number: 9, reply_bytes: 64 << 10, ..Ask::default() };
    let mut asked = 0;
    let runners = || locked(&handle.net.roster).schedule.runners(id);
    // Held as soon as the socket takes no more.
    while connection.unsent() == 0 {
        client.ask(large);
        asked += 1;
        while handle.service().served.load(Relaxed) < asked || runners() > 1 {
            thread::yield_now();
        }
    }
    // The worker that watches sockets is kept from them.
    let mut other = Client::connect(at);
    other.ask(Ask { number: NULL, is_null: true, ..Ask::default() });
    assert_eq!(begun.recv().unwrap(), NULL);
    let taken = asked * large.wire() - connection.unsent();
    client.0.read_exact(&mut vec![0; taken]).unwrap();
    gates[0].send(()).unwrap();
    while runners() > 0 {
        thread::yield_now();
    }
    let mut rest = vec![0; asked * large.wire() - taken + Ask::default().wire()];
    client.0.read_exact(&mut rest).unwrap();
    client.ask(Ask { number: 4, ..Ask::default() });
    drop(gates);
    assert_eq!(client.answered(), 4);
    assert_eq!(other.answered(), NULL);
    drop((client, other));
    assert!(handle.stop());
}

/// A worker that still sends when the connection is closed leaves bytes in its share, which go with the last of it. What
/// waits for the load to be less must not be what keeps it.
#[test]
fn a_connection_that_waits_for_room_takes_none_once_it_is_closed() {
    let (service, _, _) = Asked::new(&[]);
    let mut handle = serve(service, 2, Limits { bytes: 100, ..Limits::default() });
    let at = handle.local_addrs()[0];
    let mut clients = [(); 2].map(|()| Client::connect(at));
    clients.iter_mut().for_each(|client| client.ask(Ask::default()));
    clients.iter_mut().for_each(|client| assert_eq!(client.answered(), 0));
    let net = &handle.net;
    let [one, other] = net.snapshot().try_into().ok().unwrap();
    other.share.unsent(100);
    net.throttle(&one);
    net.close(&one, How::Closed);
    one.share.unsent(100);
    drop(one);
    other.share.unsent(0);
    let deadline = Instant::now() + PATIENCE;
    while net.load.is_full() {
        assert!(Instant::now() < deadline, "nobody has anything in flight");
        net.unthrottle();
        thread::yield_now();
    }
    drop((other, clients));
    assert!(handle.stop());
}

/// A seed is one run.
struct Dice(u64);

impl Dice {
    /// Below `n`; SplitMix64.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn limits(&mut self) -> Limits {
        Limits {
            running_per_connection: self.pick(&[1, 2, 8]),
            backlog_calls: self.pick(&[1, 2, 8]),
            backlog_bytes: self.pick(&[1, 100, 4 << 20]),
            reply_bytes: self.pick(&[0, 64 << 10, 1 << 20]),
            calls: self.pick(&[1, 3, 100, 65_536]),
            bytes: self.pick(&[50, 300 << 10, 512 << 20]),
            ..Limits::default()
        }
    }

    fn ask(&mut self, number: u32) -> Ask {
        Ask {
            number,
            reply_bytes: self.pick(&[0, 100, 60_000, 200_000, MAX_REPLY as u32]),
            micros: self.pick(&[0, 0, 0, 0, 0, 0, 200, 3000]),
            is_null: self.one_in(8),
        }
    }
}

/// Keeps `depth` calls in flight until `calls` were answered, each once; or leaves before.
fn converse(at: SocketAddr, dice: &mut Dice, served: &AtomicUsize) {
    let mut client = Client::connect(at);
    let (depth, calls, is_slow) = (1 + dice.below(12), dice.below(40) as u32, dice.one_in(3));
    let leaves = dice.one_in(5);
    let mut next = 0;
    let mut open = HashSet::new();
    loop {
        while open.len() < depth && next < calls {
            client.ask(dice.ask(next));
            open.insert(next);
            next += 1;
        }
        if open.is_empty() || (leaves && dice.one_in(10)) {
            return;
        }
        if next == calls && dice.one_in(20) {
            let _ = client.0.shutdown(Shutdown::Write);
        }
        if is_slow {
            thread::sleep(Duration::from_micros(dice.below(5000) as u64));
        }
        assert!(open.remove(&client.answered()), "a reply to nothing that was asked");
        served.fetch_add(1, Relaxed);
    }
}

/// One server, and clients that come and go until `rounds` connections of each were served.
fn struggle(seed: u64, clients: u64, rounds: usize) {
    let mut dice = Dice(seed);
    let (workers, limits) = (2 + dice.below(3), dice.limits());
    let (service, _, _) = Asked::new(&[]);
    let mut handle = serve(service, workers, limits.clone());
    let (at, answered) = (handle.local_addrs()[0], AtomicUsize::new(0));
    thread::scope(|scope| {
        for n in 1..=clients {
            let (mut dice, answered) = (Dice(seed ^ n << 32), &answered);
            scope.spawn(move || (0..rounds).for_each(|_| converse(at, &mut dice, answered)));
        }
    });
    assert!(answered.into_inner() > 0, "seed {seed}");
    assert!(handle.stop(), "seed {seed}, {workers} workers, {limits:?}: calls are left behind");
}

#[test]
fn whatever_the_limits_no_call_is_left_to_itself() {
    (0..12).for_each(|seed| struggle(seed, 4, 4));
}
