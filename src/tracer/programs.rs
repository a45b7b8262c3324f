//! The two probe sets: which programs are loaded, and how they are attached.

use std::{
    ffi::OsStr,
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, anyhow};
use libbpf_rs::{
    Link, OpenProgramMut, ProgramMut, ProgramType,
    btf::{Btf, types::Enum},
    libbpf_sys,
};

use super::{
    config::TracerConfig,
    layout::{netmon_states, netmon_want as want},
    load_error::is_denied,
    parallel::Loaded,
    skel::{NetmonProgs, OpenNetmonProgs},
};
use crate::{
    cli::{
        EventName,
        plan::{AtStart, EventSet},
    },
    host,
};

/// How the kernel side is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeSet {
    /// fentry and fexit on kernel functions.
    Trampoline,
    /// System call, io_uring and cgroup hooks, for kernels that refuse trampolines.
    Tracepoint,
}

impl ProbeSet {
    /// The name in `--probes`.
    pub fn name(self) -> &'static str {
        match self {
            ProbeSet::Trampoline => "trampoline",
            ProbeSet::Tracepoint => "tracepoint",
        }
    }

    /// A note on what this set cannot see: everything if `verbose`, otherwise a hint if it matters.
    pub fn note(self, verbose: bool) -> Option<String> {
        let which = if self == ProbeSet::Tracepoint { "without" } else { "with" };
        match (self, verbose) {
            (_, true) => {
                Some(format!("{which} BPF trampolines these are not seen: {}", self.limits().join("; ")))
            }
            // Rare enough for a short hint, which leaves room for events on the terminal.
            (ProbeSet::Tracepoint, false) => Some(
                "some io_uring, Fast Open and 32-bit cases are not seen without BPF trampolines (-v lists them)"
                    .to_owned(),
            ),
            (ProbeSet::Trampoline, false) => None,
        }
    }

    /// What this set cannot see but the other can.
    pub fn limits(self) -> &'static [&'static str] {
        match self {
            ProbeSet::Trampoline => &[
                "the backlog of accepts through io_uring",
                "sendto(MSG_FASTOPEN) that a security module refuses",
            ],
            ProbeSet::Tracepoint => &[
                "accepts through io_uring with multishot or direct descriptors (before Linux 5.19: all of them)",
                "accepts by 32-bit programs, and their connects that fail before the SYN",
                "accepts by servers inside the kernel (such as nfsd), and therefore their connections",
                "connects through io_uring that a security module refuses",
            ],
        }
    }
}

/// The stage in which a program is attached: first those that track names, processes and states, then those that begin
/// connections from system calls. They are detached in reverse order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// DNS names, on the root of the cgroup2 tree.
    Names,
    /// Processes, and events of known connections.
    Follow,
    /// System calls and accepted connections.
    Calls,
    /// Connection attempts, on the root of the cgroup2 tree.
    Attempts,
    /// Attached by the reader of the iterator.
    Iterator,
}

/// The facts that decide which programs a run needs.
struct Needs {
    set: ProbeSet,
    tracing: bool,
    existing: bool,
    /// The events, as [`want_bits`].
    want: u32,
    drops: bool,
    dns: bool,
    net_admin: bool,
    /// Whether a task may be preempted inside a program of a tracepoint.
    preempted: bool,
}

/// A program of src/bpf/netmon.bpf.c.
struct Entry {
    open: for<'a, 'obj> fn(&'a mut OpenNetmonProgs<'obj>) -> &'a mut OpenProgramMut<'obj>,
    loaded: for<'a, 'obj> fn(&'a NetmonProgs<'obj>) -> &'a ProgramMut<'obj>,
    stage: Stage,
    wanted: fn(&Needs) -> bool,
}

/// An [`Entry`] for the program with this name.
macro_rules! program {
    ($name:ident, $stage:ident, $wanted:expr) => {
        Entry {
            open: |progs| &mut progs.$name,
            loaded: |progs| &progs.$name,
            stage: Stage::$stage,
            wanted: $wanted,
        }
    };
}

