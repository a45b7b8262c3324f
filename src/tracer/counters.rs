//! What the kernel side could not send, and waiting for what it still writes.

use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::libbpf_sys;

use super::{layout::netmon_lost as causes, skel::NetmonSkel};
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

/// Accepted connections that were neither reported nor closed, in the tracepoint set: those that were taken
/// from their listener's queue and are gone (`unclaimed_closes`), at most as many as the kernel has skipped
/// runs of the program that sees accept() return. Others were accepted by the kernel itself, or in a way that
/// this set does not see.
pub fn skipped_accepts(skel: &NetmonSkel<'_>) -> u64 {
    let unclaimed = skel.maps.bss_data.as_deref().map_or(0, |bss| bss.unclaimed_closes);
    // Where none is, the program may not even be loaded.
    if unclaimed == 0 { 0 } else { unclaimed.min(skipped_runs(&skel.progs.on_sys_exit)) }
}

/// How often the kernel has skipped a program because it was running on that CPU (`recursion_misses`); 0
/// where it does not say.
fn skipped_runs(program: &impl AsFd) -> u64 {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_of_val(&info) as u32;
    // SAFETY: `info` is zeroed, so that it holds no addresses to be written to, and `len` is its size.
    let outcome =
        unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_fd().as_raw_fd(), &mut info, &mut len) };
    if outcome == 0 { info.recursion_misses } else { 0 }
}

/// Wait until every program that runs now has ended. MEMBARRIER_CMD_GLOBAL is a grace period of
/// RCU, under which programs run; where it is refused (CPUs without a tick) a moment has to do.
pub fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } < 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
