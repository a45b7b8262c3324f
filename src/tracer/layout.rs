//! The record layouts in Rust: generated from netmon.h through the object's BTF.

use bytemuck::{AnyBitPattern, Zeroable};

pub use super::skel::types::{
    conn, flow, image, netmon_dns, netmon_event, netmon_existing, netmon_flag, netmon_kind, netmon_limit,
    netmon_lost, netmon_process, netmon_process_flag, netmon_secureexec, netmon_segment, netmon_states,
    netmon_want, slot,
};

// SAFETY: integers and arrays of integers only; netmon.h asserts that there is no padding.
unsafe impl Zeroable for netmon_event {}
// SAFETY: as above.
unsafe impl AnyBitPattern for netmon_event {}
// SAFETY: as above.
unsafe impl Zeroable for netmon_process {}
// SAFETY: as above.
unsafe impl AnyBitPattern for netmon_process {}
// SAFETY: as above.
unsafe impl Zeroable for netmon_dns {}
// SAFETY: as above.
unsafe impl AnyBitPattern for netmon_dns {}
// SAFETY: as above, for the entries of the connection table.
unsafe impl Zeroable for conn {}
// SAFETY: as above.
unsafe impl AnyBitPattern for conn {}
// SAFETY: as above.
unsafe impl Zeroable for slot {}
// SAFETY: as above.
unsafe impl AnyBitPattern for slot {}
// SAFETY: as above, for process images.
unsafe impl Zeroable for image {}
// SAFETY: as above.
unsafe impl AnyBitPattern for image {}

/// Reads the bytes of a record or of a map's value; none if the length is wrong.
pub fn read<T: AnyBitPattern>(bytes: &[u8]) -> Option<T> {
    bytemuck::try_pod_read_unaligned(bytes).ok()
}

// Constants that user space also defines.
const _: () = {
    assert!(netmon_limit::NETMON_ARGS_MAX.0 as u64 == crate::process::procfs::ARGS_MAX);
    assert!(netmon_limit::NETMON_CONNECTIONS_MAX.0 as u64 == crate::source::CONNECTIONS_MAX);
};
