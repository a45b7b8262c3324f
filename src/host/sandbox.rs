//! The sandbox of a running trace: its initial privileges are for loading programs and opening files, and both are done
//! by then.
//!
//! SECURITY.md has the table of privileges by phase; tests/live/sandbox.rs checks it.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use anyhow::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};
use libc::c_long;
use nix::{fcntl::OFlag, unistd::Pid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Is,
    SeccompCondition as Arg, SeccompFilter, SeccompRule, TargetArch,
};

use super::sudo_user::SudoUser;

pub mod reader;

/// The newest Landlock ABI that is used; older kernels confine less.
const LANDLOCK: ABI = ABI::V6;

/// Continues as the invoking user, without capabilities, in this thread and those it starts.
///
/// `reads_maps`: whether maps can be read by descriptor alone. Before Linux 5.19 that needs CAP_BPF if
/// kernel.unprivileged_bpf_disabled is set, so then this one capability is kept.
///
/// # Errors
/// When the kernel refuses a step.
pub fn drop_privileges(invoker: Option<&SudoUser>, reads_maps: impl Fn() -> bool) -> Result<()> {
    let permitted = give_up_all_but_permitted(invoker)?;
    let for_maps = [CapabilitySet::BPF, CapabilitySet::SYS_ADMIN]
        .into_iter()
        .find(|&one| permitted.contains(one))
        .unwrap_or(CapabilitySet::empty());
    keep(CapabilitySet::empty(), for_maps)?;
    let kept = if reads_maps() { CapabilitySet::empty() } else { for_maps };
    keep(kept, kept)
}

/// Becomes the invoking user but keeps the permitted capabilities, which are returned.
fn give_up_all_but_permitted(invoker: Option<&SudoUser>) -> Result<CapabilitySet> {
    for capability in CapabilitySet::all() {
        // Refused without CAP_SETPCAP; then there are few capabilities to drop anyway.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let _ = clear_ambient_capability_set();
    if let Some(invoker) = invoker {
        set_keep_capabilities(true).context("keep capabilities while changing the user")?;
        invoker.take_over().context("become the invoking user")?;
    }
    Ok(capabilities(None).context("read the capabilities")?.permitted)
}

/// Reduces the capabilities to these.
fn keep(effective: CapabilitySet, permitted: CapabilitySet) -> Result<()> {
    let sets = CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("drop the capabilities")
}

/// Prevents gaining privileges, and restricts file access to reading /proc and to writing in the output's `directory`.
/// `signals`: whether there is a command to send signals to.
///
/// # Errors
/// When the kernel refuses a step. A kernel without Landlock is not an error.
pub fn restrict_files(signals: bool, directory: Option<BorrowedFd<'_>>) -> Result<()> {
    let proc = PathFd::new("/proc").context("open /proc")?;
    let writes = directory.map(|directory| PathBeneath::new(directory, WRITES));
    restrict_files_to([PathBeneath::new(proc.as_fd(), READS)].into_iter().chain(writes).map(Ok), signals)
}

/// The rights to read files and directories.
const READS: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// The access needed to reopen the output.
const WRITES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg});

fn restrict_files_to<F: AsFd>(
    allowed: impl IntoIterator<Item = Result<PathBeneath<F>, RulesetError>>,
    signals: bool,
) -> Result<()> {
    set_no_new_privs(true).context("set no_new_privs")?;
    let mut scope = BitFlags::from(Scope::AbstractUnixSocket);
    if !signals {
        scope |= Scope::Signal;
    }
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(LANDLOCK)))
        .and_then(|rules| rules.scope(scope))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(allowed))
        .and_then(|rules| rules.restrict_self())
        .context("restrict file access with Landlock")?;
    Ok(())
}

/// Restricts all threads to the system calls of the event loop; all others fail with EPERM. `command`: the process that
/// signals are forwarded to; `directory`: that of the output, if it can be reopened.
///
/// # Errors
/// When the kernel refuses the filter.
pub fn restrict_calls(command: Option<Pid>, directory: Option<BorrowedFd<'_>>) -> Result<()> {
    seccompiler::apply_filter_all_threads(&filter(command, directory)?)
        .context("restrict system calls with seccomp")
}

/// Pairs of name and number of system calls.
macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}
use calls;

/// Allowed with any arguments.
const CALLS: &[(&str, c_long)] = calls! {
    // events in, lines out
    SYS_read SYS_write SYS_writev SYS_ppoll SYS_lseek SYS_ftruncate SYS_flock SYS_close
    // reading /proc; openat is restricted below
    SYS_fstat SYS_newfstatat SYS_statx SYS_pidfd_open
    // memory; no executable mappings, see below
    SYS_brk SYS_munmap SYS_mremap SYS_madvise SYS_getrandom
    // clocks, and waiting
    SYS_clock_gettime SYS_clock_nanosleep SYS_nanosleep SYS_restart_syscall SYS_membarrier
    // the thread that waits for a command, and reaping the command
    SYS_futex SYS_sched_yield SYS_sched_getaffinity SYS_set_robust_list SYS_rseq SYS_recvfrom SYS_wait4 SYS_waitid
    // signals, and our own exit
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack SYS_getpid SYS_gettid SYS_exit SYS_exit_group
};
/// System calls that only older architectures have.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[(&str, c_long)] = calls! { SYS_poll };
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[(&str, c_long)] = &[];

/// Allowed only with certain arguments.
#[cfg(test)]
const CHECKED: &[(&str, c_long)] = calls! {
    SYS_openat SYS_mmap SYS_mprotect SYS_ioctl SYS_bpf SYS_fcntl SYS_prctl SYS_sendto SYS_tgkill SYS_kill
};

