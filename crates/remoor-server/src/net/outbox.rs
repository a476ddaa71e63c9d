//! What the service does of its own accord.

use std::net::IpAddr;

use bytes::Bytes;
use remoor_rpc::xdr::Writer;

use super::crew::Wake;
use super::lane::Call;
use super::schedule::ConnectionId;
use super::service::{End, Kind, Network, Service, Standing};
use super::{Net, locked};

impl<S: Service> Network for Net<S> {
    fn send(&self, to: ConnectionId, reply: &Writer, answers: bool) -> Option<u64> {
        let connection = self.connection(to)?;
        let (_, end) = connection.gather(reply);
        self.flush(&connection);
        if answers {
            connection.keep_promise();
            self.close_if_done(&connection);
        }
        Some(end)
    }

    fn execute(&self, connection: ConnectionId, record: Bytes, kind: Kind, ticket: u64) -> bool {
        let Some(connection) = self.connection(connection) else { return false };
        connection.push(Call { kind, record, ticket: Some(ticket) });
        if connection.is_closed() {
            // Whoever closed it may have looked before.
            self.clear_lane(&connection);
            return true;
        }
        // After, so that it is not taken for done in between.
        connection.keep_promise();
        let mut roster = locked(&self.roster);
        let free = roster.schedule.want(connection.origin.connection);
        let wake = if free { roster.crew.call() } else { Wake::Nobody };
        drop(roster);
        self.wake(wake);
        true
    }

    fn standing(&self, connection: ConnectionId) -> Standing {
        let Some(connection) = self.connection(connection) else { return Standing::Gone };
        let known = connection.acknowledged();
        let acked = known.acked_bytes;
        if connection.is_reset() {
            return Standing::Ended(End { how: connection.death(), acked });
        }
        Standing::Open {
            acked: (!connection.is_relayed()).then_some(acked),
            retransmits: known.unanswered,
            silent: known.last_ack_received,
        }
    }

    fn local_ip(&self, connection: ConnectionId) -> Option<IpAddr> {
        self.connection(connection)?.local_ip()
    }

    fn probe(&self, connection: ConnectionId) {
        if let Some(connection) = self.connection(connection) {
            connection.probe();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpStream};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, OnceLock};
    use std::time::{Duration, Instant};

    use socket2::SockRef;

    use super::super::service::{Answer, How, Malformed, Origin, Outbox};
    use super::super::{Entrances, Handle, Limits, start};
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Event {
        Served(Origin, Bytes),
        Told(ConnectionId, u64, u64),
        Dropped(u64),
        Ended(ConnectionId, How, u64),
        Ticked,
    }

    /// Does with a call what its text says, and tells of it.
    struct Script {
        events: Sender<Event>,
        outbox: OnceLock<Outbox>,
    }

    impl Service for Script {
        fn kind(&self, _: &[u8]) -> Kind {
            Kind::default()
        }

        fn serve(&self, origin: &Origin, record: Bytes, reply: &mut Writer) -> Result<Answer, Malformed> {
            reply.encoded(record.clone());
            let answer = match &record[..] {
                b"tell" => Answer::Tell(7),
                b"later" if origin.ticket.is_none() => Answer::Later,
                b"early" => {
                    let sent = self.outbox.get().unwrap().send(origin.connection, reply, true);
                    assert!(sent.is_some());
                    Answer::Later
                }
                b"never" => Answer::Never,
                b"reset" => Answer::Reset,
                _ => Answer::Now,
            };
            self.events.send(Event::Served(*origin, record)).unwrap();
            Ok(answer)
        }

        fn started(&self, outbox: Outbox) {
            assert!(self.outbox.set(outbox).is_ok());
        }

        fn told(&self, origin: &Origin, ticket: u64, _: &Writer, end: u64) {
            self.events.send(Event::Told(origin.connection, ticket, end)).unwrap();
        }

        fn dropped(&self, ticket: u64) {
            self.events.send(Event::Dropped(ticket)).unwrap();
        }

        fn ended(&self, connection: ConnectionId, end: End) {
            self.events.send(Event::Ended(connection, end.how, end.acked)).unwrap();
        }

        fn tick(&self, now: Instant) -> Option<Instant> {
            let _ = self.events.send(Event::Ticked);
            Some(now)
        }
    }

    struct Rig {
        handle: Handle<Script>,
        events: Receiver<Event>,
    }

    impl Rig {
        fn new() -> Self {
            let (sender, events) = channel();
            let service = Arc::new(Script { events: sender, outbox: OnceLock::new() });
            let any = [SocketAddr::from(([127, 0, 0, 1], 0))];
            let entrances = Entrances { addresses: &any, ..Entrances::default() };
            Self { handle: start(service, entrances, 2, Limits::default()).unwrap(), events }
        }

        fn outbox(&self) -> &Outbox {
            self.handle.service().outbox.get().unwrap()
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.handle.local_addrs()[0]).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        }

        fn event(&self) -> Event {
            loop {
                match self.events.recv_timeout(Duration::from_secs(20)).unwrap() {
                    Event::Ticked => {}
                    event => return event,
                }
            }
        }

