//! Records as the kernel side sends them, for tests.

use bytemuck::{NoUninit, Zeroable, bytes_of};

use crate::tracer::layout::{flow, netmon_dns, netmon_event, netmon_flag, netmon_kind, netmon_process};

// SAFETY: integers and arrays of integers only; netmon.h asserts that there is no padding.
unsafe impl NoUninit for netmon_event {}
// SAFETY: as above.
unsafe impl NoUninit for netmon_process {}
// SAFETY: as above.
unsafe impl NoUninit for netmon_dns {}

/// All kinds of event records.
pub const EVENT_KINDS: [netmon_kind; 11] = [
    netmon_kind::NETMON_KIND_CONNECT,
    netmon_kind::NETMON_KIND_ACCEPT,
    netmon_kind::NETMON_KIND_CLOSE,
    netmon_kind::NETMON_KIND_FAIL,
    netmon_kind::NETMON_KIND_REQUEST,
    netmon_kind::NETMON_KIND_LISTEN,
    netmon_kind::NETMON_KIND_LISTEN_STOP,
    netmon_kind::NETMON_KIND_STATE,
    netmon_kind::NETMON_KIND_RETRANSMIT,
    netmon_kind::NETMON_KIND_DROP,
    netmon_kind::NETMON_KIND_EXISTING,
];

/// An event of pid 42, image 1: 192.0.2.1:40000 to 192.0.2.2:443.
pub fn raw_event(kind: netmon_kind, cookie: u64) -> netmon_event {
    let mapped = |last: u8| [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([192, 0, 2, last])];
    netmon_event {
        kind: kind.0 as u8,
        flags: (netmon_flag::NETMON_FLAG_TIMED.0 | netmon_flag::NETMON_FLAG_EGRESS.0) as u16,
        states: 1 | 7 << 4,
        time: 1000 + cookie,
        cookie,
        begun: 900 + cookie,
        image: 1,
        duration_ns: 5_000_000,
        bytes_sent: 10,
        bytes_received: 20,
        pid: 42,
        tid: 43,
        srtt_us: 70,
        segment: 3,
        seq: 1_000_000,
        seq_len: 1448,
        retransmits: 2,
        flow: flow { saddr: mapped(1), daddr: mapped(2), netns: 9, sport: 40_000, dport: 443 },
        ..Zeroable::zeroed()
    }
}

/// The bytes of [`raw_event`].
pub fn event(kind: netmon_kind, cookie: u64) -> Vec<u8> {
    bytes(&raw_event(kind, cookie))
}

/// The bytes of an event as in the ring.
pub fn bytes(raw: &netmon_event) -> Vec<u8> {
    bytes_of(raw).to_vec()
}

/// A process record: `/usr/bin/curl -s` as pid 42.
pub fn process(id: u64) -> Vec<u8> {
    let (path, args) = (b"curl\0bin\0usr\0", b"curl\0-s\0");
    let head = netmon_process {
        kind: netmon_kind::NETMON_KIND_PROCESS.0 as u8,
        path_len: path.len() as u16,
        args_len: args.len() as u16,
        pid: 42,
        id,
        ..Zeroable::zeroed()
    };
    [bytes_of(&head), path, args].concat()
}

/// A record with a DNS message.
pub fn answer(message: &[u8]) -> Vec<u8> {
    let head = netmon_dns {
        kind: netmon_kind::NETMON_KIND_DNS.0 as u8,
        len: message.len() as u16,
        netns: 9,
        time: 1,
        ..Zeroable::zeroed()
    };
    [bytes_of(&head), message].concat()
}
