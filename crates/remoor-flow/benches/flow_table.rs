//! Lookups and new flows per second.

fn main() {
    divan::main();
}
