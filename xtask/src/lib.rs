//! The project's architecture, as rules that are checked: see [`architecture`]. The tasks themselves are in the binary;
//! `cargo xtask --help` lists them.

pub mod architecture;
