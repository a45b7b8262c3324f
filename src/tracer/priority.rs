//! Our share of the processor.

/// Ask for more of the processor than those we watch, as auditd does: a busy host must not fill
/// the ring. It is a favour, and no error where it is refused.
pub fn raise_priority() {
    const NICE: libc::c_int = -15;
    // SAFETY: no memory is involved; 0 is this process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}
