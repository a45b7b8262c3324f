//! Decodes bytes of the ring to [events](crate::event::Event) and [processes](crate::event::Process). No input panics.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZero,
    time::Duration,
};

use bytemuck::AnyBitPattern;
use nix::errno::Errno;

use crate::{
    event::*,
    process::{argv, container, systemd_unit},
    tracer::layout::{
        netmon_dns, netmon_event, netmon_flag as flag, netmon_kind as kinds, netmon_process,
        netmon_process_flag as process_flag, netmon_secureexec as secureexec, netmon_segment as segments,
    },
};

/// A decoded record of the ring buffer.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// An event of a connection.
    Event(Event),
    /// A DNS answer received by this host.
    Answer(Answer<'a>),
    /// The original destination of a redirected connect(), sent before the events of the connection.
    Asked(ConnectionId, SocketAddr),
    /// A process image, sent before the events that refer to it.
    Process(ImageId, Box<Process>),
}

/// A record that this build cannot decode: too short, too long, or of an unknown kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecodable;

/// Decodes one record of the ring.
///
/// # Errors
/// [`Undecodable`] for anything but a complete record of a known kind.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, Undecodable> {
    let first = u32::from(*bytes.first().ok_or(Undecodable)?);
    if first == kinds::NETMON_KIND_PROCESS.0 {
        let (id, process) = process(bytes)?;
        Ok(Decoded::Process(id, Box::new(process)))
    } else if first == kinds::NETMON_KIND_DNS.0 {
        answer(bytes).map(Decoded::Answer)
    } else if first == kinds::NETMON_KIND_ASKED.0 {
        let raw: netmon_event = exactly(bytes)?;
        let id = ConnectionId { cookie: raw.cookie, begun: BootTime(raw.begun) };
        Ok(Decoded::Asked(id, SocketAddr::new(address(raw.flow.daddr), raw.flow.dport)))
    } else {
        event(&exactly::<netmon_event>(bytes)?).map(Decoded::Event)
    }
}

fn exactly<T: AnyBitPattern>(bytes: &[u8]) -> Result<T, Undecodable> {
    crate::tracer::layout::read(bytes).ok_or(Undecodable)
}

fn answer(bytes: &[u8]) -> Result<Answer<'_>, Undecodable> {
    let (head, rest) = bytes.split_at_checked(size_of::<netmon_dns>()).ok_or(Undecodable)?;
    let raw: netmon_dns = exactly(head)?;
    let message = rest.get(..raw.len.into()).ok_or(Undecodable)?;
    Ok(Answer { time: BootTime(raw.time), netns: raw.netns, message })
}

