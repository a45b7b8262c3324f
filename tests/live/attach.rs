//! Attaches and detaches repeatedly: nothing is left behind or accumulates.

use std::{
    collections::BTreeSet,
    fs,
    mem::MaybeUninit,
    thread,
    time::{Duration, Instant},
};

use clap::Parser as _;
use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};
use libtest_mimic::Trial;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use tcptrace::{
    cli::{
        Args,
        plan::{AtStart, Environment, Plan, Probes},
    },
    filter::Program,
    source::Source,
    tracer::{Tracer, TracerConfig},
};

use crate::common::{PATIENCE, harness::trial, procfs::kilobytes};

/// Loads, attaches, detaches and unloads once; returns the CPU time.
fn once() -> Duration {
    once_and(|| ())
}

/// The same, with an action while attached.
fn once_and(attached: impl FnOnce()) -> Duration {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(u64::try_from(micros).expect("time goes forward"))
    };
    let before = used();
    let program = Program::default();
    let config = TracerConfig {
        filter: &program,
        dns: false,
        events: Plan::new(&Args::parse_from(["tcptrace"]), Environment::default()).events,
        ring_size: 8 << 20,
        probes: Probes::Auto,
        at_start: AtStart::Ignore,
        follow: false,
        verbose: false,
        capabilities: u64::MAX,
    };
    let mut storage = [MaybeUninit::uninit(), MaybeUninit::uninit()];
    let mut tracer = Tracer::start(config, &mut storage).expect("attach");
    attached();
    tracer.detach();
    drop(tracer);
    tcptrace::tracer::take_log(); // kept for --verbose
    used() - before
}

/// The number of mappings in this process's address space.
fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").expect("/proc").lines().count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// The ids of tcptrace's programs, maps and links in the kernel.
fn objects() -> [BTreeSet<u32>; 3] {
    let programs: BTreeSet<u32> = ProgInfoIter::default()
        .filter(|prog| prog.name.to_string_lossy().starts_with("on_state"))
        .map(|prog| prog.id)
        .collect();
    let maps = MapInfoIter::default().filter(|map| map.name == "conns").map(|map| map.id).collect();
    let links = LinkInfoIter::default().filter(|link| programs.contains(&link.prog_id));
    let links = links.map(|link| link.id).collect();
    [programs, maps, links]
}

/// Objects held by descriptors are freed with them, after some time; nothing is pinned. Prints the CPU time of a round
/// at the beginning and at the end.
fn nothing_stays(rounds: usize) {
    let before = objects();
    once_and(|| assert!(objects().iter().zip(&before).all(|(now, before)| !now.is_subset(before))));
    let tenth = rounds / 10;
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let open = descriptors();
    let first = median((0..tenth).map(|_| once()).collect());
    let mappings = mappings();
    let resident = kilobytes(std::process::id(), "VmRSS:");
    for _ in 0..rounds - 2 * tenth {
        once();
    }
    let last = median((0..tenth).map(|_| once()).collect());
    println!("attach and detach: {first:?} at first, {last:?} after {rounds} rounds");
    assert_eq!(descriptors(), open);
    assert!(self::mappings() <= mappings + 8, "{mappings} mappings became {}", self::mappings());
    let now = kilobytes(std::process::id(), "VmRSS:");
    assert!(now < resident + 4096, "{resident} kB became {now} kB");
    let deadline = Instant::now() + PATIENCE;
    // Objects of another process in `before` may be gone by now.
    while !objects().iter().zip(&before).all(|(now, before)| now.is_subset(before)) {
        assert!(Instant::now() < deadline, "{before:?} became {:?}", objects());
        thread::sleep(Duration::from_millis(10));
    }
}

fn thirty_rounds_leave_nothing_behind() {
    nothing_stays(30);
}

fn a_thousand_rounds_leave_nothing_behind() {
    nothing_stays(1000);
}

/// A thousand rounds take minutes: `cargo test --test live -- --ignored thousand`.
pub fn tests() -> Vec<Trial> {
    let thousand = trial(
        module_path!(),
        "a_thousand_rounds_leave_nothing_behind",
        a_thousand_rounds_leave_nothing_behind,
    );
    let thirty =
        trial(module_path!(), "thirty_rounds_leave_nothing_behind", thirty_rounds_leave_nothing_behind);
    vec![thirty, thousand.with_ignored_flag(true)]
}
