//! System calls that rustix does not have: identity of one thread, and kernel file handles.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// Longest kernel handle, in bytes (`MAX_HANDLE_SZ`).
const MAX_HANDLE_SIZE: usize = 128;

/// A kernel file handle: how a file system finds an inode again, whatever its name (name_to_handle_at(2)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelHandle {
    pub(crate) kind: i32,
    pub(crate) bytes: Vec<u8>,
}

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct RawHandle {
    size: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE_SIZE],
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The handle of what `fd` is open on; an O_PATH descriptor will do.
pub(crate) fn name_to_handle(fd: BorrowedFd<'_>) -> Result<KernelHandle, Errno> {
    name_to_handle_at(fd, c"").map(|(handle, _)| handle)
}

/// The handle of what has `name` in `dir`, of a symbolic link itself, and the number of the mount it is in; with an
/// empty name of what `dir` is open on.
pub(crate) fn name_to_handle_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<(KernelHandle, i32), Errno> {
    let mut raw = RawHandle { size: MAX_HANDLE_SIZE as u32, kind: 0, bytes: [0; MAX_HANDLE_SIZE] };
    let mut mount_id = 0;
    // SAFETY: `raw` is laid out as `struct file_handle` followed by `size` bytes, the path is a C string, and both
    // pointers are good for writing during the call.
    let done = unsafe {
        libc::name_to_handle_at(
            dir.as_raw_fd(),
            name.as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if done < 0 {
        return Err(last_error());
    }
    let bytes = raw.bytes[..MAX_HANDLE_SIZE.min(raw.size as usize)].to_vec();
    Ok((KernelHandle { kind: raw.kind, bytes }, mount_id))
}

/// Opens with O_PATH what `handle` names in the file system that `mount` is open on.
pub(crate) fn open_by_handle(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> Result<OwnedFd, Errno> {
    let mut raw = RawHandle { size: handle.len() as u32, kind, bytes: [0; MAX_HANDLE_SIZE] };
    raw.bytes.get_mut(..handle.len()).ok_or(Errno::STALE)?.copy_from_slice(handle);
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `raw` is laid out as `struct file_handle` followed by at least `size` bytes.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut raw).cast(), flags) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether this thread's file system identity may do `mode` (R_OK, W_OK, X_OK) to what `fd` is open on, O_PATH included.
pub(crate) fn may_access(fd: BorrowedFd<'_>, mode: i32) -> Result<(), Errno> {
    let path: &CStr = c"";
    let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
    // SAFETY: faccessat2 takes a descriptor, a C string and two numbers, and writes nothing.
    let done = unsafe { libc::syscall(libc::SYS_faccessat2, fd.as_raw_fd(), path.as_ptr(), mode, flags) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// The error of a write-back that this descriptor was not told of yet. Looks at the last byte a file can have, so that
/// nothing is waited for (`ksys_sync_file_range`, `file_check_and_advance_wb_err`).
pub(crate) fn write_error(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: sync_file_range takes numbers only.
    let done =
        unsafe { libc::sync_file_range(fd.as_raw_fd(), i64::MAX - 1, 1, libc::SYNC_FILE_RANGE_WAIT_BEFORE) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Sets this thread's file system user; whether it is now `uid`. The user that is none changes nothing, and the kernel
/// tells who it is without preparing a change.
pub(crate) fn set_fs_user(uid: u32) -> bool {
    // SAFETY: setfsuid takes a number, and changes only this thread.
    unsafe {
        libc::setfsuid(uid);
        libc::setfsuid(u32::MAX) as u32 == uid
    }
}

/// Sets this thread's file system group; whether it is now `gid`. See [`set_fs_user`].
pub(crate) fn set_fs_group(gid: u32) -> bool {
    // SAFETY: setfsgid takes a number, and changes only this thread.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsgid(u32::MAX) as u32 == gid
    }
}

/// The inode's generation (FS_IOC_GETVERSION), which differs between files that had the same number in turn.
pub(crate) fn generation(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut value: libc::c_long = 0;
    // SAFETY: the request writes an int, and the pointer is good for a long.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETVERSION, &raw mut value) };
    if done < 0 { Err(last_error()) } else { Ok(value as u32) }
}
