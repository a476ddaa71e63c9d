//! Calls in flight.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use remoor_client::{Client, Options};
use remoor_nfs::v3::{self, CreateHow, DirOp, FileHandle, Sattr, StableHow};
use remoor_rpc::auth::AuthSys;
use tokio::task::LocalSet;

use crate::{Arguments, mount};

/// Bytes of a call that streams, and of one at a random offset.
const STREAM: u32 = 1 << 20;
const RANDOM: u32 = 4 << 10;
/// Most calls in flight.
const MAX_DEPTH: usize = 1024;
/// The file that is read and written.
const FILE: &[u8] = b"own";

/// What the calls are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Null,
    Getattr,
    Lookup,
    Read { random: bool },
    Write { random: bool },
}

/// OP:DEPTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) op: Op,
    pub(crate) depth: usize,
}

/// How each is written.
const OPS: [(&str, Op); 7] = [
    ("null", Op::Null),
    ("getattr", Op::Getattr),
    ("lookup", Op::Lookup),
    ("read", Op::Read { random: false }),
    ("write", Op::Write { random: false }),
    ("randread", Op::Read { random: true }),
    ("randwrite", Op::Write { random: true }),
];

impl Load {
    /// The operation's name.
    pub(crate) fn name(self) -> &'static str {
        OPS.iter().find(|(_, op)| *op == self.op).map_or("", |(name, _)| *name)
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, depth) = text.split_once(':').unwrap_or((text, "1"));
        let op = OPS.iter().find(|(known, _)| *known == name).map(|(_, op)| *op);
        let op = op.ok_or_else(|| format!("{name} is not an operation: choose one of {}", names()))?;
        let depth = depth.parse().ok().filter(|depth| (1..=MAX_DEPTH).contains(depth));
        Ok(Self { op, depth: depth.ok_or_else(|| format!("{text}: give a depth from 1 to {MAX_DEPTH}"))? })
    }
}

fn names() -> String {
    OPS.map(|(name, _)| name).join(", ")
}

/// What a load did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done {
    pub(crate) calls: u64,
    pub(crate) bytes: u64,
    /// Time to each reply.
    pub(crate) took: Vec<Duration>,
}

/// A mounted export, and the file in it.
pub(crate) struct Bench {
    client: Client,
    dir: FileHandle,
    file: FileHandle,
    file_bytes: u64,
    stable: StableHow,
}

/// What the calls in flight share.
struct Shared {
    done: RefCell<Done>,
    next: Cell<u64>,
    until: Instant,
}

impl Bench {
    pub(crate) async fn prepare(
        server: SocketAddr,
        mount: SocketAddr,
        arguments: &Arguments,
    ) -> anyhow::Result<Self> {
        let identity = AuthSys::new("remoor-load", arguments.uid, arguments.uid);
        let root = mount::root(mount, &arguments.export, &identity)?;
        let options: Options = "noresvport".parse()?;
        let client = Client::connect(server, options)?.with_identity(&identity);
        let dir = client.lookup(&root, arguments.name.as_bytes()).await.with_context(|| {
            format!("{} is not in the export: let nfsload run first, or make it", arguments.name)
        })?;
        let stable = if arguments.stable { StableHow::FileSync } else { StableHow::Unstable };
        let dir = dir.handle;
        let (file, size) = opened(&client, &dir).await?;
        let bench = Self { client, dir, file, file_bytes: arguments.file_mib << 20, stable };
        if size != bench.file_bytes {
            bench.fill().await?;
        }
        Ok(bench)
    }

    async fn fill(&self) -> anyhow::Result<()> {
        let block = Bytes::from(vec![0x5a; STREAM as usize]);
        for offset in (0..self.file_bytes).step_by(STREAM as usize) {
            self.write(offset, block.clone()).await?;
        }
        Ok(())
    }

    /// Keeps `depth` calls in flight for `secs`.
    pub(crate) async fn run(&self, load: Load, secs: f64) -> anyhow::Result<Done> {
        let until = Instant::now() + Duration::from_secs_f64(secs);
        let shared = Rc::new(Shared { done: RefCell::default(), next: Cell::new(0), until });
        let tasks = LocalSet::new();
        let slots: Vec<_> =
            (0..load.depth).map(|_| tasks.spawn_local(slot(self.share(), load.op, shared.clone()))).collect();
        let all = async {
            for slot in slots {
                slot.await??;
            }
            anyhow::Ok(())
        };
        tasks.run_until(all).await?;
        if matches!(load.op, Op::Write { .. }) {
            let args = v3::CommitArgs { file: self.file.clone(), offset: 0, count: 0 };
            let res = self.client.call::<v3::Commit>(args).await?;
            res.into_result().map_err(|status| anyhow!("COMMIT: {status}"))?;
        }
        Ok(shared.done.take())
    }

    fn share(&self) -> Self {
        let (client, dir, file) = (self.client.clone(), self.dir.clone(), self.file.clone());
        Self { client, dir, file, file_bytes: self.file_bytes, stable: self.stable }
    }

