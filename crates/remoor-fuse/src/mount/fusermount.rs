//! fusermount3: the set-user-ID program by which ordinary users mount.
//!
//! It is given a socket by the number in `_FUSE_COMMFD`, and sends the descriptor of the connection over it. The socket
//! is its standard input, so that no descriptor has to be inherited by number.

use std::env;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{MountError, MountPlan};

const PROGRAM: &str = "fusermount3";

/// Whether it is installed.
pub(super) fn is_there() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).any(|dir| dir.join(PROGRAM).is_file())
}

/// Mounts.
pub(super) fn mount(plan: &MountPlan) -> Result<OwnedFd, MountError> {
    const WHAT: &str = "mount on";
    let failed = |error| failed(WHAT, &plan.target, error);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new(PROGRAM);
    command.arg("-o").arg(options(plan)).arg("--").arg(&plan.target);
    command.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(theirs));
    let output = run(&mut command).map_err(failed)?;
    // The other end was its own: with it gone, a descriptor is there or never will be.
    drop(command);
    match receive(&ours) {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(refused(WHAT, &plan.target, &output)),
        Err(error) => Err(failed(error)),
    }
}

/// Unmounts.
pub(super) fn unmount(target: &Path, lazy: bool) -> Result<(), MountError> {
    const WHAT: &str = "unmount";
    let mut command = Command::new(PROGRAM);
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(target).stdin(Stdio::null());
    let output = run(&mut command).map_err(|error| failed(WHAT, target, error))?;
    if output.status.success() { Ok(()) } else { Err(refused(WHAT, target, &output)) }
}

fn run(command: &mut Command) -> io::Result<Output> {
    command.env("LC_ALL", "C").stdout(Stdio::piped()).stderr(Stdio::piped()).output()
}

fn failed(what: &'static str, target: &Path, error: io::Error) -> MountError {
    let target = target.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => MountError::NoFusermount { what, target },
        _ => MountError::Fusermount { what, target, error },
    }
}

/// What it wrote on its way out.
fn refused(what: &'static str, target: &Path, output: &Output) -> MountError {
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let target = target.to_owned();
    if said.contains("user_allow_other") {
        MountError::AllowOther { target }
    } else if said.contains("device not found") {
        MountError::NoDevice
    } else if said.contains("failed to open /dev/fuse") {
        // It opens the device as the user who called it.
        MountError::Device { error: io::ErrorKind::PermissionDenied.into() }
    } else if said.contains("has no write access to mountpoint") || said.contains("not owned by user") {
        MountError::NotOwned { target, said }
    } else {
        MountError::Refused { what, target, said }
    }
}

/// The options. A comma in a name is escaped by a backslash.
fn options(plan: &MountPlan) -> String {
    let escape = |name: &str| name.replace('\\', "\\\\").replace(',', "\\,");
    let flags =
        [(plan.flags.read_only, "ro"), (plan.flags.noexec, "noexec"), (plan.flags.noatime, "noatime")];
    let mut all =
        vec![format!("fsname={}", escape(&plan.source)), format!("subtype={}", escape(&plan.subtype))];
    all.extend(["nosuid".into(), "nodev".into()]);
    all.extend(flags.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()));
    all.extend(plan.common());
    all.join(",")
}

/// The descriptor that came with a byte, or none if there was no byte.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut messages = ancillary.drain();
    Ok(messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MountFlags;
    use std::os::unix::process::ExitStatusExt;

    fn said(text: &str) -> MountError {
        let output = Output {
            status: std::process::ExitStatus::from_raw(256),
            stdout: Vec::new(),
            stderr: text.as_bytes().to_vec(),
        };
        refused("mount on", Path::new("/mnt"), &output)
    }

    #[test]
    fn commas_in_names_are_escaped() {
        let flags = MountFlags { read_only: true, nodiratime: true, ..MountFlags::default() };
        let plan = MountPlan { flags, allow_other: true, ..MountPlan::new("h:/a,b\\", "/mnt") };
        assert_eq!(options(&plan), "fsname=h:/a\\,b\\\\,subtype=remoor,nosuid,nodev,ro,allow_other");
    }

    #[test]
    fn what_it_says_is_explained() {
        let text =
            "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf\n";
        assert!(matches!(said(text), MountError::AllowOther { .. }));
        let text = "fusermount3: user has no write access to mountpoint /mnt";
        assert!(said(text).to_string().contains("of your own"));
        assert!(matches!(
            said("fusermount3: fuse device not found, try 'modprobe fuse' first"),
            MountError::NoDevice
        ));
        let told = said("fusermount3: failed to open /dev/fuse: Permission denied").to_string();
        assert!(told.contains("0666"), "{told}");
        assert!(said("fusermount3: whatever").to_string().ends_with("says: fusermount3: whatever"));
    }

    #[test]
    fn a_socket_that_is_closed_has_no_descriptor() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none());
    }
}
