//! Clients behind one address, a server with the cache, and the connections between, in virtual time. One list of steps is
//! one run.
//!
//! A connection is an ordered stream each way. One that is broken carries nothing any more, and neither end is told.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::*;
use super::epoch;

pub(super) const TICK: Duration = Duration::from_millis(10);
const LATENCY: u32 = 2;
/// Ticks after which a kernel has retransmitted twice, and after which it gives up.
const RETRANSMITTED: u32 = 60;
const GIVEN_UP: u32 = 1500;
/// Bytes of every reply.
const REPLY: u64 = 32;

/// What a client asked for once, however often it sends it.
pub(super) type Op = usize;

/// What two operations may have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) xid: u32,
    pub(super) bytes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// A FIN, or a RST if something is unread.
    Close,
    Reset,
    /// No packet: what comes for it is answered with a RST.
    Silent,
}

#[derive(Debug)]
enum Up {
    Call(Op),
    Ack(u64),
    /// The answer to a probe.
    Alive,
    Fin,
    Rst,
}

#[derive(Debug)]
enum Down {
    /// Who executed it, for what, where it ends.
    Reply {
        executed: Op,
        wire: Wire,
        end: u64,
    },
    Ack,
    Probe,
    Rst,
}

#[derive(Debug)]
struct Pipe {
    client: usize,
    port: u16,
    broken: bool,
    /// The client has no socket any more.
    left: bool,
    /// How it ended at the server.
    ended: Option<End>,
    up: VecDeque<(u32, Up)>,
    down: VecDeque<(u32, Down)>,
    /// Replies in the client's socket, not read yet.
    unread: VecDeque<(u32, Op, Wire)>,
    written: u64,
    acked: u64,
    acked_at: u32,
    /// When the client's kernel was last heard.
    heard_at: u32,
    /// Replies written, with their end: who executed them.
    replies: Vec<(u64, Op)>,
    /// Operations this connection carried to the server.
    carried: Vec<Op>,
    answered: Vec<Wire>,
}

pub(super) struct Operation {
    pub(super) client: usize,
    wire: Wire,
    /// Ticks of execution.
    cost: u32,
    pub(super) executed: u32,
    /// Which operation's execution answered it.
    pub(super) answer: Option<Op>,
    /// Its reply answered another operation as well: what comes of it cannot be told apart.
    pub(super) confounded: bool,
}

pub(super) struct Network {
    pub(super) cache: ReplyCache<(u64, Op)>,
    pub(super) ops: Vec<Operation>,
    /// What should not have happened.
    pub(super) wrongs: Vec<String>,
    tick: u32,
    /// Ticks until a client reads what has arrived.
    lag: u32,
    pipes: BTreeMap<u64, Pipe>,
    /// The connection of each client.
    current: Vec<u64>,
    running: Vec<(u32, Ticket, u64, Op)>,
    next_port: u16,
}

impl Network {
    pub(super) fn new(config: Config, clients: usize, lag: u32) -> Self {
        let mut network = Self {
            cache: ReplyCache::new(config),
            ops: Vec::new(),
            wrongs: Vec::new(),
            tick: 0,
            lag,
            pipes: BTreeMap::new(),
            current: vec![0; clients],
            running: Vec::new(),
            next_port: 1000,
        };
        (0..clients).for_each(|client| network.connect(client, None));
        network
    }

    fn now(&self) -> Instant {
        epoch() + TICK * self.tick
    }

    fn connect(&mut self, client: usize, port: Option<u16>) {
        let id = self.pipes.len() as u64 + 1;
        self.next_port += 1;
        let pipe = Pipe {
            client,
            port: port.unwrap_or(self.next_port),
            broken: false,
            left: false,
            ended: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            unread: VecDeque::new(),
            written: 0,
            acked: 0,
            acked_at: 0,
            heard_at: self.tick,
            replies: Vec::new(),
            carried: Vec::new(),
            answered: Vec::new(),
        };
        self.pipes.insert(id, pipe);
        self.current[client] = id;
    }

    /// A client asks for something new; not if it waits for the same xid.
    pub(super) fn ask(&mut self, client: usize, wire: Wire, cost: u32) {
        if self.outstanding(client).iter().any(|op| self.ops[*op].wire.xid == wire.xid) {
            return;
        }
        self.ops.push(Operation { client, wire, cost, executed: 0, answer: None, confounded: false });
        self.send(self.ops.len() - 1);
    }

