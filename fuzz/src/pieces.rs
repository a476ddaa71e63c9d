//! A stream as sockets give it.

/// Pieces of 1 to 16 bytes, by a linear congruential generator.
pub(crate) struct Pieces<'a> {
    rest: &'a [u8],
    state: u32,
}

impl<'a> Pieces<'a> {
    /// `split` chooses the lengths.
    pub(crate) fn new(stream: &'a [u8], split: u8) -> Self {
        Self { rest: stream, state: u32::from(split) | 0x100 }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = (self.state >> 24) as usize % 16 + 1;
        let (piece, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        Some(piece)
    }
}
