//! Which of a case's replies a report keeps.

use std::time::Duration;

/// Most replies a report keeps of a case.
pub const MAX_REPLIES: usize = 300;

/// Each slice keeps its first and its last reply.
const SLICES: u32 = MAX_REPLIES as u32 / 2;

/// The first and the last of `replies` in each of 150 equal slices of their time, in order. A silence longer than a
/// slice keeps both of its ends exactly.
pub fn thinned(mut replies: Vec<Duration>) -> Vec<Duration> {
    replies.sort_unstable();
    if replies.len() <= MAX_REPLIES {
        return replies;
    }
    let first = replies.first().copied().unwrap_or_default();
    let span = replies.last().copied().unwrap_or_default() - first;
    let slice = (span / SLICES).as_nanos() + 1;
    let slices = replies.chunk_by(|a, b| (*a - first).as_nanos() / slice == (*b - first).as_nanos() / slice);
    slices
        .flat_map(|slice| [slice.first(), slice.get(1..).and_then(<[_]>::last)])
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(range: std::ops::Range<u64>) -> impl DoubleEndedIterator<Item = Duration> {
        range.map(Duration::from_millis)
    }

    #[test]
    fn few_replies_are_all_kept_in_order() {
        assert_eq!(thinned(millis(0..9).rev().collect()), millis(0..9).collect::<Vec<_>>());
        assert_eq!(thinned(Vec::new()), []);
    }

    #[test]
    fn many_are_thinned_but_a_silence_keeps_its_ends() {
        let replies: Vec<_> = millis(0..4001).chain(millis(4507..9000)).collect();
        let kept = thinned(replies.clone());
        assert!(kept.len() <= MAX_REPLIES && kept.len() > MAX_REPLIES / 2, "{}", kept.len());
        assert!(kept.is_sorted() && kept.iter().all(|reply| replies.contains(reply)));
        let silence = kept.windows(2).max_by_key(|pair| pair[1] - pair[0]).unwrap();
        assert_eq!(silence, [Duration::from_millis(4000), Duration::from_millis(4507)]);
        assert_eq!((kept.first(), kept.last()), (replies.first(), replies.last()));
    }

    #[test]
    fn replies_at_one_instant_are_one_slice() {
        assert_eq!(thinned(vec![Duration::ZERO; 1000]), [Duration::ZERO; 2]);
    }
}
