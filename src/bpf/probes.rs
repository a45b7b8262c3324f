//! The two sets of probes: which programs are loaded, and how they are attached.

use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, anyhow};
use libbpf_rs::{Link, OpenProgramMut, ProgramMut, ProgramType, libbpf_sys};

use super::{
    Config,
    refusal::is_denied,
    skel::{NetmonProgs, OpenNetmonProgs},
};
use crate::{host, plan::AtStart};

/// Where the kernel side is hooked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeSet {
    /// fentry and fexit on kernel functions.
    Trampoline,
    /// System call, io_uring and cgroup hooks, for kernels that refuse trampolines.
    Tracepoint,
}

impl ProbeSet {
    /// What this set cannot see that the other can.
    pub fn limits(self) -> &'static [&'static str] {
        match self {
            ProbeSet::Trampoline => &["the backlog of accepts through io_uring"],
            ProbeSet::Tracepoint => &[
                "accepts through io_uring with multishot or direct descriptors, and before Linux 5.19 all of them",
                "failures before the SYN of sendto(MSG_FASTOPEN)",
                "accepts of 32-bit programs, and their connects that fail before any SYN",
            ],
        }
    }
}

/// Load only what is asked for, of this set, and has a place in this kernel.
pub fn choose(progs: &mut OpenNetmonProgs<'_>, set: ProbeSet, config: Config<'_>, notes: &mut Vec<String>) {
    let tracing = config.at_start != AtStart::PrintOnly;
    let surveying = config.at_start != AtStart::Ignore;
    let requests = config.events.has_requests();
    let trampoline = tracing && set == ProbeSet::Trampoline;
    let tracepoint = tracing && set == ProbeSet::Tracepoint;
    let dns = tracing && config.dns && can_watch_dns(notes);
    let choices: [(&mut OpenProgramMut<'_>, bool); 17] = [
        (&mut progs.on_task_state, tracing),
        (&mut progs.on_softirq_state, tracing),
        (&mut progs.on_orphan, tracing),
        (&mut progs.on_exec, tracing),
        (&mut progs.on_fork, tracing),
        (&mut progs.on_dns, dns),
        (&mut progs.on_accept, trampoline),
        (&mut progs.on_connect_v4, trampoline),
        (&mut progs.on_connect_v6, trampoline),
        (&mut progs.on_request, trampoline && requests),
        (&mut progs.on_sys_exit, tracepoint),
        (&mut progs.on_uring, tracepoint),
        (&mut progs.on_connect_enter, tracepoint && requests),
        (&mut progs.on_attempt_v4, tracepoint && config.net_admin),
        (&mut progs.on_attempt_v6, tracepoint && config.net_admin),
        (&mut progs.on_existing_tcp, surveying),
        (&mut progs.on_existing_file, surveying),
    ];
    for (prog, wanted) in choices {
        prog.set_autoload(wanted);
    }
}

/// Does this kernel refuse to load any fentry program, as under a lockdown? Asked with one that
/// is wrong as well, of which only an allowed one is told; whoever may not load programs at all is
/// refused both.
pub fn are_trampolines_forbidden() -> bool {
    errno_of_program(libbpf_sys::BPF_TRACE_FENTRY) == libc::EPERM
        && errno_of_program(libbpf_sys::BPF_TRACE_RAW_TP) != libc::EPERM
}

/// What becomes of an empty program for something that is no function: the type 1.
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
    // SAFETY: the pointers are to a string, one instruction and options of the size they tell, all
    // of which outlive the call.
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
        // SAFETY: the call has made it, for us alone.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        return 0;
    }
    -fd
}

/// What `-e request` cannot do in the tracepoint set.
const REQUEST_LIMITS: &str = "without BPF trampolines requests show what the caller's memory says when \
    connect() is called; unseen are MPTCP ones through io_uring, and io_uring ones that are refused by \
    a security module";

/// Names are a comfort: where they cannot be had, tracing goes on without.
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

/// Attach all of a set: first what learns of processes and names, then what ends stories, and last
/// what begins them. At the end they are detached the other way round, and what is told to begin is
/// seen to end.
pub fn attach(
    progs: &NetmonProgs<'_>,
    set: ProbeSet,
    net_admin: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    if progs.on_dns.autoload() {
        match attach_cgroup(&[&progs.on_dns]) {
            Ok(attached) => links.extend(attached),
            Err(error) if is_denied(&error) => notes.push(no_names("watching them needs CAP_NET_ADMIN")),
            Err(error) => notes.push(no_names(&format!("{error:#}"))),
        }
    }
    links.extend(attach_chosen(&[&progs.on_exec, &progs.on_fork, &progs.on_softirq_state])?);
    match set {
        ProbeSet::Trampoline => links.extend(attach_chosen(&[
            &progs.on_connect_v4,
            &progs.on_connect_v6,
            &progs.on_accept,
            &progs.on_request,
        ])?),
        ProbeSet::Tracepoint => {
            links.extend(attach_chosen(&[&progs.on_uring, &progs.on_connect_enter, &progs.on_sys_exit])?);
            if progs.on_connect_enter.autoload() {
                notes.push(REQUEST_LIMITS.to_owned());
            }
            let attempts = [&progs.on_attempt_v4, &progs.on_attempt_v6];
            let attached = match net_admin {
                true => attach_cgroup(&attempts),
                false => Err(anyhow!("CAP_NET_ADMIN is missing")),
            };
            match attached {
                Ok(attached) => links.extend(attached),
                Err(error) => {
                    notes.push(format!("connects that fail before any SYN are not seen: {error:#}"))
                }
            }
        }
    }
    links.extend(attach_chosen(&[&progs.on_task_state])?);
    Ok(links)
}

/// Attach those that were chosen, each where its section says.
fn attach_chosen(progs: &[&ProgramMut<'_>]) -> Result<Vec<Link>> {
    let chosen = progs.iter().filter(|prog| prog.autoload());
    chosen.map(|prog| prog.attach().with_context(|| format!("attach {}", prog.name().display()))).collect()
}

fn attach_cgroup(progs: &[&ProgramMut<'_>]) -> Result<Vec<Link>> {
    let root = host::cgroup2_root().ok_or_else(|| anyhow!("cgroup2 is not mounted"))?;
    let cgroup: OwnedFd = File::open(&root).with_context(|| format!("open {}", root.display()))?.into();
    progs
        .iter()
        .map(|prog| {
            prog.attach_cgroup(cgroup.as_raw_fd())
                .with_context(|| format!("attach {} to {}", prog.name().display(), root.display()))
        })
        .collect()
}
