//! Parses one line of a recording to a [`Record`]. No input panics.

use std::{
    borrow::Cow,
    cell::OnceCell,
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZero,
    rc::Rc,
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use nix::errno::Errno;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    event::*,
    hostile::{is_hostile, printable},
    output::words,
    record::{Names, ProcessEntry, Record},
};

/// Maximum number of cached process objects; beyond this, the cache is cleared.
const PROCESSES_MAX: usize = 8192;

/// Maximum size of the cached objects in bytes; likewise.
const PROCESS_BYTES_MAX: usize = 64 << 20;

/// Why a line has no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Not valid JSON, perhaps truncated.
    Broken,
    /// JSON that is not from tcptrace, or is of a kind that this version does not know.
    Foreign,
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: &'a str,
    timestamp: Option<&'a str>,
    #[serde(borrow)]
    process: Option<&'a RawValue>,
    #[serde(borrow)]
    parent: Option<&'a RawValue>,
    #[serde(borrow)]
    network_event: Option<NetworkEvent<'a>>,
    #[serde(borrow)]
    rule: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct NetworkEvent<'a> {
    r#type: &'a str,
    saddr: Option<IpAddr>,
    sport: Option<u16>,
    daddr: Option<IpAddr>,
    dport: Option<u16>,
    cookie: Option<u64>,
    connection: Option<&'a str>,
    netns: Option<u32>,
    asked: Option<End>,
    ifindex: Option<NonZero<u32>>,
    mptcp: Option<bool>,
    state: Option<&'a str>,
    old_state: Option<&'a str>,
    new_state: Option<&'a str>,
    direction: Option<&'a str>,
    latency_us: Option<u64>,
    duration_us: Option<u64>,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    segment: Option<&'a str>,
    seq: Option<u32>,
    seq_len: Option<u32>,
    retransmits: Option<u32>,
    srtt_us: Option<u64>,
    reason: Option<&'a str>,
    error: Option<&'a str>,
    backlog: Option<Queue>,
    #[serde(borrow)]
    closer: Option<Bystander<'a>>,
    #[serde(borrow)]
    owners: Option<Vec<Bystander<'a>>>,
    dns: Option<Vec<Rc<str>>>,
    dns_guess: Option<bool>,
    #[serde(rename = "dstIP")]
    dst_ip: Option<IpAddr>,
    #[serde(rename = "dstPort")]
    dst_port: Option<u16>,
    results: Option<Vec<Rc<str>>>,
}

#[derive(Deserialize)]
struct End {
    daddr: IpAddr,
    dport: u16,
}

#[derive(Deserialize)]
struct Queue {
    len: u32,
    max: u32,
    #[serde(default)]
    drops: u32,
}

#[derive(Deserialize)]
struct Bystander<'a> {
    pid: u32,
    #[serde(borrow)]
    filename: Cow<'a, str>,
}

/// A process object; most fields are missing if the process record was lost.
#[derive(Deserialize)]
struct ProcessObject<'a> {
    pid: u32,
    tid: u32,
    start_time: Option<&'a str>,
    #[serde(default)]
    cloned: bool,
    #[serde(default)]
    ppid: u32,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    euid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(default)]
    egid: u32,
    #[serde(default)]
    auid: u32,
    #[serde(default)]
    cap_inheritable: &'a str,
    #[serde(default)]
    cap_permitted: &'a str,
    #[serde(default)]
    cap_effective: &'a str,
    #[serde(default)]
    secureexec: &'a str,
    #[serde(borrow)]
    filename: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    binary_path: Cow<'a, str>,
    #[serde(borrow, default)]
    args: Cow<'a, str>,
    #[serde(borrow)]
    container_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    container_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    container_image: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pod: Option<Cow<'a, str>>,
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(default)]
    exec_id: &'a str,
    #[serde(default)]
    parent_exec_id: &'a str,
}

/// A parsed process object.
#[derive(Clone)]
struct Known {
    actor: Actor,
    entry: Option<Rc<ProcessEntry>>,
    /// The minimum offset from its boot times to wall-clock times that yields the start time it shows.
    wall_offset: Option<i128>,
}

/// Reads lines and caches their process objects, since most lines repeat a previous one.
#[derive(Default)]
pub struct Reader {
    known: HashMap<Box<str>, Known>,
    known_bytes: usize,
    last_image: u64,
    /// The earliest and the latest time of an event, in nanoseconds since 1970.
    span: Option<[i128; 2]>,
}

