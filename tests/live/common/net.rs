//! Sockets, and all ways to end connections.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    thread,
};

use nix::sys::socket::{setsockopt, sockopt};

/// 127.0.0.1
pub const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// ::1
pub const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A listener on a free port.
pub fn listen(address: IpAddr) -> TcpListener {
    TcpListener::bind((address, 0)).expect("bind and listen")
}

/// Both ends of a connection.
pub struct Pair {
    pub listener: TcpListener,
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Pair {
    /// Connects to a new listener and accepts.
    pub fn new(address: IpAddr) -> Pair {
        let listener = listen(address);
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        Pair { listener, client, server }
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// The client's port.
    pub fn client_port(&self) -> u16 {
        self.client.local_addr().expect("an address").port()
    }
}

/// Closes a listener so that connections are refused at once: a child just forked by another test may hold its
/// descriptor a moment longer.
pub fn stop_listening(listener: TcpListener) {
    TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both).expect("shutdown");
}

/// Sends exactly `count` bytes while the other end reads them.
pub fn transfer(from: &mut TcpStream, to: &mut TcpStream, count: usize) {
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&vec![b'x'; count]).expect("send"));
        let mut taken = vec![0; count];
        to.read_exact(&mut taken).expect("receive");
    });
}

/// Waits until the peer has closed.
pub fn wait_for_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
}

/// Closes with RST.
pub fn reset(stream: TcpStream) {
    linger_zero(&stream);
    drop(stream);
}

/// Makes close() send RST.
pub fn linger_zero(socket: &impl AsFd) {
    setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("SO_LINGER");
}

/// Sends FIN but continues to receive.
pub fn half_close(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("shutdown");
}

/// As printed by the kernel.
pub fn any(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}
