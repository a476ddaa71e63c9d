//! An NFS version 3 and MOUNT version 3 server driven by exports(5), with threads that execute the calls they read.
//!
//! ```no_run
//! use remoor_server::{Server, exports::Exports};
//!
//! let exports = Exports::from_args(["/srv/data:rw,insecure,fsid=1"])?;
//! let running = Server::builder()
//!     .exports(exports)
//!     .listen("127.0.0.1:2049".parse()?)
//!     .state_dir("/var/lib/remoor")
//!     .start()?;
//! println!("{:?}", running.local_addrs());
//! running.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`exports`] | exports(5): form, options, who gets what |
//! | [`names`] | the system's name service: hosts, netgroups, groups of users |
//! | `net` | sockets and threads; knows records, not NFS |
//! | `service` | from record to reply, RFC 5531 |
//! | `v3`, `mnt` | the procedures, one file each |
//! | [`vfs`] | what the procedures need of a file system, and file systems |
//! | [`portmap`] | port 111: the built-in portmapper, and registration with rpcbind |
//! | [`handle`] | file handles as clients see them |

//!
//! # A server that was stopped and goes on
//!
//! Calls that waited while the process was stopped (SIGSTOP, a frozen container, a suspended host) are not executed: the
//! client may have sent them again elsewhere. A call of a connection that was reset meanwhile is dropped however short
//! the stop. After a stop of more than half a second, which CLOCK_BOOTTIME shows, every connection that was open or
//! waited to be accepted is reset, because the client's own reset may never have come here: a balancer may have answered
//! in this server's stead. Calls and replies that waited are dropped with them; new connections are served at once. A
//! machine so busy that a thread has no turn for half a second looks the same, and costs clients a reconnect.
//!
//! What may still be executed late:
//!
//! - a call that a worker had begun at the moment of the stop; it is not answered;
//! - after a stop of less than half a second, calls of a connection that was not reset, as far as this host knows;
//! - all that waited in a virtual machine whose clock was stopped with it, as some hypervisors do when they pause or
//!   move one: nothing inside tells the time that has passed.

pub mod control;
pub mod errno;
mod exporter;
pub mod exports;
#[doc(hidden)]
pub mod fuzz;
pub mod handle;
mod look;
mod metrics;
mod mnt;
pub mod names;
mod net;
mod opener;
pub mod portmap;
mod recognised;
mod replay;
mod server;
mod service;
mod state;
mod sys;
mod table;
mod v3;
pub mod vfs;
mod watch;

pub use exporter::{ChangeError, Changes, Exporter, Listed, Reload, Source};
pub use metrics::{BUCKETS_MICROS, ClientCalls, ProcedureStats};
pub use net::{Connections, DEFAULT_WORKERS, Limits, MIN_WORKERS};
pub use server::{Builder, Counters, NFS_PORT, ProcedureCalls, Running, Server, StartError};
pub use state::UserGroups;