impl Reader {
    /// The event of a line; none for an empty line or a summary.
    ///
    /// # Errors
    /// [`Unreadable`] for everything else.
    pub fn read(&mut self, line: &[u8]) -> Result<Option<Record>, Unreadable> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Unreadable::Foreign,
            _ => Unreadable::Broken,
        })?;
        match line.r#type {
            "Summary" => return Ok(None),
            "NetworkEvent" => {}
            _ => return Err(Unreadable::Foreign),
        }
        let wall_ns = line.timestamp.and_then(wall_ns).ok_or(Unreadable::Foreign)?;
        let process = self.process(line.process)?;
        let parent = self.process(line.parent)?;
        let offsets = [&process, &parent].into_iter().flatten().filter_map(|known| known.wall_offset);
        let wall_offset = offsets.max().unwrap_or_default();
        let net = line.network_event.ok_or(Unreadable::Foreign)?;
        let time = BootTime(u64::try_from(wall_ns - wall_offset).unwrap_or_default());
        let owner = process.as_ref().map_or(NOBODY, |known| known.actor);
        let closer = net.closer.as_ref().map(|closer| self.bystander(closer));
        let owners: Vec<_> = net
            .owners
            .iter()
            .flatten()
            .enumerate()
            .map(|(index, other)| match &process {
                Some(known) if index == 0 => (known.actor, known.entry.clone()),
                _ => {
                    let entry = self.bystander(other);
                    (Actor { image: Some(entry.id), pid: other.pid, tid: other.pid }, Some(entry))
                }
            })
            .collect();
        let names = net.dns.as_ref().or(net.results.as_ref());
        // Names are printed as they are, so only characters that dns::read() produces are accepted.
        if names.into_iter().flatten().any(|name| !name.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Unreadable::Foreign);
        }
        let names = Names::new(names.cloned().unwrap_or_default(), net.dns_guess.unwrap_or_default());
        let event = event(&net, time, owner, closer.as_ref().map(|entry| entry.id), &owners)?;
        let [first, last] = self.span.unwrap_or([wall_ns; 2]);
        self.span = Some([first.min(wall_ns), last.max(wall_ns)]);
        Ok(Some(Record {
            event,
            wall_ns,
            wall_offset,
            process: process.and_then(|known| known.entry),
            parent: parent.and_then(|known| known.entry),
            closer,
            names,
            owners,
            rule: line.rule.map(|rule| harmless(&rule)),
        }))
    }

    /// The time from the earliest to the latest event, whether or not the filter selects them.
    pub fn span(&self) -> Duration {
        let [first, last] = self.span.unwrap_or_default();
        Duration::from_nanos(u64::try_from(last - first).unwrap_or(u64::MAX))
    }

    /// Parses a process or parent object; none if it is null.
    fn process(&mut self, raw: Option<&RawValue>) -> Result<Option<Known>, Unreadable> {
        let Some(text) = raw.map(RawValue::get).filter(|text| *text != "null") else { return Ok(None) };
        if let Some(known) = self.known.get(text) {
            return Ok(Some(known.clone()));
        }
        let object: ProcessObject<'_> = serde_json::from_str(text).map_err(|_| Unreadable::Foreign)?;
        let mut known = Known {
            actor: Actor { image: None, pid: object.pid, tid: object.tid },
            entry: None,
            wall_offset: None,
        };
        if object.filename.is_some() {
            let shown = object.start_time.and_then(wall_ns);
            let process = process(object);
            known.wall_offset = shown.map(|shown| shown - i128::from(process.start.0));
            let entry = self.entry(process);
            known.actor.image = Some(entry.id);
            known.entry = Some(entry);
        }
        if self.known.len() >= PROCESSES_MAX || self.known_bytes > PROCESS_BYTES_MAX {
            self.known.clear();
            self.known_bytes = 0;
        }
        self.known_bytes += text.len();
        self.known.insert(text.into(), known.clone());
        Ok(Some(known))
    }

    fn entry(&mut self, process: Process) -> Rc<ProcessEntry> {
        self.last_image += 1;
        Rc::new(ProcessEntry { id: ImageId(self.last_image), process, rendered: OnceCell::new() })
    }

    fn bystander(&mut self, of: &Bystander<'_>) -> Rc<ProcessEntry> {
        self.entry(Process { pid: of.pid, filename: of.filename.clone().into(), ..Process::default() })
    }
}

/// The owner of a socket without a process.
const NOBODY: Actor = Actor { image: None, pid: 0, tid: 0 };

