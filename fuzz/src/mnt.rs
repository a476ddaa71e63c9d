//! Arguments and results of every MOUNT version 3 procedure.

use bytes::Bytes;

use crate::procedures::{self, MNT};

/// Inputs to start from.
pub fn seeds() -> Vec<Vec<u8>> {
    procedures::seeds(MNT, &procedures::bodies())
}

/// Decodes what follows the first byte as that procedure's arguments, and as its result.
pub fn run(data: &[u8]) {
    let Some((row, body)) = procedures::choose(MNT, data) else { return };
    let body = Bytes::copy_from_slice(body);
    (row.args)(body.clone());
    (row.res)(body);
}
