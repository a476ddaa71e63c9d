//! FUSE_INIT: what is agreed with the kernel.

use std::fs;

use crate::abi::{Out, init};
use crate::decode::Init;
use crate::{Config, Negotiated};

/// Protocol 7, and the minor versions this crate knows: 7.31 is Linux 5.4's.
const MAJOR: u32 = 7;
const OLDEST_MINOR: u32 = 31;
const NEWEST_MINOR: u32 = 41;

/// Most pages of a request where the kernel does not say (`FUSE_MAX_MAX_PAGES` before Linux 6.13).
const MAX_PAGES: u32 = 256;

/// What the kernel allows since Linux 6.13.
const MAX_PAGES_LIMIT: &str = "/proc/sys/fs/fuse/max_pages_limit";

/// Wanted always, if offered.
const WANTED: u64 = init::ASYNC_READ
    | init::BIG_WRITES
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::ABORT_ERROR
    | init::MAX_PAGES
    | init::CACHE_SYMLINKS
    | init::EXPLICIT_INVAL_DATA
    | init::DIRECT_IO_ALLOW_MMAP;

/// What a FUSE_INIT is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Agreed; the bytes are `struct fuse_init_out`.
    Agreed(Negotiated, Out),
    /// The kernel speaks a later major version, and asks again with this one.
    AskAgain(Out),
    /// Too old.
    Refused,
}

/// Answers a FUSE_INIT; requests have at most `pages` pages of `page` bytes.
pub(crate) fn negotiate(offered: &Init, config: &Config, pages: u32, page: u32) -> Answer {
    if offered.major > MAJOR {
        let mut out = Out::default();
        out.u32(MAJOR);
        out.u32(NEWEST_MINOR);
        return Answer::AskAgain(out);
    }
    if offered.major < MAJOR || offered.minor < OLDEST_MINOR {
        return Answer::Refused;
    }
    let flags = offered.flags & wanted(config);
    let agreed = agreed(offered, flags, max_write(config, pages, page), pages.saturating_mul(page));
    Answer::Agreed(agreed, encode(&agreed, flags, config, pages))
}

/// How many pages the kernel lets a request have.
pub(crate) fn pages_limit() -> u32 {
    let text = fs::read_to_string(MAX_PAGES_LIMIT).unwrap_or_default();
    text.trim().parse().unwrap_or(MAX_PAGES).clamp(1, u32::from(u16::MAX))
}

/// The longest WRITE: what is configured, up to what the kernel sends.
pub(crate) fn max_write(config: &Config, pages: u32, page: u32) -> u32 {
    config.max_write.clamp(page, pages.saturating_mul(page))
}

fn wanted(config: &Config) -> u64 {
    let optional = [
        (config.atomic_o_trunc, init::ATOMIC_O_TRUNC),
        (config.handle_killpriv, init::HANDLE_KILLPRIV_V2),
        (config.readdirplus, init::DO_READDIRPLUS),
    ];
    optional.iter().filter(|(on, _)| *on).fold(WANTED, |all, (_, flag)| all | flag)
}

fn agreed(offered: &Init, flags: u64, max_write: u32, max_read: u32) -> Negotiated {
    Negotiated {
        minor: offered.minor.min(NEWEST_MINOR),
        max_write,
        max_read,
        max_readahead: offered.max_readahead,
        atomic_o_trunc: flags & init::ATOMIC_O_TRUNC != 0,
        handle_killpriv: flags & init::HANDLE_KILLPRIV_V2 != 0,
        readdirplus: flags & init::DO_READDIRPLUS != 0,
    }
}

