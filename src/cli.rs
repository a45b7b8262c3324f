//! Command-line arguments, as typed.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use clap_complete::Shell;

use crate::output::Format;

pub mod docs;
pub mod filter_args;
pub mod links;
pub mod odr;
pub mod plan;

use filter_args::FilterArgs;
use odr::OdrArgs;

/// Shown below the options in `--help`.
const EXAMPLES: &str = "\
Examples:
  sudo tcptrace                            all connections of this host, until Ctrl-C
  sudo tcptrace -- curl -sO http://host/   connections of a command
  sudo tcptrace -e fail --timeout 1m       failures in the next minute
  sudo tcptrace -j -b curl | jq .          all details of curl's connections
  sudo tcptrace --snapshot                 open connections and listeners

See the manual page, tcptrace(8), for details.";

/// Show TCP connections, live, with the processes that make them
#[derive(Debug, Parser)]
#[command(name = "tcptrace", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    /// One NetworkEvent JSON object per line; short for --format json
    #[arg(short, long, help_heading = "Output", conflicts_with = "format")]
    pub json: bool,

    /// Output format of events
    #[arg(short, long, value_enum, default_value_t = Format::Table, help_heading = "Output")]
    pub format: Format,

    /// Append to FILE, - for stdout; new files are owned by the invoking user, mode 0600; SIGHUP reopens it
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,

    /// Print a recording of tcptrace --json from FILE (also .gz, .zst; - for stdin) instead of tracing; repeatable
    #[arg(
        short,
        long,
        value_name = "FILE",
        help_heading = "Output",
        conflicts_with_all = [
            "existing", "snapshot", "no_dns", "timeout", "ring_size", "probes", "cgroup", "command"
        ]
    )]
    pub read: Vec<PathBuf>,

    /// Colour the table; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t = When::Auto, value_name = "WHEN", help_heading = "Output")]
    pub color: When,

    /// Show times in the table in UTC instead of local time
    #[arg(long, help_heading = "Output")]
    pub utc: bool,

    /// No banner and no summary; lost events are still reported
    #[arg(short, long, help_heading = "Output", conflicts_with = "verbose")]
    pub quiet: bool,

    /// Show the selected probes and libbpf's log
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,

    /// Do not watch DNS answers; remote ends are shown without names
    #[arg(long, help_heading = "Output")]
    pub no_dns: bool,

    /// Add the Community ID of each connection (JSON, CSV), to correlate with Zeek, Suricata and Wireshark
    #[arg(long, help_heading = "Output")]
    pub community_id: bool,

    /// Print only a summary at exit (table or JSON)
    #[arg(long, help_heading = "Output")]
    pub summary_only: bool,

    /// Events to show, separated by commas [default: connect,accept,close,fail]
    #[arg(short, long, value_enum, value_delimiter = ',', value_name = "LIST", help_heading = "Events")]
    pub events: Vec<EventName>,

    /// The options that select connections.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Print existing connections and listeners first
    #[arg(long, help_heading = "Events", conflicts_with_all = ["snapshot", "command"])]
    pub existing: bool,

    /// Print existing connections and listeners, then exit; no probe is attached
    #[arg(
        long,
        help_heading = "Events",
        conflicts_with_all = ["events", "failed", "timeout", "count", "command"]
    )]
    pub snapshot: bool,

    /// Stop after this time: 30s, 5min, 1h
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Stop")]
    pub timeout: Option<Duration>,

    /// Stop after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Stop")]
    pub count: Option<u64>,

    /// Run COMMAND as the invoking user, and trace only it and its descendants until it ends
    #[arg(last = true, value_name = "COMMAND", help_heading = "Command")]
    pub command: Vec<OsString>,

    /// Run as COMMAND: how tcptrace starts a command
    #[arg(long, hide = true, requires = "command")]
    pub become_command: bool,

    /// Read the files of container runtimes: tcptrace's helper process
    #[arg(long, hide = true)]
    pub read_containers: bool,

    /// Print a completion script for SHELL
    #[arg(long, value_enum, value_name = "SHELL", exclusive = true, help_heading = "Docs")]
    pub completions: Option<Shell>,

    /// Print the JSON Schema of --json's lines
    #[arg(long, exclusive = true, help_heading = "Docs")]
    pub schema: bool,

    /// Size of the kernel ring buffer: 64K to 1G, rounded up to a power of two
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = ring_size, help_heading = "Tuning")]
    pub ring_size: u32,

    /// The envelope options of the odr format.
    #[command(flatten)]
    pub envelope: OdrArgs,

    /// Probe set; auto prefers trampolines (fentry) and falls back to tracepoints
    #[arg(long, value_enum, default_value_t = Probes::Auto, value_name = "SET", help_heading = "Tuning")]
    pub probes: Probes,

    /// Once the probes are attached, write a line to descriptor N and close it; sd_notify(3) is always sent
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(i32).range(3..),
        help_heading = "Tuning",
        conflicts_with_all = ["snapshot", "read"]
    )]
    pub ready_fd: Option<i32>,

    /// Keep all privileges while tracing, to debug tcptrace itself; see SECURITY in tcptrace(8)
    #[arg(long, help_heading = "Tuning")]
    pub no_sandbox: bool,
}

