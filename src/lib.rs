//! tcptrace: every TCP connection of a Linux host, with the process that did it.
//!
//! ```text
//!               kernel                         |                 user space
//!  inet_sock_set_state --+                     |
//!  accept probe ---------+-> netmon.bpf.c -> ring -> Source -> wire -> enrich -> Sink -> Output
//!  connect result probe -+   owner, counters   |    (bpf)     Event    Record   table, json
//!  exec probe -----------+                     |           ProcessTable, Namer, Judge
//!  DNS answers ----------+                     |
//! ```
//!
//! Data moves one way. Bytes of the ring become an [`event::Event`] (validated, typed, kernel
//! time), then an [`enrich::Record`] (wall clock, process, parent), then a line. One thread, one
//! loop ([`session`]), which sees traits only; `main` alone sees everything.
#![deny(unsafe_code)]

pub mod cli;
pub mod dns;
pub mod event;
pub mod filter;
pub mod host;
pub mod output;
pub mod process;
pub mod record;
pub mod session;
pub mod source;
pub mod tracer;
