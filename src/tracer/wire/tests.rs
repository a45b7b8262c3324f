use proptest::prelude::*;

use super::{samples::EVENT_KINDS, *};

fn decoded(bytes: &[u8]) -> Event {
    match decode(bytes) {
        Ok(Decoded::Event(event)) => event,
        other => panic!("no event: {other:?}"),
    }
}

#[test]
fn every_kind_of_event_is_decoded() {
    let lifecycles: Vec<Lifecycle> = EVENT_KINDS
        .iter()
        .map(|&kind| {
            let event = decoded(&samples::event(kind, 7));
            assert_eq!(event.cookie, 7);
            assert_eq!(event.local, "192.0.2.1:40000".parse().expect("an address"));
            assert_eq!(event.remote, "192.0.2.2:443".parse().expect("an address"));
            assert_eq!((event.netns, event.owner.pid, event.owner.tid), (9, 42, 43));
            event.kind.lifecycle()
        })
        .collect();
    use Lifecycle::*;
    assert_eq!(
        lifecycles,
        [Open, Open, Close, Fail, Attempt, Begin, StopListening, Continue, Continue, Attempt, Existing]
    );
}

#[test]
fn a_close_has_a_reason_and_byte_counts() {
    let event = decoded(&samples::event(kinds::NETMON_KIND_CLOSE, 7));
    let close = event.kind.close().expect("a close");
    assert_eq!(close.direction, Direction::Egress);
    assert_eq!(close.duration, Some(Duration::from_millis(5)));
    assert_eq!(close.bytes, Some(Bytes { sent: 10, received: 20 }));
    assert_eq!(close.srtt, Duration::from_micros(70));
    // ESTABLISHED to CLOSE without an error
    assert_eq!(close.reason, CloseReason::LocalReset);
}

#[test]
fn reasons_follow_from_the_error_and_the_last_state() {
    let err = |errno: Errno| errno as u16;
    for (error, left, after_close, expected) in [
        (0, State::LastAck, false, CloseReason::RemoteClose),
        (0, State::FinWait2, false, CloseReason::LocalClose),
        (0, State::TimeWait, false, CloseReason::LocalClose),
        (0, State::CloseWait, false, CloseReason::LocalReset),
        (err(Errno::ECONNRESET), State::Established, false, CloseReason::RemoteReset),
        (err(Errno::ECONNRESET), State::FinWait2, true, CloseReason::LocalReset),
        (err(Errno::EPIPE), State::CloseWait, false, CloseReason::RemoteReset),
        (err(Errno::ETIMEDOUT), State::Established, false, CloseReason::Timeout),
        (err(Errno::ECONNABORTED), State::Established, false, CloseReason::Errno(Errno::ECONNABORTED)),
    ] {
        assert_eq!(reason(error, left, after_close), expected, "{error} {left:?}");
    }
}

#[test]
fn a_process_is_decoded() {
    let Ok(Decoded::Process(id, process)) = decode(&samples::process(5)).map_err(|_| ()) else {
        panic!("no process")
    };
    assert_eq!((id, process.pid), (ImageId(5), 42));
    assert_eq!((process.binary_path.as_str(), process.filename.as_str()), ("/usr/bin/curl", "curl"));
    assert_eq!(process.args.as_deref(), Some("-s"));
}

#[test]
fn records_of_wrong_length_are_rejected() {
    for record in EVENT_KINDS
        .iter()
        .map(|&kind| samples::event(kind, 1))
        .chain([samples::process(1), samples::answer(b"x")])
    {
        assert!(decode(&record).is_ok());
        for len in 0..record.len() {
            assert_eq!(decode(&record[..len]), Err(Undecodable), "{len} of {}", record.len());
        }
    }
    for &kind in &EVENT_KINDS {
        let longer = [samples::event(kind, 1), vec![0]].concat();
        assert_eq!(decode(&longer), Err(Undecodable));
    }
    assert_eq!(decode(&[samples::process(1), vec![0]].concat()), Err(Undecodable));
}

#[test]
fn unknown_kinds_are_rejected() {
    let known: Vec<u8> = EVENT_KINDS.iter().map(|kind| kind.0 as u8).collect();
    for kind in (0..=u8::MAX).filter(|kind| !known.contains(kind)) {
        let mut record = samples::event(kinds::NETMON_KIND_CLOSE, 1);
        record[0] = kind;
        let is_event = matches!(decode(&record), Ok(Decoded::Event(_)));
        assert!(!is_event, "{kind}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_flipped_bit_panics(
        index in 0..EVENT_KINDS.len() + 2,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..8),
    ) {
        let mut record = match EVENT_KINDS.get(index) {
            Some(&kind) => samples::event(kind, 3),
            None if index == EVENT_KINDS.len() => samples::process(3),
            None => samples::answer(&[0x81; 40]),
        };
        for (at, bit) in flips {
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
        }
        let _ = decode(&record);
    }
}
