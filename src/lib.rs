//! tcptrace: every TCP connection of a Linux host, with the process that did it.
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
//! Data moves one way. Bytes of the ring become an [`event::Event`] (validated, typed, kernel
//! time), then a [`record::Record`] (wall clock, process, parent, names), then a line. One thread,
//! one loop ([`session`]), which reads from a trait ([`source::Source`]) and writes to one
//! ([`output::Sink`]); `main` alone sees everything. No file imports itself through others
//! (tests/structure.rs).
#![deny(unsafe_code)]

/// What was typed, and the plan made of it.
pub mod cli;
/// DNS answers, and the names they give to connections.
pub mod dns;
/// What can happen to a connection and who can do it.
pub mod event;
/// Predicates, options and NetMon YAML, compiled for the kernel; the reference evaluator.
pub mod filter;
/// Clocks, terminal, capabilities, the sudo user, the command.
pub mod host;
/// Characters that a terminal obeys rather than shows.
pub mod hostile;
/// Formats, summary, messages, and the writer of lines.
pub mod output;
/// Process images by id, and what is read of a process.
pub mod process;
/// An event with its processes, names and wall clock.
pub mod record;
/// Recordings, read back.
pub mod recording;
/// The loop from source to sink, when it stops, and what exists at the start.
pub mod session;
/// What a session reads from.
pub mod source;
/// The kernel side: load, attach, read, decode. The only place for unsafe and libbpf.
pub mod tracer;
