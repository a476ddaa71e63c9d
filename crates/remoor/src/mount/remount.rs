//! `-o remount`: changes a mount that is there.

use std::time::Duration;

use remoor_mount::control::{self, Answer, Flags, MountEntry, Request, mountinfo};
use remoor_mount::mounting;

use super::exit::{self, Failed};
use super::order::{Checked, Order};

/// How long the process of the mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options that the kernel knows as flags of the mount.
const FLAGS: [&str; 5] = ["ro", "rw", "nosuid", "nodev", "noexec"];

/// Gives the process of the mount the new options, then the kernel those that are flags of the mount.
pub(super) fn remount(order: &Order, checked: &Checked) -> Result<(), Failed> {
    let mount = find(checked)?;
    refuse_another(&mount, checked)?;
    let request = Request::Remount { options: order.options.clone(), sloppy: order.sloppy };
    let changes = match control::call(&mount, &request, PATIENCE)
        .map_err(|e| Failed::new(exit::FAILED, e.to_string()))?
    {
        Answer::Remounted(changes) => changes,
        Answer::Error { usage, message } => {
            return Err(Failed::new(if usage { exit::USAGE } else { exit::FAILED }, message));
        }
        other => {
            return Err(Failed::new(
                exit::INTERNAL,
                format!("the mount answered another question: {other:?}"),
            ));
        }
    };
    if changes.has(&FLAGS) {
        set_flags(&mount, changes.flags)?;
    }
    order.say(&format!("remounted: {}", changes.summary()));
    Ok(())
}

fn find(checked: &Checked) -> Result<MountEntry, Failed> {
    let target = checked.target.display();
    let found = mountinfo::at(&checked.target)
        .map_err(|e| Failed::new(exit::FILES, format!("cannot read /proc/self/mountinfo: {e}")))?;
    found.ok_or_else(|| {
        Failed::new(
            exit::FAILED,
            format!("nothing that remoor serves is mounted on {target}; mount it without remount"),
        )
    })
}

/// Server and export are what a mount is.
fn refuse_another(mount: &MountEntry, checked: &Checked) -> Result<(), Failed> {
    if checked.is_of(mount) {
        return Ok(());
    }
    Err(Failed::usage(format!(
        "{} is mounted from {}, and a remount does not change server and export to {}; unmount it, and mount the other",
        mount.target.display(),
        mount.source.to_string_lossy(),
        checked.spec
    )))
}

/// In the mount namespace of whoever asks, because the process of the mount may have none of its own where it is seen.
fn set_flags(mount: &MountEntry, flags: Flags) -> Result<(), Failed> {
    mounting::set_flags(mount, flags.into()).map_err(|e| {
        Failed::new(
            exit::FAILED,
            format!(
                "the process of the mount has the new options, but the kernel refuses the flags of {}: {e}",
                mount.target.display()
            ),
        )
    })
}