fn process(object: ProcessObject<'_>) -> Process {
    let caps = words::capabilities;
    let container = Container {
        name: object.container_name.map(Into::into),
        image: object.container_image.map(Into::into),
        pod: object.pod.map(Into::into),
        namespace: object.namespace.map(Into::into),
    };
    let start = exec_id(object.exec_id).map_or(0, |(_, start)| start);
    Process {
        // The line does not contain its image id.
        parent: None,
        pid: object.pid,
        ppid: object.ppid,
        start: BootTime(start),
        cloned_at: BootTime(start),
        parent_start: BootTime(exec_id(object.parent_exec_id).map_or(0, |(_, start)| start)),
        cloned: object.cloned,
        kernel_thread: false,
        uid: object.uid,
        euid: object.euid,
        gid: object.gid,
        egid: object.egid,
        auid: object.auid,
        cap_inheritable: caps(object.cap_inheritable),
        cap_permitted: caps(object.cap_permitted),
        cap_effective: caps(object.cap_effective),
        secureexec: words::secureexec(object.secureexec),
        comm: String::new(),
        before: None,
        filename: object.filename.unwrap_or_default().into(),
        binary_path: object.binary_path.into(),
        args: Some(object.args.into()),
        argv_len: 0,
        container_id: object.container_id.map(Into::into),
        container: (!container.is_empty()).then(|| Rc::new(container)),
        unit: None,
    }
}

/// Makes the name of a rule safe to print: printing does not escape it, since in a trace it comes from the user's own
/// file.
fn harmless(text: &str) -> Rc<str> {
    if text.contains(is_hostile) { printable(text).into() } else { text.into() }
}

/// Parses `PID:START_NS` in base64.
fn exec_id(text: &str) -> Option<(u32, u64)> {
    let bytes = STANDARD_NO_PAD.decode(text).ok()?;
    let (pid, start) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}

/// Parses a time in RFC 3339 to nanoseconds since 1970.
fn wall_ns(text: &str) -> Option<i128> {
    let time = humantime::parse_rfc3339(text).ok()?;
    i128::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

fn event(
    net: &NetworkEvent<'_>,
    time: BootTime,
    owner: Actor,
    closer: Option<ImageId>,
    owners: &[(Actor, Option<Rc<ProcessEntry>>)],
) -> Result<Event, Unreadable> {
    const FOREIGN: Unreadable = Unreadable::Foreign;
    const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let known = |word: Option<&str>| word.and_then(words::state);
    let backlog =
        net.backlog.as_ref().map(|queue| Backlog { len: queue.len, max: queue.max, drops: queue.drops });
    let micros = |value: Option<u64>| value.map(Duration::from_micros);
    let direction = net.direction.and_then(words::direction);
    let kind = match net.r#type {
        "NetTCPConnect" => EventKind::Request,
        "TcpConnectionEstablish" => EventKind::Connect { latency: micros(net.latency_us) },
        "TcpConnectionAccept" => EventKind::Accept { backlog },
        "TcpConnectionFail" => EventKind::Fail {
            error: net.error.and_then(failure).ok_or(FOREIGN)?,
            latency: micros(net.latency_us),
        },
        "TcpConnectionClose" => EventKind::Close(Close {
            direction: direction.ok_or(FOREIGN)?,
            duration: micros(net.duration_us),
            bytes: net.bytes_sent.zip(net.bytes_received).map(|(sent, received)| Bytes { sent, received }),
            retransmits: net.retransmits.unwrap_or_default(),
            srtt: micros(net.srtt_us).unwrap_or_default(),
            reason: net.reason.and_then(reason).ok_or(FOREIGN)?,
            closer,
        }),
        "TcpListenStart" => EventKind::Listen { backlog },
        "TcpListenStop" => EventKind::ListenStop { backlog },
        "TcpStateChange" => EventKind::StateChange {
            direction: direction.unwrap_or(Direction::Egress),
            from: known(net.old_state).ok_or(FOREIGN)?,
            to: known(net.new_state).ok_or(FOREIGN)?,
            after: micros(net.duration_us),
        },
        "TcpRetransmit" => EventKind::Retransmit(Retransmit {
            direction: direction.ok_or(FOREIGN)?,
            state: known(net.state).ok_or(FOREIGN)?,
            segment: net.segment.and_then(words::segment).ok_or(FOREIGN)?,
            seq: net.seq,
            seq_len: net.seq_len,
            retransmits: net.retransmits.unwrap_or_default(),
        }),
        "TcpListenDrop" => EventKind::ListenDrop { backlog },
        "TcpConnectionExisting" => EventKind::Existing(Existing {
            state: known(net.state).ok_or(FOREIGN)?,
            direction,
            backlog,
            owners: match owners {
                [] => Vec::from_iter((owner.pid != 0).then_some(owner)),
                several => several.iter().map(|(actor, _)| *actor).collect(),
            },
        }),
        _ => return Err(FOREIGN),
    };
    let remote = net.daddr.or(net.dst_ip).ok_or(FOREIGN)?;
    let local = match (net.saddr, &kind) {
        (Some(local), _) => local,
        (None, EventKind::Request) => NOWHERE,
        (None, _) => return Err(FOREIGN),
    };
    let cookie = net.cookie.unwrap_or_default();
    Ok(Event {
        time,
        cookie,
        begun: BootTime(net.connection.and_then(begun).unwrap_or_default()),
        local: SocketAddr::new(local, net.sport.unwrap_or_default()),
        remote: SocketAddr::new(remote, net.dport.or(net.dst_port).unwrap_or_default()),
        netns: net.netns.unwrap_or_default(),
        asked: net.asked.as_ref().map(|asked| SocketAddr::new(asked.daddr, asked.dport)),
        interface: net.ifindex,
        mptcp: net.mptcp.unwrap_or_default(),
        owner,
        rule: None,
        kind,
    })
}