        fn served(&self) -> Origin {
            match self.event() {
                Event::Served(origin, _) => origin,
                event => panic!("{event:?}"),
            }
        }
    }

    fn call(stream: &mut TcpStream, text: &[u8]) {
        let mark = (1 << 31 | text.len() as u32).to_be_bytes();
        stream.write_all(&[&mark, text].concat()).unwrap();
    }

    fn reply(stream: &mut TcpStream) -> Vec<u8> {
        let mut mark = [0; 4];
        stream.read_exact(&mut mark).unwrap();
        let mut text = vec![0; (u32::from_be_bytes(mark) & !(1 << 31)) as usize];
        stream.read_exact(&mut text).unwrap();
        text
    }

    fn text(text: &'static [u8]) -> Writer {
        let mut w = Writer::new();
        w.encoded(Bytes::from_static(text));
        w
    }

    #[test]
    fn a_call_may_be_answered_later_and_keeps_its_connection_open_until_then() {
        let rig = Rig::new();
        let (mut first, mut second) = (rig.connect(), rig.connect());
        call(&mut first, b"later");
        let origin = rig.served();
        first.shutdown(Shutdown::Write).unwrap();
        call(&mut second, b"never");
        let other = rig.served();
        assert_eq!(rig.outbox().send(other.connection, &text(b"a gift"), false), Some(10));
        assert_eq!(reply(&mut second), b"a gift");
        assert_eq!(rig.outbox().send(origin.connection, &text(b"at last"), true), Some(11));
        assert_eq!(reply(&mut first), b"at last");
        assert_eq!(first.read(&mut [0]).unwrap(), 0, "it is done");
        assert!(matches!(rig.event(), Event::Ended(id, How::Clean, _) if id == origin.connection));
        assert_eq!(rig.outbox().send(origin.connection, &text(b""), false), None);
        assert_eq!(rig.outbox().standing(origin.connection), Standing::Gone);
    }

    #[test]
    fn an_answer_that_overtakes_the_word_that_it_comes_later_is_counted() {
        let rig = Rig::new();
        let mut client = rig.connect();
        call(&mut client, b"early");
        assert_eq!(reply(&mut client), b"early");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "nothing is waited for");
    }

    #[test]
    fn a_call_may_be_executed_again_with_a_ticket() {
        let rig = Rig::new();
        let mut client = rig.connect();
        call(&mut client, b"later");
        let origin = rig.served();
        let record = Bytes::from_static(b"later");
        assert!(rig.outbox().execute(origin.connection, record, Kind::default(), 5));
        assert_eq!(rig.served(), Origin { ticket: Some(5), ..origin });
        assert_eq!(reply(&mut client), b"later");
        assert!(!rig.outbox().execute(1, Bytes::new(), Kind::default(), 5));
    }

    #[test]
    fn a_call_whose_connection_closes_before_it_is_executed_is_told() {
        let rig = Rig::new();
        let mut client = rig.connect();
        call(&mut client, b"later");
        let id = rig.served().connection;
        let connection = rig.handle.net.connection(id).unwrap();
        let waiting = Call { kind: Kind::default(), record: Bytes::from_static(b"never"), ticket: Some(5) };
        connection.push(waiting);
        rig.handle.net.reset(&connection, "the test asks for it");
        assert_eq!(rig.event(), Event::Dropped(5));
        assert_eq!(rig.event(), Event::Ended(id, How::Reset, 0));
    }

    #[test]
    fn where_a_reply_ends_and_that_it_was_acknowledged_is_told() {
        let rig = Rig::new();
        let mut client = rig.connect();
        call(&mut client, b"four");
        call(&mut client, b"tell");
        let id = rig.served().connection;
        rig.served();
        assert_eq!(rig.event(), Event::Told(id, 7, 16));
        assert_eq!((reply(&mut client), reply(&mut client)), (b"four".to_vec(), b"tell".to_vec()));
        while !matches!(rig.outbox().standing(id), Standing::Open { acked: Some(16), .. }) {
            std::thread::yield_now();
        }
        drop(client);
        assert_eq!(rig.event(), Event::Ended(id, How::Clean, 16));
    }

    #[test]
    fn a_reset_is_told_from_a_close() {
        let rig = Rig::new();
        let mut client = rig.connect();
        call(&mut client, b"now");
        let id = rig.served().connection;
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert!(matches!(rig.event(), Event::Ended(ended, How::Reset, _) if ended == id));
    }

    #[test]
    fn a_connection_may_be_reset_instead_of_an_answer() {
        let rig = Rig::new();
        let mut first = rig.connect();
        call(&mut first, b"reset");
        let origin = rig.served();
        assert_eq!(rig.event(), Event::Ended(origin.connection, How::Reset, 0));
        let error = first.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_peer_that_is_probed_is_heard() {
        let rig = Rig::new();
        let mut client = rig.connect();
        call(&mut client, b"now");
        let id = rig.served().connection;
        assert_eq!(reply(&mut client), b"now");
        let silent = || match rig.outbox().standing(id) {
            Standing::Open { silent, .. } => silent,
            ended => panic!("{ended:?}"),
        };
        while silent() < super::super::limits::PROBE_IDLE {
            std::thread::yield_now();
        }
        while silent() >= super::super::limits::PROBE_IDLE {
            rig.outbox().probe(id);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_stopped_server_ends_its_connections_and_ticks_until_then() {
        let mut rig = Rig::new();
        assert_eq!(rig.events.recv().unwrap(), Event::Ticked);
        let mut client = rig.connect();
        call(&mut client, b"tell");
        let id = rig.served().connection;
        assert_eq!((reply(&mut client), rig.event()), (b"tell".to_vec(), Event::Told(id, 7, 8)));
        let outbox = rig.outbox().clone();
        assert!(rig.handle.stop());
        assert!(matches!(rig.event(), Event::Ended(ended, How::Closed, _) if ended == id));
        let Rig { handle, .. } = rig;
        drop(handle);
        assert_eq!(outbox.standing(id), Standing::Gone);
    }
}