fn event(raw: &netmon_event) -> Result<Event, Undecodable> {
    let has = |bit: flag| u32::from(raw.flags) & bit.0 != 0;
    let elapsed = has(flag::NETMON_FLAG_TIMED).then(|| Duration::from_nanos(raw.duration_ns));
    let backlog = has(flag::NETMON_FLAG_BACKLOG).then_some(Backlog {
        len: raw.backlog_len,
        max: raw.backlog_max,
        drops: raw.drops,
    });
    let [from, to] = [raw.states & 15, raw.states >> 4].map(state);
    let owner = Actor { image: image(raw.image), pid: raw.pid, tid: raw.tid };
    let direction = if has(flag::NETMON_FLAG_EGRESS) { Direction::Egress } else { Direction::Ingress };
    let kind = match u32::from(raw.kind) {
        k if k == kinds::NETMON_KIND_REQUEST.0 => EventKind::Request,
        k if k == kinds::NETMON_KIND_CONNECT.0 => EventKind::Connect { latency: elapsed },
        k if k == kinds::NETMON_KIND_ACCEPT.0 => EventKind::Accept { backlog },
        k if k == kinds::NETMON_KIND_FAIL.0 => {
            EventKind::Fail { error: failure(raw.error), latency: elapsed }
        }
        k if k == kinds::NETMON_KIND_CLOSE.0 => EventKind::Close(Close {
            direction,
            duration: elapsed,
            bytes: (!has(flag::NETMON_FLAG_UNCOUNTED))
                .then_some(Bytes { sent: raw.bytes_sent, received: raw.bytes_received }),
            retransmits: raw.retransmits,
            srtt: Duration::from_micros(raw.srtt_us.into()),
            reason: if has(flag::NETMON_FLAG_REPAIR) {
                // checkpointed with TCP_REPAIR: the connection continues elsewhere, and nothing was sent
                CloseReason::LocalClose
            } else {
                reason(raw.error, from, has(flag::NETMON_FLAG_ABORTED_DATA))
            },
            closer: image(raw.closer),
        }),
        k if k == kinds::NETMON_KIND_LISTEN.0 => EventKind::Listen { backlog },
        k if k == kinds::NETMON_KIND_LISTEN_STOP.0 => EventKind::ListenStop { backlog },
        k if k == kinds::NETMON_KIND_STATE.0 => {
            EventKind::StateChange { direction, from, to, after: elapsed }
        }
        k if k == kinds::NETMON_KIND_RETRANSMIT.0 => {
            let segment = segment(raw.segment)?;
            let known = |value| (segment != Segment::SynAck).then_some(value);
            EventKind::Retransmit(Retransmit {
                direction,
                state: to,
                segment,
                seq: known(raw.seq),
                seq_len: known(raw.seq_len),
                retransmits: raw.retransmits,
            })
        }
        k if k == kinds::NETMON_KIND_DROP.0 => EventKind::ListenDrop { backlog },
        k if k == kinds::NETMON_KIND_EXISTING.0 => EventKind::Existing(Existing {
            state: to,
            direction: if has(flag::NETMON_FLAG_INGRESS) {
                Some(Direction::Ingress)
            } else {
                has(flag::NETMON_FLAG_EGRESS).then_some(Direction::Egress)
            },
            backlog,
            owners: Vec::from_iter((owner.pid != 0).then_some(owner)),
        }),
        _ => return Err(Undecodable),
    };
    Ok(Event {
        time: BootTime(raw.time),
        cookie: raw.cookie,
        begun: BootTime(raw.begun),
        local: SocketAddr::new(address(raw.flow.saddr), raw.flow.sport),
        remote: SocketAddr::new(address(raw.flow.daddr), raw.flow.dport),
        netns: raw.flow.netns,
        asked: None,
        interface: NonZero::new(raw.ifindex),
        mptcp: has(flag::NETMON_FLAG_MPTCP),
        owner,
        rule: raw.rule.checked_sub(1),
        kind,
    })
}

fn segment(number: u32) -> Result<Segment, Undecodable> {
    match number {
        k if k == segments::NETMON_SEGMENT_SYN.0 => Ok(Segment::Syn),
        k if k == segments::NETMON_SEGMENT_SYN_ACK.0 => Ok(Segment::SynAck),
        k if k == segments::NETMON_SEGMENT_DATA.0 => Ok(Segment::Data),
        k if k == segments::NETMON_SEGMENT_FIN.0 => Ok(Segment::Fin),
        k if k == segments::NETMON_SEGMENT_PROBE.0 => Ok(Segment::Probe),
        _ => Err(Undecodable),
    }
}

/// Converts an address in network order; IPv4 is passed as IPv4-mapped.
fn address(words: [u32; 4]) -> IpAddr {
    Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(words)).to_canonical()
}

fn image(id: u64) -> Option<ImageId> {
    (id != 0).then_some(ImageId(id))
}

/// The state with this number in include/net/tcp_states.h.
fn state(number: u8) -> State {
    match number {
        1 => State::Established,
        2 => State::SynSent,
        3 => State::SynRecv,
        4 => State::FinWait1,
        5 => State::FinWait2,
        6 => State::TimeWait,
        7 => State::Closed,
        8 => State::CloseWait,
        9 => State::LastAck,
        10 => State::Listen,
        11 => State::Closing,
        _ => State::Unknown,
    }
}

/// The failure of an attempt. A socket that leaves SYN_SENT without an error was closed by its caller.
fn failure(error: u16) -> Failure {
    match error {
        0 => Failure::Aborted,
        errno => Failure::Errno(Errno::from_raw(errno.into())),
    }
}