/// The part of a connection id after the cookie: the time it began.
fn begun(connection: &str) -> Option<u64> {
    connection.split_once('-')?.1.parse().ok()
}

/// Errors by the kernel's name.
static ERRORS: LazyLock<HashMap<String, Errno>> = LazyLock::new(|| {
    let all = (1..=133).map(Errno::from_raw).filter(|errno| *errno != Errno::UnknownErrno);
    all.map(|errno| (words::Word::Errno(errno).to_string(), errno)).collect()
});

fn failure(word: &str) -> Option<Failure> {
    match word {
        "ABORTED" => Some(Failure::Aborted),
        name => ERRORS.get(name).copied().map(Failure::Errno),
    }
}

fn reason(word: &str) -> Option<CloseReason> {
    const WORDS: [CloseReason; 5] = [
        CloseReason::LocalClose,
        CloseReason::RemoteClose,
        CloseReason::LocalReset,
        CloseReason::RemoteReset,
        CloseReason::Timeout,
    ];
    let known = WORDS.into_iter().find(|&known| words::reason(known) == words::Word::Known(word));
    known.or_else(|| ERRORS.get(word).copied().map(CloseReason::Errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"type":"NetworkEvent","timestamp":"2023-11-14T22:13:20.000Z","process":null,"parent":null,"network_event":{"type":"TcpConnectionEstablish","saddr":"192.0.2.1","sport":1,"daddr":"192.0.2.2","dport":2,"cookie":3,"connection":"3-4","netns":5,"dns":["good.example"]},"rule":"\u009b31m"}"#;

    #[test]
    fn unescaped_fields_contain_no_control_characters() {
        let record = Reader::default().read(LINE.as_bytes()).expect("a line").expect("an event");
        assert_eq!(record.rule.as_deref(), Some("\u{fffd}31m"));
        let line = LINE.replace("good.example", "\\u001b[2J.example");
        assert_eq!(Reader::default().read(line.as_bytes()).err(), Some(Unreadable::Foreign));
    }

    #[test]
    fn the_span_is_from_the_first_event_to_the_last() {
        let mut reader = Reader::default();
        assert_eq!(reader.span(), Duration::ZERO);
        for time in ["20.500Z", "22.000Z", "20.000Z", "21.000Z"] {
            reader.read(LINE.replace("20.000Z", time).as_bytes()).expect("a line");
        }
        assert_eq!(reader.span(), Duration::from_secs(2));
    }

    #[test]
    fn the_process_cache_is_bounded_in_bytes() {
        let mut reader = Reader::default();
        for pid in 0..70 {
            let process = format!(r#"{{"pid":{pid},"tid":{pid},"filename":"{}"}}"#, "x".repeat(1 << 20));
            let line = LINE.replacen("null", &process, 1);
            reader.read(line.as_bytes()).expect("a line");
            assert!(
                reader.known.keys().map(|text| text.len()).sum::<usize>() <= PROCESS_BYTES_MAX + (2 << 20)
            );
        }
    }
}
