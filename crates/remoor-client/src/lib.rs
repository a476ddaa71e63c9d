//! Asynchronous NFS version 3 client that comes back after its server went away, from the source port its options
//! choose. It drives [`remoor_nfs::reconnect::Machine`] over tokio sockets.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use remoor_client::{Client, Options};
//! let options: Options = "noresvport,hard".parse()?;
//! let client = Client::connect("192.0.2.1:2049".parse::<std::net::SocketAddr>()?, options)?;
//! let root = client.mount("/srv/data").await?;
//! let file = client.create(&root, b"hello").await?;
//! client.write(&file.handle, 0, "world".into()).await?;
//! # Ok(()) }
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`options`] | the options of a connection: range, rebind rule, way to leave, timers |
//! | [`target`] | where the server is: name, addresses, who is asked for them again |
//! | [`call`] | the client and one typed call |
//! | [`mount`] | a mount as mount.nfs(8) makes it: ports, deadline, what is worth another attempt |
//! | [`file`](mod@file) | names, data, commit, directories |
//! | [`stats`] | what a client counts, and its snapshot |
//! | `lane` | the callers' side of one connection |
//! | `driver` | the task that owns the machine and its sockets |
//! | `report` | what a driver tells: log, observer, standing, reconnects |
//! | `connection` | one socket: connecting, records in, records out |
//! | `spare` | buffers of long records |

pub mod call;
mod connection;
mod driver;
pub mod file;
mod lane;
pub mod mount;
pub mod options;
mod report;
mod spare;
pub mod stats;
pub mod target;

pub use call::{CallError, Client, ConnectError};
pub use file::{Error, Listing, Node, Unstable};
pub use mount::MountError;
pub use options::{OptionError, Options};
pub use report::Observer;
pub use stats::Snapshot;
pub use target::{Resolver, SystemResolver, Target};
