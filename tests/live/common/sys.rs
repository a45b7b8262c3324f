//! System calls without a safe wrapper in any crate; most are for actors, which have one thread.
#![allow(unsafe_code)]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use nix::unistd::{ForkResult, fork};

/// Whether we are the child after a fork; the parent gets the child's id.
pub fn fork_child() -> Option<i32> {
    // SAFETY: the caller has only one thread, so the child may do what the parent may.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => None,
        ForkResult::Parent { child } => Some(child.as_raw()),
    }
}

/// setresuid(2) for this thread only; glibc's wrapper changes all threads.
pub fn set_thread_user(uid: u32) {
    // SAFETY: the call takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, 0) };
    assert_eq!(result, 0, "setresuid: {}", std::io::Error::last_os_error());
}

/// Sets the effective user; root stays the saved user.
pub fn set_effective_user(uid: u32) {
    nix::unistd::seteuid(0.into()).and_then(|()| nix::unistd::seteuid(uid.into())).expect("seteuid");
}

/// capset(2): sets the permitted and effective capabilities; none are inheritable.
pub fn set_capabilities(set: u64) {
    let header: [u32; 2] = [0x2008_0522, 0]; // _LINUX_CAPABILITY_VERSION_3, this thread
    let (low, high) = (set as u32, (set >> 32) as u32);
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: both point to structures of the version in the header.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(result, 0, "capset: {}", std::io::Error::last_os_error());
}

/// Lets this thread run only when no other one can (SCHED_IDLE).
pub fn run_when_idle() {
    // SAFETY: the call only reads the structure.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &libc::sched_param { sched_priority: 0 }) };
    assert_eq!(result, 0, "sched_setscheduler: {}", std::io::Error::last_os_error());
}

/// Limits the local ports of a socket, which has no effect before 6.3, or outside those of its namespace.
pub fn narrow_ports(socket: &impl AsRawFd, first: u16, last: u16) {
    const IP_LOCAL_PORT_RANGE: i32 = 51;
    let range = u32::from(last) << 16 | u32::from(first);
    // SAFETY: the option has this type.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw const range).cast(),
            size_of::<u32>() as u32,
        )
    };
}

/// Exits this process immediately.
pub fn leave() -> ! {
    // SAFETY: no destructor has to run.
    unsafe { libc::_exit(0) }
}

/// The Landlock version of the running kernel; 0 if it has none, or if it is disabled.
pub fn landlock_abi() -> i64 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no attributes: a null pointer and size 0.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    version.max(0)
}

/// connect(2) with arbitrary bytes as the address; returns the errno, or 0.
pub fn connect_to(socket: RawFd, address: &[u8]) -> i32 {
    // SAFETY: pointer and length are those of the slice.
    let result = unsafe { libc::connect(socket, address.as_ptr().cast(), address.len() as libc::socklen_t) };
    if result == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or_default() }
}

/// setsockopt(2) with a number, at the TCP level.
pub fn set_tcp(socket: &impl AsRawFd, option: i32, value: u32) {
    // SAFETY: pointer and length are those of the value.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), 4)
    };
    assert_eq!(result, 0, "TCP option {option}: {}", std::io::Error::last_os_error());
}

fn get(socket: &impl AsRawFd, level: i32, option: i32) -> u32 {
    let (mut value, mut length) = (0_u32, 4);
    // SAFETY: pointers and length are those of the value.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &mut length) };
    assert_eq!(result, 0, "option {option}: {}", std::io::Error::last_os_error());
    value
}

/// The sequence number of a queue of a socket under TCP_REPAIR (include/uapi/linux/tcp.h).
fn queue_seq(socket: &impl AsRawFd, queue: u32) -> u32 {
    set_tcp(socket, libc::TCP_REPAIR_QUEUE, queue);
    get(socket, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ)
}

const RECV_QUEUE: u32 = 1;
const SEND_QUEUE: u32 = 2;
const REPAIR_OFF_NO_WINDOW_PROBE: u32 = u32::MAX;

/// Moves a connection to another socket, like CRIU.
pub fn move_connection(old: TcpStream, from: SocketAddr, to: SocketAddr) -> OwnedFd {
    set_tcp(&old, libc::TCP_REPAIR, 1);
    let sequence = [SEND_QUEUE, RECV_QUEUE].map(|queue| (queue, queue_seq(&old, queue)));
    drop(old);
    let new = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    set_tcp(&new, libc::TCP_REPAIR, 1);
    new.set_reuse_address(true).expect("SO_REUSEADDR");
    for (queue, seq) in sequence {
        set_tcp(&new, libc::TCP_REPAIR_QUEUE, queue);
        set_tcp(&new, libc::TCP_QUEUE_SEQ, seq);
    }
    new.bind(&from.into()).expect("bind");
    new.connect(&to.into()).expect("connect");
    set_tcp(&new, libc::TCP_REPAIR, 0);
    new.into()
}

/// Whether sk_err is set. Reading it would clear it, so poll(2) is used.
pub fn has_error(socket: &impl AsRawFd) -> bool {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one structure, with a count of one.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLERR != 0
}

/// Sends this host an ICMP message that the peer is unreachable, as a router would.
pub fn send_unreachable(client: &TcpStream, server: &TcpStream) {
    set_tcp(client, libc::TCP_REPAIR, 1);
    let seq = queue_seq(client, SEND_QUEUE);
    set_tcp(client, libc::TCP_REPAIR, REPAIR_OFF_NO_WINDOW_PROBE);
    let port = |stream: &TcpStream| stream.local_addr().expect("an address").port().to_be_bytes();
    let loopback = Ipv4Addr::LOCALHOST.octets();
    // RFC 792: type 3, code 1; then the header and 64 bits of the undelivered packet
    let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    message.extend([loopback, loopback].concat());
    message.extend([port(client), port(server)].concat());
    message.extend(seq.to_be_bytes());
    message.extend([0; 12]);
    let sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    message[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    let raw =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::ICMPV4));
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    raw.expect("a raw socket").send_to(&message, &to.into()).expect("send");
}
