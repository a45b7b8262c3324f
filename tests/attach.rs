//! Attach and detach, again and again: nothing stays, nothing slows down. Needs root.

use std::{
    collections::BTreeSet,
    fs,
    mem::MaybeUninit,
    thread,
    time::{Duration, Instant},
};

use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use tcptrace::{
    bpf::{Config, Tracer},
    filter::Program,
    plan::{AtStart, Events, Probes},
    session::Source,
};

/// Load, attach, detach and unload once; the processor time it took.
fn once() -> Duration {
    once_and(|| ())
}

/// The same, with something to be done while it is attached.
fn once_and(attached: impl FnOnce()) -> Duration {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(u64::try_from(micros).expect("time goes forward"))
    };
    let before = used();
    let program = Program::default();
    let config = Config {
        filter: &program,
        dns: false,
        events: Events::default(),
        ring_size: 8 << 20,
        probes: Probes::Auto,
        at_start: AtStart::Ignore,
        follow: false,
        verbose: false,
        net_admin: true,
    };
    let mut storage = [MaybeUninit::uninit(), MaybeUninit::uninit()];
    let mut tracer = Tracer::start(config, &mut storage).expect("attach");
    attached();
    tracer.detach();
    drop(tracer);
    tcptrace::bpf::take_log(); // kept for --verbose
    used() - before
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn resident_kb() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Programs, maps and links of tcptrace that the kernel has.
fn objects() -> [usize; 3] {
    let programs: BTreeSet<u32> =
        ProgInfoIter::default().filter(|prog| prog.name == "on_task_state").map(|prog| prog.id).collect();
    let maps = MapInfoIter::default().filter(|map| map.name == "conns");
    let links = LinkInfoIter::default().filter(|link| programs.contains(&link.prog_id));
    [programs.len(), maps.count(), links.count()]
}

/// What is held by descriptors goes with them, once the kernel has come to it; nothing is pinned. Returns the
/// processor time of a round at first and at the end.
fn nothing_stays(rounds: usize) -> [Duration; 2] {
    let before = objects();
    once_and(|| assert!(objects().iter().zip(before).all(|(now, before)| *now > before)));
    let tenth = rounds / 10;
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let open = descriptors();
    let first = median((0..tenth).map(|_| once()).collect());
    let resident = resident_kb();
    for _ in 0..rounds - 2 * tenth {
        once();
    }
    let last = median((0..tenth).map(|_| once()).collect());
    println!("attach and detach: {first:?} at first, {last:?} after {rounds} rounds");
    assert_eq!(descriptors(), open);
    assert!(resident_kb() < resident + 4096, "{resident} kB became {} kB", resident_kb());
    let deadline = Instant::now() + Duration::from_secs(60);
    while objects() != before {
        assert!(Instant::now() < deadline, "{before:?} became {:?}", objects());
        thread::sleep(Duration::from_millis(10));
    }
    [first, last]
}

#[test]
fn thirty_times() {
    nothing_stays(30);
}

#[test]
#[ignore = "takes minutes: cargo test --test attach -- --ignored"]
fn a_thousand_times() {
    let [first, last] = nothing_stays(1000);
    assert!(last < first * 2, "{first:?} became {last:?}");
}