    fn outstanding(&self, client: usize) -> Vec<Op> {
        let waits = |op: &Op| self.ops[*op].client == client && self.ops[*op].answer.is_none();
        (0..self.ops.len()).filter(waits).collect()
    }

    fn send(&mut self, op: Op) {
        let conn = self.current[self.ops[op].client];
        self.push_up(conn, Up::Call(op));
    }

    /// A client sends again what it waits for, on the connection it has.
    pub(super) fn retransmit(&mut self, client: usize) {
        self.outstanding(client).into_iter().for_each(|op| self.send(op));
    }

    /// Nothing passes on the client's connection any more.
    pub(super) fn cut(&mut self, client: usize) {
        let conn = self.current[client];
        let pipe = self.pipe(conn);
        pipe.broken = true;
        pipe.up.clear();
        pipe.down.clear();
    }

    /// A client leaves its connection, makes another one and sends everything again.
    pub(super) fn move_on(&mut self, client: usize, leave: Leave, same_port: bool) {
        let conn = self.current[client];
        let broken = self.pipe(conn).broken;
        let unread = !self.pipe(conn).unread.is_empty();
        self.pipe(conn).unread.clear();
        self.pipe(conn).left = true;
        let silent = broken || leave == Leave::Silent;
        let farewell = if leave == Leave::Close && !unread { Up::Fin } else { Up::Rst };
        if !silent {
            self.push_up(conn, farewell);
        }
        let port = same_port.then_some(self.pipe(conn).port);
        // The server's kernel knows two connections with the same four numbers apart by nothing but the RST.
        if same_port && silent {
            self.end(conn, How::Superseded);
        }
        self.connect(client, port);
        self.retransmit(client);
    }

    fn pipe(&mut self, conn: u64) -> &mut Pipe {
        self.pipes.get_mut(&conn).expect("connections are not forgotten")
    }

    fn push_up(&mut self, conn: u64, up: Up) {
        let at = self.tick + LATENCY;
        let pipe = self.pipe(conn);
        if !pipe.broken {
            pipe.up.push_back((at, up));
        }
    }

    fn push_down(&mut self, conn: u64, down: Down) {
        let at = self.tick + LATENCY;
        let pipe = self.pipe(conn);
        if !pipe.broken {
            pipe.down.push_back((at, down));
        }
    }

    pub(super) fn pass(&mut self, ticks: u32) {
        (0..ticks).for_each(|_| self.step());
    }

