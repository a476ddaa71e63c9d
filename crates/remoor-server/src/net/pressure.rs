//! Clients that read slowly, replies that are large, workers that are few: no call is left to itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use remoor_rpc::xdr::Writer;

use super::{Answer, Entrances, Handle, Kind, Limits, Malformed, Origin, Service, locked, start};

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
        Kind { is_null: ask.is_null, is_idempotent: ask.number % 3 > 0, class: (ask.number % 4) as u8 }
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
        eprintln!("asked {asked} {}", connection.unsent());
        while handle.service().served.load(Relaxed) < asked || runners() > 1 {
            thread::yield_now();
        }
    }
    eprintln!("held {}", connection.unsent());
    // The worker that watches sockets is kept from them.
    let mut other = Client::connect(at);
    other.ask(Ask { number: NULL, is_null: true, ..Ask::default() });
    assert_eq!(begun.recv().unwrap(), NULL);
    let taken = asked * large.wire() - connection.unsent();
    client.0.read_exact(&mut vec![0; taken]).unwrap();
    eprintln!("taken");
    gates[0].send(()).unwrap();
    while runners() > 0 {
        thread::yield_now();
    }
    eprintln!("run {}", connection.unsent());
    let mut rest = vec![0; asked * large.wire() - taken + Ask::default().wire()];
    client.0.read_exact(&mut rest).unwrap();
    client.ask(Ask { number: 4, ..Ask::default() });
    drop(gates);
    assert_eq!(client.answered(), 4);
    assert_eq!(other.answered(), NULL);
    drop((client, other));
    assert!(handle.stop());
}
