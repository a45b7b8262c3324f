//! What the kernel side could not send, and waiting for what it still writes.

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

/// Wait until every program that runs now has ended. MEMBARRIER_CMD_GLOBAL is a grace period of
/// RCU, under which programs run; where it is refused (CPUs without a tick) a moment has to do.
pub fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } < 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
