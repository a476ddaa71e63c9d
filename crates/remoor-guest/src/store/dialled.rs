//! An export reached through our own client.

use std::future::Future;
use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use remoor_client::{Client, Error, Options, Unstable};
use remoor_nfs::v3::{self, FileHandle, NfsStat, StableHow};
use tokio::runtime::{Builder, Runtime};

use super::{How, Store, Trouble};

/// Bytes of one READ.
const READ_BYTES: u32 = 1 << 16;

/// Files in the root of an export.
pub(crate) struct Dialled {
    // Declared first: the client's task must not outlive its runtime's drop.
    client: Client,
    root: FileHandle,
    runtime: Runtime,
}

impl Dialled {
    /// Mounts `export` of `server` with the client's `options`.
    pub(crate) fn connect(server: SocketAddr, export: &str, options: &str) -> anyhow::Result<Self> {
        let options: Options = options.parse().context("--options")?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (client, root) = runtime.block_on(async {
            let client = Client::connect(server, options)?;
            let root = client.mount(export).await?;
            anyhow::Ok((client, root))
        })?;
        Ok(Self { client, root, runtime })
    }

    /// Waits for a call; `already` is the status that means that it was carried out before.
    fn wait<T>(
        &self,
        already: Option<NfsStat>,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        self.runtime.block_on(call).map_err(|error| match error.status() {
            Some(status) if Some(status) == already => Trouble::Repeated,
            _ => Trouble::failed(error),
        })
    }

    async fn read_all(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let node = match self.client.lookup(&self.root, name.as_bytes()).await {
            Err(error) if error.status() == Some(NfsStat::NoEnt) => return Ok(None),
            found => found?,
        };
        let mut bytes = Vec::new();
        loop {
            let (part, eof) = self.client.read(&node.handle, bytes.len() as u64, READ_BYTES).await?;
            bytes.extend_from_slice(&part);
            if eof || part.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    async fn write_sync(&self, file: &FileHandle, offset: u64, data: Bytes, stable: StableHow) -> Written {
        let count = data.len() as u32;
        let args = v3::WriteArgs { file: file.clone(), offset, count, stable, data: data.into() };
        let ok = answer("WRITE", self.client.call::<v3::Write>(args).await?)?;
        if ok.count != count || ok.committed < stable {
            let what = format!("WRITE of {count} bytes as {stable:?}: {} as {:?}", ok.count, ok.committed);
            return Err(Trouble::Failed(what));
        }
        Ok(())
    }
}

type Written = Result<(), Trouble>;

impl From<remoor_client::CallError> for Trouble {
    fn from(error: remoor_client::CallError) -> Self {
        Self::failed(error)
    }
}

fn answer<T, F>(procedure: &str, res: v3::Res<T, F>) -> Result<T, Trouble> {
    res.into_result().map_err(|status| Trouble::Failed(format!("{procedure}: {status:?}")))
}

impl Store for Dialled {
    type File = FileHandle;

    fn create(&self, name: &str) -> Result<FileHandle, Trouble> {
        let node = self.wait(Some(NfsStat::Exist), self.client.create(&self.root, name.as_bytes()))?;
        Ok(node.handle)
    }

    fn open(&self, name: &str) -> Result<FileHandle, Trouble> {
        Ok(self.wait(None, self.client.lookup(&self.root, name.as_bytes()))?.handle)
    }

    fn write(&self, file: &FileHandle, mut offset: u64, parts: Vec<Vec<u8>>, how: How) -> Written {
        let mut unstable = Unstable::default();
        for part in parts {
            let (len, data) = (part.len() as u64, Bytes::from(part));
            match how {
                How::FileSync => self.wait(None, self.client.write(file, offset, data))?,
                How::DataSync => {
                    self.runtime.block_on(self.write_sync(file, offset, data, StableHow::DataSync))?;
                }
                How::Commit => {
                    self.wait(None, self.client.write_unstable(file, offset, data, &mut unstable))?;
                }
            }
            offset += len;
        }
        self.wait(None, self.client.commit(file, &mut unstable))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Trouble> {
        let (from, to) = ((&self.root, from.as_bytes()), (&self.root, to.as_bytes()));
        self.wait(Some(NfsStat::NoEnt), self.client.rename(from, to))
    }

    fn remove(&self, name: &str) -> Result<(), Trouble> {
        self.wait(Some(NfsStat::NoEnt), self.client.remove(&self.root, name.as_bytes()))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        self.wait(None, self.read_all(name))
    }

    fn verifier(&self, file: &FileHandle) -> Result<Option<u64>, Trouble> {
        let args = v3::CommitArgs { file: file.clone(), offset: 0, count: 0 };
        let res = self.runtime.block_on(self.client.call::<v3::Commit>(args))?;
        Ok(Some(u64::from_be_bytes(answer("COMMIT", res)?.verf)))
    }
}
