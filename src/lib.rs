//! tcptrace: traces all TCP connections of a Linux host, with the processes that own them.
//!
//! ```text
//!               kernel                         |                 user space
//!  inet_sock_set_state --+                     |
//!  accept probe ---------+-> netmon.bpf.c -> ring -> Source -> wire -> Record -> Sink -> Writer
//!  connect result probe -+   owner, filter,    |   (tracer)    Event           table, json, ...
//!  exec probe -----------+   counters          |          ProcessTable, DnsTracker, DnsFilter
//!  DNS answers ----------+                     |
//! ```
//!
//! Data flows one way. Bytes from the ring become an [`event::Event`] (validated, typed, kernel time), then a
//! [`record::Record`] (wall clock, process, parent, names), then a line. A single loop in one thread ([`session`])
//! reads from a trait ([`source::Source`]) and writes to another ([`output::Sink`]); only `main` knows the
//! implementations. There are no import cycles between files (tests/structure.rs).
#![deny(unsafe_code)]

/// Command-line arguments, and the plan of a run.
pub mod cli;
/// DNS answers, and the names they give to connections.
pub mod dns;
/// The data model: events of connections, and the processes involved.
pub mod event;
/// Predicates, options and NetMon YAML, compiled for the kernel; the reference evaluator.
pub mod filter;
/// Clocks, terminal, capabilities, the invoking user, the command, the sandbox.
pub mod host;
/// Control and invisible characters in untrusted text.
pub mod hostile;
/// Formats, summary, messages, and the writer of lines.
pub mod output;
/// The process table, and the details of processes: arguments, containers, units.
pub mod process;
/// An event with its processes, names and wall-clock time.
pub mod record;
/// Reads and prints recordings (`-r`).
pub mod recording;
/// The loop from source to sink, its stop conditions, and the sockets that exist at the start.
pub mod session;
/// The trait that a session reads from.
pub mod source;
/// The kernel side: load, attach, read, decode. The only module with unsafe code and libbpf.
pub mod tracer;
