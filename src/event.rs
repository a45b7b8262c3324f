//! The data model: what happens to connections, and which processes are involved.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    num::NonZero,
    rc::Rc,
    time::Duration,
};

use nix::errno::Errno;

mod container;

pub use container::Container;

/// Nanoseconds of CLOCK_BOOTTIME, the clock of every kernel record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(pub u64);

/// Identifies one process image with one set of credentials; unique within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub u64);

/// One event of one connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The time of the event, taken in the kernel.
    pub time: BootTime,
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// When the connection began, or when tracing began if that was later: see [`ConnectionId`].
    pub begun: BootTime,
    /// The address and port of this host.
    pub local: SocketAddr,
    /// The address and port of the peer.
    pub remote: SocketAddr,
    /// The inode number of the network namespace.
    pub netns: u32,
    /// The address passed to connect(), if a cgroup program changed it.
    pub asked: Option<SocketAddr>,
    /// The index of the interface the socket is bound to (`sk_bound_dev_if`): by SO_BINDTODEVICE, a VRF or a link-local
    /// address.
    pub interface: Option<NonZero<u32>>,
    /// Whether it is Multipath TCP (RFC 8684).
    pub mptcp: bool,
    /// The process that connected or accepted.
    pub owner: Actor,
    /// The index of the rule that admitted it.
    pub rule: Option<u16>,
    /// The kind of event, with the data specific to it.
    pub kind: EventKind,
}

impl Event {
    /// The id of the connection.
    pub fn connection(&self) -> ConnectionId {
        ConnectionId { cookie: self.cookie, begun: self.begun }
    }

    /// One of its addresses, with the zone if needed and known.
    pub fn zoned(&self, address: IpAddr) -> Zoned {
        let needed = matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
        Zoned { address, zone: self.interface.filter(|_| needed) }
    }
}

/// An address with its zone: a link-local address is unique only on its link (RFC 4007), as in `fe80::1%3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Zoned {
    /// The address.
    pub address: IpAddr,
    /// The index of the interface to the link.
    pub zone: Option<NonZero<u32>>,
}

impl fmt::Display for Zoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.zone.map_or(Ok(()), |zone| write!(f, "%{zone}"))
    }
}

/// Identifies a connection. One socket, and so one cookie, may have several connections in succession.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// When the SYN was sent or the connection was accepted; for an existing connection, when tracing began.
    pub begun: BootTime,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.cookie, self.begun.0)
    }
}

/// A thread and the process image it ran. The image is missing when its record was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// The process image, if its record was received.
    pub image: Option<ImageId>,
    /// The process id (thread group id).
    pub pid: u32,
    /// The id of the thread that connected or accepted.
    pub tid: u32,
}

/// A DNS message with answers, as received by a socket of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// When it was received.
    pub time: BootTime,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// The message, possibly truncated. Untrusted.
    pub message: &'a [u8],
}

/// The kind of an event, with the data specific to it.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// connect() was called, or an equivalent (io_uring, Fast Open).
    Request,
    /// The handshake of an outgoing connection completed.
    Connect {
        /// Time since the SYN, if it was seen.
        latency: Option<Duration>,
    },
    /// accept() returned a connection.
    Accept {
        /// The listener's queue, if the listener is known.
        backlog: Option<Backlog>,
    },
    /// An outgoing connection failed.
    Fail {
        /// The reason: an errno, or closed by the caller.
        error: Failure,
        /// Time since the SYN, if it was seen; zero if none was sent.
        latency: Option<Duration>,
    },
    /// An established connection ended.
    Close(Close),
    /// A socket starts to listen.
    Listen {
        /// The accept queue, if known.
        backlog: Option<Backlog>,
    },
    /// A socket stops listening.
    ListenStop {
        /// The accept queue, if known.
        backlog: Option<Backlog>,
    },
    /// A socket changed its TCP state.
    StateChange {
        /// Who opened the connection; `Ingress` for a listener.
        direction: Direction,
        /// The state before the change.
        from: State,
        /// The state after the change.
        to: State,
        /// The time spent in `from`, if its beginning was seen.
        after: Option<Duration>,
    },
    /// A segment was retransmitted.
    Retransmit(Retransmit),
    /// The last segment of a handshake, or data after it, was dropped because the listener's queue was full.
    ListenDrop {
        /// The accept queue, if known.
        backlog: Option<Backlog>,
    },
    /// A socket found at the start.
    Existing(Existing),
}

/// The role of an event in the life of its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Before there is a connection: the socket may never connect, or connect elsewhere.
    Attempt,
    /// The socket leaves CLOSED: a connection attempt or a listener begins.
    Begin,
    /// The connection is established.
    Open,
    /// The socket existed when tracing began.
    Existing,
    /// The connection continues after the event.
    Continue,
    /// The connection attempt has failed.
    Fail,
    /// The established connection has ended.
    Close,
    /// The socket stopped listening.
    StopListening,
}

impl EventKind {
    /// Its role in the life of the socket.
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

    /// Who opened the connection; none for a listener's own events, and where the kernel cannot tell.
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

    /// The time from the connection attempt to the event, if the attempt was seen.
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

    /// The duration of what the event ends, if its beginning was seen: of a connection since its handshake, or of the
    /// state that was left.
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

    /// Why a connection failed.
    pub fn failure(&self) -> Option<Failure> {
        if let EventKind::Fail { error, .. } = self { Some(*error) } else { None }
    }

    /// The listener's queue, if known.
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

    /// The previous and the new state of a state change.
    pub fn state_change(&self) -> Option<[State; 2]> {
        if let EventKind::StateChange { from, to, .. } = self { Some([*from, *to]) } else { None }
    }

