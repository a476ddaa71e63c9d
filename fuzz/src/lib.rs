//! What the fuzz targets do, one module a target; each has `seeds()`, the inputs to start from, and `run(data)`,
//! which panics when a promise is broken.
//!
//! Build and run them with `cargo xtask fuzz`, which needs only the stable toolchain. `cargo fuzz` works too.

#![deny(unsafe_code)]

pub mod exports;
pub mod message;
pub mod mnt;
pub mod nfs_args;
pub mod nfs_res;
pub mod options;
mod pieces;
pub mod portmap;
mod procedures;
pub mod proxy;
pub mod record;
pub mod sequence;
pub mod server;
mod sys;

/// Longest input, in bytes; `cargo xtask fuzz` passes the same number to libFuzzer.
pub const MAX_INPUT: usize = 4096;

/// The most one allocation may have, in bytes: well over what an input of [`MAX_INPUT`] bytes decodes to, and under
/// what the smallest large length field (1 MiB of file data) would allocate if it were believed.
pub const MAX_ALLOCATION: usize = 512 << 10;

#[global_allocator]
static ALLOCATOR: sys::Bounded = sys::Bounded;

/// Writes seeds into the directory that `REMOOR_FUZZ_SEEDS` names, if it does. Called once, before the corpus is read.
pub fn plant(seeds: Vec<Vec<u8>>) {
    let Some(dir) = std::env::var_os("REMOOR_FUZZ_SEEDS") else { return };
    for (i, seed) in seeds.iter().enumerate() {
        let path = std::path::Path::new(&dir).join(format!("seed-{i:03}"));
        std::fs::write(&path, seed)
            .unwrap_or_else(|e| panic!("cannot write the seed {}: {e}", path.display()));
    }
}
