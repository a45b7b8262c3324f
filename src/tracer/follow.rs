//! Marks the process whose children the kernel side traces.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

/// Marks this process: everything it starts from here on is traced.
pub fn mark_self(followed: &impl MapCore) -> Result<()> {
    let process = pidfd_of_self().context("open a pidfd")?;
    // Task storage is addressed by a pidfd.
    followed
        .update(&process.as_raw_fd().to_ne_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY)
        .context("mark this process")
}

fn pidfd_of_self() -> std::io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
    let fd = i32::try_from(fd).map_err(std::io::Error::other)?;
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
