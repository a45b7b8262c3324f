//! System calls that no crate wraps safely; most are for actors, which have one thread.
#![allow(unsafe_code)]

use nix::unistd::{ForkResult, fork};

/// Whether we are the child of a fork that was just made; the parent gets the child's id.
pub fn fork_child() -> Option<i32> {
    // SAFETY: the caller has one thread, so the child may do what the parent may.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => None,
        ForkResult::Parent { child } => Some(child.as_raw()),
    }
}

/// setresuid(2) for this thread alone; glibc's would do it for all threads.
pub fn set_thread_user(uid: u32) {
    // SAFETY: the call takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, 0) };
    assert_eq!(result, 0, "setresuid: {}", std::io::Error::last_os_error());
}

/// setresuid(2) for the effective user, with root kept in reserve.
pub fn set_effective_user(uid: u32) {
    nix::unistd::seteuid(0.into()).and_then(|()| nix::unistd::seteuid(uid.into())).expect("seteuid");
}

/// capset(2): keep these capabilities as permitted and effective, inherit none.
pub fn set_capabilities(set: u64) {
    let header: [u32; 2] = [0x2008_0522, 0]; // _LINUX_CAPABILITY_VERSION_3, this thread
    let (low, high) = (set as u32, (set >> 32) as u32);
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: both point to what the version named in the header prescribes.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(result, 0, "capset: {}", std::io::Error::last_os_error());
}

/// End this process at once.
pub fn leave() -> ! {
    // SAFETY: nothing is left to be done.
    unsafe { libc::_exit(0) }
}

/// The version of Landlock in the running kernel; 0 when it has none, or has it switched off.
pub fn landlock_abi() -> i64 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no attributes: a null pointer and size 0.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    version.max(0)
}
