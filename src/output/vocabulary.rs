//! Names for the kernel's numbers.

use std::{borrow::Cow, fmt, time::Duration};

use nix::errno::Errno;

use crate::{
    event::{CloseReason, Direction, EventKind, Failure, SecureExec, Segment, State},
    hostile::is_hostile,
};

/// Capabilities by bit (include/uapi/linux/capability.h).
pub(super) const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A capability set: empty, `ANY_CAPS` if it includes all of `every`, otherwise names joined by ` | `.
pub fn capabilities(set: u64, every: u64) -> String {
    if set & every == every {
        return "ANY_CAPS".to_owned();
    }
    let named = CAPABILITIES.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0);
    let mut names: Vec<String> = named.map(|(_, name)| (*name).to_owned()).collect();
    names
        .extend((CAPABILITIES.len()..64).filter(|bit| set & (1 << bit) != 0).map(|bit| format!("CAP_{bit}")));
    names.join(" | ")
}

/// `SETUID | SETGID | FILE_CAPS | FILELESS_EXEC`, or some of them.
pub fn secureexec(flags: SecureExec) -> String {
    let words = [
        (flags.setuid, "SETUID"),
        (flags.setgid, "SETGID"),
        (flags.file_caps, "FILE_CAPS"),
        (flags.fileless, "FILELESS_EXEC"),
    ];
    words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect::<Vec<_>>().join(" | ")
}

/// A word that needs no quoting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    /// A word defined here.
    Known(&'a str),
    /// The kernel's name of an error.
    Errno(Errno),
}

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Known(word) => f.write_str(word),
            Word::Errno(errno) => write!(f, "{errno:?}"),
        }
    }
}

/// The name of the error, or `ABORTED`.
pub fn failure(failure: Failure) -> Word<'static> {
    match failure {
        Failure::Errno(error) => Word::Errno(error),
        Failure::Aborted => Word::Known("ABORTED"),
    }
}

/// `local_close` and so on, or the name of the error.
pub fn reason(reason: CloseReason) -> Word<'static> {
    let word = match reason {
        CloseReason::LocalClose => "local_close",
        CloseReason::RemoteClose => "remote_close",
        CloseReason::LocalReset => "local_reset",
        CloseReason::RemoteReset => "remote_reset",
        CloseReason::Timeout => "timeout",
        CloseReason::Errno(error) => return Word::Errno(error),
    };
    Word::Known(word)
}

/// The name of a direction: `egress` or `ingress`.
pub fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

/// The name of an event, as in `-e`.
pub fn event(what: &EventKind) -> &'static str {
    match what {
        EventKind::Request => "request",
        EventKind::Connect { .. } => "connect",
        EventKind::Accept { .. } => "accept",
        EventKind::Fail { .. } => "fail",
        EventKind::Close(_) => "close",
        EventKind::Listen { .. } => "listen",
        EventKind::ListenStop { .. } => "unlisten",
        EventKind::StateChange { .. } => "state",
        EventKind::Retransmit(_) => "retransmit",
        EventKind::ListenDrop { .. } => "drop",
        EventKind::Existing(_) => "existing",
    }
}

/// The `type` of an event in JSON.
pub fn type_name(what: &EventKind) -> &'static str {
    match what {
        EventKind::Request => "NetTCPConnect",
        EventKind::Connect { .. } => "TcpConnectionEstablish",
        EventKind::Accept { .. } => "TcpConnectionAccept",
        EventKind::Fail { .. } => "TcpConnectionFail",
        EventKind::Close(_) => "TcpConnectionClose",
        EventKind::Listen { .. } => "TcpListenStart",
        EventKind::ListenStop { .. } => "TcpListenStop",
        EventKind::StateChange { .. } => "TcpStateChange",
        EventKind::Retransmit(_) => "TcpRetransmit",
        EventKind::ListenDrop { .. } => "TcpListenDrop",
        EventKind::Existing(_) => "TcpConnectionExisting",
    }
}

/// The name of a kind of segment.
pub fn segment(segment: Segment) -> &'static str {
    match segment {
        Segment::Syn => "SYN",
        Segment::SynAck => "SYN+ACK",
        Segment::Data => "data",
        Segment::Fin => "FIN",
        Segment::Probe => "probe",
    }
}

/// The name of a TCP state, as in netstat.
pub fn state(state: State) -> &'static str {
    match state {
        State::Listen => "LISTEN",
        State::SynSent => "SYN_SENT",
        State::SynRecv => "SYN_RECV",
        State::Established => "ESTABLISHED",
        State::FinWait1 => "FIN_WAIT1",
        State::FinWait2 => "FIN_WAIT2",
        State::CloseWait => "CLOSE_WAIT",
        State::Closing => "CLOSING",
        State::LastAck => "LAST_ACK",
        State::TimeWait => "TIME_WAIT",
        State::Closed => "CLOSED",
        State::Unknown => "UNKNOWN",
    }
}

/// A time in nanoseconds since 1970 as RFC 3339, in UTC with milliseconds.
pub fn time(wall_ns: i128) -> String {
    let since_1970 = Duration::from_nanos(u64::try_from(wall_ns).unwrap_or_default());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since_1970).to_string()
}

/// Escapes control and invisible characters in untrusted text.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return text.into();
    }
    let mut harmless = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) { harmless.extend(c.escape_default()) } else { harmless.push(c) }
    }
    harmless.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_sets() {
        let every = (1 << 41) - 1;
        assert_eq!(capabilities(0, every), "");
        assert_eq!(capabilities(every, every), "ANY_CAPS");
        assert_eq!(capabilities(u64::MAX, every), "ANY_CAPS");
        assert_eq!(capabilities(1 << 10 | 1 << 12, every), "CAP_NET_BIND_SERVICE | CAP_NET_ADMIN");
        assert_eq!(capabilities(1 << 45, every), "CAP_45");
    }

    #[test]
    fn errors_have_the_kernels_names() {
        assert_eq!(failure(Failure::Errno(Errno::ECONNREFUSED)).to_string(), "ECONNREFUSED");
        assert_eq!(failure(Failure::Aborted).to_string(), "ABORTED");
        assert_eq!(reason(CloseReason::Errno(Errno::ECONNABORTED)).to_string(), "ECONNABORTED");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape("\x1b[2Jx\r\n\u{9b}31m\u{202e}"), "\\u{1b}[2Jx\\r\\n\\u{9b}31m\\u{202e}");
        assert_eq!(escape("naïve 名"), "naïve 名");
    }

    #[test]
    fn secureexec_flags() {
        assert_eq!(secureexec(SecureExec::default()), "");
        let both = SecureExec { setuid: true, fileless: true, ..SecureExec::default() };
        assert_eq!(secureexec(both), "SETUID | FILELESS_EXEC");
    }
}
