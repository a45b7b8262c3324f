//! The vocabulary: what can happen to a connection and who can do it. Data only.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    num::NonZero,
    rc::Rc,
    time::Duration,
};

use nix::errno::Errno;

mod container;

pub use container::Container;

/// Nanoseconds of CLOCK_BOOTTIME, the kernel's time in every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(pub u64);

/// Names one process image with one set of credentials; unique in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub u64);

/// One thing that happened to one connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub time: BootTime,
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// When the connection began, or tracing did: see [`ConnectionId`].
    pub begun: BootTime,
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Where connect() was to go, if a program of a cgroup has changed that.
    pub asked: Option<SocketAddr>,
    /// Index of the interface it is bound to (`sk_bound_dev_if`): by SO_BINDTODEVICE, a VRF or a link-local address.
    pub interface: Option<NonZero<u32>>,
    /// Multipath TCP, RFC 8684.
    pub mptcp: bool,
    /// Who connected or accepted.
    pub owner: Actor,
    /// Index of the rule that admitted it.
    pub rule: Option<u16>,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    /// The connection it is of.
    pub fn connection(&self) -> ConnectionId {
        ConnectionId { cookie: self.cookie, begun: self.begun }
    }
}

/// Names one connection. A socket may have several, one after the other, under one cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// When it began: the SYN was sent, or it was accepted; for one that existed, when tracing began.
    pub begun: BootTime,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.cookie, self.begun.0)
    }
}

/// A thread, and the image it ran. The image is missing when its record was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// The process image.
    pub image: Option<ImageId>,
    /// Thread group.
    pub pid: u32,
    /// The thread that acted.
    pub tid: u32,
}

/// A DNS message with answers, as a socket of this host received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// When.
    pub time: BootTime,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// The message, perhaps cut short. Hostile.
    pub message: &'a [u8],
}

/// What happened, and what is known only then.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// connect() was called, or what does its work.
    Request,
    /// The handshake of an outgoing connection completed.
    Connect {
        /// Since the SYN, where that was seen.
        latency: Option<Duration>,
    },
    /// accept() returned a connection.
    Accept {
        /// The listener's queue, where the listener is known.
        backlog: Option<Backlog>,
    },
    /// An outgoing connection did not come up.
    Fail {
        /// Why.
        error: Failure,
        /// Since the SYN, where that was seen; zero when none was sent.
        latency: Option<Duration>,
    },
    /// The connection ended.
    Close(Close),
    /// A socket begins to listen.
    Listen {
        /// Its queue.
        backlog: Option<Backlog>,
    },
    /// A socket stops listening.
    ListenStop {
        /// Its queue.
        backlog: Option<Backlog>,
    },
    /// A socket went from one state to another.
    StateChange {
        /// Who opened the connection; a listener is there for others.
        direction: Direction,
        /// The one it left.
        from: State,
        /// The one it is in.
        to: State,
        /// How long it was in `from`, where that was seen.
        after: Option<Duration>,
    },
    /// A segment was sent again.
    Retransmit(Retransmit),
    /// The last segment of a handshake, or data behind it, was dropped since the listener's queue is full.
    ListenDrop {
        /// The queue.
        backlog: Option<Backlog>,
    },
    /// A socket found at the start.
    Existing(Existing),
}

/// What an event is in the life of its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Before there is a connection: of a socket that may never connect, or elsewhere.
    Attempt,
    /// The socket leaves CLOSED: a connection or a listener begins.
    Begin,
    /// The connection is up.
    Open,
    /// It was there when tracing began.
    Existing,
    /// It goes on.
    Continue,
    /// The connection did not come up.
    Fail,
    /// The connection ended.
    Close,
    /// The listener ended.
    StopListening,
}

impl EventKind {
    /// What it is in the life of its socket.
    pub fn lifecycle(&self) -> Lifecycle {
        match self {
            EventKind::Request => Lifecycle::Attempt,
            EventKind::Connect { .. } | EventKind::Accept { .. } => Lifecycle::Open,
            EventKind::Fail { .. } => Lifecycle::Fail,
            EventKind::Close(_) => Lifecycle::Close,
            EventKind::Listen { .. } | EventKind::StateChange { from: State::Closed, .. } => Lifecycle::Begin,
            EventKind::ListenStop { .. } => Lifecycle::StopListening,
            EventKind::Retransmit(Retransmit { segment: Segment::Syn, .. }) => Lifecycle::Begin,
            EventKind::StateChange { .. } | EventKind::Retransmit(_) => Lifecycle::Continue,
            EventKind::ListenDrop { .. } => Lifecycle::Attempt,
            EventKind::Existing(_) => Lifecycle::Existing,
        }
    }

    /// Who opened the connection; none for a listener's own events, and where the kernel cannot
    /// tell.
    pub fn direction(&self) -> Option<Direction> {
        match self {
            EventKind::Request | EventKind::Connect { .. } | EventKind::Fail { .. } => {
                Some(Direction::Egress)
            }
            EventKind::Accept { .. } | EventKind::ListenDrop { .. } => Some(Direction::Ingress),
            EventKind::Close(close) => Some(close.direction),
            EventKind::StateChange { direction, .. } => Some(*direction),
            EventKind::Retransmit(retransmit) => Some(retransmit.direction),
            EventKind::Existing(existing) => existing.direction,
            EventKind::Listen { .. } | EventKind::ListenStop { .. } => None,
        }
    }

