//! The configuration of the kernel side.

use crate::{
    cli::plan::{AtStart, EventSet, Probes},
    filter::Program,
    host::{self, CAP_NET_ADMIN},
};

/// Settings that must be known before the programs are loaded.
#[derive(Debug, Clone, Copy)]
pub struct TracerConfig<'a> {
    /// The connections to report.
    pub filter: &'a Program,
    /// The kinds of events to send.
    pub events: EventSet,
    /// Whether to watch DNS answers.
    pub dns: bool,
    /// What to do with sockets that already exist.
    pub at_start: AtStart,
    /// The size of the ring buffer in bytes, a power of two.
    pub ring_size: u32,
    /// Which probe sets to try.
    pub probes: Probes,
    /// Whether to log libbpf's debug messages and the verifier's statistics.
    pub verbose: bool,
    /// The effective capabilities, one bit each.
    pub capabilities: u64,
    /// Whether to trace only children of this process.
    pub follow: bool,
}

impl TracerConfig<'_> {
    /// Whether programs that need CAP_NET_ADMIN may be loaded.
    pub fn net_admin(self) -> bool {
        host::has_bpf_capability(self.capabilities, CAP_NET_ADMIN)
    }
}
