//! What was read under what is held. Layers are disjoint pieces in order.

use bytes::{Bytes, BytesMut};

/// Bytes and where they lie in the file.
pub(super) type Piece = (u64, Bytes);

/// Where a reply would have more parts than this, they are copied together.
const MAX_PARTS: usize = 64;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

fn end((at, data): &Piece) -> u64 {
    at + data.len() as u64
}

/// `top`, and what it leaves of `base`.
pub(super) fn over(top: Vec<Piece>, base: Vec<Piece>) -> Vec<Piece> {
    if top.is_empty() {
        return base;
    }
    let mut left = Vec::with_capacity(top.len() + base.len());
    for piece in &base {
        cut(piece, &top, &mut left);
    }
    left.extend(top);
    left.sort_unstable_by_key(|piece| piece.0);
    left
}

/// The parts of `piece` that `top` leaves.
fn cut(piece: &Piece, top: &[Piece], left: &mut Vec<Piece>) {
    let mut from = piece.0;
    let mut keep = |from: u64, to: u64| {
        if from < to {
            left.push((from, piece.1.slice((from - piece.0) as usize..(to - piece.0) as usize)));
        }
    };
    let first = top.partition_point(|over| end(over) <= piece.0);
    for over in top[first..].iter().take_while(|over| over.0 < end(piece)) {
        keep(from, over.0);
        from = end(over);
    }
    keep(from, end(piece));
}

/// Whether the pieces leave nothing of a range.
pub(super) fn cover(pieces: &[Piece], start: u64, stop: u64) -> bool {
    let reached = pieces.iter().fold(start, |at, piece| if piece.0 <= at { end(piece).max(at) } else { at });
    reached >= stop
}

/// The bytes from `start` to `stop`; where there are no pieces there is a hole.
pub(super) fn fill(pieces: Vec<Piece>, start: u64, stop: u64) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(pieces.len());
    let mut at = start;
    for (offset, data) in pieces {
        zeros(offset - at, &mut parts);
        at = offset + data.len() as u64;
        parts.push(data);
    }
    zeros(stop.saturating_sub(at), &mut parts);
    if parts.len() > MAX_PARTS { vec![concat(&parts)] } else { parts }
}

fn zeros(mut count: u64, parts: &mut Vec<Bytes>) {
    while count > 0 {
        let part =
            Bytes::from_static(&ZEROS[..ZEROS.len().min(usize::try_from(count).unwrap_or(usize::MAX))]);
        count -= part.len() as u64;
        parts.push(part);
    }
}

fn concat(parts: &[Bytes]) -> Bytes {
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer(fill: u8) -> impl Strategy<Value = Vec<Piece>> {
        prop::collection::vec((0..5u64, 1..9usize), 0..6).prop_map(move |steps| {
            let mut at = 0;
            let piece = |(gap, len): (u64, usize)| {
                let start = at + gap;
                at = start + len as u64;
                (start, Bytes::from(vec![fill; len]))
            };
            steps.into_iter().map(piece).collect()
        })
    }

    fn paint(file: &mut [u8], layer: &[Piece]) {
        for (at, data) in layer {
            file[*at as usize..][..data.len()].copy_from_slice(data);
        }
    }

    proptest! {
        #[test]
        fn layers_lie_over_each_other(base in layer(1), top in layer(2)) {
            let mut file = vec![0; 100];
            paint(&mut file, &base);
            paint(&mut file, &top);
            let covered = cover(&top, 10, 20);
            prop_assert_eq!(covered, file[10..20].iter().all(|byte| *byte == 2));
            prop_assert_eq!(fill(over(top, base), 0, 100).concat(), file);
        }
    }

    #[test]
    fn a_long_hole_is_not_allocated_and_many_parts_become_one() {
        let hole = fill(Vec::new(), 5, 5 + (1 << 20));
        assert_eq!((hole.len(), hole.concat().len()), (16, 1 << 20));
        let crumbs = (0..100).map(|n| (n * 2, Bytes::from_static(b"x"))).collect();
        assert_eq!(fill(crumbs, 0, 200).len(), 1);
    }
}