    /// The state the socket is in after the event.
    pub fn state(&self) -> State {
        match self {
            EventKind::Request => State::SynSent,
            EventKind::Connect { .. } | EventKind::Accept { .. } => State::Established,
            EventKind::Fail { .. } | EventKind::Close(_) | EventKind::ListenStop { .. } => State::Closed,
            EventKind::Listen { .. } => State::Listen,
            EventKind::StateChange { to, .. } => *to,
            EventKind::Retransmit(retransmit) => retransmit.state,
            EventKind::ListenDrop { .. } => State::SynRecv,
            EventKind::Existing(existing) => existing.state,
        }
    }

    /// How long before the event the connection was asked for, where that was seen.
    pub fn latency(&self) -> Option<Duration> {
        match self {
            EventKind::Connect { latency } | EventKind::Fail { latency, .. } => *latency,
            EventKind::Request
            | EventKind::Accept { .. }
            | EventKind::Close(_)
            | EventKind::Listen { .. }
            | EventKind::ListenStop { .. }
            | EventKind::StateChange { .. }
            | EventKind::Retransmit(_)
            | EventKind::ListenDrop { .. }
            | EventKind::Existing(_) => None,
        }
    }

    /// How long what the event ends had lasted, where its beginning was seen: a connection since its handshake,
    /// or the state that a change left.
    pub fn duration(&self) -> Option<Duration> {
        match self {
            EventKind::Close(close) => close.duration,
            EventKind::StateChange { after, .. } => *after,
            EventKind::Request
            | EventKind::Connect { .. }
            | EventKind::Accept { .. }
            | EventKind::Fail { .. }
            | EventKind::Listen { .. }
            | EventKind::ListenStop { .. }
            | EventKind::Retransmit(_)
            | EventKind::ListenDrop { .. }
            | EventKind::Existing(_) => None,
        }
    }

    /// Why a connection did not come up.
    pub fn failure(&self) -> Option<Failure> {
        if let EventKind::Fail { error, .. } = self { Some(*error) } else { None }
    }

    /// The listener's queue, where it is known.
    pub fn backlog(&self) -> Option<Backlog> {
        match self {
            EventKind::Accept { backlog }
            | EventKind::Listen { backlog }
            | EventKind::ListenStop { backlog }
            | EventKind::ListenDrop { backlog } => *backlog,
            EventKind::Existing(existing) => existing.backlog,
            EventKind::Request
            | EventKind::Connect { .. }
            | EventKind::Fail { .. }
            | EventKind::Close(_)
            | EventKind::StateChange { .. }
            | EventKind::Retransmit(_) => None,
        }
    }

    /// The state that a change left, and the one it led to.
    pub fn state_change(&self) -> Option<[State; 2]> {
        if let EventKind::StateChange { from, to, .. } = self { Some([*from, *to]) } else { None }
    }

    /// What is known of a segment that was sent again.
    pub fn retransmit(&self) -> Option<&Retransmit> {
        if let EventKind::Retransmit(retransmit) = self { Some(retransmit) } else { None }
    }

    /// How many segments have been sent again.
    pub fn retransmits(&self) -> Option<u32> {
        self.retransmit()
            .map(|retransmit| retransmit.retransmits)
            .or_else(|| self.close().map(|close| close.retransmits))
    }

    /// What is known of a connection's end.
    pub fn close(&self) -> Option<&Close> {
        if let EventKind::Close(close) = self { Some(close) } else { None }
    }

    /// The state of a socket that the event does not change, where it is worth telling.
    pub fn lasting_state(&self) -> Option<State> {
        self.existing()
            .map(|existing| existing.state)
            .or_else(|| self.retransmit().map(|retransmit| retransmit.state))
    }

    /// What is known of a socket found at the start.
    pub fn existing(&self) -> Option<&Existing> {
        if let EventKind::Existing(existing) = self { Some(existing) } else { None }
    }

    /// Does it speak of a socket that has no other end, a listener?
    pub fn is_listener(&self) -> bool {
        match self {
            EventKind::Listen { .. } | EventKind::ListenStop { .. } => true,
            EventKind::Existing(existing) => existing.state == State::Listen,
            EventKind::Request
            | EventKind::Connect { .. }
            | EventKind::Accept { .. }
            | EventKind::Fail { .. }
            | EventKind::Close(_)
            | EventKind::StateChange { .. }
            | EventKind::Retransmit(_)
            | EventKind::ListenDrop { .. } => false,
        }
    }
}

