//! NFS load from this project's own client, beside nfsload's from libnfs: same arguments as far as they go, same lines of
//! JSON. Made for `cargo xtask bench server`; docs/benchmarking.md tells how.

mod drive;
mod measure;
mod mount;

use std::net::{IpAddr, SocketAddr};

use clap::Parser;
use drive::Load;
use measure::Server;

/// Keep NFSv3 calls in flight with remoor's own client, and print one line of JSON for each load.
#[derive(Debug, Parser)]
#[command(name = "remoor-load", version)]
struct Arguments {
    /// Seconds of each load
    #[arg(long, default_value_t = 1.0)]
    secs: f64,
    /// Size of the file that is read and written
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    file_mib: u64,
    /// Directory in the export that all is in; it must be there
    #[arg(long, default_value = "nfsload")]
    name: String,
    /// Port of the MOUNT program [default: PORT]
    #[arg(long, value_name = "PORT")]
    mountport: Option<u16>,
    /// uid and gid of the calls
    #[arg(long, default_value_t = 0)]
    uid: u32,
    /// Process whose CPU time is told
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// WRITE with FILE_SYNC, instead of UNSTABLE with one COMMIT at the end
    #[arg(long)]
    stable: bool,
    /// Taken and not used: no load here lists a directory
    #[arg(long, hide = true)]
    entries: Option<u64>,
    /// Address of the server
    host: IpAddr,
    /// Its port
    port: u16,
    /// What to mount
    export: String,
    /// OP:DEPTH; OP is one of null, getattr, lookup, read, write, randread, randwrite
    #[arg(required = true)]
    loads: Vec<Load>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // One thread, as nfsload has: what is compared is one client on one processor.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let address = |port| SocketAddr::new(arguments.host, port);
    let mount = address(arguments.mountport.unwrap_or(arguments.port));
    let bench = drive::Bench::prepare(address(arguments.port), mount, arguments).await?;
    for load in &arguments.loads {
        let server = Server(arguments.server_pid);
        let line = measure::measured(server, load, bench.run(*load, arguments.secs)).await?;
        println!("{line}");
    }
    Ok(())
}
