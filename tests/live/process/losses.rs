//! Lost records, and full tables.

use nix::sys::signal::Signal;

use crate::{
    common::{Trace, actor::Actor, procfs::kilobytes},
    support::*,
};

/// While tcptrace is stopped the ring fills up, and a process record is lost. The next event of the process sends it
/// again.
fn a_lost_record_is_sent_again() {
    let mut trace = Trace::start(&["-e", "fail", "--ring-size", "64K"]);
    let mut actor = Actor::spawn(
        Actor::program(this_program(), "fail 1\nsay failed\nhear\nfail 1\nsay failed\nhear").arg("first"),
    );
    actor.hear();
    let first = events_of(&mut trace, actor.pid(), 1).remove(0);

    trace.signal(Signal::SIGSTOP);
    // Each event has 136 bytes; these overfill the ring.
    let filler = run(&this_program(), &["filler"], "fail 1000");
    let mut late = Actor::spawn(
        Actor::program(this_program(), "fail 1\nsay failed\nhear\nfail 1\nsay failed\nhear").arg("late"),
    );
    late.hear();
    trace.signal(Signal::SIGCONT);

    // Once some of those are read, the ring has room to send the first process's record again.
    events_of(&mut trace, filler, 100);
    actor.tell("again");
    actor.hear();
    let again = events_of(&mut trace, actor.pid(), 2).remove(1);
    assert_eq!(again["process"]["exec_id"], first["process"]["exec_id"]);
    assert_eq!(again["process"]["args"], "first");
    late.tell("again");
    late.hear();
    let event = event_of(&mut trace, late.pid());
    assert_eq!(event["process"]["args"], "late");
    for mut actor in [actor, late] {
        actor.tell("end");
        actor.leave();
    }
    let ended = trace.stop();
    assert!(ended.stderr.contains("lost") && ended.stderr.contains("process record"), "{}", ended.stderr);
}

/// Every change of user creates an image. When there are too many, unused ones are dropped: memory stays bounded, and a
/// process that acts again is reported again.
pub fn memory_stays_bounded_with_many_images() {
    const ROUND: u32 = 2000;
    const IMAGES: u32 = 10 * ROUND;
    let mut trace = Trace::start(&["-e", "fail"]);
    let twice = "fail 1\nsay failed\nhear\nfail 1\nsay failed\nhear";
    let mut first_and_last = Actor::spawn(Actor::program(this_program(), twice).arg("first"));
    first_and_last.hear();
    let before = kilobytes(trace.pid(), "RssAnon:");
    let rounds = (0..10).map(|round| format!("hear\nfresh-users {} {}", round * ROUND, (round + 1) * ROUND));
    let script = rounds.collect::<Vec<_>>().join("\n");
    let mut many = Actor::spawn(Actor::program(this_program(), &script).arg("many"));
    for round in 1..=10 {
        many.tell("go on");
        // at most as many at a time as the ring holds
        events_at(&mut trace, 1, (round * ROUND) as usize);
    }
    let pid = many.pid();
    many.leave();
    first_and_last.tell("again");
    first_and_last.hear();
    let reported = events_of(&mut trace, first_and_last.pid(), 2);
    assert_eq!(reported[0]["process"], reported[1]["process"]);
    for (number, event) in events_of(&mut trace, pid, IMAGES as usize).iter().enumerate() {
        check(event);
        assert_eq!(event["process"]["euid"], number);
        assert_eq!(event["process"]["args"], "many");
    }
    // anonymous memory, which excludes the ring
    let grown = kilobytes(trace.pid(), "RssAnon:").saturating_sub(before);
    assert!(grown < 40 << 10, "{grown} KiB more for {IMAGES} images");
    first_and_last.tell("end");
    first_and_last.leave();
    let ended = trace.stop();
    assert!(!ended.stderr.contains("process record"), "{}", ended.stderr);
}

crate::tests![a_lost_record_is_sent_again,];
