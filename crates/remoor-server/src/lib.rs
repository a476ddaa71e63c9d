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
//! | `net` | sockets and threads; knows records, not NFS |
//! | `service` | from record to reply, RFC 5531 |
//! | `v3`, `mnt` | the procedures, one file each |
//! | [`vfs`] | what the procedures need of a file system, and file systems |
//! | [`handle`] | file handles as clients see them |

//!
//! # A server that was stopped and goes on
//!
//! Calls that waited when the process was stopped (SIGSTOP, a frozen container, a starved host) are not executed if
//! their connection was reset meanwhile: the client has sent them again elsewhere. What may still be executed late:
//!
//! - a call that a worker had begun at the moment of the stop;
//! - calls of a connection whose reset never reached this host, as when a balancer answered the client in its stead:
//!   nothing tells this server that they are old;
//! - the first calls of a connection that the client ended with a FIN, until its host answers a reply with a reset:
//!   a client may end its side and still want its replies.

pub mod errno;
pub mod exports;
#[doc(hidden)]
pub mod fuzz;
pub mod handle;
mod mnt;
mod net;
mod server;
mod service;
mod state;
mod sys;
mod v3;
pub mod vfs;

pub use net::{Connections, DEFAULT_WORKERS, Limits, MIN_WORKERS};
pub use server::{Builder, Counters, NFS_PORT, ProcedureCalls, Running, Server, StartError};
