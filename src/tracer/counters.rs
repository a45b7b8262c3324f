//! The kernel side's loss counters, and waiting for programs to finish.

use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_rs::libbpf_sys;

use super::{layout::netmon_lost as causes, parallel::Loaded, programs::fd_of, skel::NetmonSkel};
use crate::source::Lost;

/// The kernel side's counters, by cause.
pub fn lost(skel: &NetmonSkel<'_>) -> Lost {
    let lost = skel.maps.bss_data.as_deref().map(|bss| bss.lost).unwrap_or_default();
    let of = |cause: causes| lost[cause.0 as usize];
    Lost {
        ring: of(causes::NETMON_LOST_RING),
        table: of(causes::NETMON_LOST_TABLE),
        process: of(causes::NETMON_LOST_PROCESS),
        follow: of(causes::NETMON_LOST_FOLLOW),
        answers: of(causes::NETMON_LOST_DNS),
        missed: of(causes::NETMON_LOST_SKIPPED),
        ..Lost::default()
    }
}

/// Accepted connections that were neither reported nor closed, in the tracepoint set: connections that were taken from
/// their listener's queue and are gone (`unclaimed_closes`), but at most as many as the kernel skipped runs of the
/// last program that sees accept() return. Any others were accepted by the kernel itself, or in a way that this set
/// cannot see.
pub fn skipped_accepts(skel: &NetmonSkel<'_>, loaded: &[Loaded]) -> u64 {
    let unclaimed = skel.maps.bss_data.as_deref().map_or(0, |bss| bss.unclaimed_closes);
    let second = &skel.progs.on_sys_exit_second;
    let last = if second.autoload() { second } else { &skel.progs.on_sys_exit };
    // If there are none, the program may not even be loaded.
    if unclaimed == 0 { 0 } else { unclaimed.min(skipped_runs(fd_of(last, loaded))) }
}

/// How often the kernel skipped a program because it was already running on that CPU (`recursion_misses`); 0 if the
/// kernel does not report it.
fn skipped_runs(program: BorrowedFd<'_>) -> u64 {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_of_val(&info) as u32;
    // SAFETY: `info` is zeroed, so that it holds no addresses to be written to, and `len` is its size.
    let outcome = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut len) };
    if outcome == 0 { info.recursion_misses } else { 0 }
}

/// Waits until every program that is running now has ended. MEMBARRIER_CMD_GLOBAL waits for an RCU grace period, and
/// programs run under RCU. If it is refused (on CPUs without a tick), sleeps for a moment instead.
pub fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } < 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