/// The flags to reopen the output with, besides those for appending: never block, and follow no link in its place.
pub const REOPEN: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// Detaches a tracepoint (perf_event_open(2)).
const PERF_EVENT_IOC_DISABLE: u64 = 0x2401;
/// bpf(2) commands that read maps, and how often a program was skipped.
const BPF_READS: [u64; 4] = [
    1,  /* LOOKUP_ELEM */
    4,  /* GET_NEXT_KEY */
    24, /* LOOKUP_BATCH */
    15, /* OBJ_GET_INFO_BY_FD */
];

/// Compiles the list for seccomp.
fn filter(command: Option<Pid>, directory: Option<BorrowedFd<'_>>) -> Result<BpfProgram> {
    compile(rules(command, directory)?)
}

fn compile(rules: Rules) -> Result<BpfProgram> {
    let arch =
        TargetArch::try_from(std::env::consts::ARCH).context("seccomp does not support this architecture")?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?;
    Ok(filter.try_into()?)
}

/// The rules for each call; an empty list allows it with any arguments.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// A condition on one argument.
type Condition = Result<Arg, BackendError>;

fn is(number: u8, value: u64) -> Condition {
    Arg::new(number, Len::Dword, Is::Eq, value)
}

fn lacks(number: u8, bits: u64) -> Condition {
    Arg::new(number, Len::Dword, Is::MaskedEq(bits), 0)
}

/// Allows a call if any of these conjunctions of conditions holds.
fn allow(rules: &mut Rules, call: c_long, any: Vec<Vec<Condition>>) -> Result<(), BackendError> {
    for all in any {
        let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
        rules.entry(call).or_default().push(SeccompRule::new(all)?);
    }
    Ok(())
}

/// Allows these calls, and read-only use of files and memory.
fn reading(calls: impl Iterator<Item = c_long>) -> Result<Rules, BackendError> {
    let mut rules: Rules = calls.map(|call| (call, Vec::new())).collect();
    let writes = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    let executable = libc::PROT_EXEC as u64;
    allow(&mut rules, libc::SYS_openat, vec![vec![lacks(2, writes)]])?;
    allow(&mut rules, libc::SYS_mmap, vec![vec![lacks(2, executable)]])?;
    allow(&mut rules, libc::SYS_mprotect, vec![vec![lacks(2, executable)]])?;
    Ok(rules)
}

fn rules(command: Option<Pid>, directory: Option<BorrowedFd<'_>>) -> Result<Rules, BackendError> {
    let mut rules = reading(CALLS.iter().chain(OLD_CALLS).map(|&(_, call)| call))?;
    let mut allow = |call, any| allow(&mut rules, call, any);
    let own = u64::from(std::process::id());
    // size of a terminal, and whether it is one (a progress bar asks each time); bytes waiting in a pipe
    let requests = [libc::TIOCGWINSZ, libc::TCGETS, libc::FIONREAD, PERF_EVENT_IOC_DISABLE];
    allow(libc::SYS_ioctl, requests.map(|request| vec![is(1, request)]).into())?;
    allow(libc::SYS_bpf, BPF_READS.map(|command| vec![is(0, command)]).into())?;
    // debug builds of the standard library check that a descriptor being closed is open
    allow(libc::SYS_fcntl, vec![vec![is(1, libc::F_GETFD as u64)]])?;
    // naming a thread; waking it through a socket pair without an address
    allow(libc::SYS_prctl, vec![vec![is(0, libc::PR_SET_NAME as u64)]])?;
    allow(libc::SYS_sendto, vec![vec![Arg::new(4, Len::Qword, Is::Eq, 0)]])?;
    // abort(3)
    allow(libc::SYS_tgkill, vec![vec![is(0, own)]])?;
    if let Some(directory) = directory {
        let checked = OFlag::O_ACCMODE | OFlag::O_APPEND | OFlag::O_TRUNC | REOPEN;
        let appends = OFlag::O_WRONLY | OFlag::O_APPEND | REOPEN;
        let how = Arg::new(2, Len::Dword, Is::MaskedEq(checked.bits() as u64), appends.bits() as u64);
        allow(libc::SYS_openat, vec![vec![is(0, directory.as_raw_fd() as u64), how]])?;
    }
    if let Some(pid) = command {
        let signals = [libc::SIGTERM, libc::SIGHUP];
        let to = |signal| vec![is(0, pid.as_raw() as u64), is(1, signal as u64)];
        allow(libc::SYS_kill, signals.map(to).into())?;
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io::stderr};

    use super::*;

    /// The system calls in one section of SECURITY.md.
    pub fn listed(title: &str) -> BTreeSet<&'static str> {
        let (_, section) = include_str!("../../SECURITY.md").split_once(title).expect("a section");
        let section = section.split("\n#").next().unwrap_or_default();
        section.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_list_compiles_to_few_instructions() {
        let alone = filter(None, None).expect("a filter").len();
        let beside = filter(Some(Pid::from_raw(2)), Some(stderr().as_fd())).expect("a filter").len();
        assert!(alone < beside && beside < 400, "{alone} {beside}");
    }

    #[test]
    fn security_md_has_the_same_list() {
        let known = || CALLS.iter().chain(OLD_CALLS).chain(CHECKED);
        let allowed = rules(Some(Pid::from_raw(2)), None).expect("rules");
        assert!(allowed.keys().eq(known().map(|(_, number)| number).collect::<BTreeSet<_>>()));
        let listed = listed("### While it traces\n");
        let names = known().filter_map(|(name, _)| name.strip_prefix("SYS_"));
        assert_eq!(listed, names.chain(["poll"]).collect());
    }
}
