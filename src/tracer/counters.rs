//! What the kernel side could not send, and waiting for what it still writes.

use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{ProgramMut, libbpf_sys};

use super::{layout::netmon_lost as causes, programs::PROGRAMS, skel::NetmonSkel};
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
        missed: skipped_runs(skel),
        ..Lost::default()
    }
}

/// Runs the kernel skipped because the program was already running on that CPU. Where a program
/// has a backup, at most as many as either was skipped.
fn skipped_runs(skel: &NetmonSkel<'_>) -> u64 {
    let counted = PROGRAMS.iter().filter(|program| program.loses_events);
    let skips = counted.filter_map(|program| {
        let first = recursion_misses(program.loaded(&skel.progs))?;
        let backup = program.backup.and_then(|backup| recursion_misses(backup(&skel.progs)));
        Some(backup.map_or(first, |second| first.min(second)))
    });
    skips.sum()
}

/// None for a program that was not loaded.
fn recursion_misses(prog: &ProgramMut<'_>) -> Option<u64> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_of_val(&info) as u32;
    // SAFETY: `info` is a plain structure of the length given, for the kernel to fill.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            prog.as_fd().as_raw_fd(),
            std::ptr::from_mut(&mut info).cast(),
            &mut len,
        )
    };
    (result == 0).then_some(info.recursion_misses)
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