    /// The details of a retransmission.
    pub fn retransmit(&self) -> Option<&Retransmit> {
        if let EventKind::Retransmit(retransmit) = self { Some(retransmit) } else { None }
    }

    /// The number of segments retransmitted so far.
    pub fn retransmits(&self) -> Option<u32> {
        self.retransmit()
            .map(|retransmit| retransmit.retransmits)
            .or_else(|| self.close().map(|close| close.retransmits))
    }

    /// The details of the end of a connection.
    pub fn close(&self) -> Option<&Close> {
        if let EventKind::Close(close) = self { Some(close) } else { None }
    }

    /// The state of a socket that the event does not change, where it is reported.
    pub fn lasting_state(&self) -> Option<State> {
        self.existing()
            .map(|existing| existing.state)
            .or_else(|| self.retransmit().map(|retransmit| retransmit.state))
    }

    /// The details of a socket found at the start.
    pub fn existing(&self) -> Option<&Existing> {
        if let EventKind::Existing(existing) = self { Some(existing) } else { None }
    }

    /// Whether the event is about a listener, which has no remote end.
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

/// The details of a retransmitted segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Retransmit {
    /// Who opened the connection.
    pub direction: Direction,
    /// The state of the connection.
    pub state: State,
    /// The kind of segment.
    pub segment: Segment,
    /// Its first sequence number, as on the wire; not known for a SYN+ACK.
    pub seq: Option<u32>,
    /// The sequence space it takes: bytes of payload, plus one each for SYN and FIN.
    pub seq_len: Option<u32>,
    /// How many segments the connection has retransmitted, including this one (`tcp_sock.total_retrans`).
    pub retransmits: u32,
}

/// The kind of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// The SYN of an outgoing connection.
    Syn,
    /// The SYN+ACK of an incoming one.
    SynAck,
    /// A segment with payload.
    Data,
    /// A FIN without payload.
    Fin,
    /// A tail loss probe (RFC 8985, section 7); possibly nothing was lost.
    Probe,
}

/// A socket found at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Existing {
    /// The TCP state of the socket.
    pub state: State,
    /// Who opened it, if the kernel can tell.
    pub direction: Option<Direction>,
    /// The accept queue of a listener.
    pub backlog: Option<Backlog>,
    /// The processes that hold a descriptor of it; the first is the owner of the event.
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

/// The accept queue: completed connections that wait for accept().
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The current length (`sk_ack_backlog`).
    pub len: u32,
    /// The maximum length (`sk_max_ack_backlog`).
    pub max: u32,
    /// Segments the listener has dropped so far (`sk_drops`), almost always because its queue was full.
    pub drops: u32,
}

/// Why a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The kernel reported this error.
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
    /// Who opened the connection.
    pub direction: Direction,
    /// Time since the handshake, if it was seen.
    pub duration: Option<Duration>,
    /// Payload, if the kernel counts it (for MPTCP since Linux 6.5).
    pub bytes: Option<Bytes>,
    /// The number of segments retransmitted.
    pub retransmits: u32,
    /// The smoothed round-trip time.
    pub srtt: Duration,
    /// Why the connection ended.
    pub reason: CloseReason,
    /// The process that closed it, if not the owner.
    pub closer: Option<ImageId>,
}

#[cfg(test)]
impl Close {
    /// A connection opened and closed by this host, with few details.
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

/// Payload of a connection, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// Bytes sent, each counted once.
    pub sent: u64,
    /// Bytes received in order.
    pub received: u64,
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// This host opened the connection.
    Egress,
    /// The peer opened the connection.
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
    /// The peer stopped responding.
    Timeout,
    /// The socket reported another error.
    Errno(Errno),
}

/// A process image: the result of an exec, with one set of credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// The parent's image; none for the first processes.
    pub parent: Option<ImageId>,
    /// The process id (thread group id).
    pub pid: u32,
    /// The parent's process id.
    pub ppid: u32,
    /// The time of the exec, if it was seen, otherwise of the fork.
    pub start: BootTime,
    /// The time of the fork.
    pub cloned_at: BootTime,
    /// The `start` of the parent.
    pub parent_start: BootTime,
    /// Whether it was forked and has not called exec since.
    pub cloned: bool,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
    /// The real user id.
    pub uid: u32,
    /// The effective user id.
    pub euid: u32,
    /// The real group id.
    pub gid: u32,
    /// The effective group id.
    pub egid: u32,
    /// The login (audit) user id; 4294967295 when unset.
    pub auid: u32,
    /// The inheritable capabilities, one bit each.
    pub cap_inheritable: u64,
    /// The permitted capabilities, one bit each.
    pub cap_permitted: u64,
    /// The effective capabilities, one bit each.
    pub cap_effective: u64,
    /// Privileges gained through the executable.
    pub secureexec: SecureExec,
    /// The path of the executable as the process sees it; empty for a kernel thread.
    pub binary_path: String,
    /// The base name of the executable, or `comm` if it is not known.
    pub filename: String,
    /// The name of the task (`task_struct.comm`), up to 15 bytes.
    pub comm: String,
    /// The previous record of the same executable in this process.
    pub before: Option<ImageId>,
    /// argv without argv\[0\], joined with blanks; none if the kernel side could not read it.
    pub args: Option<String>,
    /// The length of argv in bytes, capped at 65535; 0 if not known.
    pub argv_len: u16,
    /// The id of the container it runs in.
    pub container_id: Option<String>,
    /// The names of that container.
    pub container: Option<Rc<Container>>,
    /// The systemd unit it belongs to.
    pub unit: Option<String>,
}

/// Privileges gained through the executable.
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
