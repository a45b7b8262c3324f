//! The CPU priority of tcptrace.

/// Raises our CPU priority, as auditd does, so that a busy host does not fill the ring. Best effort: a refusal is
/// ignored.
pub fn raise_priority() {
    const NICE: libc::c_int = -15;
    // SAFETY: no memory is involved; 0 is this process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}
