//! How much a filter can hold. The tracer compares these with the kernel side's arrays.

/// How many groups the kernel side tests.
pub const GROUPS_MAX: usize = 8;
/// How many rules the kernel side numbers.
pub const RULES_MAX: usize = 256;
/// How many values one table can hold, ports and networks aside.
pub const VALUES_MAX: usize = 1_000_000;
/// How many networks one table can hold.
pub const CIDRS_MAX: usize = 65_536;
