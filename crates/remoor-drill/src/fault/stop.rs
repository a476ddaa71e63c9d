//! The server process is stopped; the node's kernel goes on acknowledging and accepting connections.

use remoor_flow::predict;
use rustix::process::Signal;

use super::{Fault, Mended};

pub(super) const FAULT: Fault = Fault {
    name: "stop",
    about: "the server process is stopped: its kernel still acknowledges, nothing is answered",
    lasts: None,
    predicted: |window| predict::Fault::Stop { resume_after: window },
    inject: |victim| victim.signal(Signal::STOP, "SIGSTOP"),
    mend: |victim| victim.signal(Signal::CONT, "SIGCONT").map(|()| Mended::Resumed),
};