impl Args {
    /// Checks for conflicts between options that clap cannot express.
    ///
    /// # Errors
    /// A usage error for clap to print.
    pub fn check(&self) -> Result<(), clap::Error> {
        if self.summary_only && !matches!(self.format, Format::Table | Format::Json) {
            let text = "--summary-only supports only table and json; drop --format, or use --json";
            return Err(Args::command().error(ErrorKind::ArgumentConflict, text));
        }
        let fails = |kind: &EventName| matches!(kind, EventName::Fail | EventName::All);
        if self.filter.failed && !self.events.is_empty() && !self.events.iter().any(fails) {
            let text = "--failed shows only fail events, which --events excludes; drop one of them";
            return Err(Args::command().error(ErrorKind::ArgumentConflict, text));
        }
        Ok(())
    }
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Also in a pipe or a file
    Always,
    /// Not even on a terminal
    Never,
}

/// An event kind, as typed after `-e`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventName {
    /// An outgoing connection was established
    Connect,
    /// accept() returned a connection
    Accept,
    /// An established connection ended
    Close,
    /// An outgoing connection failed
    Fail,
    /// connect() was called, whatever its result
    Request,
    /// A socket started or stopped listening
    Listen,
    /// A connection changed its TCP state
    State,
    /// A segment was retransmitted
    Retransmit,
    /// A completed handshake was dropped because the listener's queue was full
    Drop,
    /// All of the above
    All,
}

/// The argument of `--probes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Probes {
    /// Trampolines where the kernel allows them, else tracepoints
    Auto,
    /// fentry and fexit programs
    Trampoline,
    /// System call and io_uring tracepoints
    Tracepoint,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; expected e.g. 30s, 5min, 1h 30m"))
}

/// Parses a number of bytes with an optional K, M or G and rounds it up to a power of two.
fn ring_size(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        other => return Err(format!("unknown unit {other:?}; use K, M or G")),
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or("expected a size such as 8M")?;
    if !(64 << 10..=1 << 30).contains(&bytes) {
        return Err("expected 64K to 1G".to_owned());
    }
    Ok(u32::try_from(bytes).map_err(|error| error.to_string())?.next_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_become_powers_of_two() {
        assert_eq!(ring_size("8M"), Ok(8 << 20));
        assert_eq!(ring_size("100k"), Ok(128 << 10));
        assert_eq!(ring_size("1GiB"), Ok(1 << 30));
        assert_eq!(ring_size("65536"), Ok(65536));
        for wrong in ["", "M", "4K", "2G", "8X", "-1", "99999999999999999999", "8é"] {
            assert!(ring_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }
}
