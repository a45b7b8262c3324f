//! What others attach to cgroups, for tests.

use std::{fs::File, mem::MaybeUninit, os::fd::AsRawFd, path::Path};

use anyhow::{Context, Result};
use libbpf_rs::{
    Link,
    skel::{OpenSkel, SkelBuilder},
};

use super::skel::NetmonSkelBuilder;

/// Attach one program of test_programs.h to a cgroup, until the link is dropped.
///
/// # Errors
/// When it cannot be loaded or attached.
pub fn attach(name: &str, cgroup: &Path) -> Result<Link> {
    let mut storage = MaybeUninit::uninit();
    let mut open = NetmonSkelBuilder::default().open(&mut storage).context("open the BPF object")?;
    open.open_object_mut().progs_mut().for_each(|mut prog| {
        let wanted = prog.name() == name;
        prog.set_autoload(wanted);
    });
    open.maps.conns.set_max_entries(1)?;
    open.maps.ring.set_max_entries(4096)?;
    let skel = open.load().context("load the program")?;
    let cgroup = File::open(cgroup).context("open the cgroup")?;
    let progs = [&skel.progs.on_test_connect, &skel.progs.on_test_loss];
    let prog = progs.into_iter().find(|prog| prog.name() == name).context("no such program")?;
    prog.attach_cgroup(cgroup.as_raw_fd()).context("attach the program")
}
