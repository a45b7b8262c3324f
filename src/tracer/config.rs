//! What the kernel side is to do.

use crate::{
    cli::plan::{AtStart, EventSet, Probes},
    filter::Program,
};

/// What the kernel side has to know before it is loaded.
#[derive(Debug, Clone, Copy)]
pub struct TracerConfig<'a> {
    /// Which connections to report.
    pub filter: &'a Program,
    /// Which events to send.
    pub events: EventSet,
    /// Watch DNS answers.
    pub dns: bool,
    /// What to do with the sockets that exist.
    pub at_start: AtStart,
    /// Bytes of the ring; a power of two.
    pub ring_size: u32,
    /// Which probe sets to try.
    pub probes: Probes,
    /// Log what libbpf does, and the verifier's figures.
    pub verbose: bool,
    /// The programs that need CAP_NET_ADMIN may be loaded.
    pub net_admin: bool,
    /// Trace only what this process starts.
    pub follow: bool,
}
