//! Perf events for tracepoints, also where tracefs is not mounted.
//!
//! libbpf would need it mounted. A detached mount is enough to look up the number, and leaves
//! nothing behind.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The head of `struct perf_event_attr` (include/uapi/linux/perf_event.h), up to its version 0.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
}

/// A perf event that fires with the tracepoint in every process on every CPU.
///
/// # Errors
/// What the kernel says; not found where it was built without the tracepoint.
pub fn open(category: &str, name: &str) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    let attr = PerfEventAttr {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<PerfEventAttr>() as u32,
        config: id(&format!("events/{category}/{name}/id"))?,
        sample_period: 1,
        wakeup_events: 1,
        ..Default::default()
    };
    // One CPU will do: a BPF program on a tracepoint runs wherever it is hit.
    // SAFETY: `attr` is a valid attribute of the size it states, and outlives the call.
    owned(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(&attr),
            -1 as libc::pid_t,
            0 as libc::c_int,
            -1 as libc::c_int,
            PERF_FLAG_FD_CLOEXEC,
        )
    })
}

fn id(path: &str) -> io::Result<u64> {
    let mut text = String::new();
    for root in TRACEFS {
        if let Ok(mut file) = File::open(Path::new(root).join(path)) {
            file.read_to_string(&mut text)?;
            return parse(&text);
        }
    }
    let root = detached_tracefs()?;
    let path = std::ffi::CString::new(path)?;
    // SAFETY: `root` is open, `path` is NUL-ended.
    let file = owned(unsafe {
        libc::openat(root.as_raw_fd(), path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC).into()
    })?;
    File::from(file).read_to_string(&mut text)?;
    parse(&text)
}

fn parse(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// tracefs, mounted nowhere (fsopen(2), fsmount(2)).
fn detached_tracefs() -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const NAME: &CStr = c"tracefs";
    // SAFETY: NAME is NUL-ended.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, NAME.as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: `context` is open; this command takes no key and no value.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<libc::c_char>(),
            std::ptr::null::<libc::c_void>(),
            0,
        )
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `context` is open and configured.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the system call returned a descriptor that nobody else knows of.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
