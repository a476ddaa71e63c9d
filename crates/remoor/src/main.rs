//! The `remoor` command.
fn main() {}
