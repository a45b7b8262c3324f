//! Runs the kernel's filter on synthetic cases, for property tests and benchmarks.

use super::filter_maps::{configure, host_key, text_key};
use super::skel::types::{container_case, filter_case, filter_flow, filter_text, filter_who, flow};
use super::skel::{self, NetmonSkel, OpenNetmonSkel};
use crate::filter::predicate::unmap;
use crate::filter::{Direction, Program, Subject, Verdict};
use anyhow::{Context, Result, bail};
use bytemuck::{NoUninit, bytes_of};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject, ProgramInput};
use std::mem::MaybeUninit;

// SAFETY: integers and arrays of integers only; filter.h asserts that there is no padding.
unsafe impl NoUninit for filter_case {}

// SAFETY: as above, of test_programs.h.
unsafe impl NoUninit for container_case {}

/// A loaded filter that is not attached.
pub struct FilterTestRun<'obj> {
    skel: NetmonSkel<'obj>,
}

impl<'obj> FilterTestRun<'obj> {
    /// Loads `program` without any of the probes.
    pub fn load(program: &Program, storage: &'obj mut MaybeUninit<OpenObject>) -> Result<Self> {
        Self::load_one("on_filter_case", program, storage)
    }

    fn load_one(wanted: &str, program: &Program, storage: &'obj mut MaybeUninit<OpenObject>) -> Result<Self> {
        let mut open = open_one(wanted, storage)?;
        let loader = configure(program, &mut open.maps)?;
        open.maps.filter_scratches.set_autocreate(true)?;
        let skel = open.load().context("load the classifier")?;
        loader.fill(&skel.maps)?;
        Ok(FilterTestRun { skel })
    }

    /// Sets `subject` as the input of [`FilterTestRun::run`].
    pub fn prepare(&mut self, subject: &Subject) -> Result<()> {
        let case = case(subject);
        let map = &self.skel.maps.filter_cases;
        map.update(&0u32.to_ne_bytes(), bytes_of(&case), MapFlags::ANY).context("store the case")
    }

    /// The kernel's verdict on the prepared case, and the nanoseconds per run, averaged over `repeat` runs.
    pub fn run(&mut self, repeat: u32) -> Result<(Verdict, u64)> {
        // A packet with only a header; the program does not read it.
        let packet = [0; 14];
        let input = ProgramInput { data_in: Some(&packet), repeat, ..ProgramInput::default() };
        let output = self.skel.progs.on_filter_case.test_run(input).context("run the classifier")?;
        let verdict = match output.return_value as i32 {
            -1 => Verdict::Rejected,
            0 => Verdict::Admitted(None),
            rule @ 1.. => Verdict::Admitted(Some(rule as usize - 1)),
            other => bail!("the classifier returned {other}"),
        };
        Ok((verdict, output.duration.as_nanos() as u64))
    }
}

/// Opens the object with one program, and without maps that only the probes use.
pub(super) fn open_one<'obj>(
    wanted: &str,
    storage: &'obj mut MaybeUninit<OpenObject>,
) -> Result<OpenNetmonSkel<'obj>> {
    let mut open = skel::builder(false).open(storage).context("open the BPF object")?;
    for mut prog in open.open_object_mut().progs_mut() {
        let wanted = prog.name() == wanted;
        prog.set_autoload(wanted);
    }
    // The largest maps are not used here.
    open.maps.conns.set_max_entries(1)?;
    open.maps.ring.set_max_entries(4096)?;
    open.maps.test_listeners.set_autocreate(wanted == "on_test_lookup")?;
    Ok(open)
}

/// The container of a cgroup according to the kernel side, by names as in process/container.rs.
#[cfg(test)]
fn container_of(names: &[u8]) -> Result<Option<String>> {
    let mut case = container_case { name: [[0; 256]; 16], container: [0; 255], reserved: 0 };
    for (slot, name) in case.name.iter_mut().zip(names.split(|&byte| byte == 0)) {
        slot[..name.len()].copy_from_slice(name);
    }
    let mut storage = MaybeUninit::uninit();
    let loaded = FilterTestRun::load_one("on_container_case", &Program::default(), &mut storage)?;
    let map = &loaded.skel.maps.container_cases;
    map.update(&0u32.to_ne_bytes(), bytes_of(&case), MapFlags::ANY).context("store the case")?;
    let packet = [0; 14];
    let input = ProgramInput { data_in: Some(&packet), ..ProgramInput::default() };
    let found = loaded.skel.progs.on_container_case.test_run(input).context("run the case")?.return_value;
    let bytes = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.context("the case")?;
    let text = &bytes[size_of_val(&case.name)..];
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    match found {
        0 if text.is_empty() => Ok(None),
        1 => Ok(Some(String::from_utf8_lossy(text).into_owned())),
        other => bail!("the case returned {other}, {text:?}"),
    }
}

fn case(subject: &Subject) -> filter_case {
    let text = |text: &[u8]| filter_text { field: 0, ..text_key(0, text, 0) };
    let end = |address| host_key(0, unmap(address)).addr;
    filter_case {
        who: filter_who {
            uid: subject.uid,
            euid: subject.euid,
            gid: subject.gid,
            egid: subject.egid,
            auid: subject.auid,
            pid: subject.pid,
            ppid: subject.ppid,
            in_cgroup: subject.in_cgroup.into(),
            name_len: subject.binary_name.len() as u32,
            path_len: subject.binary_path.len() as u32,
            parent_name_len: subject.parent_binary_name.len() as u32,
            parent_path_len: subject.parent_binary_path.len() as u32,
            name: text(&subject.binary_name),
            path: text(&subject.binary_path),
            parent_name: text(&subject.parent_binary_name),
            parent_path: text(&subject.parent_binary_path),
            container: text(&subject.container_id),
        },
        flow: filter_flow {
            ends: flow {
                saddr: end(subject.saddr),
                daddr: end(subject.daddr),
                netns: subject.netns,
                sport: subject.sport,
                dport: subject.dport,
            },
            ingress: u32::from(subject.direction == Direction::Ingress),
            ..filter_flow::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::container_of;
    use crate::process::container::{self, PATHS, names};

    /// Needs root; prints a note otherwise.
    #[test]
    fn the_kernel_finds_the_same_containers() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: loading a program needs root");
            return;
        }
        for (path, expected) in PATHS {
            let names = names(path);
            assert_eq!(container::id(&names).as_deref(), *expected, "{path}");
            assert_eq!(container_of(&names).expect("run it").as_deref(), *expected, "in the kernel: {path}");
        }
    }
}
