//! Sockets as an RPC client needs them: a chosen source port, several ways to leave, and what the kernel knows of
//! unacknowledged bytes. Linux only.

mod leave;
mod ports;
mod source;
mod sys;

pub use leave::{LeaveError, can_leave_silently, drop_silently, finish_and_forget, reset};
pub use ports::{excluded_ports, local_port_range, unprivileged_port_start};
pub use source::{SourceError, socket_from};
pub use sys::{Acknowledgement, acknowledgement};
