//! Sockets held in every TCP state.

use std::{
    collections::BTreeSet,
    io::Write,
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, getsockopt,
    listen, setsockopt, socket,
};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use serde_json::Value;

use super::net::{Pair, half_close, wait_for_end};

sockopt_impl!(
    /// The cookie of a socket.
    Cookie, GetOnly, libc::SOL_SOCKET, libc::SO_COOKIE, u64
);
sockopt_impl!(
    /// Do not complete a connection before it brings data, for some seconds.
    DeferAccept, SetOnly, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32
);

/// A socket as seen in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub local: String,
    pub remote: String,
    pub state: String,
    pub direction: Option<String>,
    /// Empty if no process holds it.
    pub pids: BTreeSet<u64>,
}

impl From<&Value> for Seen {
    fn from(event: &Value) -> Seen {
        let net = &event["network_event"];
        let end = |address: &str, port: &str| {
            let ip: IpAddr = net[address].as_str().and_then(|text| text.parse().ok()).expect("an address");
            std::net::SocketAddr::new(
                ip,
                net[port].as_u64().and_then(|port| port.try_into().ok()).expect("a port"),
            )
            .to_string()
        };
        let owners =
            net["owners"].as_array().map(|owners| owners.iter().filter_map(|owner| owner["pid"].as_u64()));
        Seen {
            local: end("saddr", "sport"),
            remote: end("daddr", "dport"),
            state: net["state"].as_str().expect("a state").to_owned(),
            direction: net["direction"].as_str().map(str::to_owned),
            pids: event["process"]["pid"].as_u64().into_iter().chain(owners.into_iter().flatten()).collect(),
        }
    }
}

impl Seen {
    /// Parses a line of `ss -tanpH`.
    pub fn from_ss(line: &str) -> Seen {
        let mut words = line.split_ascii_whitespace();
        let state = words.next().expect("a state");
        let end = |text: &str| text.replace("0.0.0.0:*", "0.0.0.0:0").replace("[::]:*", "[::]:0");
        let local = end(words.nth(2).expect("a local end"));
        let remote = match end(words.next().expect("a remote end")).as_str() {
            // without NETLINK_SOCK_DIAG ss reads /proc/net, and omits the family
            "*:*" if local.starts_with('[') => "[::]:0".to_owned(),
            remote => remote.to_owned(),
        };
        let users = words.next().unwrap_or_default();
        let pids = users.split("pid=").skip(1).filter_map(|text| text.split(',').next()?.parse().ok());
        let state = match state {
            "ESTAB" => "ESTABLISHED".to_owned(),
            "FIN-WAIT-1" => "FIN_WAIT1".to_owned(),
            "FIN-WAIT-2" => "FIN_WAIT2".to_owned(),
            other => other.replace('-', "_"),
        };
        Seen { local, remote, state, direction: None, pids: pids.collect() }
    }
}

/// Sockets in all states.
pub struct SocketStates {
    pub expected: BTreeSet<Seen>,
    /// The sockets that have a descriptor, with their cookies.
    pub cookies: Vec<(u64, Seen)>,
    /// The port of a listener with one waiting connection, and its limit.
    pub waited_for: (u16, i32),
    held: Vec<OwnedFd>,
}

impl SocketStates {
    pub fn new(address: IpAddr) -> SocketStates {
        let mut sockets = SocketStates {
            expected: BTreeSet::new(),
            cookies: Vec::new(),
            waited_for: (0, 7),
            held: Vec::new(),
        };
        sockets.open_and_half_open(address);
        sockets.requested(address);
        sockets.closing(address);
        sockets.without_descriptor(address);
        sockets
    }

    /// LISTEN, ESTABLISHED with and without accept; SYN_SENT before a full queue.
    fn open_and_half_open(&mut self, address: IpAddr) {
        let pair = Pair::new(address);
        self.hold(&pair.client, "ESTABLISHED", Some("egress"));
        self.hold(&pair.server, "ESTABLISHED", Some("ingress"));
        self.hold(&pair.listener, "LISTEN", None);
        self.keep(pair);

        let listener = listener(address, self.waited_for.1);
        self.waited_for.0 = listener.local_addr().expect("an address").port();
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        self.hold(&listener, "LISTEN", None);
        self.hold(&client, "ESTABLISHED", Some("egress"));
        self.expect_peer(&client, "ESTABLISHED", Some("ingress"));
        self.held.extend([listener.into(), client.into()]);

        let full = self::listener(address, 0);
        let first = TcpStream::connect(full.local_addr().expect("an address")).expect("connect");
        let second = start_connecting(&full);
        // not connected yet: getpeername() fails
        let [local, _] = ends(&second);
        let remote = full.local_addr().expect("an address").to_string();
        let seen = self.add(local, remote, "SYN_SENT", Some("egress"), true);
        self.cookies.push((getsockopt(&second, Cookie).expect("SO_COOKIE"), seen));
        self.held.extend([full.into(), first.into(), second.into()]);
    }

