//! The server process dies; the node's kernel closes its connections.

use remoor_flow::predict;
use rustix::process::Signal;

use super::{Fault, Mended};

pub(super) const FAULT: Fault = Fault {
    name: "kill",
    about: "the server process dies: its kernel sends FIN or RST and refuses new connections",
    lasts: None,
    predicted: |_| predict::Fault::Kill,
    inject: |victim| victim.signal(Signal::KILL, "SIGKILL"),
    mend: |_| Ok(Mended::StartServer),
};
