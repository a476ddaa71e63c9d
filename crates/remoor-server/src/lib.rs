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
