//! Cgroup programs attached by others, for tests.

use std::{fs::File, mem::MaybeUninit, os::fd::AsRawFd, path::Path};

use anyhow::{Context, Result};
use libbpf_rs::{Link, skel::OpenSkel};

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
