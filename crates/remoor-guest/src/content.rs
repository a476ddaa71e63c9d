//! Bytes from a seed, so that what a file must contain need not be kept.

/// Offsets and lengths are multiples of this.
pub(crate) const WORD: u64 = 8;

/// `len` bytes at `offset` of the endless content of `seed`; both are multiples of [`WORD`], and what is over is left
/// out.
pub(crate) fn content(seed: u64, offset: u64, len: u64) -> Vec<u8> {
    let words = offset / WORD..(offset + len) / WORD;
    words.flat_map(|word| mix(seed ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()).collect()
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `x`.
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_part_of_the_whole() {
        let whole = content(7, 0, 4096);
        assert_eq!(whole.len(), 4096);
        assert_eq!(content(7, 1024, 512), whole[1024..1536]);
        assert_ne!(content(8, 0, 4096), whole);
    }

    #[test]
    fn no_word_repeats_within_a_file() {
        let mut words: Vec<_> = content(1, 0, 1 << 16).chunks(8).map(<[u8]>::to_vec).collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), 1 << 13);
    }
}