/// Why a connection ended, from `sk_err` and the state before CLOSE.
///
/// The kernel sets `sk_err` to ECONNRESET on a RST, or to EPIPE if the peer had closed before (`tcp_reset()`), and to
/// ETIMEDOUT when it gives up (`tcp_write_err()`). Without an error, the last state shows which side sent the first
/// FIN; a state without any FIN means that we sent a RST.
fn reason(error: u16, left: State, data_after_close: bool) -> CloseReason {
    match Errno::from_raw(error.into()) {
        _ if error == 0 => match left {
            State::LastAck => CloseReason::RemoteClose,
            State::Established | State::CloseWait | State::SynRecv => CloseReason::LocalReset,
            _ => CloseReason::LocalClose,
        },
        Errno::ECONNRESET if data_after_close => CloseReason::LocalReset,
        Errno::ECONNRESET | Errno::EPIPE => CloseReason::RemoteReset,
        Errno::ETIMEDOUT => CloseReason::Timeout,
        errno => CloseReason::Errno(errno),
    }
}

fn process(bytes: &[u8]) -> Result<(ImageId, Process), Undecodable> {
    let (head, rest) = bytes.split_at_checked(size_of::<netmon_process>()).ok_or(Undecodable)?;
    let raw: netmon_process = exactly(head)?;
    let (path, rest) = rest.split_at_checked(raw.path_len.into()).ok_or(Undecodable)?;
    let (cgroup, rest) = rest.split_at_checked(raw.cgroup_len.into()).ok_or(Undecodable)?;
    if rest.len() != usize::from(raw.args_len) {
        return Err(Undecodable);
    }
    let has = |bit: process_flag| u32::from(raw.flags) & bit.0 != 0;
    let secure = |bit: secureexec| u32::from(raw.secureexec) & bit.0 != 0;
    let kernel_thread = has(process_flag::NETMON_PROCESS_KTHREAD);
    let binary_path =
        if kernel_thread { String::new() } else { path_of(path, has(process_flag::NETMON_PROCESS_PATH_CUT)) };
    let first = |bytes| text(<[u8]>::split(bytes, |&byte| byte == 0).next().unwrap_or_default());
    let comm = first(&raw.comm);
    let filename = if binary_path.is_empty() { comm.clone() } else { first(path) };
    let args = if has(process_flag::NETMON_PROCESS_ARGS_UNREAD) && !kernel_thread {
        None
    } else {
        Some(argv::join(
            rest,
            has(process_flag::NETMON_PROCESS_TITLE),
            has(process_flag::NETMON_PROCESS_ARGS_CUT),
        ))
    };
    let process = Process {
        parent: image(raw.parent),
        pid: raw.pid,
        ppid: raw.ppid,
        start: BootTime(raw.start),
        cloned_at: BootTime(raw.cloned),
        parent_start: BootTime(raw.parent_start),
        cloned: has(process_flag::NETMON_PROCESS_CLONED),
        kernel_thread,
        uid: raw.uid,
        euid: raw.euid,
        gid: raw.gid,
        egid: raw.egid,
        auid: raw.auid,
        cap_inheritable: raw.cap_inheritable,
        cap_permitted: raw.cap_permitted,
        cap_effective: raw.cap_effective,
        secureexec: SecureExec {
            setuid: secure(secureexec::NETMON_SECUREEXEC_SETUID),
            setgid: secure(secureexec::NETMON_SECUREEXEC_SETGID),
            file_caps: secure(secureexec::NETMON_SECUREEXEC_FILE_CAPS),
            fileless: secure(secureexec::NETMON_SECUREEXEC_FILELESS),
        },
        binary_path,
        filename,
        comm,
        before: image(raw.before),
        args,
        argv_len: raw.argv_len,
        container_id: container::id(cgroup),
        container: None,
        unit: systemd_unit::name(cgroup),
    };
    Ok((ImageId(raw.id), process))
}

/// Joins NUL-ended names, last name first, to a path. A truncated one lacks its beginning.
fn path_of(names: &[u8], cut: bool) -> String {
    let mut path = String::from(if cut { "..." } else { "" });
    let names = names.strip_suffix(&[0]).unwrap_or(names);
    if !names.is_empty() {
        for name in names.split(|&byte| byte == 0).rev() {
            path.push('/');
            path.push_str(&text(name));
        }
    }
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(any(test, feature = "test-programs"))]
pub mod samples;
#[cfg(test)]
mod tests;
