//! Sequences of calls over two connections of one client, with retransmissions on either, connections that end, and
//! fields that are wrong. Every well-formed call of a connection that lives gets one reply, which is its own and no
//! larger than asked.

mod script;

use bytes::Bytes;
use remoor_nfs::v3::{self, FileHandle, Res};
use remoor_nfs::{mnt, v3::NfsStat};
use remoor_rpc::message::{Call, Message, Reply, ReplyStatus};
use remoor_rpc::program::Procedure;
use remoor_rpc::xdr::{self, Reader, Xdr};
use remoor_server::fuzz::{Served, Session, root_handle};

use self::script::{Script, Step};
use crate::MAX_ALLOCATION;
use crate::procedures::{MNT, NFS};

/// Steps of one input.
const MAX_STEPS: usize = 32;
/// Most bytes that a READ asks for.
const MAX_READ: u32 = MAX_ALLOCATION as u32 / 2;
/// Handles that are remembered, to be used again.
const MAX_HANDLES: usize = 16;

/// Inputs to start from: each kind of step after those that make a file and a directory, and some of it again.
pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |n: u8| (0..200).map(|i: u8| i.wrapping_mul(n.wrapping_mul(2) | 1).wrapping_add(n)).collect();
    (0..64).map(seed).chain((0..22).map(script::seed)).collect()
}

/// Plays the script that the bytes are.
pub fn run(data: &[u8]) {
    let mut session = Session::new().expect("the export is a good one");
    let lines = [Line::new(&mut session), Line::new(&mut session)];
    let root = root_handle().expect("the exported directory has a handle");
    let mut play = Play { session, lines, handles: vec![root], last: Bytes::new() };
    let mut script = Script::new(data);
    for _ in 0..MAX_STEPS {
        let Some(step) = script.step(&play.handles) else { break };
        play.step(step);
    }
    play.end();
}

/// A connection, and what it waits for.
struct Line {
    id: u64,
    awaited: Vec<Bytes>,
}

impl Line {
    fn new(session: &mut Session) -> Self {
        Self { id: session.connect(), awaited: Vec::new() }
    }
}

struct Play {
    session: Session,
    lines: [Line; 2],
    handles: Vec<FileHandle>,
    /// The last record that was sent.
    last: Bytes,
}

impl Play {
    fn step(&mut self, step: Step) {
        match step {
            Step::Call { line, record } => self.call(line, record),
            Step::Again { line } => self.call(line, self.last.clone()),
            Step::End { line, clean } => {
                self.session.end(self.lines[line].id, clean);
                self.lines[line] = Line::new(&mut self.session);
            }
            Step::Later => self.later(),
        }
    }

    fn call(&mut self, line: usize, record: Bytes) {
        // Two calls that wait with one xid: their replies could not be told apart.
        let is_mixed = |other: &Bytes| other.get(..4) == record.get(..4) && *other != record;
        if reads_much(&record) || self.lines[line].awaited.iter().any(is_mixed) {
            return;
        }
        self.last = record.clone();
        match self.session.serve(self.lines[line].id, &record) {
            Served::Reply(reply) => self.check(&record, &reply),
            Served::Later => self.lines[line].awaited.push(record),
            Served::Never => {
                let mut awaited = self.lines[line].awaited.iter();
                assert!(awaited.any(|other| other[..4] == record[..4]), "nothing comes to {record:?}");
            }
            Served::Closed => {
                assert!(!is_call(&record), "closed at a call");
                self.lines[line] = Line::new(&mut self.session);
            }
        }
    }

    fn later(&mut self) {
        for (id, reply) in self.session.later() {
            // It may have ended since.
            let Some(line) = self.lines.iter_mut().find(|line| line.id == id) else { continue };
            let found = line.awaited.iter().position(|record| record[..4] == reply[..4]);
            let record = line.awaited.remove(found.expect("a reply that nobody waits for"));
            self.check(&record, &reply);
        }
    }