    /// SYN_RECV: the listener completes a connection only when data arrives.
    fn requested(&mut self, address: IpAddr) {
        let shy = listener(address, 5);
        setsockopt(&shy, DeferAccept, &60).expect("TCP_DEFER_ACCEPT");
        let client = TcpStream::connect(shy.local_addr().expect("an address")).expect("connect");
        self.hold(&client, "ESTABLISHED", Some("egress"));
        self.expect_peer(&client, "SYN_RECV", Some("ingress"));
        self.held.extend([shy.into(), client.into()]);
    }

    /// The states between the first FIN and the last ACK. A FIN after data that is not read is not acknowledged.
    fn closing(&mut self, address: IpAddr) {
        let pair = Pair::new(address);
        half_close(&pair.client);
        self.hold(&pair.client, "FIN_WAIT2", Some("egress"));
        self.hold(&pair.server, "CLOSE_WAIT", Some("ingress"));
        self.keep(pair);

        let mut pair = Pair::new(address);
        stuff(&mut pair.client);
        half_close(&pair.client);
        self.hold(&pair.client, "FIN_WAIT1", Some("egress"));
        self.hold(&pair.server, "ESTABLISHED", Some("ingress"));
        self.keep(pair);

        let mut pair = Pair::new(address);
        stuff(&mut pair.client);
        half_close(&pair.client);
        half_close(&pair.server);
        self.hold(&pair.client, "CLOSING", Some("egress"));
        self.hold(&pair.server, "FIN_WAIT2", Some("ingress"));
        self.keep(pair);

        let mut pair = Pair::new(address);
        half_close(&pair.client);
        wait_for_end(&mut pair.server);
        stuff(&mut pair.server);
        half_close(&pair.server);
        self.hold(&pair.client, "FIN_WAIT2", Some("egress"));
        self.hold(&pair.server, "LAST_ACK", Some("ingress"));
        self.keep(pair);
    }

    /// TIME_WAIT; an orphan in FIN_WAIT1 and the remains of one in FIN_WAIT2.
    fn without_descriptor(&mut self, address: IpAddr) {
        let mut pair = Pair::new(address);
        self.expect(&pair.client, "TIME_WAIT", None, false);
        drop(pair.client);
        wait_for_end(&mut pair.server);
        drop(pair.server);

        let mut pair = Pair::new(address);
        stuff(&mut pair.client);
        self.expect(&pair.client, "FIN_WAIT1", Some("egress"), false);
        drop(pair.client);
        self.held.extend([pair.server.into(), pair.listener.into()]);

        let pair = Pair::new(address);
        self.expect(&pair.client, "FIN_WAIT2", None, false);
        drop(pair.client);
        self.held.extend([pair.server.into(), pair.listener.into()]);
    }

    fn keep(&mut self, Pair { listener, client, server }: Pair) {
        self.held.extend([listener.into(), client.into(), server.into()]);
    }

    fn hold(&mut self, socket: &impl AsFd, state: &str, direction: Option<&str>) {
        let seen = self.expect(socket, state, direction, true);
        let cookie = getsockopt(&socket.as_fd(), Cookie).expect("SO_COOKIE");
        self.cookies.push((cookie, seen));
    }

    fn expect(&mut self, socket: &impl AsFd, state: &str, direction: Option<&str>, owned: bool) -> Seen {
        let [local, remote] = ends(socket);
        self.add(local, remote, state, direction, owned)
    }

    /// The other end of a connection, without a descriptor.
    fn expect_peer(&mut self, socket: &impl AsFd, state: &str, direction: Option<&str>) {
        let [local, remote] = ends(socket);
        self.add(remote, local, state, direction, false);
    }

    fn add(
        &mut self,
        local: String,
        remote: String,
        state: &str,
        direction: Option<&str>,
        owned: bool,
    ) -> Seen {
        let seen = Seen {
            local,
            remote,
            state: state.to_owned(),
            direction: direction.map(str::to_owned),
            pids: owned.then_some(std::process::id().into()).into_iter().collect(),
        };
        self.expected.insert(seen.clone());
        seen
    }
}

/// Local and remote end, all zero if there is none.
fn ends(socket: &impl AsFd) -> [String; 2] {
    let socket = socket2(socket);
    let local = socket.local_addr().expect("an address");
    let unspecified = if local.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    [local.to_string(), socket.peer_addr().map_or(unspecified.to_owned(), |address| address.to_string())]
}

fn socket2(socket: &impl AsFd) -> TcpStream {
    socket.as_fd().try_clone_to_owned().expect("dup").into()
}

fn listener(address: IpAddr, backlog: i32) -> TcpListener {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp).expect("socket");
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrStorage::from(std::net::SocketAddr::new(address, 0)),
    )
    .expect("bind");
    listen(&socket, Backlog::new(backlog).expect("a backlog")).expect("listen");
    socket.into()
}

/// connect() without waiting for completion.
fn start_connecting(to: &TcpListener) -> TcpStream {
    let address = to.local_addr().expect("an address");
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, SockProtocol::Tcp).expect("socket");
    let result = connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(address));
    assert_eq!(result, Err(nix::errno::Errno::EINPROGRESS));
    socket.into()
}

/// Sends until the buffers are full.
fn stuff(stream: &mut TcpStream) {
    stream.set_nonblocking(true).expect("O_NONBLOCK");
    while stream.write(&[b'x'; 65536]).is_ok() {}
    stream.set_nonblocking(false).expect("O_NONBLOCK");
}