/// All programs: loading, attaching and detaching follow this table. Of two programs on one tracepoint, the kernel runs
/// the one first that was attached first.
static PROGRAMS: [Entry; 27] = [
    program!(on_dns, Names, |needs| needs.tracing && needs.dns),
    program!(on_exec, Follow, |needs| needs.tracing),
    program!(on_fork, Follow, |needs| needs.tracing),
    program!(on_state_bh, Follow, |needs| needs.states() && !needs.preempted),
    program!(on_state, Follow, |needs| needs.states() && !needs.preempted),
    program!(on_state_first, Follow, |needs| needs.states() && needs.preempted),
    program!(on_state_second, Follow, |needs| needs.states() && needs.preempted),
    program!(on_retransmit, Follow, |needs| needs.tracing && needs.wants(want::NETMON_WANT_RETRANSMIT)),
    program!(on_retransmit_synack, Follow, |needs| needs.tracing
        && needs.wants(want::NETMON_WANT_RETRANSMIT)),
    program!(on_drop, Follow, |needs| needs.drops),
    program!(on_connect_v4, Calls, Needs::failures),
    program!(on_connect_v6, Calls, Needs::failures),
    program!(on_accept, Calls, |needs| needs.trampoline() && needs.wants(want::NETMON_WANT_ACCEPTED)),
    program!(on_refused, Calls, Needs::failures),
    program!(on_refused_v4, Calls, Needs::failures),
    program!(on_refused_v6, Calls, Needs::failures),
    program!(on_request, Calls, |needs| needs.trampoline() && needs.wants(want::NETMON_WANT_REQUEST)),
    program!(on_uring, Calls, Needs::calls),
    program!(on_connect_enter, Calls, |needs| needs.tracepoint() && needs.wants(want::NETMON_WANT_REQUEST)),
    program!(on_sys_exit, Calls, Needs::calls),
    program!(on_sys_exit_second, Calls, |needs| needs.calls() && needs.preempted),
    program!(on_destroy, Follow, |needs| needs.tracepoint() && needs.wants(want::NETMON_WANT_LASTING)),
    program!(on_attempt_v4, Attempts, Needs::notes),
    program!(on_attempt_v6, Attempts, Needs::notes),
    program!(on_orphans, Iterator, |needs| needs.tracing),
    program!(on_existing_tcp, Iterator, |needs| needs.existing),
    program!(on_existing_file, Iterator, |needs| needs.existing),
];

impl Needs {
    fn trampoline(&self) -> bool {
        self.tracing && self.set == ProbeSet::Trampoline
    }

    fn tracepoint(&self) -> bool {
        self.tracing && self.set == ProbeSet::Tracepoint
    }

    /// Whether any of these events is wanted, as `wants()` of the kernel side.
    fn wants(&self, kinds: want) -> bool {
        self.want & kinds.0 != 0
    }

    fn states(&self) -> bool {
        self.tracing && states_to_handle(self.want, self.set) != 0
    }

    /// Failed calls of connect(), in the trampoline set.
    fn failures(&self) -> bool {
        self.trampoline() && self.wants(want::NETMON_WANT_ATTEMPTS)
    }

    /// Results of system calls, in the tracepoint set.
    fn calls(&self) -> bool {
        self.tracepoint()
            && (self.wants(want::NETMON_WANT_ACCEPTED) || self.wants(want::NETMON_WANT_ATTEMPTS))
    }

    /// Where failed calls were to connect to, in the tracepoint set.
    fn notes(&self) -> bool {
        self.tracepoint() && self.wants(want::NETMON_WANT_ATTEMPTS) && self.net_admin
    }
}

/// The kernel side's bits for these kinds of events.
pub fn want_bits(events: EventSet) -> u32 {
    use EventName as N;
    let bit = |name| match name {
        N::All => u32::MAX,
        N::Connect => want::NETMON_WANT_CONNECT.0,
        N::Accept => want::NETMON_WANT_ACCEPT.0,
        N::Close => want::NETMON_WANT_CLOSE.0,
        N::Fail => want::NETMON_WANT_FAIL.0,
        N::Request => want::NETMON_WANT_REQUEST.0,
        N::Listen => want::NETMON_WANT_LISTEN.0,
        N::State => want::NETMON_WANT_STATE.0,
        N::Retransmit => want::NETMON_WANT_RETRANSMIT.0,
        N::Drop => want::NETMON_WANT_DROP.0,
    };
    events.iter().fold(0, |bits, name| bits | bit(name))
}

/// Whether the object for plain runs will do.
pub fn is_plain(config: TracerConfig<'_>) -> bool {
    want_bits(config.events) == want::NETMON_WANT_DEFAULT.0 && !config.follow && config.filter.is_empty()
}

