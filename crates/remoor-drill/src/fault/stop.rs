//! The server process is stopped; the node's kernel goes on acknowledging and accepting connections.

use rustix::process::Signal;

use super::{Fault, Mended};

pub(super) const FAULT: Fault = Fault {
    name: "stop",
    about: "the server process is stopped: its kernel still acknowledges, nothing is answered",
    lasts: None,
    inject: |victim| victim.signal(Signal::STOP, "SIGSTOP"),
    mend: |victim| victim.signal(Signal::CONT, "SIGCONT").map(|()| Mended::Resumed),
};
