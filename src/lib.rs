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

pub mod args;
pub mod book;
pub mod bpf;
pub mod cli;
pub mod command;
pub mod config;
pub mod container;
pub mod destination;
pub mod diagnosis;
pub mod digest;
pub mod dns;
pub mod docs;
pub mod enrich;
pub mod event;
pub mod filter;
pub mod host;
pub mod invoker;
pub mod judge;
pub mod output;
pub mod plan;
pub mod predicate;
pub mod proc;
pub mod process;
pub mod report;
pub mod session;
pub mod sink;
pub mod stop;
pub mod summary;
pub mod survey;
pub mod unit;
pub mod wire;
