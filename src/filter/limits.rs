//! Limits of a filter. The tracer checks that they match the kernel side's arrays.

/// Maximum number of groups.
pub const GROUPS_MAX: usize = 8;
/// Maximum number of rules.
pub const RULES_MAX: usize = 256;
/// Maximum number of values in one table, except for ports and networks.
pub const VALUES_MAX: usize = 1_000_000;
/// Maximum number of networks in one table.
pub const CIDRS_MAX: usize = 65_536;
