//! The file system against real servers on loopback: two mounts of one export see what one another does.

mod caches;
mod directories;
mod host;
mod model;
mod names;
mod opens;
mod relay;
mod silly;
mod sizes;
