//! What was meant, decided once.

use std::{ffi::OsString, time::Duration};

pub use crate::cli::Probes;
use crate::{
    bpf::layout::netmon_want as want,
    cli::{Args, Format, Kind, When, envelope::EnvelopeArgs},
};

/// The kinds of events to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events(u32);

impl Events {
    /// Whether single steps are of interest.
    pub fn has_states(self) -> bool {
        self.0 & want::NETMON_WANT_STATE.0 != 0
    }

    /// The bits the kernel side knows them by (`enum netmon_want`).
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Are requests among them?
    pub fn has_requests(self) -> bool {
        self.0 & want::NETMON_WANT_REQUEST.0 != 0
    }

    /// Are any of them about connections of this host to others? They have names.
    pub fn has_outgoing(self) -> bool {
        self.0 & !(want::NETMON_WANT_ACCEPT.0 | want::NETMON_WANT_LISTEN.0) != 0
    }
}

impl FromIterator<Kind> for Events {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Events(kinds.into_iter().fold(0, |bits, kind| {
            bits | match kind {
                Kind::Connect => want::NETMON_WANT_CONNECT.0,
                Kind::Accept => want::NETMON_WANT_ACCEPT.0,
                Kind::Close => want::NETMON_WANT_CLOSE.0,
                Kind::Fail => want::NETMON_WANT_FAIL.0,
                Kind::Request => want::NETMON_WANT_REQUEST.0,
                Kind::Listen => want::NETMON_WANT_LISTEN.0,
                Kind::State => want::NETMON_WANT_STATE.0,
                Kind::All => u32::MAX,
            }
        }))
    }
}

/// What to do with the sockets that exist at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStart {
    /// None of them can be a command's that is yet to start.
    Ignore,
    /// Learn who has them, quietly.
    Learn,
    /// Print them too.
    Print,
    /// Print them, and that is all.
    PrintOnly,
}

/// Everything a run needs to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which events.
    pub events: Events,
    /// Watch DNS answers.
    pub dns: bool,
    /// What exists at the start.
    pub at_start: AtStart,
    /// How they are printed.
    pub format: Format,
    /// What is said about the data in the odr format.
    pub envelope: EnvelopeArgs,
    /// With colour.
    pub color: bool,
    /// With the time in UTC.
    pub utc: bool,
    /// Without banner and summary.
    pub quiet: bool,
    /// With the summary in place of the events.
    pub summary_only: bool,
    /// With the choice of probes and libbpf's log.
    pub verbose: bool,
    /// How long.
    pub timeout: Option<Duration>,
    /// How many events.
    pub count: Option<u64>,
    /// What to run and follow; empty to trace the whole host.
    pub command: Vec<OsString>,
    /// Bytes of the ring; a power of two.
    pub ring_size: u32,
    /// Which probe sets to try.
    pub probes: Probes,
}

/// What the shell around us is like; asked once, in `main`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings {
    /// The output is a terminal.
    pub output_is_terminal: bool,
    /// NO_COLOR is set and not empty (no-color.org).
    pub no_color: bool,
}

impl Plan {
    /// Decide.
    pub fn new(args: &Args, around: Surroundings) -> Plan {
        let kinds: &[Kind] = match &args.events[..] {
            _ if args.filter.failed => &[Kind::Fail],
            [] => &[Kind::Connect, Kind::Accept, Kind::Close, Kind::Fail],
            listed => listed,
        };
        let events: Events = kinds.iter().copied().collect();
        Plan {
            events,
            dns: !args.no_dns && !args.snapshot && events.has_outgoing(),
            format: if args.json { Format::Json } else { args.format },
            at_start: match (args.existing, args.snapshot) {
                (_, true) => AtStart::PrintOnly,
                (true, false) => AtStart::Print,
                _ if !args.command.is_empty() => AtStart::Ignore,
                (false, false) => AtStart::Learn,
            },
            envelope: args.envelope.clone(),
            color: match args.color {
                When::Always => true,
                When::Never => false,
                When::Auto => around.output_is_terminal && !around.no_color,
            },
            utc: args.utc,
            quiet: args.quiet,
            summary_only: args.summary_only,
            verbose: args.verbose,
            timeout: args.timeout,
            count: args.count,
            command: args.command.clone(),
            ring_size: args.ring_size,
            probes: args.probes,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn plan(words: &[&str], around: Surroundings) -> Plan {
        let args = Args::try_parse_from([&["tcptrace"], words].concat()).expect("valid arguments");
        Plan::new(&args, around)
    }

    #[test]
    fn colour_follows_the_wish_then_the_terminal_then_no_color() {
        let terminal = Surroundings { output_is_terminal: true, no_color: false };
        let plain = Surroundings { no_color: true, ..terminal };
        assert!(plan(&[], terminal).color);
        assert!(!plan(&[], plain).color);
        assert!(!plan(&[], Surroundings::default()).color);
        assert!(plan(&["--color", "always"], plain).color);
        assert!(!plan(&["--color", "never"], terminal).color);
    }

    #[test]
    fn events_are_a_list() {
        let events = |words: &[&str]| plan(words, Surroundings::default()).events.bits();
        assert_eq!(events(&[]), 0b1111);
        assert_eq!(events(&["-e", "connect,fail"]), want::NETMON_WANT_CONNECT.0 | want::NETMON_WANT_FAIL.0);
        assert_eq!(
            events(&["-e", "close", "-e", "fail"]),
            want::NETMON_WANT_CLOSE.0 | want::NETMON_WANT_FAIL.0
        );
        for failed in [&["--failed"][..], &["--failed", "-e", "fail,close"], &["-e", "all", "--failed"]] {
            assert_eq!(events(failed), want::NETMON_WANT_FAIL.0, "{failed:?}");
        }
    }

    #[test]
    fn dns_is_watched_where_names_are_shown() {
        let dns = |words: &[&str]| plan(words, Surroundings::default()).dns;
        assert!(dns(&[]) && dns(&["-e", "close"]) && dns(&["-e", "request"]));
        assert!(!dns(&["--no-dns"]) && !dns(&["-e", "accept,listen"]) && !dns(&["--snapshot"]));
    }

    #[test]
    fn json_has_a_short_form() {
        assert_eq!(plan(&["-j"], Surroundings::default()).format, Format::Json);
        assert_eq!(plan(&["-f", "json"], Surroundings::default()).format, Format::Json);
        assert_eq!(plan(&[], Surroundings::default()).format, Format::Table);
    }
}
