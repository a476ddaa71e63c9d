//! Exit codes of mount(8), and an end with one of them.

/// Wrong usage, or not permitted.
pub(crate) const USAGE: u8 = 1;
/// The system refused something: no memory, no process, no descriptor.
pub(crate) const SYSTEM: u8 = 2;
/// An error in remoor itself.
pub(crate) const INTERNAL: u8 = 4;
/// Interrupted by the user.
pub(crate) const INTERRUPTED: u8 = 8;
/// Files that list mounts cannot be read.
pub(crate) const FILES: u8 = 16;
/// The mount failed.
pub(crate) const FAILED: u8 = 32;

/// What `--help` says of them.
pub(super) const HELP: &str = "\
Exit codes, which are those of mount(8):
   0  mounted; with bg: mounted, or still trying in the background
   1  the command line or an option is wrong, or you may not mount here
   2  the system has no process, memory or descriptor to spare
   4  an error in remoor itself
   8  interrupted
  16  the files that list mounts cannot be read or written
  32  the mount failed: the server, the export, or the mount point
  64  some of several mounts failed (from mount -a)";

/// How a mount ends if not well.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failed {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn usage(message: impl std::fmt::Display) -> Self {
        Self::new(USAGE, message.to_string())
    }

    pub(crate) fn system(message: impl std::fmt::Display) -> Self {
        Self::new(SYSTEM, message.to_string())
    }
}
