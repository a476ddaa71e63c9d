//! Random operations against a model, as fsx does, over servers that lose what was not committed.

use std::fs;

use proptest::prelude::*;
use remoor_mount::fs::Config;

use crate::host::{File, Host, Mount, RDWR, root};

const FILE: usize = 192 << 10;

#[derive(Debug, Clone)]
enum Step {
    Write { by: usize, at: usize, len: usize },
    Append { by: usize, len: usize },
    Read { by: usize, at: usize, len: usize },
    Scan { by: usize },
    Truncate { by: usize, size: usize },
    Size,
    Fsync { by: usize },
    Reopen { by: usize },
    PowerFailure,
}

fn step() -> impl Strategy<Value = Step> {
    let by = 0..2usize;
    let at = prop_oneof![0..100usize, 0..FILE];
    let len = prop_oneof![1..100usize, 1..(8usize << 10), 1..(64usize << 10)];
    prop_oneof![
        8 => (by.clone(), at.clone(), len.clone()).prop_map(|(by, at, len)| Step::Write { by, at, len }),
        2 => (by.clone(), len.clone()).prop_map(|(by, len)| Step::Append { by, len }),
        6 => (by.clone(), at.clone(), len).prop_map(|(by, at, len)| Step::Read { by, at, len }),
        1 => by.clone().prop_map(|by| Step::Scan { by }),
        2 => (by.clone(), at).prop_map(|(by, size)| Step::Truncate { by, size }),
        1 => Just(Step::Size),
        1 => by.clone().prop_map(|by| Step::Fsync { by }),
        1 => by.prop_map(|by| Step::Reopen { by }),
        1 => Just(Step::PowerFailure),
    ]
}

struct World {
    host: Host,
    mount: Mount,
    files: [File; 2],
    model: Vec<u8>,
    /// What is on disk for certain.
    durable: Vec<u8>,
    /// COMMITs when that was last known: after another one it is not.
    commits: u64,
    fill: u8,
}

impl World {
    async fn new(config: Config) -> Self {
        let host = Host::on_disk();
        let mount = host.mount_with(config).await;
        let first = mount.open("a", RDWR).await;
        let files = [first, mount.again(first, &root(), RDWR).await];
        Self { host, mount, files, model: Vec::new(), durable: Vec::new(), commits: 0, fill: 0 }
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Write { by, at, len } => self.write(by, at, len).await,
            Step::Append { by, len } => self.write(by, self.model.len(), len).await,
            Step::Read { by, at, len } => self.read(by, at, len).await,
            Step::Scan { by } => {
                for at in (0..self.model.len() + 1).step_by(10_000) {
                    self.read(by, at, 10_000).await;
                }
            }
            Step::Truncate { by, size } => self.truncate(by, size).await,
            Step::Size => {
                assert_eq!(self.mount.size(self.files[0]).await, self.model.len() as u64);
            }
            Step::Fsync { by } => {
                self.mount.fsync(self.files[by]).await.unwrap();
                self.is_durable();
            }
            Step::Reopen { by } => {
                self.mount.close(self.files[by]).await.unwrap();
                self.is_durable();
                self.files[by] = self.mount.again(self.files[by], &root(), RDWR).await;
            }
            Step::PowerFailure => self.fail(),
        }
    }

    async fn write(&mut self, by: usize, at: usize, len: usize) {
        self.fill = self.fill % 250 + 1;
        let data = vec![self.fill; len];
        self.model.resize(self.model.len().max(at + len), 0);
        self.model[at..at + len].copy_from_slice(&data);
        self.mount.write(self.files[by], at as u64, data).await;
    }

    async fn read(&self, by: usize, at: usize, len: usize) {
        let got = self.mount.read(self.files[by], at as u64, len as u32).await;
        let end = self.model.len();
        assert_same(&got, &self.model[at.min(end)..(at + len).min(end)], at);
    }

    async fn truncate(&mut self, by: usize, size: usize) {
        self.mount.truncate(self.files[by], size as u64).await;
        self.model.resize(size, 0);
        self.durable.resize(size, 0);
    }

    fn is_durable(&mut self) {
        self.durable = fs::read(self.host.path("a")).unwrap();
        assert_same(&self.durable, &self.model, 0);
        self.commits = self.host.calls("COMMIT");
    }

    /// The server loses all it did not promise to keep.
    fn fail(&mut self) {
        let known = self.host.calls("COMMIT") == self.commits;
        self.host.stop();
        if known {
            fs::write(self.host.path("a"), &self.durable).unwrap();
        }
        self.host.start();
        self.commits = 0;
        if !known {
            self.durable = fs::read(self.host.path("a")).unwrap();
        }
    }
}

fn assert_same(left: &[u8], right: &[u8], at: usize) {
    if left != right {
        let differs = left.iter().zip(right).position(|(left, right)| left != right);
        panic!("at {at}: {} bytes, should be {}, differ at {differs:?}", left.len(), right.len());
    }
}

fn run(config: Config, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(config).await;
        for step in steps {
            world.take(step).await;
        }
        world.take(&Step::Fsync { by: 0 }).await;
        assert_eq!(world.mount.fs.held_bytes(), 0);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_what_was_written(steps in prop::collection::vec(step(), 1..80)) {
        run(Config::default(), &steps);
    }

    #[test]
    fn a_file_is_what_was_written_in_small_calls(steps in prop::collection::vec(step(), 1..80)) {
        run(Config { rsize: 4096, wsize: 8192, ..Config::default() }, &steps);
    }
}
