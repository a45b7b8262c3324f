//! Unusual connections. Each function makes one, with both ends, and closes it.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    net::{self, Pair, V4},
    network,
};

/// Addresses in networks without a route in [`network::own`].
pub const NOWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];
/// A port on which nothing listens.
pub const DISCARD: u16 = 9;

/// Enables Fast Open at both ends, without cookies.
pub fn allow_fast_open() {
    network::sysctl("net.ipv4.tcp_fastopen", "1543");
}

/// sendto(MSG_FASTOPEN)
pub fn fast_open_by_sendto(data: &[u8]) {
    let (listener, address) = listener(Protocol::TCP);
    let client = client(Protocol::TCP);
    let sent = client.send_to_with_flags(data, &address.into(), libc::MSG_FASTOPEN).expect("sendto");
    assert_eq!(sent, data.len());
    finish(&listener, client, data);
}

/// TCP_FASTOPEN_CONNECT
pub fn fast_open_by_connect(data: &[u8]) {
    let (listener, address) = listener(Protocol::TCP);
    let mut client = client(Protocol::TCP);
    setsockopt(&client, sockopt::TcpFastOpenConnect, &true).expect("TCP_FASTOPEN_CONNECT");
    client.connect(&address.into()).expect("connect");
    client.write_all(data).expect("write");
    finish(&listener, client, data);
}

/// MPTCP on both ends.
pub fn mptcp(data: &[u8]) {
    let (listener, address) = listener(Protocol::MPTCP);
    let mut client = client(Protocol::MPTCP);
    client.connect(&address.into()).expect("connect");
    client.write_all(data).expect("write");
    finish(&listener, client, data);
}

/// connect and accept through io_uring.
pub fn io_uring() {
    let listener = net::listen(V4);
    let address = listener.local_addr().expect("an address");
    tokio_uring::start(async move {
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        let client = tokio_uring::net::TcpStream::connect(address).await.expect("connect");
        let (server, _) = listener.accept().await.expect("accept");
        drop(client);
        let (end, _) = server.read(vec![0; 1]).await;
        assert_eq!(end.expect("the end"), 0);
    });
}

/// connect through io_uring to a port on which nothing listens; returns its address.
pub fn io_uring_refused() -> SocketAddr {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, DISCARD));
    tokio_uring::start(async move {
        tokio_uring::net::TcpStream::connect(address).await.err().expect("nothing listens");
    });
    address
}

/// connect() that fails with this errno.
pub fn refused(address: SocketAddr, errno: i32) {
    let error = TcpStream::connect(address).expect_err("a failure");
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
}

/// A connect in the background.
pub fn begun(address: SocketAddr) -> Socket {
    let client = client(Protocol::TCP);
    client.set_nonblocking(true).expect("O_NONBLOCK");
    let error = client.connect(&address.into()).expect_err("not at once");
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
    client
}

/// Closes before the connect completes.
pub fn given_up(address: SocketAddr) {
    drop(begun(address));
}

/// The client closes with RST.
pub fn reset_by_client(address: IpAddr) {
    let mut pair = Pair::new(address);
    net::reset(pair.client);
    net::wait_for_end(&mut pair.server);
}

/// The server closes with RST.
pub fn reset_by_server(address: IpAddr) {
    let mut pair = Pair::new(address);
    net::reset(pair.server);
    net::wait_for_end(&mut pair.client);
}

/// The server closes before it has read everything.
pub fn left_unread(address: IpAddr) {
    let mut pair = Pair::new(address);
    pair.client.write_all(b"unread").expect("send");
    pair.server.peek(&mut [0]).expect("it has come");
    drop(pair.server);
    net::wait_for_end(&mut pair.client);
}

/// IPv4 between IPv6 sockets.
pub fn mapped() {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a dual-stack listener");
    let port = listener.local_addr().expect("an address").port();
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
    let client = TcpStream::connect(mapped).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    drop(client);
    net::wait_for_end(&mut server);
}

/// A socket that connects from a given port, which it may share.
pub fn bound_to(port: u16) -> Socket {
    let socket = client(Protocol::TCP);
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bind");
    socket
}

/// Receives what was sent, and closes both ends, the client first.
fn finish(listener: &Socket, client: Socket, expected: &[u8]) {
    let (mut server, _) = listener.accept().expect("accept");
    let mut taken = vec![0; expected.len()];
    server.read_exact(&mut taken).expect("receive");
    assert_eq!(taken, expected);
    drop(client);
    assert_eq!(server.read(&mut taken).expect("the end"), 0);
}

fn listener(protocol: Protocol) -> (Socket, SocketAddr) {
    let socket = client(protocol);
    socket.bind(&net::any(V4).into()).expect("bind");
    socket.listen(8).expect("listen");
    let address = socket.local_addr().expect("an address").as_socket().expect("IPv4");
    (socket, address)
}

/// An IPv4 stream socket.
pub fn client(protocol: Protocol) -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).expect("a socket")
}