/// The kernel side's bits for the TCP states at whose entry something happens. `wanted`: as [`want_bits`].
pub fn states_to_handle(wanted: u32, set: ProbeSet) -> u32 {
    let tracepoints = set == ProbeSet::Tracepoint;
    [
        (want::NETMON_WANT_STATE, true, netmon_states::NETMON_STATES_ALL),
        (want::NETMON_WANT_OUTGOING, true, netmon_states::NETMON_STATES_OUTGOING),
        (want::NETMON_WANT_ACCEPTED, tracepoints, netmon_states::NETMON_STATES_ACCEPTED),
        (want::NETMON_WANT_CLOSE, true, netmon_states::NETMON_STATES_CLOSE),
        (want::NETMON_WANT_LISTENERS, true, netmon_states::NETMON_STATES_LISTENERS),
    ]
    .into_iter()
    .filter(|(kinds, in_set, _)| *in_set && wanted & kinds.0 != 0)
    .fold(0, |bits, (_, _, states)| bits | states.0)
}

/// Selects the programs to load: those that the run needs, in this set, and that the kernel supports.
pub fn choose(
    progs: &mut OpenNetmonProgs<'_>,
    set: ProbeSet,
    config: TracerConfig<'_>,
    notes: &mut Vec<String>,
) {
    let tracing = config.at_start != AtStart::PrintOnly;
    let needs = Needs {
        set,
        tracing,
        existing: config.at_start != AtStart::Ignore,
        want: want_bits(config.events),
        drops: tracing && config.events.has_drops() && can_see_drops(notes),
        dns: tracing && config.dns && can_watch_dns(notes),
        net_admin: config.net_admin(),
        preempted: host::kernel_version() >= (7, 0),
    };
    for program in &PROGRAMS {
        (program.open)(progs).set_autoload((program.wanted)(&needs));
    }
}

/// Whether this kernel refuses all fentry programs, as under a lockdown. Checked with an invalid program: EPERM means
/// that fentry is forbidden, another error that it is not. A process that may not load any program gets EPERM for both
/// kinds.
pub fn are_trampolines_forbidden() -> bool {
    errno_of_program(libbpf_sys::BPF_TRACE_FENTRY) == libc::EPERM
        && errno_of_program(libbpf_sys::BPF_TRACE_RAW_TP) != libc::EPERM
}

/// The errno of loading an empty program for BTF type 1, which is no function.
fn errno_of_program(attach_type: libbpf_sys::bpf_attach_type) -> i32 {
    let exit = libbpf_sys::bpf_insn {
        code: (libbpf_sys::BPF_JMP | libbpf_sys::BPF_EXIT) as u8,
        ..Default::default()
    };
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        attempts: 1,
        expected_attach_type: attach_type,
        attach_btf_id: 1,
        ..Default::default()
    };
    // SAFETY: the pointers are to a string, one instruction and options of the stated sizes, and all outlive the call.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_TRACING,
            std::ptr::null(),
            c"GPL".as_ptr(),
            &exit,
            1,
            &mut options,
        )
    };
    if fd >= 0 {
        // SAFETY: the call has just created the descriptor, and nothing else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        return 0;
    }
    -fd
}

/// The limits of `-e request` in the tracepoint set.
const REQUEST_LIMITS: &str = "without BPF trampolines, requests show the address in the caller's memory \
    when connect() is called; MPTCP requests through io_uring, and io_uring requests that a security \
    module refuses, are not seen";