/// `struct fuse_init_out`. Read-ahead is left to the mount's bdi: `process_init_reply` takes the smaller of both.
fn encode(agreed: &Negotiated, flags: u64, config: &Config, pages: u32) -> Out {
    let second = (flags >> 32) as u32;
    let flags = flags as u32 | if second == 0 { 0 } else { init::INIT_EXT as u32 };
    let mut out = Out::default();
    out.u32s(&[MAJOR, agreed.minor, u32::MAX, flags]);
    out.u16(config.max_background);
    out.u16(config.congestion_threshold);
    out.u32s(&[agreed.max_write, 1]);
    out.u16(u16::try_from(pages).unwrap_or(u16::MAX));
    out.u16(0);
    out.u32(second);
    out.u32s(&[0; 7]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: Init = Init { major: 7, minor: 45, max_readahead: 131_072, flags: u64::MAX };

    fn agree(offered: &Init, config: &Config) -> (Negotiated, Vec<u8>) {
        match negotiate(offered, config, 256, 4096) {
            Answer::Agreed(agreed, out) => (agreed, out.into_bytes()),
            other => panic!("{other:?}"),
        }
    }

    fn flags_of(out: &[u8]) -> u64 {
        let at = |at: usize| u64::from(u32::from_ne_bytes(out[at..at + 4].try_into().unwrap()));
        at(12) | at(32) << 32
    }

    #[test]
    fn nothing_is_agreed_that_breaks_close_to_open() {
        let (agreed, out) = agree(&OFFERED, &Config::default());
        assert_eq!(out.len(), 64);
        assert_eq!((agreed.minor, agreed.max_write), (NEWEST_MINOR, 1 << 20));
        let (writeback_cache, auto_inval_data, locks) = (1 << 16, 1 << 12, 1 << 1 | 1 << 10);
        assert_eq!(flags_of(&out) & (writeback_cache | auto_inval_data | locks), 0);
        assert_eq!(flags_of(&out) & WANTED, WANTED);
    }

    #[test]
    fn every_buffer_of_a_directory_has_attributes() {
        let (_, out) = agree(&OFFERED, &Config::default());
        let (plus, where_looked_up) = (1 << 13, 1 << 14);
        assert_eq!(flags_of(&out) & (plus | where_looked_up), plus);
    }

    #[test]
    fn only_what_is_offered_is_answered() {
        let offered = Init { flags: init::ASYNC_READ | init::MAX_PAGES, minor: 31, ..OFFERED };
        let (agreed, out) = agree(&offered, &Config::default());
        assert_eq!(flags_of(&out), init::ASYNC_READ | init::MAX_PAGES);
        assert_eq!(agreed.minor, 31);
        assert!(!agreed.readdirplus);
    }

    #[test]
    fn options_decide_what_is_optional() {
        let config = Config { atomic_o_trunc: false, handle_killpriv: true, ..Config::default() };
        let (agreed, out) = agree(&OFFERED, &config);
        assert!(agreed.handle_killpriv && !agreed.atomic_o_trunc);
        assert_eq!(flags_of(&out) & init::HANDLE_KILLPRIV_V2, init::HANDLE_KILLPRIV_V2);
        assert_eq!(flags_of(&out) & init::ATOMIC_O_TRUNC, 0);
    }

    #[test]
    fn a_write_is_never_longer_than_the_kernel_sends() {
        let config = Config { max_write: u32::MAX, ..Config::default() };
        assert_eq!(max_write(&config, 256, 4096), 1 << 20);
        assert_eq!(max_write(&Config { max_write: 0, ..config }, 256, 4096), 4096);
        assert_eq!(max_write(&config, u32::MAX, 4096), u32::MAX);
    }

    #[test]
    fn other_versions_ask_again_or_are_refused() {
        let of = |major, minor| negotiate(&Init { major, minor, ..OFFERED }, &Config::default(), 256, 4096);
        assert!(matches!(of(8, 0), Answer::AskAgain(_)));
        assert!(matches!(of(7, 30), Answer::Refused));
        assert!(matches!(of(6, 99), Answer::Refused));
    }

    #[test]
    fn the_limit_of_this_kernel_is_sane() {
        assert!((1..=65_535).contains(&pages_limit()));
    }
}
