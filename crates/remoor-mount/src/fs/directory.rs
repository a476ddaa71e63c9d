//! Reading directories.

/// Least and most bytes asked of one READDIR or READDIRPLUS.
pub(crate) const MIN_CHUNK: u32 = 8 << 10;
/// See [`MIN_CHUNK`].
pub(crate) const MAX_CHUNK: u32 = 64 << 10;

/// Open directories.
#[derive(Debug, Default)]
pub(crate) struct Directories {}
