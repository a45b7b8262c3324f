//! BPF programs of others, for tests.

use std::{
    fs::File,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use anyhow::{Context, Result};
use libbpf_rs::{Link, MapCore, MapFlags, skel::OpenSkel};

use super::filter_test_run::open_one;

/// Attaches a program of test_programs.h to a cgroup until the link is dropped.
///
/// # Errors
/// When it cannot be loaded or attached.
pub fn attach(name: &str, cgroup: &Path) -> Result<Link> {
    let mut storage = MaybeUninit::uninit();
    let open = open_one(name, &mut storage)?;
    let skel = open.load().context("load the program")?;
    let cgroup = File::open(cgroup).context("open the cgroup")?;
    let progs = [&skel.progs.on_test_connect, &skel.progs.on_test_loss];
    let prog = progs.into_iter().find(|prog| prog.name() == name).context("no such program")?;
    prog.attach_cgroup(cgroup.as_raw_fd()).context("attach the program")
}

/// Lets a listener accept connections to port 1 of this network namespace until the link is dropped.
///
/// # Errors
/// When the program cannot be loaded or attached.
pub fn accept_port_1(listener: impl AsFd) -> Result<Link> {
    let mut storage = MaybeUninit::uninit();
    let open = open_one("on_test_lookup", &mut storage)?;
    let skel = open.load().context("load the program")?;
    let fd = u64::try_from(listener.as_fd().as_raw_fd()).context("a descriptor")?;
    let listeners = &skel.maps.test_listeners;
    listeners.update(&0u32.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY).context("add the listener")?;
    let netns = File::open("/proc/thread-self/ns/net").context("open the network namespace")?;
    skel.progs.on_test_lookup.attach_netns(netns.as_raw_fd()).context("attach the program")
}