    fn step(&mut self) {
        self.tick += 1;
        let over = |pipe: &Pipe| pipe.ended.is_some() && pipe.up.is_empty() && pipe.down.is_empty();
        let conns: Vec<u64> = self.pipes.iter().filter(|(_, p)| !over(p)).map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.server_side(conn);
            self.client_side(conn);
            self.give_up(conn);
        }
        let tick = self.tick;
        let done: Vec<_> = self.running.extract_if(.., |(at, ..)| *at <= tick).collect();
        done.into_iter().for_each(|(_, ticket, conn, op)| self.executed(ticket, conn, op));
        let now = self.now();
        if self.cache.poll_timeout().is_some_and(|at| at <= now) {
            self.with(|cache, now, probe| cache.handle_timeout(now, probe));
        }
        self.act();
    }

    fn server_side(&mut self, conn: u64) {
        let tick = self.tick;
        while let Some((_, up)) = due(&mut self.pipe(conn).up, tick) {
            // The kernel acknowledges whatever it has a socket for, and resets what it has none for.
            let gone = self.pipe(conn).ended.is_some();
            self.pipe(conn).heard_at = tick;
            match up {
                Up::Call(_) if gone => self.push_down(conn, Down::Rst),
                _ if gone => {}
                Up::Call(op) => {
                    self.push_down(conn, Down::Ack);
                    self.call(conn, op);
                }
                Up::Ack(acked) => {
                    let pipe = self.pipe(conn);
                    (pipe.acked, pipe.acked_at) = (acked, tick);
                }
                Up::Alive => {}
                Up::Fin => self.end(conn, How::Clean),
                Up::Rst => self.end(conn, How::Reset),
            }
        }
    }

    fn client_side(&mut self, conn: u64) {
        let tick = self.tick;
        while let Some((_, down)) = due(&mut self.pipe(conn).down, tick) {
            let (left, read_at) = (self.pipe(conn).left, tick + self.lag);
            match down {
                Down::Rst if !left => self.lost(conn),
                Down::Rst => {}
                _ if left => self.push_up(conn, Up::Rst),
                Down::Ack => {}
                Down::Probe => self.push_up(conn, Up::Alive),
                Down::Reply { executed, wire, end } => {
                    self.pipe(conn).unread.push_back((read_at, executed, wire));
                    self.push_up(conn, Up::Ack(end));
                }
            }
        }
        while let Some((_, executed, wire)) = self.pipe(conn).unread.pop_front_if(|(at, ..)| *at <= tick) {
            self.read(conn, executed, wire);
        }
    }

    /// The server reset the client's connection.
    fn lost(&mut self, conn: u64) {
        let client = self.pipe(conn).client;
        self.pipe(conn).left = true;
        self.pipe(conn).unread.clear();
        if self.current[client] == conn {
            self.connect(client, None);
            self.retransmit(client);
        }
    }

    fn read(&mut self, conn: u64, executed: Op, wire: Wire) {
        let client = self.pipe(conn).client;
        self.pipe(conn).answered.push(wire);
        let waiting = self.outstanding(client).into_iter().find(|op| self.ops[*op].wire == wire);
        if let Some(op) = waiting {
            self.ops[op].answer = Some(executed);
        }
    }

    /// The server's kernel retransmits what is not acknowledged, and gives up.
    fn give_up(&mut self, conn: u64) {
        let since = self.unacked_for(conn);
        if since > GIVEN_UP && self.pipe(conn).ended.is_none() {
            self.end(conn, How::TimedOut);
        }
    }

    fn unacked_for(&self, conn: u64) -> u32 {
        let pipe = &self.pipes[&conn];
        if pipe.acked < pipe.written { self.tick - pipe.acked_at } else { 0 }
    }

    fn standing(&self, conn: ConnectionId) -> Standing {
        let pipe = &self.pipes[&conn.0];
        let retransmits = if self.unacked_for(conn.0) >= RETRANSMITTED { RETRANSMITS } else { 0 };
        match pipe.ended {
            Some(end) => Standing::Ended(end),
            None => {
                let silent = TICK * (self.tick - pipe.heard_at);
                Standing::Open { acked: Some(pipe.acked), retransmits, silent }
            }
        }
    }

    fn with<T>(
        &mut self,
        run: impl FnOnce(&mut ReplyCache<(u64, Op)>, Instant, &dyn Fn(ConnectionId) -> Standing) -> T,
    ) -> T {
        let mut cache = std::mem::replace(&mut self.cache, ReplyCache::new(Config::default()));
        let told = run(&mut cache, self.now(), &|conn| self.standing(conn));
        self.cache = cache;
        told
    }

    fn end(&mut self, conn: u64, how: How) {
        let end = End { how, acked: self.pipe(conn).acked };
        if self.pipe(conn).ended.is_none() {
            self.pipe(conn).ended = Some(end);
            self.with(|cache, now, probe| cache.ended(now, ConnectionId(conn), end, probe));
            self.act();
        }
    }

    fn call(&mut self, conn: u64, op: Op) {
        let Wire { xid, bytes } = self.ops[op].wire;
        let client = ClientId::new([192, 0, 2, 1].into(), b"host", 0);
        let key = Key::new(0, client, xid, [100_003, 3, 12], None, &[bytes]);
        let caller = Caller { conn: ConnectionId(conn), port: self.pipe(conn).port };
        self.pipe(conn).carried.push(op);
        match self.with(|cache, now, probe| cache.call(now, caller, key, (conn, op), probe)) {
            Verdict::Execute(ticket, (conn, op)) => self.execute(ticket, conn, op),
            Verdict::Replay(ticket, reply) => self.replay(ticket, conn, &reply),
            Verdict::Wait | Verdict::Awaited => {}
            Verdict::Refuse(_) => {
                self.end(conn, How::Reset);
                self.push_down(conn, Down::Rst);
            }
        }
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.cache.poll() {
            match action {
                Action::Execute(ticket, (conn, op)) => self.execute(ticket, conn, op),
                Action::Replay { conn, ticket, reply, .. } => self.replay(ticket, conn.0, &reply),
                Action::Probe(conn) => self.probe(conn.0),
            }
        }
    }

    /// A kernel probes no connection that was heard a moment ago.
    fn probe(&mut self, conn: u64) {
        let pipe = &self.pipes[&conn];
        let idle = TICK * (self.tick - pipe.heard_at);
        if pipe.ended.is_none() && idle >= PROBE_IDLE {
            self.push_down(conn, Down::Probe);
        }
    }

    fn execute(&mut self, ticket: Ticket, conn: u64, op: Op) {
        self.ops[op].executed += 1;
        self.running.push((self.tick + self.ops[op].cost, ticket, conn, op));
    }

    /// The first bytes of a reply say who executed it.
    fn executed(&mut self, ticket: Ticket, conn: u64, op: Op) {
        let mut reply = vec![0; REPLY as usize];
        reply[..8].copy_from_slice(&(op as u64).to_be_bytes());
        let sent = self.write(conn, op);
        self.with(|cache, now, probe| cache.finish(now, ticket, Bytes::from(reply), sent, probe));
        self.act();
    }

    fn write(&mut self, conn: u64, executed: Op) -> Option<u64> {
        let (tick, wire) = (self.tick, self.ops[executed].wire);
        let pipe = self.pipe(conn);
        if pipe.ended.is_some() {
            return None;
        }
        if pipe.acked == pipe.written {
            pipe.acked_at = tick;
        }
        pipe.written += REPLY;
        let end = pipe.written;
        pipe.replies.push((end, executed));
        self.push_down(conn, Down::Reply { executed, wire, end });
        Some(end)
    }

    fn replay(&mut self, ticket: Ticket, conn: u64, reply: &Bytes) {
        let executed = u64::from_be_bytes(reply[..8].try_into().expect("a reply is longer")) as Op;
        self.check_replay(conn, executed);
        if let Some(end) = self.write(conn, executed) {
            self.cache.sent(ticket, ConnectionId(conn), end);
        }
    }

    /// No client is answered with another's reply that is acknowledged on a connection that is open and not cut.
    fn check_replay(&mut self, conn: u64, executed: Op) {
        let client = self.pipe(conn).client;
        let wire = self.ops[executed].wire;
        if self.ops[executed].client == client {
            return;
        }
        let of_executor =
            |pipe: &&Pipe| pipe.client == self.ops[executed].client && pipe.ended.is_none() && !pipe.broken;
        let acked = |pipe: &Pipe| pipe.replies.iter().any(|(end, op)| *op == executed && pipe.acked >= *end);
        if !self.ops[executed].confounded && self.pipes.values().filter(of_executor).any(acked) {
            self.wrongs.push(format!(
                "connection {conn} is answered with the reply to the live operation {executed}"
            ));
        }
        self.ops[executed].confounded = true;
        for op in self.outstanding(client) {
            self.ops[op].confounded |= self.ops[op].wire == wire;
        }
    }

    /// Lets every client come back and every answer arrive.
    pub(super) fn settle(&mut self) {
        for client in 0..self.current.len() {
            if self.pipes[&self.current[client]].broken {
                self.move_on(client, Leave::Reset, false);
            }
        }
        let longest = (HOLD_LIMIT.as_millis() / TICK.as_millis()) as u32 + GIVEN_UP;
        let until = self.tick + longest;
        while self.tick < until && !self.is_quiet() {
            self.step();
        }
    }

    /// Nothing is on its way and nothing waits but for a kernel to give up.
    fn is_quiet(&self) -> bool {
        let still = |pipe: &Pipe| pipe.up.is_empty() && pipe.down.is_empty() && pipe.unread.is_empty();
        self.running.is_empty() && self.cache.held() == 0 && self.pipes.values().all(still)
    }

    /// What was carried to the server on a connection that lives and got no answer there.
    pub(super) fn unanswered(&self) -> Vec<(u64, Op)> {
        let live = |pipe: &Pipe| pipe.ended.is_none() && !pipe.left && !pipe.broken;
        let silent = |pipe: &Pipe, op: &Op| !pipe.answered.contains(&self.ops[*op].wire);
        let of = |(conn, pipe): (&u64, &Pipe)| {
            let ops = pipe.carried.iter().filter(|op| silent(pipe, op)).copied();
            ops.map(|op| (*conn, op)).collect::<Vec<_>>()
        };
        self.pipes.iter().filter(|(_, pipe)| live(pipe)).flat_map(of).collect()
    }
}

fn due<T>(queue: &mut VecDeque<(u32, T)>, tick: u32) -> Option<(u32, T)> {
    queue.pop_front_if(|(at, _)| *at <= tick)
}