/// A segment that was sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retransmit {
    /// Who opened the connection.
    pub direction: Direction,
    /// The state it is in.
    pub state: State,
    /// What the segment is.
    pub segment: Segment,
    /// Its first sequence number, as on the wire; not known of a SYN+ACK.
    pub seq: Option<u32>,
    /// The sequence numbers it takes: bytes of payload, and one for SYN and for FIN.
    pub seq_len: Option<u32>,
    /// How many the connection has sent again, with this one (`tcp_sock.total_retrans`).
    pub retransmits: u32,
}

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// The first of a connection.
    Syn,
    /// The answer to it.
    SynAck,
    /// Payload.
    Data,
    /// The last, without payload.
    Fin,
    /// A tail loss probe (RFC 8985, section 7): perhaps nothing was lost.
    Probe,
}

/// A socket found at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Existing {
    /// Its state.
    pub state: State,
    /// Who opened it, where the kernel can tell.
    pub direction: Option<Direction>,
    /// A listener's queue.
    pub backlog: Option<Backlog>,
    /// The processes that have a descriptor of it; the event's owner is the first of them.
    pub owners: Vec<Actor>,
}

/// The state of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // RFC 9293, section 3.3.2
pub enum State {
    Listen,
    SynSent,
    SynRecv,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
    Unknown,
}

/// Completed connections that wait for accept().
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// How many wait (`sk_ack_backlog`).
    pub len: u32,
    /// How many may (`sk_max_ack_backlog`).
    pub max: u32,
    /// Segments that the listener has dropped so far (`sk_drops`), nearly always since its queue was full.
    pub drops: u32,
}

/// Why a connection did not come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The kernel gave up.
    Errno(Errno),
    /// The caller closed the socket first.
    Aborted,
}

impl Hash for Failure {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Failure::Errno(errno) => (*errno as i32).hash(state),
            Failure::Aborted => 0.hash(state),
        }
    }
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Close {
    /// Who opened it.
    pub direction: Direction,
    /// Since the handshake, where that was seen.
    pub duration: Option<Duration>,
    /// Payload, where the kernel counts it (of MPTCP since 6.5).
    pub bytes: Option<Bytes>,
    /// Segments sent again.
    pub retransmits: u32,
    /// Smoothed round-trip time.
    pub srtt: Duration,
    /// Why it ended.
    pub reason: CloseReason,
    /// The process that closed it, when that is not the owner.
    pub closer: Option<ImageId>,
}

#[cfg(test)]
impl Close {
    /// A connection that this host opened and closed, of which little is known.
    pub fn sample() -> Close {
        Close {
            direction: Direction::Egress,
            duration: None,
            bytes: None,
            retransmits: 0,
            srtt: Duration::ZERO,
            reason: CloseReason::LocalClose,
            closer: None,
        }
    }
}

/// Payload of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// Sent at least once.
    pub sent: u64,
    /// Received in order.
    pub received: u64,
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// This host did.
    Egress,
    /// The other one did.
    Ingress,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// This host sent the first FIN.
    LocalClose,
    /// The peer sent the first FIN.
    RemoteClose,
    /// This host sent RST: unread data, `SO_LINGER` 0, or data after close.
    LocalReset,
    /// The peer sent RST.
    RemoteReset,
    /// The peer did not answer any more.
    Timeout,
    /// Another error of the socket.
    Errno(Errno),
}

/// One process image: what exec made of a process, with one set of credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// The parent's image; none for the first processes.
    pub parent: Option<ImageId>,
    /// Thread group.
    pub pid: u32,
    /// The parent's thread group.
    pub ppid: u32,
    /// When it was exec'd, if that was seen; else when it was forked.
    pub start: BootTime,
    /// When it was forked.
    pub cloned_at: BootTime,
    /// The parent's `start`.
    pub parent_start: BootTime,
    /// Forked, never exec'd.
    pub cloned: bool,
    /// A kernel thread.
    pub kernel_thread: bool,
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective group.
    pub egid: u32,
    /// Login user; 4294967295 when unset.
    pub auid: u32,
    /// Capability sets, one bit each.
    pub cap_inheritable: u64,
    /// See `cap_inheritable`.
    pub cap_permitted: u64,
    /// See `cap_inheritable`.
    pub cap_effective: u64,
    /// Privileges that came with the executable.
    pub secureexec: SecureExec,
    /// Path of the executable as the process sees it; empty for a kernel thread.
    pub binary_path: String,
    /// Base name of the executable, comm where that is not known.
    pub filename: String,
    /// What the process calls itself (`task_struct.comm`), 15 bytes.
    pub comm: String,
    /// The last record of the same executable in this process.
    pub before: Option<ImageId>,
    /// argv without argv\[0\], joined by blanks; none when it could not be read in the kernel.
    pub args: Option<String>,
    /// Bytes of argv in its memory, no more than 65535; 0 when that is not known.
    pub argv_len: u16,
    /// The container it runs in.
    pub container_id: Option<String>,
    /// What that is called.
    pub container: Option<Rc<Container>>,
    /// The systemd unit it belongs to.
    pub unit: Option<String>,
}

/// Privileges that came with the executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SecureExec {
    /// The set-user-id bit changed the effective user.
    pub setuid: bool,
    /// The set-group-id bit changed the effective group.
    pub setgid: bool,
    /// File capabilities raised the permitted set.
    pub file_caps: bool,
    /// The executable had no name: memfd, or deleted before exec.
    pub fileless: bool,
}