/// Whether the kernel reports listener overflows among its drop reasons, an enum that grows.
fn can_see_drops(notes: &mut Vec<String>) -> bool {
    let reasons = Btf::from_vmlinux().ok();
    let reasons = reasons.as_ref().and_then(|btf| btf.type_by_name::<Enum<'_>>("skb_drop_reason"));
    let says = reasons.is_some_and(|reasons| {
        reasons
            .iter()
            .any(|member| member.name.is_some_and(|name| name == "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW"))
    });
    if !says {
        notes.push(
            "drop events are not seen: this kernel does not report why it drops a segment (Linux 6.15 does)"
                .to_owned(),
        );
    }
    says
}

/// DNS names are best effort: tracing works without them.
fn can_watch_dns(notes: &mut Vec<String>) -> bool {
    let missing = if !ProgramType::CgroupSkb.is_supported().unwrap_or(true) {
        "this kernel has no BPF for cgroups (CONFIG_CGROUP_BPF)"
    } else if host::cgroup2_root().is_none() {
        "cgroup2 is not mounted"
    } else {
        return true;
    };
    notes.push(no_names(missing));
    false
}

fn no_names(why: &str) -> String {
    format!("remote ends have no DNS names: {why}")
}

/// Whether the program takes long to verify, and nothing but attaching it needs libbpf.
pub fn is_heavy(name: &OsStr) -> bool {
    let heavy = [
        "on_state",
        "on_state_bh",
        "on_state_first",
        "on_state_second",
        "on_sys_exit",
        "on_sys_exit_second",
        "on_uring",
        "on_existing_tcp",
        "on_existing_file",
    ];
    heavy.iter().any(|heavy| name == *heavy)
}

/// Attaches a program until the descriptor returned is closed. None: it was not loaded.
///
/// # Errors
/// When the kernel refuses.
pub fn attach_one(prog: &ProgramMut<'_>, loaded: &[Loaded]) -> Result<Option<OwnedFd>> {
    let link = match loaded.iter().find(|loaded| loaded.name() == prog.name()) {
        Some(loaded) => loaded.attach().map_err(Into::into),
        None if prog.autoload() => prog.attach().map_err(Into::into).and_then(descriptor),
        None => return Ok(None),
    };
    link.with_context(|| format!("attach {}", prog.name().display())).map(Some)
}

/// The descriptor of a link, which keeps it attached.
fn descriptor(link: Link) -> Result<OwnedFd> {
    Ok(link.as_fd().try_clone_to_owned()?)
}

/// Attaches the selected programs, stage by stage, until the descriptors returned are closed.
///
/// # Errors
/// When the kernel refuses a program that every run needs.
pub fn attach(
    progs: &NetmonProgs<'_>,
    loaded: &[Loaded],
    set: ProbeSet,
    net_admin: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<OwnedFd>> {
    let mut links = Vec::new();
    for stage in [Stage::Names, Stage::Follow, Stage::Calls, Stage::Attempts] {
        let all = PROGRAMS.iter().filter(|program| program.stage == stage);
        let all = all.map(|program| (program.loaded)(progs));
        let chosen: Vec<_> = all.clone().filter(|prog| prog.autoload()).collect();
        match stage {
            Stage::Names if chosen.is_empty() => {}
            Stage::Names => match attach_cgroup(&chosen) {
                Ok(attached) => links.extend(attached),
                Err(error) if !net_admin && is_denied(&error) => {
                    notes.push(no_names("watching DNS answers needs CAP_NET_ADMIN"))
                }
                Err(error) => notes.push(no_names(&format!("{error:#}"))),
            },
            Stage::Attempts if set == ProbeSet::Trampoline => {}
            Stage::Attempts => {
                let attached = match net_admin {
                    true => attach_cgroup(&chosen),
                    false => Err(anyhow!("CAP_NET_ADMIN is missing")),
                };
                match attached {
                    Ok(attached) => links.extend(attached),
                    Err(error) => {
                        notes.push(format!("failures before the SYN are not seen: {error:#}"));
                    }
                }
            }
            Stage::Follow | Stage::Calls | Stage::Iterator => {
                for prog in all {
                    links.extend(attach_one(prog, loaded)?);
                }
            }
        }
    }
    if progs.on_connect_enter.autoload() {
        notes.push(REQUEST_LIMITS.to_owned());
    }
    Ok(links)
}

/// The descriptor of a program, whoever loaded it.
pub fn fd_of<'a>(prog: &'a ProgramMut<'_>, loaded: &'a [Loaded]) -> BorrowedFd<'a> {
    let ours = loaded.iter().find(|loaded| loaded.name() == prog.name());
    ours.map_or_else(|| prog.as_fd(), Loaded::fd)
}

fn attach_cgroup(progs: &[&ProgramMut<'_>]) -> Result<Vec<OwnedFd>> {
    let root = host::cgroup2_root().ok_or_else(|| anyhow!("cgroup2 is not mounted"))?;
    let cgroup: OwnedFd = File::open(&root).with_context(|| format!("open {}", root.display()))?.into();
    progs
        .iter()
        .map(|prog| {
            let link = prog.attach_cgroup(cgroup.as_raw_fd()).map_err(Into::into).and_then(descriptor);
            link.with_context(|| format!("attach {} to {}", prog.name().display(), root.display()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{
        Args,
        plan::{Environment, Plan},
    };

    #[test]
    fn the_object_for_plain_runs_has_the_default_events() {
        let plan = Plan::new(&Args::parse_from(["tcptrace"]), Environment::default());
        assert_eq!(want_bits(plan.events), want::NETMON_WANT_DEFAULT.0);
    }
}