    async fn write(&self, offset: u64, data: Bytes) -> anyhow::Result<u64> {
        let count = data.len() as u32;
        let file = self.file.clone();
        let args = v3::WriteArgs { file, offset, count, stable: self.stable, data: data.into() };
        let ok = self.client.call::<v3::Write>(args).await?.into_result();
        let ok = ok.map_err(|status| anyhow!("WRITE: {status}"))?;
        ensure!(ok.count == count, "WRITE: {} of {count} bytes were written", ok.count);
        Ok(count.into())
    }

    async fn read(&self, offset: u64, count: u32) -> anyhow::Result<u64> {
        let (data, _) = self.client.read(&self.file, offset, count).await?;
        ensure!(data.len() == count as usize, "READ: {} of {count} bytes came", data.len());
        Ok(count.into())
    }

    /// One call; the bytes it moved.
    async fn call(&self, op: Op, n: u64, block: &Bytes) -> anyhow::Result<u64> {
        match op {
            Op::Null => self.client.call::<v3::Null>(()).await.map(|()| 0).map_err(Into::into),
            Op::Getattr => self.client.getattr(&self.file).await.map(|_| 0).map_err(Into::into),
            Op::Lookup => self.client.lookup(&self.dir, FILE).await.map(|_| 0).map_err(Into::into),
            Op::Read { random } => self.read(self.offset(n, random), size(random)).await,
            Op::Write { random } => self.write(self.offset(n, random), block.clone()).await,
        }
    }

    /// Where the `n`th call reads or writes.
    fn offset(&self, n: u64, random: bool) -> u64 {
        let size = u64::from(size(random));
        let n = if random { scattered(n) } else { n };
        n % (self.file_bytes / size) * size
    }
}

fn size(random: bool) -> u32 {
    if random { RANDOM } else { STREAM }
}

/// The finalizer of SplitMix64: the same numbers in every run.
fn scattered(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The file's handle and size; it is made if it is not there.
async fn opened(client: &Client, dir: &FileHandle) -> anyhow::Result<(FileHandle, u64)> {
    let place = DirOp { dir: dir.clone(), name: Bytes::from_static(FILE).into() };
    let how = CreateHow::Unchecked(Sattr { mode: Some(0o666), ..Sattr::default() });
    let res = client.call::<v3::Create>(v3::CreateArgs { place, how }).await?;
    res.into_result().map_err(|status| anyhow!("CREATE: {status}"))?;
    let node = client.lookup(dir, FILE).await?;
    let size = client.getattr(&node.handle).await?.size;
    Ok((node.handle, size))
}

/// One call after the other until the time is over.
async fn slot(bench: Bench, op: Op, shared: Rc<Shared>) -> anyhow::Result<()> {
    let random = matches!(op, Op::Write { random: true });
    let block = Bytes::from(vec![0x5a; size(random) as usize]);
    while Instant::now() < shared.until {
        let began = Instant::now();
        let bytes = bench.call(op, shared.next.replace(shared.next.get() + 1), &block).await?;
        let mut done = shared.done.borrow_mut();
        done.calls += 1;
        done.bytes += bytes;
        done.took.push(began.elapsed());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn loads_are_read_as_nfsload_reads_them() {
        let load: Load = "randread:32".parse().unwrap();
        assert_eq!(load, Load { op: Op::Read { random: true }, depth: 32 });
        assert_eq!(load.name(), "randread");
        assert_eq!("null".parse::<Load>().unwrap().depth, 1);
        assert!("mkdir:1".parse::<Load>().unwrap_err().contains("choose one of null, getattr"));
        assert!("null:0".parse::<Load>().unwrap_err().contains("1 to 1024"));
    }

    /// One thread, as main has: a connection and its calls never leave it.
    #[test]
    fn every_load_runs_against_a_server() {
        let export = ["memory:/data:rw,insecure,no_root_squash"];
        let server = remoor_server::Server::builder()
            .exports(remoor_server::exports::Exports::from_args(export).unwrap())
            .listen("127.0.0.1:0".parse().unwrap())
            .start()
            .unwrap();
        let address = server.local_addrs()[0];
        let port = address.port().to_string();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let identity = AuthSys::new("test", 0, 0);
            let client = Client::connect(address, "noresvport".parse().unwrap()).unwrap();
            let client = client.with_identity(&identity);
            let root = client.mount("/data").await.unwrap();
            client.mkdir(&root, b"nfsload").await.unwrap();
            let line = ["remoor-load", "--file-mib", "2", "127.0.0.1", &port, "/data", "null"];
            let arguments = Arguments::parse_from(line);
            let bench = Bench::prepare(address, address, &arguments).await.unwrap();
            for (_, op) in OPS {
                let done = bench.run(Load { op, depth: 3 }, 0.01).await.unwrap();
                let size = match op {
                    Op::Read { random } | Op::Write { random } => u64::from(size(random)),
                    _ => 0,
                };
                assert!(done.calls >= 3 && done.took.len() as u64 == done.calls, "{op:?}: {done:?}");
                assert_eq!(done.bytes, done.calls * size, "{op:?}");
            }
        });
        server.stop();
    }

    #[test]
    fn random_offsets_are_scattered_and_stay_in_the_file() {
        let blocks = 64;
        let mut seen: Vec<u64> = (0..1000).map(|n| scattered(n) % blocks).collect();
        assert_ne!(seen[..3], [0, 1, 2]);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len() as u64, blocks);
    }
}
