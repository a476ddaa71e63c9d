//! Arguments of every NFS version 3 procedure.

use bytes::Bytes;

use crate::procedures::{self, NFS};

/// Inputs to start from.
pub fn seeds() -> Vec<Vec<u8>> {
    procedures::seeds(NFS, &procedures::bodies())
}

/// Decodes what follows the first byte as that procedure's arguments.
pub fn run(data: &[u8]) {
    let Some((row, body)) = procedures::choose(NFS, data) else { return };
    (row.args)(Bytes::copy_from_slice(body));
}