    /// The second connection gets all it waits for at the end of the first, at the latest.
    fn end(mut self) {
        self.later();
        self.session.end(self.lines[0].id, false);
        self.lines[0] = Line::new(&mut self.session);
        while self.lines[1].awaited.len() > {
            self.later();
            self.lines[1].awaited.len()
        } {}
        assert!(self.lines[1].awaited.is_empty(), "never answered: {:?}", self.lines[1].awaited);
    }

    fn check(&mut self, record: &Bytes, reply: &Bytes) {
        assert_eq!(record[..4], reply[..4], "another call's reply");
        let Ok(Message::Reply(reply)) = Message::decode(reply.clone()) else { panic!("no reply: {reply:?}") };
        assert_ne!(reply.status, ReplyStatus::SystemErr);
        match Message::decode(record.clone()) {
            Ok(Message::Call(call)) if reply.status == ReplyStatus::Success => {
                self.check_result(&call, &reply)
            }
            _ => assert!(reply.result.rest().is_empty(), "a result after {}", reply.status),
        }
    }

    fn check_result(&mut self, call: &Call, reply: &Reply) {
        let header = &call.header;
        let table = if header.program == mnt::PROGRAM.number { MNT } else { NFS };
        let row = &table[header.procedure as usize];
        let result = reply.result.rest();
        assert!((row.is_res)(result.clone()), "{header:?}: not its result: {result:?}");
        if header.program == v3::PROGRAM.number {
            check_size(header.procedure, call.args.clone(), &result);
            self.learn(header.procedure, &result);
        }
    }

    /// Keeps handles that were told.
    fn learn(&mut self, procedure: u32, result: &Bytes) {
        let file = match procedure {
            v3::Lookup::NUMBER => ok::<v3::Lookup, _, _>(result).map(|found| found.file),
            v3::Create::NUMBER..=v3::Mknod::NUMBER => {
                ok::<v3::Create, _, _>(result).and_then(|made| made.file)
            }
            _ => None,
        };
        let is_new = |file: &FileHandle| !self.handles.contains(file) && self.handles.len() < MAX_HANDLES;
        self.handles.extend(file.filter(is_new));
    }
}

/// Whether it may rightly take a larger allocation than one that believes a wrong length: of a sparse file, for example.
fn reads_much(record: &Bytes) -> bool {
    let Ok(Message::Call(mut call)) = Message::decode(record.clone()) else { return false };
    let is_read = (call.header.program, call.header.procedure) == (v3::PROGRAM.number, v3::Read::NUMBER);
    is_read && v3::ReadArgs::decode(&mut call.args).is_ok_and(|args| args.count > MAX_READ)
}

/// Whether it must be answered.
fn is_call(record: &Bytes) -> bool {
    matches!(Message::decode(record.clone()), Ok(Message::Call(_)))
}

fn ok<P: Procedure<Res = Res<T, F>>, T: Xdr, F: Xdr>(result: &Bytes) -> Option<T> {
    xdr::from_bytes::<P::Res>(result.clone(), P::NAME).ok()?.into_result().ok()
}

/// Of what is asked for by length: not more. A list's length is that of the result without its status.
fn check_size(procedure: u32, mut args: Reader, result: &Bytes) {
    let list = || if result[..4] == xdr::to_bytes(&NfsStat::Ok)[..] { result.len() - 4 } else { 0 };
    let (got, asked) = match procedure {
        v3::Read::NUMBER => {
            let data = ok::<v3::Read, _, _>(result).map_or(0, |read| read.data.0.len());
            (data, v3::ReadArgs::decode(&mut args).map(|args| args.count))
        }
        v3::Write::NUMBER => {
            let count = ok::<v3::Write, _, _>(result).map_or(0, |written| written.count as usize);
            (count, v3::WriteArgs::decode(&mut args).map(|args| args.count))
        }
        v3::Readdir::NUMBER => (list(), v3::ReaddirArgs::decode(&mut args).map(|args| args.count)),
        v3::Readdirplus::NUMBER => {
            (list(), v3::ReaddirplusArgs::decode(&mut args).map(|args| args.max_count))
        }
        _ => return,
    };
    let asked = asked.expect("a call that was executed") as usize;
    assert!(got <= asked, "procedure {procedure}: {got} of {asked} bytes");
}
