//! Attach and detach, again and again: nothing stays, nothing slows down. Needs root.

use std::{fs, mem::MaybeUninit, time::Duration};

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

/// What is held by descriptors goes with them: programs, maps and links; nothing is pinned.
fn nothing_stays(rounds: usize) {
    let tenth = rounds / 10;
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    once();
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
    assert!(last < first * 2, "{first:?} became {last:?}");
}

#[test]
fn thirty_times() {
    nothing_stays(30);
}

#[test]
#[ignore = "takes minutes: cargo test --test attach -- --ignored"]
fn a_thousand_times() {
    nothing_stays(1000);
}
