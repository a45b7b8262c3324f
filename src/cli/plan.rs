//! The plan of a run, derived once from the arguments.

use std::{ffi::OsString, time::Duration};

use clap::ValueEnum;

pub use super::Probes;
use super::{Args, EventName, When, odr::OdrArgs};
use crate::{event::EventKind, output::Format};

/// A set of event kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventSet(u32);

impl EventSet {
    /// Whether it contains state changes.
    pub fn has_states(self) -> bool {
        self.has(EventName::State)
    }

    /// Whether it contains connection requests.
    pub fn has_requests(self) -> bool {
        self.has(EventName::Request)
    }

    /// Whether it contains connections dropped by a listener.
    pub fn has_drops(self) -> bool {
        self.has(EventName::Drop)
    }

    /// Whether it contains events of outgoing connections, which are the ones with DNS names.
    pub fn has_outgoing(self) -> bool {
        self.iter().any(|name| !matches!(name, EventName::Accept | EventName::Listen | EventName::Drop))
    }

    /// Whether it contains events of sockets that are remembered, rather than only reported.
    pub fn has_tracked(self) -> bool {
        self.iter().any(|name| name != EventName::Accept)
    }

    /// Whether events of this kind are shown. False for sockets found at the start.
    pub fn shows(self, kind: &EventKind) -> bool {
        self.has(match kind {
            EventKind::Request => EventName::Request,
            EventKind::Connect { .. } => EventName::Connect,
            EventKind::Accept { .. } => EventName::Accept,
            EventKind::Fail { .. } => EventName::Fail,
            EventKind::Close(_) => EventName::Close,
            EventKind::Listen { .. } | EventKind::ListenStop { .. } => EventName::Listen,
            EventKind::StateChange { .. } => EventName::State,
            EventKind::Retransmit(_) => EventName::Retransmit,
            EventKind::ListenDrop { .. } => EventName::Drop,
            EventKind::Existing(_) => return false,
        })
    }

    /// The kinds, one by one; never [`EventName::All`].
    pub fn iter(self) -> impl Iterator<Item = EventName> {
        EventName::value_variants().iter().copied().filter(move |&name| self.has(name))
    }

    fn has(self, name: EventName) -> bool {
        self.0 & bit(name) != 0
    }
}

impl FromIterator<EventName> for EventSet {
    fn from_iter<I: IntoIterator<Item = EventName>>(names: I) -> Self {
        let all = || EventName::value_variants().iter().fold(0, |bits, &name| bits | bit(name));
        EventSet(
            names
                .into_iter()
                .fold(0, |bits, name| bits | if name == EventName::All { all() } else { bit(name) }),
        )
    }
}

/// The bit of a kind; 0 for [`EventName::All`], which stands for all others.
fn bit(name: EventName) -> u32 {
    if name == EventName::All { 0 } else { 1 << name as u32 }
}

/// What to do with sockets that already exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStart {
    /// Ignore them: a command that has not started yet has none, and not all events need them.
    Ignore,
    /// Read them to know their owners, without printing them.
    Learn,
    /// Print them before the first event.
    Print,
    /// Print them and exit.
    PrintOnly,
}

/// All settings of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The kinds of events to show.
    pub events: EventSet,
    /// Whether to watch DNS answers.
    pub dns: bool,
    /// What to do with sockets that already exist.
    pub at_start: AtStart,
    /// The output format of events.
    pub format: Format,
    /// The envelope metadata of the odr format.
    pub envelope: OdrArgs,
    /// Whether the table is coloured.
    pub color: bool,
    /// Whether the table shows times in UTC.
    pub utc: bool,
    /// Whether the banner and the summary are omitted.
    pub quiet: bool,
    /// Whether only a summary is printed, no events.
    pub summary_only: bool,
    /// Whether to log the choice of probes and libbpf's messages.
    pub verbose: bool,
    /// Stop after this long (`--timeout`).
    pub timeout: Option<Duration>,
    /// Stop after this many events (`--count`).
    pub count: Option<u64>,
    /// The command to run and follow; empty to trace the whole host.
    pub command: Vec<OsString>,
    /// The size of the ring buffer in bytes, a power of two.
    pub ring_size: u32,
    /// Which probe sets to try.
    pub probes: Probes,
    /// Whether to drop privileges before tracing.
    pub sandbox: bool,
}

/// The environment that affects the plan; read once, in `main`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Environment {
    /// The output is a terminal.
    pub output_is_terminal: bool,
    /// NO_COLOR is set and not empty (no-color.org).
    pub no_color: bool,
}

impl Plan {
    /// Resolves the defaults that depend on other arguments and on the environment.
    pub fn new(args: &Args, around: Environment) -> Plan {
        let kinds: &[EventName] = match &args.events[..] {
            _ if args.filter.failed => &[EventName::Fail],
            [] => &[EventName::Connect, EventName::Accept, EventName::Close, EventName::Fail],
            listed => listed,
        };
        let events: EventSet = kinds.iter().copied().collect();
        Plan {
            events,
            dns: !args.no_dns && !args.snapshot && events.has_outgoing(),
            format: if args.json { Format::Json } else { args.format },
            at_start: match (args.existing, args.snapshot) {
                (_, true) => AtStart::PrintOnly,
                (true, false) => AtStart::Print,
                _ if !args.command.is_empty() || !events.has_tracked() => AtStart::Ignore,
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
            sandbox: !args.no_sandbox,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn plan(words: &[&str], around: Environment) -> Plan {
        let args = Args::try_parse_from([&["tcptrace"], words].concat()).expect("valid arguments");
        Plan::new(&args, around)
    }

    #[test]
    fn colour_depends_on_option_terminal_and_no_color() {
        let terminal = Environment { output_is_terminal: true, no_color: false };
        let plain = Environment { no_color: true, ..terminal };
        assert!(plan(&[], terminal).color);
        assert!(!plan(&[], plain).color);
        assert!(!plan(&[], Environment::default()).color);
        assert!(plan(&["--color", "always"], plain).color);
        assert!(!plan(&["--color", "never"], terminal).color);
    }

    #[test]
    fn events_are_a_list() {
        use EventName::{Accept, Close, Connect, Drop, Fail, Listen, Request, Retransmit, State};
        let events = |words: &[&str]| -> Vec<EventName> {
            plan(words, Environment::default()).events.iter().collect()
        };
        assert_eq!(events(&[]), [Connect, Accept, Close, Fail]);
        assert_eq!(events(&["-e", "connect,fail"]), [Connect, Fail]);
        assert_eq!(events(&["-e", "close", "-e", "fail"]), [Close, Fail]);
        assert_eq!(
            events(&["-e", "all"]),
            [Connect, Accept, Close, Fail, Request, Listen, State, Retransmit, Drop]
        );
        for failed in [&["--failed"][..], &["--failed", "-e", "fail,close"], &["-e", "all", "--failed"]] {
            assert_eq!(events(failed), [Fail], "{failed:?}");
        }
    }

    #[test]
    fn dns_is_watched_only_if_names_are_shown() {
        let dns = |words: &[&str]| plan(words, Environment::default()).dns;
        assert!(dns(&[]) && dns(&["-e", "close"]) && dns(&["-e", "request"]));
        assert!(!dns(&["--no-dns"]) && !dns(&["-e", "accept,listen"]) && !dns(&["--snapshot"]));
    }

    #[test]
    fn json_has_a_short_form() {
        assert_eq!(plan(&["-j"], Environment::default()).format, Format::Json);
        assert_eq!(plan(&["-f", "json"], Environment::default()).format, Format::Json);
        assert_eq!(plan(&[], Environment::default()).format, Format::Table);
    }
}
